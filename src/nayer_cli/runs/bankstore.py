"""The memory bank on disk, in shards: saving writes what is new, never the whole bank again."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nayer_cli.bank import MemoryBank
from nayer_cli.errors import RunFailed
from nayer_cli.machine.distributed import Group
from nayer_cli.storage.checkpoint import load_state
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
            banks = (open_bank(self.folder, manifest) for manifest in manifests)
            lengths = [min(manifest["added"], manifest["capacity"]) for manifest in manifests]
            refill(self.bank, banks, lengths, sum(manifest["added"] for manifest in manifests), self.group)

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


def refill(bank: MemoryBank, banks: Iterable[MemoryBank], lengths: Sequence[int], added: int, group: Group) -> None:
    """Fill `bank` with this process's share of the images of all `banks`, dealt out in turn, the oldest first.

    Args:
        bank: what it held is forgotten.
        banks: in host memory; one at a time is asked for.
        lengths: of each of them.
        added: images that were ever added to all of them together.
        group: among whom they are dealt out.

    """
    share = len(range(group.rank, sum(lengths), group.size))
    slots = bank.refill(share, added // group.size).cpu()
    missing = len(slots) - share
    for k, old in enumerate(banks):
        turns = _turns(lengths, k)
        ages = turns // group.size + missing
        mine = (turns % group.size == group.rank) & (ages >= 0)
        taken = old.by_age()[mine]
        bank.put(slots[ages[mine]], old.images[taken], old.labels[taken])
    if missing > 0:  # capacities are rounded; a bank that was ever full must be so again, so some images come twice
        twice = slots[missing + torch.arange(missing) % share].to(bank.labels.device)
        bank.put(slots[:missing], bank.images[twice], bank.labels[twice])


def _turns(lengths: Sequence[int], k: int) -> Tensor:
    """Tell when each image of bank `k`, the oldest first, is dealt out, if banks of these `lengths` take turns."""
    ages, counts = torch.arange(lengths[k]), torch.tensor(lengths)[:, None]
    return counts.minimum(ages).sum(0) + (counts[:k] > ages).sum(0)


def _read(folder: Path, manifest: dict[str, Any], bank: MemoryBank) -> Any:
    """Put the shards of `manifest` into `bank`, in order; yield name and slots of each."""
    for name in manifest["shards"]:
        slots, images, labels = _shard(folder / name, bank)
        bank.put(slots, images, labels)
        yield name, slots


def _shard(path: Path, bank: MemoryBank) -> tuple[Tensor, Tensor, Tensor]:
    """Return slots, images and labels of a shard.

    Raises:
        RunFailed: it is damaged, or not of a bank such as this one.

    """
    shard = load_state(path)
    try:
        slots, images, labels = (shard[part] for part in ("slots", "images", "labels"))
        types = (slots.dtype, images.dtype, labels.dtype)
        fits = images.shape == (*slots.shape, *bank.images.shape[1:]) and labels.shape == slots.shape
        fits &= types == (torch.int64, torch.uint8, torch.int64) and len(slots) > 0
        fits = fits and int(slots.min()) >= 0 and int(slots.max()) < bank.capacity
    except (AttributeError, KeyError, TypeError) as error:
        raise RunFailed(f"{path} is not a shard of a bank") from error
    if not fits:
        raise RunFailed(f"{path} is a shard of another bank: its images or places do not fit")
    return slots, images, labels


def _number(name: str) -> int:
    return int(name.removesuffix(".safetensors").rpartition("-")[2])
