"""The memory bank on disk, in shards: saving writes what is new, never the whole bank again."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nayer_cli.bank import MemoryBank
from nayer_cli.checkpoint import load_state, save_state


class BankStore:
    """A folder of shards, each holding the images that came between two saves.

    A checkpoint lists the shards it needs; a shard whose images have all been replaced is listed no longer, and is
    deleted once no kept checkpoint lists it.
    """

    def __init__(self, folder: Path, bank: MemoryBank) -> None:
        self.folder = folder
        self.bank = bank
        self._shards: list[str] = []
        # Which shard (by number) holds the current image of each slot.
        self._owner = torch.full((bank.capacity,), -1, dtype=torch.int64)

    def save(self) -> dict[str, Any]:
        """Write a shard with the images added since the last save; return the manifest for the checkpoint."""
        slots = self.bank.changed()
        if len(slots):
            number = self.bank.added
            name = f"shard-{number:012d}.safetensors"
            shard = {"slots": slots, "images": self.bank.images[slots], "labels": self.bank.labels[slots]}
            save_state(self.folder / name, shard)
            self._own(slots, name)
        capacity, *shape = self.bank.images.shape
        return {"added": self.bank.added, "shards": list(self._shards), "capacity": capacity, "shape": shape}

    def load(self, manifest: dict[str, Any]) -> None:
        """Fill the bank with the shards of `manifest`, in order."""
        for name in manifest["shards"]:
            shard = load_state(self.folder / name)
            self.bank.put(shard["slots"], shard["images"], shard["labels"])
            self._own(shard["slots"], name)
        self.bank.added = manifest["added"]

    def prune(self, needed: set[str]) -> None:
        """Delete shards that no kept checkpoint lists."""
        for path in self.folder.glob("shard-*.safetensors"):
            if path.name not in needed:
                path.unlink()

    def _own(self, slots: Tensor, name: str) -> None:
        """Record that `slots` now belong to shard `name`, and forget shards that own nothing any more."""
        number = _number(name)
        self._shards.append(name)
        self._owner[slots.cpu()] = number
        alive = set(self._owner.unique().tolist())
        self._shards = [shard for shard in self._shards if _number(shard) in alive]


def _number(name: str) -> int:
    return int(name.removeprefix("shard-").removesuffix(".safetensors"))
