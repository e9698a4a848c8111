"""Stores: bounded sets of rows that a run remembers. The memory bank is one, and methods may own others."""

from collections.abc import Mapping

import torch
from torch import Tensor

from nayer_cli.machine.transfer import gather, send


class Store:
    """Rows of several tensors, such as features with their labels; the newest take the places of the oldest.

    Checkpoints save it piece by piece: what was added between two of them.

    Args:
        capacity: rows kept at most.
        **tensors: an example of one row of each, of the shape and type that is kept, on the device where it is kept.

    """

    def __init__(self, capacity: int, **tensors: Tensor) -> None:
        self.capacity = capacity
        self.added = 0
        self.tensors = {name: one.new_zeros(capacity, *one.shape) for name, one in tensors.items()}
        self._changed: list[Tensor] = []

    def __len__(self) -> int:
        """Rows held now."""
        return min(self.added, self.capacity)

    @property
    def device(self) -> torch.device:
        """The device of slots and of most tensors."""
        return next(reversed(self.tensors.values())).device

    def push(self, rows: Mapping[str, Tensor]) -> None:
        """Store the rows of tensors `[n, ...]`, converted to the types that are kept."""
        count = len(next(iter(rows.values())))
        kept = torch.arange(count)[-self.capacity :]
        chosen = {name: value.index_select(0, send(kept, value.device)) for name, value in rows.items()}
        self._take_over((self.added + kept) % self.capacity, chosen, count)

    def write(self, slots: Tensor, rows: Mapping[str, Tensor]) -> None:
        """Write tensors `[n, ...]` into `slots` `[n]`, each of them wherever it is."""
        for name, value in rows.items():
            own = self.tensors[name]
            own.index_copy_(0, send(slots, own.device), send(value, own.device).to(own.dtype))

    def read(self, slots: Tensor, device: torch.device | str | None = None) -> dict[str, Tensor]:
        """Return the rows at `slots` (where the store is), on `device`."""
        return {name: gather(own, slots, device or self.device) for name, own in self.tensors.items()}

    def draw(self, size: int, generator: torch.Generator) -> Tensor:
        """Draw `size` slots that are held, none twice before all came once, `[size]`, where the generator draws."""
        passes = -(-size // len(self))
        orders = [torch.randperm(len(self), generator=generator, device=generator.device) for _ in range(passes)]
        return torch.cat(orders)[:size]

    def changed(self) -> Tensor:
        """Slots written to since the last call, each once, `[n]`, on the host."""
        slots: Tensor = torch.cat([torch.empty(0, dtype=torch.long), *self._changed]).unique()
        self._changed = []
        return slots

    def by_age(self) -> Tensor:
        """Slots of the rows held now, the oldest first (a reservoir knows no age), `[n]`."""
        return torch.arange(self.added - len(self), self.added, device=self.device) % self.capacity

    def refill(self, count: int, added: int) -> Tensor:
        """Forget all rows and return the slots, oldest first, for those of `count` new rows that fit.

        As if `added` had been added in all: so there may be fewer slots than rows, and once the store was full also
        more. Each must be written to, or what is read there is noise.
        """
        self.added = max(added, count) if count else 0
        slots = self.by_age()
        self._changed = [slots.cpu()]
        return slots

    def like(self, capacity: int) -> "Store":
        """Return an empty store of rows such as these, in host memory."""
        rows = {name: torch.empty(own.shape[1:], dtype=own.dtype) for name, own in self.tensors.items()}
        return Store(capacity, **rows)

    def _take_over(self, slots: Tensor, rows: Mapping[str, Tensor], count: int) -> None:
        """Write what is kept of `count` new rows, and take note of it."""
        self.write(slots, rows)
        self.added += count
        self._changed.append(slots)
