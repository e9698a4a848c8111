"""The memory bank on disk, in shards: saving writes what is new, never the whole bank again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nayer_cli.bank import MemoryBank
from nayer_cli.checkpoint import load_state
from nayer_cli.distributed import Group
from nayer_cli.types import ImageShape


class BankStore:
    """The shards of one process's part of the bank, each holding the images that came between two saves.

    A checkpoint lists the shards it needs; a shard whose images have all been replaced is listed no longer.
    """

    def __init__(self, folder: Path, bank: MemoryBank, group: Group | None = None) -> None:
        self.folder = folder
        self.bank = bank
        self.group = group or Group()
        self._shards: list[str] = []
        # Which shard (by number) holds the current image of each slot.
        self._owner = torch.full((bank.capacity,), -1, dtype=torch.int64)

    def collect(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the manifest for the checkpoint, and the new shard by its name (none where nothing is new)."""
        slots, new = self.bank.changed(), {}
        if len(slots):
            name = f"shard-{self.group.rank:04d}-of-{self.group.size:04d}-{self.bank.added:012d}.safetensors"
            # On the host: it may be another process that writes it.
            images, labels = self.bank.images[slots].cpu(), self.bank.labels[slots].cpu()
            new[name] = {"slots": slots.cpu(), "images": images, "labels": labels}
            self._own(slots, name)
        capacity, *shape = self.bank.images.shape
        manifest = {"added": self.bank.added, "shards": list(self._shards), "capacity": capacity, "shape": shape}
        return manifest, new

    def load(self, manifests: Sequence[dict[str, Any]]) -> None:
        """Fill the bank with what the manifests of all processes list.

        Those of as many processes as there are now are restored exactly; otherwise all images are dealt out anew.
        """
        if len(manifests) == self.group.size:
            manifest = manifests[self.group.rank]
            for name, slots in _read(self.folder, manifest, self.bank):
                self._own(slots, name)
            self.bank.added = manifest["added"]
        else:
            refill(self.bank, [self._open(manifest) for manifest in manifests], self.group)

    def _open(self, manifest: dict[str, Any]) -> MemoryBank:
        return open_bank(self.folder, manifest)

    def _own(self, slots: Tensor, name: str) -> None:
        """Record that `slots` now belong to shard `name`, and forget shards that own nothing any more."""
        self._shards.append(name)
        self._owner[slots.cpu()] = _number(name)
        alive = set(self._owner.unique().tolist())
        self._shards = [shard for shard in self._shards if _number(shard) in alive]


def open_bank(folder: Path, manifest: dict[str, Any]) -> MemoryBank:
    """Return the bank of one process as a checkpoint's manifest lists it, in host memory."""
    bank = MemoryBank(manifest["capacity"], ImageShape(*manifest["shape"]))
    for _ in _read(folder, manifest, bank):
        pass
    bank.added = manifest["added"]
    return bank


def refill(bank: MemoryBank, banks: Sequence[MemoryBank], group: Group) -> None:
    """Fill `bank` with this process's share of the images of all `banks`, dealt out in turn by age."""
    slots = [old.by_age() for old in banks]
    turns = [(k, int(slot[i])) for i in range(max(map(len, slots))) for k, slot in enumerate(slots) if i < len(slot)]
    mine = turns[group.rank :: group.size]
    images = torch.stack([banks[k].images[slot] for k, slot in mine]) if mine else bank.images[:0].cpu()
    labels = torch.stack([banks[k].labels[slot] for k, slot in mine]) if mine else bank.labels[:0].cpu()
    bank.refill(images, labels, sum(old.added for old in banks) // group.size)


def _read(folder: Path, manifest: dict[str, Any], bank: MemoryBank) -> Any:
    """Put the shards of `manifest` into `bank`, in order; yield name and slots of each."""
    for name in manifest["shards"]:
        shard = load_state(folder / name)
        bank.put(shard["slots"], shard["images"], shard["labels"])
        yield name, shard["slots"]


def _number(name: str) -> int:
    return int(name.removesuffix(".safetensors").rpartition("-")[2])
