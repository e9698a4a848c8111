"""Small types that several layers share. Nothing here imports torch."""

from typing import NamedTuple


class ImageShape(NamedTuple):
    """Channels, height and width of one image, in pixels."""

    channels: int
    height: int
    width: int


class Normalization(NamedTuple):
    """Per-channel mean and standard deviation for images in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
