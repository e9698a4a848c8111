"""A set of images as files, with a manifest that tells another tool everything it needs. Complete, or not there."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.lib import format as npy
from PIL import Image
from torch import Tensor

from nayer_cli.classifiers.model import Classifier
from nayer_cli.errors import InputError
from nayer_cli.runs import folder as folders
from nayer_cli.runs.pictures import save_png, to_pillow
from nayer_cli.storage import files
from nayer_cli.storage.checkpoint import seal
from nayer_cli.types import Normalization

SCHEMA = "nayer.images/1"
MANIFEST = "manifest.json"
BLOCK = 64
"""Images that are converted at once."""
OLD = (1980, 1, 1, 0, 0, 0)
"""The date of everything in a zip archive, so that equal arrays are equal files."""
PICTURES = (1, 3)
"""Numbers of channels that a PNG file can hold."""


@dataclass(frozen=True)
class ImageSet:
    """Images, and what they are."""

    images: Tensor
    """uint8 `[n, C, H, W]`, at least one."""
    labels: Tensor
    """`[n]`."""
    names: Sequence[str]
    """Names of the classes, in the order of the model's outputs."""


class Source(NamedTuple):
    """The origin of the images."""

    found: ImageSet
    model: Classifier | None
    """The network that they are for, where it had to be loaded."""
    about: dict[str, Any]
    """Facts about the origin for the manifest; `source` is its kind."""
    name: str
    """For messages."""


@dataclass(frozen=True)
class Form:
    """The format in which images are written."""

    format: str
    """`npz`, `npy` or `png`."""
    values: str = "pixels"
    """`pixels`: 0 to 255; `unit`: 0 to 1; `normalized`: (unit − mean) / std."""
    layout: str = "nchw"
    normalization: Normalization | None = None
    """Needed for `normalized` alone."""
    upscale: int = 1

    def converted(self, images: Tensor) -> Tensor:
        """Return uint8 images `[n, C, H, W]` with the values and the layout of this form."""
        if self.values != "pixels":
            images = images.float() / 255
        if self.values == "normalized":
            assert self.normalization is not None
            mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in self.normalization)
            images = (images - mean) / std
        return images if self.layout == "nchw" else images.permute(0, 2, 3, 1)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of a value."""
        return np.dtype("uint8" if self.values == "pixels" else "float32")

    @property
    def axes(self) -> str:
        """The order of the axes of an array, or of the pixels of PNG files."""
        return "NHWC" if self.format == "png" else self.layout.upper()

    @property
    def limits(self) -> list[float]:
        """The least and the largest value that a pixel can have."""
        if self.values == "pixels":
            return [0, 255]
        ends = self.converted(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
        return [float(ends.min()), float(ends.max())]


def write_set(out: Path, found: ImageSet, form: Form, about: dict[str, Any], *, is_file: bool = False) -> Path:
    """Write images and their manifest; return where that is.

    Args:
        out: a folder that is not there yet, or is empty; or the file of an array.
        found: the images.
        form: how they are written.
        about: goes into the manifest.
        is_file: whether `out` is the file. The manifest then lies beside it.

    Raises:
        EnvironmentFault: the disk is full. InputError: nothing can be written there. Nothing is left in either case.

    """
    if is_file:
        _write_file(out, found, form, about)
        return out.with_name(MANIFEST)
    with files.staged(out) as folder:
        if form.format == "png":
            _write_pictures(folder, found, form.upscale)
        else:
            _write_array(folder / f"images.{form.format}", found, form)
        written = sorted(path for path in folder.rglob("*") if path.is_file())
        files.write_json(folder / MANIFEST, _manifest(written, found, form, about, folder))
    return out / MANIFEST


def _write_file(out: Path, found: ImageSet, form: Form, about: dict[str, Any]) -> None:
    _write_array(out, found, form)
    try:
        files.write_json(out.with_name(MANIFEST), _manifest([out], found, form, about))
    except BaseException:
        files.delete([out])
        raise


def _write_array(path: Path, found: ImageSet, form: Form) -> None:
    if form.format == "npy":
        files.write_by(path, lambda file: _write_images(file, found, form))
    else:
        files.write_by(path, lambda file: _write_npz(file, found, form))


def _write_npz(file: IO[bytes], found: ImageSet, form: Form) -> None:
    names, labels = np.array([str(name) for name in found.names]), found.labels.numpy()
    with zipfile.ZipFile(file, "w") as archive:
        with archive.open(zipfile.ZipInfo("images.npy", OLD), "w", force_zip64=True) as member:
            _write_images(member, found, form)
        for name, array in (("labels", labels), ("class_names", names)):
            with archive.open(zipfile.ZipInfo(f"{name}.npy", OLD), "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)


def _write_images(file: IO[bytes], found: ImageSet, form: Form) -> None:
    """Write an array in NumPy's format piece by piece: as floats it may not fit in memory."""
    header = {"descr": npy.dtype_to_descr(form.dtype), "fortran_order": False, "shape": tuple(shape_of(found, form))}
    npy.write_array_header_1_0(file, header)
    for block in found.images.split(BLOCK):
        file.write(np.ascontiguousarray(form.converted(block).numpy()).tobytes())


