"""The convention of image folders, `[wrapper/][split/]class/…/image`, applied to plain path names."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Generic, NamedTuple, TypeVar

from nayer_cli.errors import InputError
from nayer_cli.storage.text import printable, unfit

T = TypeVar("T")
Parts = tuple[str, ...]

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
SPLITS = (
    {"train", "training"},
    {"val", "valid", "validation", "eval", "evaluation"},
    {"test", "testing"},
)
"""Folder names that mean the same part of the data."""
DEEPEST = 64
"""Folders around an image."""


class ImageTree(NamedTuple, Generic[T]):
    """Class folders in torchvision's (text) order, and each image with its class."""

    classes: list[str]
    images: list[tuple[T, int]]


def is_image(name: str) -> bool:
    """Tell whether a path ends like a picture and is not hidden, as the `._x.jpg` of macOS archives are."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not _hidden(_parts(name))


def arrange(files: Iterable[tuple[str, T]], folders: Iterable[str], split: str, where: str) -> ImageTree[T]:
    """Find the class folders of `split`.

    Args:
        files: path of each image with what stands for it; images outside any class folder do not count.
        folders: paths in which a class folder without images may show.
        split: part of the data; counts only where there are folders for the parts.
        where: the data's name, for messages.

    Raises:
        InputError: there is no image, a class folder is empty or has no name to show, or there is no such split.

    """
    paths = [(_parts(name), item) for name, item in files]
    if deep := next((parts for parts, _ in paths if len(parts) > DEEPEST), None):
        raise InputError(
            f"'{printable('/'.join(deep))}' in {where} lies {len(deep):,} folders deep",
            hint="move its images up, to CLASS/IMAGE.jpg",
        )
    root = _class_root([parts for parts, _ in paths], split, where)
    depth = len(root)
    images = [(parts, item) for parts, item in paths if parts[:depth] == root and len(parts) > depth + 1]
    classes = sorted({parts[depth] for parts, _ in images})
    if not classes:
        raise InputError(f"{where} holds no images in class folders", hint="they must lie at CLASS/IMAGE.jpg")
    for name in classes:
        if fault := unfit(name):
            raise InputError(f"class folder '{printable(name)}' of {where} {fault}", hint="rename it")
    below = {parts[depth:] for parts in map(_parts, folders) if parts[:depth] == root and not _hidden(parts)}
    if empty := sorted({parts[0] for parts in below if len(parts) == 1} - set(classes)):
        message = f"class folder '{printable(empty[0])}' of {where} holds no image"
        raise InputError(message, hint="fill it, or remove it")
    index = {name: i for i, name in enumerate(classes)}
    return ImageTree(classes, [(item, index[parts[depth]]) for parts, item in images])


def _parts(name: str) -> Parts:
    return tuple(part for part in name.split("/") if part not in ("", ".", ".."))


def _hidden(parts: Parts) -> bool:
    return any(part.startswith(".") for part in parts)


def _class_root(paths: list[Parts], split: str, where: str) -> Parts:
    """Return the folders above the class folders: that of the split, and wrappers around everything."""
    tops = {parts[0] for parts in paths if len(parts) > 1}
    # A folder with images of its own is a class: CIFAR-100 has one that is called "train".
    deep = tops - {parts[0] for parts in paths if len(parts) == 2}
    if parts_of_data := {top for top in deep if top == split or _synonyms(top) != {top}}:
        top = _choose(parts_of_data, split, where)
    elif len(tops) == 1 and deep:
        top = min(deep)
    else:
        return ()
    return (top, *_class_root([parts[1:] for parts in paths if parts[0] == top], split, where))


def _choose(found: set[str], split: str, where: str) -> str:
    fitting = sorted(found & {split}) or sorted(top for top in found if top.lower() in _synonyms(split))
    if not fitting:
        raise InputError(
            f"{where} has no split '{split}'; it has {', '.join(map(printable, sorted(found)))}",
            hint=f"try --split {printable(min(found))}",
        )
    return fitting[0]


def _synonyms(name: str) -> set[str]:
    return next((group for group in SPLITS if name.lower() in group), {name})
