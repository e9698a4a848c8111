"""Handwritten digits that travel with scikit-learn (UCI optical digits), 8 by 8 pixels, shown as 16 by 16."""

import numpy as np
from numpy.typing import NDArray

from nayer_cli.errors import InputError, did_you_mean
from nayer_cli.images.dataset import Arrays, DatasetFacts
from nayer_cli.types import ImageShape, Normalization

SIDE = 16
HELD_OUT_PER_CLASS = 50
SHUFFLE_SEED = 0
SPLITS = ("train", "validation")


def load(split: str) -> Arrays:
    """Return images `[N, 16, 16, 1]` uint8 and labels `[N]` int64 of `split`, in scikit-learn's order.

    `validation` is 500 digits that no training sees: in a shuffle of all 1797 by `RandomState(0)`, whose
    stream numpy keeps for good, the first 50 of each class. `train` is the other 1297.

    Raises:
        InputError: there is no such split.

    """
    if split not in SPLITS:
        raise InputError(
            f"digits have no split '{split}'{did_you_mean(split, SPLITS)}",
            hint=f"choose one of: {', '.join(SPLITS)}",
        )
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = digits.target.astype(np.int64)
    chosen = _held_out(labels) == (split == "validation")
    return _enlarge(digits.images[chosen]), labels[chosen]


def _held_out(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(labels))
    first = [order[labels[order] == label][:HELD_OUT_PER_CLASS] for label in np.unique(labels)]
    mask = np.zeros(len(labels), dtype=bool)
    mask[np.concatenate(first)] = True
    return mask


def _enlarge(images: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Turn `[N, 8, 8]` in 0..16 into `[N, 16, 16, 1]` in 0..255, with bilinear interpolation."""
    from PIL import Image

    small = np.rint(images * (255 / 16)).astype(np.uint8)
    large = [Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for image in small]
    return np.stack([np.asarray(image) for image in large])[..., None]


FACTS = DatasetFacts(
    names=("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    shape=ImageShape(1, SIDE, SIDE),
    normalization=Normalization((0.31,), (0.32,)),  # of the train split: 0.306 and 0.319
    load=load,
)
