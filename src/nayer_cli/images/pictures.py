"""From a picture of any kind to the pixels that a classifier takes."""

from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from nayer_cli.types import ImageShape, Preparation

Pixels = NDArray[np.uint8]
"""`[H, W, C]`"""

MODES = {1: "L", 3: "RGB"}
"""Pillow's mode for each number of channels to which picture files can be converted."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that are read, by content and not by name. Pillow knows others that start programs, such as EPS."""
MOST_PIXELS = 89_478_485
"""Most pixels of an image. Above this, Pillow suspects a small file that was made to fill the memory."""


def decode(file: Path | IO[bytes]) -> Image.Image:
    """Read an image file whole; of an animation, the first frame.

    Like timm and torchvision, it ignores the EXIF orientation.

    Raises:
        OSError, SyntaxError, ValueError and others of Pillow: the file is not an image, damaged, or declares too many
            pixels.

    """
    try:
        opened = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise OSError(f"it is not an image in a format that nayer reads: {', '.join(FORMATS)}") from None
    with opened as image:
        if not 0 < image.width * image.height <= MOST_PIXELS:
            raise ValueError(f"it declares {image.width}×{image.height} pixels")
        try:
            image.load()
        except OSError as error:
            raise OSError(f"damaged {image.format}: {error}") from error
        return image


OURS = Preparation()


def fit(picture: Image.Image | Pixels, shape: ImageShape, preparation: Preparation = OURS) -> Pixels:
    """Return `picture` with the channels and size of `shape`, prepared by timm's own evaluation transform.

    Args:
        picture: a decoded picture, or its pixels.
        shape: of the result.
        preparation: by default bicubic, the shorter side resized to fit, cropped at the center; where nothing is cut
            off ahead (`crop_pct=1`), a picture of the right size is not resampled.

    Raises:
        ValueError: there is no fixed way to bring such pixels to 8 bits, or to that number of channels.

    """
    is_whole = preparation.crop_pct == 1
    if isinstance(picture, np.ndarray):
        if is_whole and picture.shape == (shape.height, shape.width, shape.channels):
            return picture
        picture = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
    image = _to_channels(picture, shape.channels)
    if min(image.size) == 0 or _resized(image.size, shape, preparation) > MOST_PIXELS:
        raise ValueError(f"it has {image.width}×{image.height} pixels, which cannot be resized to that")
    if is_whole and image.size == (shape.width, shape.height):
        pixels = np.asarray(image)
    else:
        pixels = np.asarray(_resize_and_crop(shape, preparation)(image)).transpose(1, 2, 0)
    return pixels.reshape(shape.height, shape.width, shape.channels)


def described(preparation: Preparation) -> dict[str, object]:
    """Return a preparation as documents tell it."""
    return {
        "interpolation": preparation.interpolation,
        "crop_pct": preparation.crop_pct,
        "crop_mode": preparation.crop_mode,
    }


def sentence(preparation: Preparation) -> str:
    """Return a preparation in words, such as `bicubic, crop 0.875`."""
    mode = "" if preparation.crop_mode == "center" else f", {preparation.crop_mode}"
    return f"{preparation.interpolation}, crop {preparation.crop_pct:g}{mode}"


def _resized(size: tuple[int, int], shape: ImageShape, preparation: Preparation) -> int:
    """Return how many pixels a picture has at most before it is cropped: a very long one has many."""
    scale = max(shape.width / size[0], shape.height / size[1]) / preparation.crop_pct
    return round(size[0] * scale * size[1] * scale)


def _to_channels(image: Image.Image, channels: int) -> Image.Image:
    """Convert to gray or RGB; alpha is dropped, as timm and torchvision do."""
    if channels not in MODES:
        raise ValueError(f"pictures have 1 or 3 channels, not {channels}")
    if image.mode == MODES[channels]:
        return image
    if image.mode.startswith(("I", "F")):
        image = _from_deep(image)
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB").convert(MODES[channels])


def _from_deep(image: Image.Image) -> Image.Image:
    """Bring 16 bits a pixel to 8; Pillow's own conversion clips everything above 255 to white."""
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError(f"pixels of mode {image.mode} have no fixed white")
    return Image.fromarray((pixels >> 8).astype(np.uint8))


@cache
def _resize_and_crop(shape: ImageShape, preparation: Preparation) -> Any:
    from timm.data.transforms_factory import create_transform

    border = preparation.border or (0.0,)
    # With `use_prefetcher` timm stops before it scales and normalizes: uint8, channels first.
    return create_transform(
        (shape.channels, shape.height, shape.width),
        interpolation=preparation.interpolation,
        crop_pct=preparation.crop_pct,
        crop_mode=preparation.crop_mode,
        mean=border * shape.channels if len(border) == 1 else border,
        use_prefetcher=True,
    )
