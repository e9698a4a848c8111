"""Arrays in a NumPy archive."""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nayer_cli.errors import InputError
from nayer_cli.images.source import ArraySource
from nayer_cli.storage.text import printable, unfit, user_path

NAMES = ("images", "labels", "class_names")
PLAIN = "write plain arrays with numpy.savez"
PLAUSIBLE = 100
"""Largest ratio of the size of the pixels to that of their file; deflate reaches 1000 on zeros."""
UNSUSPECTED = 128 * 2**20
"""Bytes that may be declared by however small a file."""


def recognizes(spec: str) -> bool:
    """Tell whether `spec` is a file `x.npz`."""
    return spec.endswith(".npz") and user_path(spec).is_file()


def open_source(spec: str, split: str) -> ArraySource:
    """Read file `spec`; it has no splits."""
    return read_npz(user_path(spec))


def read_npz(path: Path) -> ArraySource:
    """Read the arrays `images`, `labels` and, if there, `class_names`.

    Images are uint8 `[N, H, W, C]`, `[N, H, W]` or `[N, C, H, W]`; labels are whole numbers `[N]`.

    Raises:
        InputError: the file is damaged, declares far more than it can hold, or holds pickled objects; an array
            is missing or of another kind.

    """
    try:
        arrays = _read_arrays(path)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # damaged archives bring about whatever their compression runs into
        reason = printable(str(error)) or type(error).__name__
        raise InputError(f"cannot read {path}: {reason}", hint=PLAIN) from error
    if absent := {"images", "labels"} - arrays.keys():
        hint = "write it with numpy.savez(FILE, images=..., labels=...)"
        raise InputError(f"{path} has no array '{min(absent)}'", hint=hint)
    images, labels = _channels_last(arrays["images"], path), arrays["labels"]
    if labels.shape not in ((len(images),), (len(images), 1)) or labels.dtype.kind not in "iu":
        wanted = f"not whole numbers [{len(images)}]"
        raise InputError(
            f"labels in {path} are {labels.dtype} {list(labels.shape)}, {wanted}",
            hint="save one class index for each image, counted from 0",
        )
    names = [str(name) for name in arrays["class_names"].ravel()] if "class_names" in arrays else None
    for index, name in enumerate(names or ()):
        if fault := unfit(name):
            raise InputError(
                f"the name of class {index} in {path} {fault}: '{printable(name)}'",
                hint="correct the array class_names, or leave it out",
            )
    return ArraySource(images, labels.reshape(-1), names)


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        for name in (name for name in NAMES if f"{name}.npy" in members):
            member = members[f"{name}.npy"]
            with archive.open(member) as file:
                _check_size(name, _declared(file), member.file_size, path)
            with archive.open(member) as file:
                arrays[name] = npy.read_array(file, allow_pickle=False)
    return arrays


def _declared(file: IO[bytes]) -> int:
    """Bytes of the array that `file` says to hold; NumPy would make room for them before it reads."""
    read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    return math.prod(shape) * int(dtype.itemsize)


def _check_size(name: str, declared: int, held: int, path: Path) -> None:
    size = path.stat().st_size
    if declared > min(held, max(UNSUSPECTED, PLAUSIBLE * size)):
        raise InputError(f"'{name}' in {path} declares {declared:,} bytes, but the whole file has {size:,}", hint=PLAIN)


def _channels_last(images: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    if images.dtype != np.uint8:
        raise InputError(
            f"images in {path} are {images.dtype}, not uint8",
            hint="save (images * 255).round().astype('uint8') if they are in [0, 1]",
        )
    if images.ndim not in (3, 4) or not images.size:
        but = "no pixels" if images.ndim in (3, 4) else "not [N, H, W, C] or [N, C, H, W]"
        raise InputError(
            f"images in {path} have shape {list(images.shape)}: {but}",
            hint="save images as [N, H, W, C] or [N, C, H, W]",
        )
    if images.ndim == 3:
        return images[..., None]
    if images.shape[-1] > 4 and images.shape[1] <= 4:
        return images.transpose(0, 2, 3, 1)
    return images
