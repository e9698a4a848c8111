"""Pictures that commands wrote."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def size(path: Path) -> tuple[int, int]:
    """Return width and height in pixels."""
    with Image.open(path) as picture:
        return picture.size


def pixels(path: Path) -> NDArray[np.uint8]:
    """Return the pixels `[H, W, ...]`."""
    with Image.open(path) as picture:
        return np.asarray(picture)