def shape_of(found: ImageSet, form: Form) -> list[int]:
    """Return the shape of the whole array, with all axes in order; of PNG files that of their pixels."""
    if form.format != "png":
        return [len(found.images), *form.converted(found.images[:1]).shape[1:]]
    height, width = (size * form.upscale for size in found.images.shape[-2:])
    return [len(found.images), height, width, 3]


def check_channels(format: str, channels: int) -> None:
    """Raise InputError where PNG files would lose channels."""
    if format == "png" and channels not in PICTURES:
        raise InputError(
            f"PNG files hold 1 or 3 channels, and the images have {channels}", hint="choose --format npz or npy"
        )


def _write_pictures(folder: Path, found: ImageSet, upscale: int) -> None:
    """Write one folder for each class."""
    for number, (image, k) in enumerate(zip(found.images, found.labels.tolist(), strict=True)):
        save_png(folder / folder_name(k, found.names) / f"{number:05d}.png", _scaled(image, upscale))


def _manifest(
    written: Sequence[Path], found: ImageSet, form: Form, about: dict[str, Any], folder: Path | None = None
) -> dict[str, Any]:
    values = torch.stack([torch.stack([x.amin(), x.amax()]) for x in map(form.converted, found.images.split(BLOCK))])
    return {
        "schema": SCHEMA,
        "images": len(found.images),
        "format": form.format,
        "shape": shape_of(found, form),
        "layout": form.axes,
        "dtype": str(form.dtype),
        "values": form.values,
        "range": form.limits,
        "found_range": [float(values[:, 0].min()), float(values[:, 1].max())],
        **about,
        "label_names": list(found.names),
        "labels": found.labels.tolist(),
        "folders": _folders(found) if form.format == "png" else None,
        "files": {path.relative_to(folder or path.parent).as_posix(): seal(path)._asdict() for path in written},
    }


def _folders(found: ImageSet) -> dict[str, dict[str, Any]]:
    """Return the class of each folder of PNG files."""
    return {folder_name(k, found.names): {"index": k, "name": found.names[k]} for k in found.labels.unique().tolist()}


def write_folders(out: Path, found: ImageSet, upscale: int) -> None:
    """Write a folder for each class, and a manifest of the classes' names alone."""
    with files.staged(out) as folder:
        _write_pictures(folder, found, upscale)
        files.write_json(folder / MANIFEST, _folders(found))


def folder_name(index: int, names: Sequence[str]) -> str:
    """Return a safe name for any class name: the index makes it unique, and the slug readable."""
    return f"{index:05d}-{folders.slug(names[index].split(',')[0]).lower()}"


def _scaled(image: Tensor, factor: int) -> Image.Image:
    picture = to_pillow(image)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
