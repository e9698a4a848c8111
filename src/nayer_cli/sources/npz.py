"""Arrays in a NumPy archive."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nayer_cli.errors import InputError
from nayer_cli.source import ArraySource


def recognizes(spec: str) -> bool:
    """Tell whether `spec` is a file `x.npz`."""
    return spec.endswith(".npz") and Path(spec).expanduser().is_file()


def open_source(spec: str, split: str) -> ArraySource:
    """Read file `spec`; it has no splits."""
    return read_npz(Path(spec).expanduser())


def read_npz(path: Path) -> ArraySource:
    """Read the arrays `images`, `labels` and, if there, `class_names`.

    Images are uint8 `[N, H, W, C]`, `[N, H, W]` or `[N, C, H, W]`; labels are whole numbers `[N]`.

    Raises:
        InputError: the file is damaged or holds pickled objects, an array is missing or of another kind.

    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("images", "labels", "class_names") if name in file}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        hint = "write plain arrays with numpy.savez"
        raise InputError(f"cannot read {path}: {error}", hint=hint) from error
    if absent := {"images", "labels"} - arrays.keys():
        hint = "write it with numpy.savez(FILE, images=..., labels=...)"
        raise InputError(f"{path} has no array '{min(absent)}'", hint=hint)
    images, labels = _channels_last(arrays["images"], path), arrays["labels"]
    if labels.shape not in ((len(images),), (len(images), 1)) or labels.dtype.kind not in "iu":
        wanted = f"not whole numbers [{len(images)}]"
        raise InputError(f"labels in {path} are {labels.dtype} {list(labels.shape)}, {wanted}")
    names = [str(name) for name in arrays["class_names"].ravel()] if "class_names" in arrays else None
    return ArraySource(images, labels.reshape(-1), names)


def _channels_last(images: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    if images.dtype != np.uint8:
        raise InputError(
            f"images in {path} are {images.dtype}, not uint8",
            hint="save (images * 255).round().astype('uint8') if they are in [0, 1]",
        )
    if images.ndim == 3:
        return images[..., None]
    if images.ndim != 4:
        raise InputError(f"images in {path} have shape {images.shape}, not [N, H, W, C] or [N, C, H, W]")
    if images.shape[-1] > 4 and images.shape[1] <= 4:
        return images.transpose(0, 2, 3, 1)
    return images
