"""The contract of a data-free method: make images that a student can learn from, and say how it learns."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nayer_cli.augment import Augment
from nayer_cli.bank import MemoryBank
from nayer_cli.critic import Critic, Judgement, Statistics
from nayer_cli.descent import Descent
from nayer_cli.live_settings import COUNT as COUNT
from nayer_cli.live_settings import EMBEDDINGS as EMBEDDINGS
from nayer_cli.live_settings import NOTHING as NOTHING
from nayer_cli.losses import balance, cross_entropy, distillation_kl, total_variation
from nayer_cli.machine.distributed import Group
from nayer_cli.machine.interruption import Interruption
from nayer_cli.machine.precision import Precision
from nayer_cli.machine.rng import Streams, seeded
from nayer_cli.store import Store
from nayer_cli.types import ImageShape


class SynthBatch(NamedTuple):
    """The result of one round."""

    images: Tensor
    """`[B, C, H, W]` float in [0, 1]."""
    labels: Tensor
    """`[B]` int64, the classes the images were drawn for."""
    losses: dict[str, Tensor]
    """Unweighted losses by name, 0-dimensional, on the device. One that is not finite marks a round that failed."""
    skipped: Tensor | None = None
    """Steps left out because their gradient was not finite, 0-dimensional, on the device."""
    steps: int | None = None
    """Steps of this round, those left out counted, if the method says so. A round that took none of them failed."""
    rows: Mapping[str, Tensor] | None = None
    """Tensors that go to the method's store if the round succeeds: `[B, ...]` for each of its names."""
    course: Sequence[Tensor] = ()
    """Term `ce` of the images before each step of the round, in order; empty where a round is one step."""

    @classmethod
    def of_step(cls, images: Tensor, labels: Tensor, losses: Mapping[str, Tensor], skipped: Tensor) -> "SynthBatch":
        """Return the result of a round of one step, cut off from its graph."""
        return cls(images.detach(), labels, {name: value.detach() for name, value in losses.items()}, skipped, 1)


@dataclass(frozen=True)
class Batch:
    """The images of one student step. A method that needs more extends it; others ask only for its length."""

    images: Tensor
    """`[B, C, H, W]` in [0, 1], already augmented."""
    labels: Tensor
    """`[B]` int64; −1 where no class was asked for."""

    def __len__(self) -> int:
        return len(self.images)


class StudentLoss(NamedTuple):
    """The loss of one student step, and what it consists of."""

    total: Tensor
    """The loss that the student minimizes, 0-dimensional."""
    terms: Mapping[str, Tensor]
    """Its terms by name, unweighted, 0-dimensional, on the device. The log calls them `student.NAME`."""


@dataclass
class LoopState:
    """The loop's position, the same in every process. Epochs count from 0 and include warm-up."""

    warmup_epochs: int = 0
    epochs: int | None = 1
    """Epochs of the whole run, warm-up included; None where a budget ends it."""
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
    """Rounds of this epoch whose images were not kept, because a loss or every gradient was not finite."""
    failed_steps: int = 0
    """Student steps of this epoch that were left out."""
    images: int = 0
    """Images synthesized so far."""
    seen: int = 0
    """Images that the student has learned from so far, repetitions counted."""
    flop: int = 0
    """Floating-point operations so far, where a budget counts them."""
    spent: float = 0.0
    """Share of the budget that is used up, where there is one; the last step may exceed 1."""
    spent_before: float = 0.0
    """The used share when the student began to learn."""

    @property
    def student_epoch(self) -> int:
        """Epochs since the student started; negative during warm-up."""
        return self.epoch - self.warmup_epochs

    @property
    def warming_up(self) -> bool:
        """Whether the student has not started yet."""
        return self.epoch < self.warmup_epochs

    @property
    def done(self) -> float:
        """Share of the run that is finished, in [0, 1]: for schedules of a method's own."""
        return min(self.spent if self.epochs is None else self.epoch / max(self.epochs, 1), 1.0)

    @property
    def is_inside_epoch(self) -> bool:
        """Whether something of this epoch is done."""
        return bool(self.round or self.step)

    def start_epoch(self) -> None:
        """Go on to the next epoch."""
        self.epoch += 1
        self.cycle = self.round = self.step = self.skipped = self.failed_rounds = self.failed_steps = 0


