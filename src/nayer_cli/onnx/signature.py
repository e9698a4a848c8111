"""Find the inputs and outputs of an ONNX classifier from any tool."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nayer_cli.errors import InputError
from nayer_cli.types import ImageShape

TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
"""Types of images; rows of numbers have one of the first three."""
MOST_CHANNELS = 4
"""Most channels of an image; a larger size must be its height."""
LOGITS = "logits"
HINT = "only classifiers can be measured: a file with one input of images and a row of numbers for each image"


class UnknownSize(InputError):
    """A file takes images of any size, and none is given."""


class Signature(NamedTuple):
    """The images that a file takes, and its answers."""

    input: str
    output: str
    shape: ImageShape
    batch: int | None
    """Number of images at a time; None: any number."""
    classes: int | None
    """K; None if only running the file tells."""
    channels_last: bool
    dtype: type[np.generic]
    """NumPy's type of the images."""


def read_signature(path: Path, session: Any, side: int | None = None, channels: int | None = None) -> Signature:
    """Return what a session of ONNX Runtime takes and returns.

    Args:
        path: for messages.
        session: the file's.
        side: of images in pixels, where the file does not fix it.
        channels: likewise; 3 by default.

    Raises:
        UnknownSize: the file leaves the size of images open, and so does `side`.
        InputError: the file is no classifier of images.

    """
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in TYPES or len(inputs[0].shape) != 4:
        taken = ", ".join(f"{each.name}: {each.type} {each.shape}" for each in inputs)
        raise InputError(f"{path} does not take images [batch, C, H, W] or [batch, H, W, C], but {taken}", hint=HINT)
    output, classes = _output(path, session.get_outputs())
    first, *sizes = map(_known, inputs[0].shape)
    channels_last = _are_channels(sizes[2]) and not _are_channels(sizes[0])
    depth, height, width = (sizes[2], sizes[0], sizes[1]) if channels_last else sizes
    shape = ImageShape(depth or channels or 3, height or side or 0, width or side or 0)
    if not shape.height or not shape.width:
        raise UnknownSize(f"{path} takes images of any size", hint="give it with --input-size")
    return Signature(inputs[0].name, output, shape, first, classes, channels_last, TYPES[inputs[0].type])


def _output(path: Path, outputs: Sequence[Any]) -> tuple[str, int | None]:
    """Return the name of the output with a row of numbers for each image, and how many they are if that is known."""
    rows = [each for each in outputs if each.type in list(TYPES)[:3] and _is_row(each.shape)]
    if not rows:
        given = ", ".join(f"{each.name}: {each.type} {each.shape}" for each in outputs)
        raise InputError(f"{path} does not return logits [batch, K], but {given}", hint=HINT)
    chosen = next((each for each in rows if each.name == LOGITS), rows[0])
    return chosen.name, _known(chosen.shape[1]) if len(chosen.shape) > 1 else None


def _is_row(shape: Sequence[Any]) -> bool:
    """Say whether a shape is `[batch, K]` or `[batch, K, 1, 1]`, or untold."""
    return not shape or (len(shape) > 1 and all(size == 1 for size in shape[2:]))


def _known(size: object) -> int | None:
    return size if isinstance(size, int) and size > 0 else None


def _are_channels(size: int | None) -> bool:
    return size is not None and size <= MOST_CHANNELS
