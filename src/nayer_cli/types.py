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
"""How pictures of another size are brought to a model's: timm's `interpolation` and `crop_pct`, which models that are
saved name, so that timm prepares what was measured."""
