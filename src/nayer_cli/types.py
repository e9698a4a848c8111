"""Small types that several layers share. Nothing here imports torch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Settings = Mapping[str, Any]
"""Settings by their dotted names, such as `{"schedule.epochs": 100}`."""


class ImageShape(NamedTuple):
    """Channels, height and width of one image, in pixels."""

    channels: int
    height: int
    width: int


class Normalization(NamedTuple):
    """Per-channel mean and standard deviation for images in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Preparation(NamedTuple):
    """The way to bring a picture to a model's size, in timm's words.

    The defaults are nayer's own way: the shorter side is kept whole, and a picture of the right size stays as it is.
    """

    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    """Share of the resized picture, side by side, that is kept."""
    crop_mode: str = "center"
    """`center`: the shorter side fits, and the rest is cut off. `squash`: both sides fit. `border`: the longer fits."""
    border: tuple[float, ...] = ()
    """The color around a picture in mode `border`, one value from 0 to 1 for each channel."""


INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")
