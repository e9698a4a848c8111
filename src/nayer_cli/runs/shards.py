"""The memory bank and other stores on disk, in shards: saving writes what is new, never everything again."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nayer_cli.bank import MemoryBank
from nayer_cli.machine.distributed import Group
from nayer_cli.machine.transfer import send
from nayer_cli.storage.checkpoint import damaged, load_state
from nayer_cli.store import Store
from nayer_cli.types import ImageShape


class Shards:
    """The shards of one process's part of a store, each holding the rows that came between two saves.

    A checkpoint lists the shards it needs; a shard whose rows have all been replaced is listed no longer.

    Args:
        folder: where they are.
        store: the memory bank, or a store of a method.
        group: the processes that have a part each.
        kind: what their names begin with.

    """

    def __init__(self, folder: Path, store: Store, group: Group | None = None, kind: str = "shard") -> None:
        self.folder, self.store, self.kind = folder, store, kind
        self.group = group or Group()
        self._shards: list[str] = []
        # Which shard (by number) holds the current row of each slot.
        self._owner = torch.full((store.capacity,), -1, dtype=torch.int64)

    def collect(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the manifest for the checkpoint, and the new shard by its name (none where nothing is new)."""
        store, group = self.store, self.group
        slots, new = store.changed(), {}
        if len(slots):
            name = f"{self.kind}-{group.rank:04d}-of-{group.size:04d}-{store.added:012d}.safetensors"
            # On the host: it may be another process that writes it.
            rows = {key: value.cpu() for key, value in store.read(send(slots, store.device)).items()}
            new[name] = {"slots": slots.cpu(), **rows}
            self._own(slots, name)
        shapes = {key: list(value.shape[1:]) for key, value in store.tensors.items()}
        return {"added": store.added, "shards": list(self._shards), "capacity": store.capacity, "shapes": shapes}, new

    def load(self, manifests: Sequence[dict[str, Any]]) -> None:
        """Fill the store with what the manifests of all processes list.

        Those of as many processes as there are now are restored exactly; otherwise all rows are divided again.
        """
        if len(manifests) == self.group.size:
            manifest = manifests[self.group.rank]
            for name, slots in _read(self.folder, manifest, self.store):
                self._own(slots, name)
            self.store.added = manifest["added"]
        else:
            parts = (_open(self.folder, manifest, self.store.like(manifest["capacity"])) for manifest in manifests)
            lengths = [min(manifest["added"], manifest["capacity"]) for manifest in manifests]
            refill(self.store, parts, lengths, sum(manifest["added"] for manifest in manifests), self.group)

    def _own(self, slots: Tensor, name: str) -> None:
        """Record that `slots` now belong to shard `name`, and forget shards that own nothing any more."""
        self._shards.append(name)
        self._owner[slots.cpu()] = _number(name)
        alive = set(self._owner.unique().tolist())
        self._shards = [shard for shard in self._shards if _number(shard) in alive]


def open_bank(folder: Path, manifest: dict[str, Any]) -> MemoryBank:
    """Return the bank of one process as a checkpoint's manifest lists it, in host memory."""
    bank = MemoryBank(manifest["capacity"], ImageShape(*manifest["shapes"]["images"]))
    _open(folder, manifest, bank)
    return bank


def _open(folder: Path, manifest: dict[str, Any], store: Store) -> Store:
    """Fill an empty `store` with what a manifest lists."""
    for _ in _read(folder, manifest, store):
        pass
    store.added = manifest["added"]
    return store


def refill(store: Store, parts: Iterable[Store], lengths: Sequence[int], added: int, group: Group) -> None:
    """Fill `store` with this process's share of the rows of all `parts`, dealt out in turn, the oldest first.

    Args:
        store: what it held is forgotten.
        parts: in host memory; one at a time is asked for.
        lengths: of each of them.
        added: rows that were ever added to all of them together.
        group: among whom they are dealt out.

    """
    share = len(range(group.rank, sum(lengths), group.size))
    slots = store.refill(share, added // group.size).cpu()
    missing = len(slots) - share
    for k, old in enumerate(parts):
        turns = _turns(lengths, k)
        ages = turns // group.size + missing
        mine = (turns % group.size == group.rank) & (ages >= 0)
        store.write(slots[ages[mine]], old.read(old.by_age()[mine]))
    if missing > 0:  # capacities are rounded; a store that was ever full must be so again, so some rows come twice
        twice = slots[missing + torch.arange(missing) % share]
        store.write(slots[:missing], store.read(send(twice, store.device)))


def _turns(lengths: Sequence[int], k: int) -> Tensor:
    """Return the turn of each row of part `k`, oldest first, if parts of these `lengths` take turns."""
    ages, counts = torch.arange(lengths[k]), torch.tensor(lengths)[:, None]
    return counts.minimum(ages).sum(0) + (counts[:k] > ages).sum(0)


def _read(folder: Path, manifest: dict[str, Any], store: Store) -> Iterator[tuple[str, Tensor]]:
    """Put the shards of `manifest` into `store`, in order; yield name and slots of each."""
    for name in manifest["shards"]:
        slots, rows = _shard(folder / name, store)
        store.write(slots, rows)
        yield name, slots


def _shard(path: Path, store: Store) -> tuple[Tensor, dict[str, Tensor]]:
    """Return slots and rows of a shard.

    Raises:
        RunFailed: it is damaged, or not of a store such as this one.

    """
    shard = load_state(path)
    try:
        slots, rows = shard["slots"], {name: shard[name] for name in store.tensors}
        fits = slots.dtype == torch.int64 and slots.ndim == 1 and len(slots) > 0
        fits = fits and int(slots.min()) >= 0 and int(slots.max()) < store.capacity
        for name, own in store.tensors.items():
            fits = fits and rows[name].shape == (len(slots), *own.shape[1:]) and rows[name].dtype == own.dtype
    except (AttributeError, KeyError, TypeError) as error:
        raise damaged(f"{path} is not a shard of a bank") from error
    if not fits:
        raise damaged(f"{path} is a shard of another bank: its images or places do not fit")
    return slots, rows


def _number(name: str) -> int:
    return int(name.removesuffix(".safetensors").rpartition("-")[2])
