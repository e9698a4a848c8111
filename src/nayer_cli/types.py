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


INTERPOLATION, CROP = "bicubic", 1.0
"""timm's `interpolation` and `crop_pct`, by which pictures get a model's size. Saved models name them, so that timm
prepares images as they were measured."""