class Parts(NamedTuple):
    """The parts that every method works with."""

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

    def descent(self, optimizer: torch.optim.Optimizer, max_norm: float | None = None) -> Descent:
        """Return what takes the optimizer's steps, and skips those that are not finite.

        A parameter that belongs to the images of one round is a `RoundParameter`.
        """
        return Descent(optimizer, self.precision, self.group, max_norm)

    def making(self, name: str) -> AbstractContextManager[None]:
        """Within the block networks are made: their first weights follow from the run's seed and `name`."""
        return seeded(self.weights(name))

    def weights(self, name: str) -> torch.Generator:
        """Return the generator, on the host, that the weights of network `name` are drawn from."""
        return self.rng.shared(name)

    def codes(self, count: int, size: int) -> Tensor:
        """Draw codes z ~ N(0, I), `[count, size]`."""
        return torch.randn(count, size, generator=self.rng["codes"], device=self.pool.device)

    def pixels(self, count: int) -> Tensor:
        """Draw noise ~ N(0, I) of `count` images, `[count, C, H, W]`."""
        size, rng = (count, *self.shape), self.rng["pixels"]
        return torch.empty(size, device=self.pool.device).normal_(generator=rng)

    def draw(self, generator: Callable[[Tensor], Tensor], codes: Tensor) -> Tensor:
        """Call a generator in the precision of the run; its images come in float32."""
        with self.precision():
            images = generator(codes)
        return images.float()

    def store(self, capacity: int, **rows: Tensor) -> Store:
        """Make a store of `capacity` rows in the whole run, from an example of one row of each tensor."""
        return Store(-(-capacity // self.group.size), **rows)

    def balance(self, t: Tensor, base: float = math.e) -> Tensor:
        """Term `balance` of the teacher's logits `[B, K]`, with logarithms to `base`."""
        return balance(t, base, of_all=self.group.mean)

    def tv(self, images: Tensor) -> Tensor:
        """Term `tv`: how rough images `[B, C, H, W]` are."""
        return self._of_all(total_variation(images))

    def l2(self, images: Tensor) -> Tensor:
        """Term `l2`: the L2 norm of images `[B, C, H, W]`."""
        return self._of_all(images.norm())

    def _of_all(self, norm: Tensor) -> Tensor:
        """Scale an L2 norm over this process's batch to what it is over the batch of all processes."""
        return norm * math.sqrt(self.group.size)

    def prior(
        self, images: Tensor, statistics: Statistics, distance: Callable[[Statistics], Tensor]
    ) -> dict[str, Tensor]:
        """Return what keeps images plausible: `bn`, or `tv` for a teacher without BatchNorm; unweighted.

        Args:
            images: `[B, C, H, W]`.
            statistics: what the critic saw of them, or of augmented copies.
            distance: from `statistics` to those of real images.

        """
        if self.critic.has_statistics:
            return {"bn": distance(statistics)}
        return {"tv": self.tv(images)}

    def judge(
        self, images: Tensor, labels: Tensor, distance: Callable[[Statistics], Tensor]
    ) -> tuple[Tensor, Judgement, dict[str, Tensor]]:
        """Judge augmented copies of images that were drawn for `labels`: (the copies, judgement, `ce` and `prior`)."""
        seen = self.augment(images, self.rng["augment"])
        judgement = self.critic.judge(seen)
        terms = {"ce": cross_entropy(judgement.logits, labels)}
        return seen, judgement, terms | self.prior(images, judgement.statistics, distance)


class Lesson(nn.Module):
    """A way for a student to learn: the images of a step, and the loss on them."""

    per_image: tuple[str, ...] = ()
    """Buffers that have a row for each image of a batch. A module inside can have this attribute, too."""
    store: Store | None = None
    """The method's own memory besides the bank, if it has one. It is saved with checkpoints piece by piece, and is no
    part of the method's `state_dict`, which is copied before every round."""

    def own_rows(self) -> list[str]:
        """Return the names of all buffers `per_image`: each process has other rows.

        All other state is the same in every process, but for running statistics of normalization layers, which are
        averaged after every round.
        """
        modules = self.named_modules()
        return [f"{where}.{name}".lstrip(".") for where, one in modules for name in getattr(one, "per_image", ())]

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        """Yield a batch for each of `steps` student steps.

        After an interruption it is called again, with the steps of the cycle that remain: where a step stands in its
        cycle is part of the state, and is never read from `steps`.
        """
        raise TypeError(f"{type(self).__name__} must define replay")

    def student_loss(self, student: nn.Module, batch: Batch) -> Tensor | StudentLoss:
        """Return the loss of one student step, with its terms by name where there are several."""
        raise TypeError(f"{type(self).__name__} must define student_loss")


class Method(Lesson):
    """One way to make images that a student can learn from. Owns what it trains, and its optimizers.

    A plug-in in `methods/` defines a frozen dataclass `Config` and a subclass called `Method`, made by
    `Method(config, parts)`. Its `state_dict` and its `store` are everything that a resumed run needs.
    """

    temperature: float = 1.0
    """Softmax temperature T of the default student loss."""
    batch: int
    """Images that one round makes, of this process."""
    uses_names: str = EMBEDDINGS
    """The part of the class names that it uses: their `embeddings`, only their `count` K, or `nothing`. Only embeddings
    make a run need a text encoder, and names. If settings decide, `Config` has a property of this name."""
    keeps: str = ""
    """The source of the student's images: the `bank`, a `live` generator, or stored `features` that one decodes, or
    two of them. By default the bank, or a live generator if the method has its own `replay`. This must be a literal,
    like the next: `nayer info` reads both without importing the method."""
    bytes_kept: int | None = None
    """Bytes that one image of 3×32×32 takes there, with the default settings; by default as an image of the bank."""
    may_quantize: bool = True
    """Whether the student may be a network with quantizers."""
    needs_student: bool = True
    """Whether rounds need the student even in warm-up. `nayer sample --model` has none. This must be a literal."""
    lends: tuple[str, ...] = ()
    """Beginnings of state names that another run of the same method may start from, such as `generator.`."""

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
        """Yield augmented samples of the bank."""
        order = self.parts.rng.on(bank.device, "replay")
        for images, labels in bank.batches(self.parts.batch_size, steps, order, self.parts.rng.device):
            yield Batch(self.parts.augment(images, self.parts.rng["augment"]), labels)

    def student_loss(self, student: nn.Module, batch: Batch) -> Tensor | StudentLoss:
        """Return KL to the teacher at temperature T, times T²."""
        return distillation_kl(self.parts.critic.logits(batch.images), student(batch.images), self.temperature)
