"""The contract of a source of labelled images: listed when it is made, read as often as asked.

A plug-in in `sources/` defines `recognizes(spec)` and `open_source(spec, split)`. The first by name that recognizes a
specification opens it. Those of installed packages are asked after ours.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nayer_cli import plugins
from nayer_cli.images.pictures import Pixels
from nayer_cli.storage.inputs import no_data

Images = NDArray[np.uint8]
Picture = Image.Image | Pixels


class Sample(NamedTuple):
    """One labelled image, not yet decoded; `load` may be called from another thread."""

    name: str
    load: Callable[[], tuple[Picture, int]]


class Source(Protocol):
    """Labelled images in a fixed order."""

    classes: Sequence[str] | None
    """Names of the source's own labels; None if these are bare indices."""

    def __len__(self) -> int:
        """Return the number of images listed."""
        ...

    def samples(self, chosen: Collection[int]) -> Iterator[Sample]:
        """Yield the samples at the ascending positions `chosen`."""
        ...


class ArraySource:
    """Images in memory: uint8 `[N, H, W, C]` with integer labels `[N]`."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[Any], classes: Sequence[str] | None) -> None:
        self.images, self.labels, self.classes = images, labels, classes

    def __len__(self) -> int:
        return len(self.images)

    def samples(self, chosen: Collection[int]) -> Iterator[Sample]:
        """Yield images by position."""
        for i in chosen:
            yield Sample(f"image {i}", partial(self._load, i))

    def _load(self, i: int) -> tuple[Picture, int]:
        return self.images[i], int(self.labels[i])


def recognized(spec: str) -> ModuleType:
    """Return the plug-in that recognizes `spec`.

    Raises:
        InputError: none does.

    """
    for name in (*plugins.own("sources"), *plugins.installed("sources")):
        plugin = plugins.load("sources", name)
        if plugin.recognizes(spec):
            return plugin
    raise no_data(spec)
