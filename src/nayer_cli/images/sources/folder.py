"""An image folder on disk: `class/anything.jpg`, or `split/class/anything.jpg`."""

import os
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from nayer_cli.errors import InputError
from nayer_cli.images.image_tree import ImageTree, arrange, is_image
from nayer_cli.images.pictures import decode
from nayer_cli.images.source import Picture, Sample
from nayer_cli.storage.text import escaped, user_path


def recognizes(spec: str) -> bool:
    """Tell whether `spec` is a folder."""
    return user_path(spec).is_dir()


def open_source(spec: str, split: str) -> "FolderSource":
    """List the images of folder `spec`."""
    return FolderSource(user_path(spec), split)


class FolderSource:
    """An image folder: `class/anything.jpg`, or `split/class/anything.jpg`."""

    def __init__(self, folder: Path, split: str) -> None:
        files, leaves = [], []
        try:
            for root, folders, names in _walk(folder):
                here = Path(root).relative_to(folder)
                files += [(here / name).as_posix() for name in sorted(names) if is_image(name)]
                leaves += [here.as_posix()] if not folders else []
        except OSError as error:
            raise InputError(
                f"cannot list {folder}: {error.strerror}: {error.filename}", hint="make it readable: chmod u+rx FOLDER"
            ) from error
        self.folder = folder
        self.tree: ImageTree[str] = arrange(((name, name) for name in files), leaves, split, str(folder))
        self.classes: Sequence[str] | None = self.tree.classes

    def __len__(self) -> int:
        return len(self.tree.images)

    def samples(self, chosen: Collection[int]) -> Iterator[Sample]:
        """Yield images in the order of class and file name."""
        for i in chosen:
            name, label = self.tree.images[i]
            yield Sample(escaped(name), partial(self._load, self.folder / name, label))

    def _load(self, path: Path, label: int) -> tuple[Picture, int]:
        if not path.is_file():  # opening a named pipe would wait for ever
            raise OSError("not a regular file")
        return decode(path), label


def _walk(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk through folders and links to folders in text order, but not into hidden ones, nor in circles."""
    around = {str(top): frozenset[str]()}
    for root, folders, names in os.walk(str(top), followlinks=True, onerror=_raise):
        here = around.pop(root) | {os.path.realpath(root)}
        visible = (name for name in folders if not name.startswith("."))
        folders[:] = sorted(name for name in visible if os.path.realpath(f"{root}/{name}") not in here)
        around |= {os.path.join(root, name): here for name in folders}  # noqa: PTH118 - as os.walk has it
        yield root, folders, names


def _raise(error: OSError) -> None:
    raise error
