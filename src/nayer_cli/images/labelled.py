"""Labelled images, to measure a classifier or, in `nayer train`, to teach it: one word for many formats."""

import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import islice
from operator import index

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nayer_cli.errors import InputError
from nayer_cli.images.class_order import is_assumed, match_classes
from nayer_cli.images.pictures import MODES, OURS, Pixels, fit
from nayer_cli.images.source import ArraySource, Sample, Source, recognized
from nayer_cli.types import ImageShape, Preparation

MEMORY_BYTES = 512 * 2**20
"""Decoded sets up to this size stay in memory after the first pass."""
OTHER_DATA = "name data with images, or another --split"
LABELS = "labels are class indices: whole numbers from 0, one for each output of the model"
MAX_UNREADABLE = 0.01
"""Fraction of damaged images above which the data, and not an image, is wrong."""
# What Pillow raises over damaged files.
UNREADABLE = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


class LabelledImages:
    """Images of one shape with the model's class indices, in a fixed order, decoded when first asked for.

    Args:
        source: where the images come from.
        shape: the shape to which every image is resized.
        preparation: how it is resized.
        order: the model's class index for each label of the source; None leaves labels as they are.
        class_names: names by the model's class index, if known.
        where: the data's name, for messages.
        limit: images used at most, evenly spaced through the source so that each class keeps its share.
        part: (i, n) takes every n-th of them, from the i-th: one of n processes that divide them.

    """

    def __init__(
        self,
        source: Source,
        shape: ImageShape,
        *,
        order: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        where: str = "the data",
        limit: int | None = None,
        part: tuple[int, int] = (0, 1),
        preparation: Preparation = OURS,
    ) -> None:
        if not len(source):
            raise InputError(f"{where} holds no images", hint=OTHER_DATA)
        self.shape, self.class_names, self.where, self.preparation = shape, class_names, where, preparation
        self.order_is_assumed = False
        """Whether classes are matched with outputs only by their order."""
        self.unreadable: dict[str, str] = {}
        """Damaged images met so far, with what is wrong with them."""
        self._source, self._order = source, order
        whole = _spread(len(source), limit)
        self._total, self._chosen = len(whole), whole[part[0] :: part[1]]
        self._in_memory: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        """Return the number of images, without those found damaged so far."""
        return len(self._chosen) - self.skipped

    @property
    def skipped(self) -> int:
        """Number of damaged images met so far."""
        return len(self.unreadable)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield uint8 images `[B, C, H, W]` and int64 labels `[B]` on the CPU; the last batch may be smaller.

        Raises:
            InputError: more than 1 % of the images are damaged, or a label is not a class index of the model.

        """
        self.prepare()
        if self._in_memory is None:
            return self._decoded(batch_size)
        images, labels = self._in_memory
        return zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True)

    def prepare(self) -> None:
        """Decode a set that fits in memory now, rather than with the first batch."""
        if self._in_memory is None and len(self._chosen) * math.prod(self.shape) <= MEMORY_BYTES:
            decoded = list(self._decoded(batch_size=1024))
            if decoded:  # a part may be empty
                images, labels = zip(*decoded, strict=True)
                self._in_memory = torch.cat(images), torch.cat(labels)

    def _decoded(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        samples = self._source.samples(self._chosen)
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
            while chunk := list(islice(samples, batch_size)):
                items = list(self._readable(chunk, pool))
                self._check_damage()
                if items:
                    pixels, labels = zip(*items, strict=True)
                    images = np.ascontiguousarray(np.stack(pixels).transpose(0, 3, 1, 2))
                    yield torch.from_numpy(images), torch.tensor(labels)

    def _readable(self, chunk: Sequence[Sample], pool: Executor) -> Iterator[tuple[Pixels, int]]:
        """Load images side by side, and keep a record of the damaged ones in their order."""
        for sample, item in zip(chunk, pool.map(self._load, chunk), strict=True):
            if isinstance(item, str):
                self.unreadable[sample.name] = item
            else:
                yield item

    def _load(self, sample: Sample) -> tuple[Pixels, int] | str:
        """Return pixels and class index, or what is wrong with the image."""
        try:
            picture, label = sample.load()
            pixels = fit(picture, self.shape, self.preparation)
        except UNREADABLE as error:
            return str(error) or type(error).__name__
        return pixels, self._class_index(label, sample.name)

    def _class_index(self, label: object, name: str) -> int:
        try:
            i = index(label)  # type: ignore[arg-type]
        except TypeError:
            raise InputError(f"{name} of {self.where} has label {label!r}, not a class index", hint=LABELS) from None
        if i < 0 or (self._order is not None and i >= len(self._order)):
            raise InputError(f"{name} of {self.where} has label {i}, which is no class index of the model", hint=LABELS)
        return i if self._order is None else self._order[i]

    def _check_damage(self) -> None:
        if self.skipped <= MAX_UNREADABLE * self._total:
            return
        named = "; ".join(f"{name}: {reason}" for name, reason in islice(self.unreadable.items(), 3))
        count = f"{MAX_UNREADABLE:.0%} of the {self._total} images"
        raise InputError(
            f"more than {count} of {self.where} cannot be read: {named}",
            hint="repair these files, or remove them",
        )


def open_images(
    spec: str,
    *,
    split: str = "validation",
    shape: ImageShape,
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
    limit: int | None = None,
    part: tuple[int, int] = (0, 1),
    preparation: Preparation = OURS,
) -> LabelledImages:
    """Open labelled images for a model; they are listed now and decoded later.

    Args:
        spec: a built-in set, an image folder, a tar of one, an `.npz`, or a name for timm's data set factory.
            A built-in name comes before a folder of that name (write `./NAME`), an existing path before timm.
        split: part of the data, where it has parts.
        shape: the model's input.
        class_names: the model's class names by index, if it carries any. The data's classes are matched to
            them; without, folders count in torchvision's (text) order.
        num_classes: the model's number of outputs; checked even without names.
        limit: most images used, evenly spaced through the data.
        part: (i, n) takes every n-th of them, from the i-th.
        preparation: how pictures of another size are brought to the model's.

    Raises:
        InputError: there is no such data or split, it holds no images, or its classes are not the model's.
        EnvironmentFault: a package that reads this format is not installed.

    """
    source = _open_source(spec, split)
    _check_channels(source, shape, spec)
    order: Sequence[int] | None = None
    assumed = is_assumed(source.classes, class_names)
    if source.classes is not None:
        order = match_classes(source.classes, class_names, num_classes, spec)
        class_names = class_names or _reorder(source.classes, order)
    elif class_names is not None or num_classes is not None:
        order = range(len(class_names) if class_names is not None else num_classes or 0)
    images = LabelledImages(
        source,
        shape,
        order=order,
        class_names=class_names,
        where=spec,
        limit=limit,
        part=part,
        preparation=preparation,
    )
    images.order_is_assumed = assumed
    return images


def _open_source(spec: str, split: str) -> Source:
    source: Source = recognized(spec).open_source(spec, split)
    return source


def _check_channels(source: Source, shape: ImageShape, where: str) -> None:
    """Refuse at once what would fail with every image."""
    if isinstance(source, ArraySource) and len(source) and not source.images.size:
        size = list(source.images.shape[1:])
        raise InputError(f"images of {where} have no pixels: their shape is {size}", hint="save them again, uncut")
    found = source.images.shape[-1] if isinstance(source, ArraySource) else 3
    if found != shape.channels and not (shape.channels in MODES and found in (1, 3, 4)):
        raise InputError(
            f"images of {where} have {found} channels, but the model takes {shape.channels}",
            hint="convert the images, or choose a model that takes them",
        )


def _reorder(names: Sequence[str], order: Sequence[int]) -> list[str]:
    return [name for _, name in sorted(zip(order, names, strict=True))]


def _spread(count: int, limit: int | None) -> Sequence[int]:
    if limit is None or limit >= count:
        return range(count)
    # Positions that ascend strictly, because limit < count.
    return [i * count // limit for i in range(limit)]
