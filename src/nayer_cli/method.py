"""The contract of a data-free method: make images that a student can learn from, and say how it learns."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nayer_cli.augment import Augment
from nayer_cli.bank import MemoryBank
from nayer_cli.critic import Critic
from nayer_cli.descent import Descent
from nayer_cli.losses import distillation_kl
from nayer_cli.machine.distributed import Group
from nayer_cli.machine.interruption import Interruption
from nayer_cli.machine.precision import Precision
from nayer_cli.machine.rng import Streams
from nayer_cli.types import ImageShape

EMBEDDINGS, COUNT, NOTHING = "embeddings", "count", "nothing"
"""What a method may use of the class names."""


class SynthBatch(NamedTuple):
    """What one round made."""

    images: Tensor
    """`[B, C, H, W]` float in [0, 1]."""
    labels: Tensor
    """`[B]` int64, the classes the images were drawn for."""
    losses: dict[str, Tensor]
    """Unweighted losses by name, 0-dimensional, on the device. One that is not finite marks a round that failed."""
    skipped: Tensor | None = None
    """Steps left out because their gradient was not finite, 0-dimensional, on the device."""


class Batch(NamedTuple):
    """What one student step sees: images `[B, C, H, W]` in [0, 1], already augmented, and labels `[B]`."""

    images: Tensor
    labels: Tensor


@dataclass
class LoopState:
    """Where the loop stands, in every process alike. Epochs count from 0 and include warm-up."""

    warmup_epochs: int = 0
    epoch: int = 0
    cycle: int = 0
    """Cycles of this epoch that are finished."""
    round: int = 0
    """Rounds of this epoch that are finished."""
    step: int = 0
    """Student steps of this epoch that are finished."""
    skipped: int = 0
    """Steps of this epoch that were left out because a loss or a gradient was not finite."""
    failed_rounds: int = 0
    """Rounds of this epoch whose images were not kept, because a loss was not finite."""
    failed_steps: int = 0
    """Student steps of this epoch that were left out."""
    images: int = 0
    """Images synthesized so far."""
    seen: int = 0
    """Images that the student has learned from so far, repetitions counted."""

    @property
    def student_epoch(self) -> int:
        """Epochs since the student started; negative during warm-up."""
        return self.epoch - self.warmup_epochs

    @property
    def warming_up(self) -> bool:
        """Whether the student has not started yet."""
        return self.epoch < self.warmup_epochs

    def start_epoch(self) -> None:
        """Go on to the next epoch."""
        self.epoch += 1
        self.cycle = self.round = self.step = self.skipped = self.failed_rounds = self.failed_steps = 0


class Parts(NamedTuple):
    """What every method is given to work with."""

    critic: Critic
    pool: Tensor
    """LTE pool `[K, E]`; `[K, 0]` for a method that does not use embeddings."""
    shape: ImageShape
    augment: Augment
    rng: Streams
    precision: Precision
    batch_size: int
    """Images per student step, of this process."""
    group: Group
    """The processes that share the run."""
    interruption: Interruption
    """Whether the run was asked to end: a round counts its steps with it, so that it can stop between two of them."""

    def descent(
        self, optimizer: torch.optim.Optimizer, max_norm: float | None = None, own: Iterable[nn.Parameter] = ()
    ) -> Descent:
        """Return what takes the optimizer's steps: averaged over the processes, skipped where not finite."""
        return Descent(optimizer, self.precision, self.group, max_norm, own)


class Method(nn.Module):
    """One way to make images that a student can learn from. Owns what it trains, and its optimizers.

    A plug-in in `methods/` defines a frozen dataclass `Config` and a subclass called `Method`, made by
    `Method(config, parts)`. Its `state_dict` is everything that a resumed run needs.
    """

    temperature: float = 1.0
    """Softmax temperature T of the default student loss."""
    batch: int
    """Images that one round makes, of this process."""
    uses_names: str = EMBEDDINGS
    """What of the class names: their `embeddings`, only their `count` K, or `nothing`. Unless it is embeddings, a run
    needs no text encoder, no network and no names."""
    rank_local: tuple[str, ...] = ()
    """Buffers whose rows are images of this process. All other state is the same in every process, but for running
    statistics of normalization layers, which are averaged after every round."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """Make one round of images and train whatever makes them.

        `student` maps images in [0, 1] to logits; it is frozen and in evaluation mode, and must stay unchanged.

        Raises:
            Stopped: the run was asked to end; the engine puts everything back as it was before the round.

        """
        raise TypeError(f"{type(self).__name__} must define synthesize")

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        """Yield a batch for each of `steps` student steps; by default augmented samples of the bank."""
        order = self.parts.rng.on(bank.device, "replay")
        for images, labels in bank.batches(self.parts.batch_size, steps, order, self.parts.rng.device):
            yield Batch(self.parts.augment(images, self.parts.rng["augment"]), labels)

    def student_loss(self, student: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of one student step; by default KL to the teacher at temperature T, times T²."""
        return distillation_kl(self.parts.critic.logits(batch.images), student(batch.images), self.temperature)
