"""The contract of a data-free method: make images that a student can learn from, and say how it learns."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from nayer_cli.augment import Augment
from nayer_cli.bank import MemoryBank
from nayer_cli.critic import Critic
from nayer_cli.losses import distillation_kl
from nayer_cli.precision import Precision
from nayer_cli.rng import Streams
from nayer_cli.types import ImageShape


class SynthBatch(NamedTuple):
    """What one round made."""

    images: Tensor
    """`[B, C, H, W]` float in [0, 1]."""
    labels: Tensor
    """`[B]` int64, the classes the images were drawn for."""
    losses: dict[str, Tensor]
    """Unweighted losses by name, 0-dimensional, on the device: nobody waits for them until they are shown."""


class Batch(NamedTuple):
    """What one student step sees: images `[B, C, H, W]` in [0, 1], already augmented, and labels `[B]`."""

    images: Tensor
    labels: Tensor


@dataclass
class LoopState:
    """Where the loop stands. Epochs count from 0 and include warm-up."""

    warmup_epochs: int = 0
    epoch: int = 0
    round: int = 0
    """Round within the epoch, from 0."""
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


class Parts(NamedTuple):
    """What every method is given to work with."""

    critic: Critic
    pool: Tensor
    """LTE pool `[K, E]`; methods that draw no text use only its length K."""
    shape: ImageShape
    augment: Augment
    rng: Streams
    precision: Precision
    batch_size: int
    """Images per student step."""


class Method(nn.Module):
    """One way to make images that a student can learn from. Owns what it trains, and its optimizers.

    A plug-in in `methods/` defines a frozen dataclass `Config` and a subclass called `Method`, made by
    `Method(config, parts)`. Its `state_dict` is everything that a resumed run needs.
    """

    temperature: float = 1.0
    """Softmax temperature T of the default student loss."""
    batch: int
    """Images that one round makes."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """Make one round of images and train whatever makes them.

        `student` maps images in [0, 1] to logits; it is frozen and in evaluation mode, and must stay unchanged.
        """
        raise TypeError(f"{type(self).__name__} must define synthesize")

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        """Yield a batch for each of `steps` student steps; by default augmented samples of the bank."""
        for images, labels in bank.batches(self.parts.batch_size, steps, self.parts.rng["replay"]):
            yield Batch(self.parts.augment(images, self.parts.rng["augment"]), labels)

    def student_loss(self, student: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of one student step; by default KL to the teacher at temperature T, times T²."""
        return distillation_kl(self.parts.critic.logits(batch.images), student(batch.images), self.temperature)
