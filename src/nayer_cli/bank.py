"""The memory bank: synthetic images as uint8, on the device, in host memory, or in a memory-mapped file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nayer_cli.machine.transfer import gather, send
from nayer_cli.storage.files import reserve
from nayer_cli.store import Store
from nayer_cli.types import ImageShape


class MemoryBank(Store):
    """A bounded set of images with labels.

    Args:
        capacity: images kept at most.
        shape: of one image.
        policy: `fifo` forgets the oldest; `reservoir` keeps a uniform sample of all images ever added (Vitter 1985).
        device: where images are kept and labels live.
        file: with a path, images live in this memory-mapped file instead of memory.

    """

    def __init__(
        self,
        capacity: int,
        shape: ImageShape,
        *,
        policy: str = "fifo",
        device: torch.device | str = "cpu",
        file: Path | None = None,
    ) -> None:
        self.capacity, self.policy, self.added = capacity, policy, 0
        self.pending: Tensor | None = None
        """Slots that the pass in progress has not reached yet: a run that is continued goes on with them."""
        self._changed: list[Tensor] = []
        size = (capacity, *shape)
        if file is None:
            images = torch.empty(size, dtype=torch.uint8, device=device)
        else:
            reserve(file, capacity * _volume(shape))
            flat = torch.from_file(str(file), shared=True, size=capacity * _volume(shape), dtype=torch.uint8)
            images = flat.view(size)
        self.tensors = {"images": images, "labels": torch.zeros(capacity, dtype=torch.long, device=images.device)}

    @property
    def images(self) -> Tensor:
        """All images, uint8 `[capacity, C, H, W]`."""
        return self.tensors["images"]

    @property
    def labels(self) -> Tensor:
        """All labels, int64 `[capacity]`."""
        return self.tensors["labels"]

    def add(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        """Store images `[B, C, H, W]` in [0, 1], rounded to 256 levels, with labels `[B]`.

        `generator` is one of the host, wherever the images are: which of them are kept must be known there.
        """
        slots, kept = self._slots(len(images), generator)
        chosen = send(kept, images.device)
        pixels = (images.index_select(0, chosen).float() * 255).round_().to(torch.uint8)
        self._take_over(slots, {"images": pixels, "labels": labels.index_select(0, chosen)}, len(images))

    def write(self, slots: Tensor, rows: Mapping[str, Tensor]) -> None:
        """Write uint8 images `[n, C, H, W]` and labels `[n]` into `slots` `[n]`, each of them wherever it is."""
        images, labels = _bring(rows["images"], rows["labels"], self.device)
        super().write(slots, {"images": images, "labels": labels})

    def _slots(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Choose slots for `count` new images: (slots, which of the images get one), on the host."""
        order = torch.arange(self.added, self.added + count)
        if self.policy == "fifo":
            kept = torch.arange(count)[-self.capacity :]
            return order[kept] % self.capacity, kept
        # Image number n takes a uniform slot among n + 1; beyond the capacity it is not kept.
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        drawn = (uniform * (order + 1)).long()
        slots = torch.where(order < self.capacity, order, drawn)
        kept = (slots < self.capacity).nonzero().squeeze(1)
        return _last_of_each(slots[kept], kept)

    def batches(
        self, size: int, steps: int, generator: torch.Generator, device: torch.device | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `steps` batches of `size` images `[size, C, H, W]` in [0, 1] and labels, in shuffled passes.

        Args:
            size: images of a batch.
            steps: how many batches.
            generator: draws the order; one of the bank's own device, or the host waits once a pass.
            device: where the batches are wanted; by default where the generator is.

        """
        count, target = len(self), device or generator.device
        order = self.labels.new_empty(0) if self.pending is None else self.pending.to(self.labels.device)
        for left in reversed(range(steps)):
            while len(order) < size:
                shuffled = torch.randperm(count, generator=generator, device=generator.device)
                order = torch.cat([order, shuffled.to(order.device)])
            chosen, order = order[:size], order[size:]
            self.pending = order if left else None  # already at the last step, after which a run may be saved
            yield self.take(chosen, target)

    def take(self, slots: Tensor, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
        """Images in [0, 1] and labels at `slots` (where the bank is), on `device`."""
        target = device or self.device
        return gather(self.images, slots, target).float().div_(255), gather(self.labels, slots, target)

    def newest(self, count: int) -> Tensor:
        """Slots of the newest `count` images, newest first, where the bank is; a reservoir forgets their order."""
        order = torch.arange(min(count, len(self)), device=self.device)
        return (self.added - 1 - order) % self.capacity

    def held(self) -> tuple[Tensor, Tensor]:
        """Images uint8 `[n, C, H, W]` and labels `[n]` held now, by slot; views, not copies."""
        return self.images[: len(self)], self.labels[: len(self)]

    def state_dict(self) -> dict[str, Any]:
        """Everything the bank holds; for small banks (`Shards` saves large ones piecewise)."""
        images, labels = self.held()
        return {"added": self.added, "images": images, "labels": labels}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.write(torch.arange(len(state["labels"])), state)
        self.added = state["added"]


def _volume(shape: ImageShape) -> int:
    return shape.channels * shape.height * shape.width


def _bring(pixels: Tensor, labels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images and labels on `device`; those of an accelerator come to the host in one copy."""
    if device.type != "cpu" or pixels.device.type == "cpu":
        return send(pixels, device), send(labels, device)
    count, size = len(labels), labels.element_size()
    rows = torch.cat([pixels.flatten(1), labels.view(count, 1).view(torch.uint8)], dim=1).cpu()
    bytes_of_labels = rows[:, -size:].contiguous()
    return rows[:, :-size].reshape(pixels.shape), bytes_of_labels.view(labels.dtype).flatten()


def _last_of_each(slots: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the last of several rows for one slot, as if they had come one by one."""
    reversed_slots, first = slots.flip(0).sort(stable=True)
    keep = torch.ones_like(reversed_slots, dtype=torch.bool)
    keep[1:] = reversed_slots[1:] != reversed_slots[:-1]
    return reversed_slots[keep], rows.flip(0)[first[keep]]
