"""The memory bank: synthetic images as uint8, on the device, in host memory, or in a memory-mapped file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nayer_cli.machine.transfer import gather, send
from nayer_cli.storage.files import reserve
from nayer_cli.types import ImageShape


class MemoryBank:
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
        self.capacity = capacity
        self.policy = policy
        self.added = 0
        self.pending: Tensor | None = None
        """Slots that the pass in progress has not reached yet: a run that is continued goes on with them."""
        self._changed: list[Tensor] = []
        size = (capacity, *shape)
        if file is None:
            self.images = torch.empty(size, dtype=torch.uint8, device=device)
        else:
            reserve(file, capacity * _volume(shape))
            flat = torch.from_file(str(file), shared=True, size=capacity * _volume(shape), dtype=torch.uint8)
            self.images = flat.view(size)
        self.labels = torch.zeros(capacity, dtype=torch.long, device=self.images.device)

    def __len__(self) -> int:
        """Images held now."""
        return min(self.added, self.capacity)

    @property
    def device(self) -> torch.device:
        """Where images and labels are."""
        return self.labels.device

    def add(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        """Store images `[B, C, H, W]` in [0, 1], rounded to 256 levels, with labels `[B]`.

        `generator` is one of the host, wherever the images are: which of them are kept must be known there.
        """
        slots, kept = self._slots(len(images), generator)
        chosen = send(kept, images.device)
        pixels = (images.index_select(0, chosen).float() * 255).round_().to(torch.uint8)
        self.put(slots, pixels, labels.index_select(0, chosen))
        self.added += len(images)
        self._changed.append(slots)

    def put(self, slots: Tensor, pixels: Tensor, labels: Tensor) -> None:
        """Write uint8 images `[n, C, H, W]` and labels `[n]` into `slots` `[n]`, each of them wherever it is."""
        pixels, labels = _bring(pixels, labels, self.device)
        slots = send(slots, self.device)
        self.images.index_copy_(0, slots, pixels)
        self.labels.index_copy_(0, slots, labels)

    def changed(self) -> Tensor:
        """Slots written by `add` since the last call, each once, `[n]`, on the host."""
        slots: Tensor = torch.cat([torch.empty(0, dtype=torch.long), *self._changed]).unique()
        self._changed = []
        return slots

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

    def held(self) -> tuple[Tensor, Tensor]:
        """Images uint8 `[n, C, H, W]` and labels `[n]` held now, by slot; views, not copies."""
        return self.images[: len(self)], self.labels[: len(self)]

    def state_dict(self) -> dict[str, Any]:
        """Everything the bank holds; for small banks (`BankStore` saves large ones piecewise)."""
        images, labels = self.held()
        return {"added": self.added, "images": images, "labels": labels}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.put(torch.arange(len(state["labels"])), state["images"], state["labels"])
        self.added = state["added"]

    def by_age(self) -> Tensor:
        """Slots of the images held now, the oldest first (with `fifo`; a reservoir knows no age), `[n]`."""
        return torch.arange(self.added - len(self), self.added, device=self.labels.device) % self.capacity

    def refill(self, count: int, added: int) -> Tensor:
        """Forget what is held and return the slots, oldest first, for what shall be held of `count` images instead.

        As if `added` had been added in all: so there may be fewer slots than images, and once the bank was full also
        more. Each must be written to with `put`, or what is sampled there is noise.
        """
        self.added = max(added, count) if count else 0
        slots = self.by_age()
        self._changed = [slots.cpu()]
        return slots


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
    """Where several rows want one slot, keep the last of them, as if they had come one by one."""
    reversed_slots, first = slots.flip(0).sort(stable=True)
    keep = torch.ones_like(reversed_slots, dtype=torch.bool)
    keep[1:] = reversed_slots[1:] != reversed_slots[:-1]
    return reversed_slots[keep], rows.flip(0)[first[keep]]
