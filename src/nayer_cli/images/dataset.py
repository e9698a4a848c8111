"""The contract of a data set: facts, not branches. Nothing here imports torch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nayer_cli import plugins
from nayer_cli.types import ImageShape, Normalization

Names = tuple[str, ...]
Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True)
class DatasetFacts:
    """The facts of a data set. A plug-in in `datasets/` exposes one as `FACTS`."""

    names: Names | Callable[[], Names]
    """Class names in index order, or a function that looks them up; ask for `class_names`."""
    shape: ImageShape
    normalization: Normalization
    """The constants customary for this set; those of a teacher's checkpoint go before."""
    load: Callable[[str], Arrays] | None = None
    """For a set that travels with a dependency: from a split, images `[N, H, W, C]` and labels `[N]`."""

    @cached_property
    def class_names(self) -> Names:
        """Return the class names in index order. One name may hold several synonyms with commas between them."""
        return self.names() if callable(self.names) else self.names


def find(name: str) -> DatasetFacts:
    """Return the facts of data set `name`, such as `tiny-imagenet`.

    Raises:
        InputError: no data set is called so.

    """
    facts: DatasetFacts = plugins.load("datasets", name).FACTS
    return facts
