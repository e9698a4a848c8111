"""Join fresh images with remembered ones, which the generator may no longer draw. A ring remembers some batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from nayer_cli.live import LiveGenerator
from nayer_cli.method import Batch, LoopState, Parts
from nayer_cli.store import Store


@dataclass(frozen=True)
class Rehearsal(Batch):
    """Fresh images, and after them the remembered ones."""

    fresh: int
    """Number of fresh images among them."""


class Memory(Protocol):
    """The questions that `rehearse` asks."""

    def recall(self) -> Tensor:
        """Return remembered images `[n, C, H, W]`; n is 0 if there are none."""
        ...

    def learn(self, fresh: Tensor) -> None:
        """Take note of fresh images `[B, C, H, W]`."""
        ...


def rehearse(generator: LiveGenerator, memory: Memory, steps: int) -> Iterator[Rehearsal]:
    """Yield `steps` batches of fresh and remembered images.

    What the memory learns does not depend on the student's step, so it learns before it: then all there is to be saved
    between two steps is its state.
    """
    for _ in range(steps):
        fresh = generator.fresh(generator.parts.batch_size)
        images = torch.cat([fresh, memory.recall()])
        memory.learn(fresh)
        yield Rehearsal(images, torch.full((len(images),), -1, device=images.device), len(fresh))


def remembered(share: float, batch: int) -> int:
    """Return how many remembered images join a batch: 0, or at least two, since their variance is needed."""
    return max(2, round(share * batch)) if share else 0


class Ring(nn.Module):
    """Images that were drawn before (MB-DFKD): the first of the newest batches, or some of every round.

    Args:
        parts: of the method.
        batches: kept at most.
        count: images of each; so many are recalled at a time.
        every: epochs between two that are kept.
        of_round: images of all processes kept of each round instead. Then not batches are recalled but single images.

    """

    last: Tensor
    per_image = ("last",)

    def __init__(self, parts: Parts, batches: int, count: int, every: int, of_round: int = 0) -> None:
        super().__init__()
        self.parts, self.count, self.every = parts, count, every
        self.of_round = -(-of_round // parts.group.size)
        device = parts.pool.device
        one = torch.zeros(*parts.shape, dtype=torch.float16, device=device)
        self.store = Store(batches * count, images=one)
        self.register_buffer("last", one.repeat(parts.batch_size, 1, 1, 1))

    def recall(self) -> Tensor:
        """Return a whole batch, or `count` single images, chosen uniformly among those that are kept."""
        device = self.store.device
        if len(self.store) < self.count:
            return torch.zeros(0, *self.parts.shape, device=device)
        return self.store.read(self._slots(device))["images"].float()

    def _slots(self, device: torch.device) -> Tensor:
        held, rng = len(self.store), self.parts.rng["ring"]
        if self.of_round:
            return torch.randint(held, (self.count,), generator=rng, device=device)
        batch = torch.randint(held // self.count, (1,), generator=rng, device=device)
        return batch * self.count + torch.arange(self.count, device=device)

    def learn(self, fresh: Tensor) -> None:
        """Hold the newest batch, in case it is the last of its epoch."""
        self.last.copy_(fresh)

    def rows(self, state: LoopState, made: Tensor) -> dict[str, Tensor] | None:
        """Return the rows to keep after a round that `made` images.

        Of whole batches that is, at the start of an epoch, the end of epoch 0, `every`, 2 · `every` and so on.
        """
        if self.of_round:
            return {"images": made[: self.of_round]}
        over = state.student_epoch - 1
        is_due = state.round == 0 and over >= 0 and over % self.every == 0
        return {"images": self.last[: self.count]} if is_due else None
