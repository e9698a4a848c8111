"""The only training loop. It knows `Method`, never a method; it prints nothing and asks nothing about devices."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nayer_cli.bank import MemoryBank
from nayer_cli.errors import RunFailed
from nayer_cli.method import LoopState, Method, SynthBatch
from nayer_cli.rng import Streams
from nayer_cli.student import Student

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Plan:
    """How many rounds and steps make an epoch, and how many epochs a run."""

    epochs: int
    warmup_epochs: int
    cycles: int
    rounds: int
    warmup_rounds: int
    kd_steps: int

    @property
    def total(self) -> int:
        """Epochs of the run, warm-up included."""
        return self.warmup_epochs + self.epochs

    def cycles_at(self, epoch: int) -> int:
        """Return how often synthesis and student steps alternate in this epoch."""
        return 1 if epoch < self.warmup_epochs else self.cycles

    def rounds_at(self, epoch: int) -> int:
        """Return the rounds of synthesis per cycle of this epoch."""
        return self.warmup_rounds if epoch < self.warmup_epochs else self.rounds

    def student_steps_at(self, epoch: int) -> int:
        """Student steps per cycle of this epoch."""
        return 0 if epoch < self.warmup_epochs else self.kd_steps

    def images(self, batch: int) -> int:
        """Images that the whole run synthesizes in rounds of `batch`."""
        return batch * (self.warmup_epochs * self.warmup_rounds + self.epochs * self.cycles * self.rounds)


@dataclass
class Meter:
    """Sums losses on the device, and wall-clock seconds by phase; the host reads them once an epoch."""

    seconds: dict[str, float] = field(default_factory=dict)
    _sums: dict[str, Tensor] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        """Add one value of loss `name`."""
        self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._counts[name] = self._counts.get(name, 0) + 1

    @contextmanager
    def clock(self, phase: str) -> Iterator[None]:
        """Add the time that the block takes to `phase`."""
        start = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start

    def means(self) -> dict[str, float]:
        """Return the mean of each loss since the last call, and start afresh."""
        means = {name: value.item() / self._counts[name] for name, value in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


@dataclass
class Engine:
    """A run in progress: its parts, and where it stands.

    Args:
        method, student, bank: what makes images, what learns from them, and where they are kept.
        plan: how much of what.
        rng: the bank's random generators.
        state: where the loop stands; an epoch that is not finished does not count.
        holdout: images kept from the student, to measure agreement on; one in `holdout_stride` goes there.
        after_epoch: evaluates, samples and saves; called with the engine and the epoch's record.
        listen: receives progress records.

    """

    method: Method
    student: Student
    bank: MemoryBank
    plan: Plan
    rng: Streams
    state: LoopState
    after_epoch: Callable[["Engine", dict[str, Any]], None]
    listen: Listener = lambda record: None
    holdout: MemoryBank | None = None
    holdout_stride: int = 50
    meter: Meter = field(default_factory=Meter)

    def run(self) -> None:
        """Run until the plan is fulfilled.

        Raises:
            RunFailed: a loss is not finite.

        """
        plan, state = self.plan, self.state
        while state.epoch < plan.total:
            started, before = time.perf_counter(), state.images + state.seen
            self.student.start_epoch(state.student_epoch)
            state.round = 0
            for cycle in range(plan.cycles_at(state.epoch)):
                self._synthesize(plan.rounds_at(state.epoch))
                self._teach(plan.student_steps_at(state.epoch), cycle)
            state.epoch += 1
            handled = state.images + state.seen - before
            self.after_epoch(self, self._record(time.perf_counter() - started, handled))

    def _synthesize(self, rounds: int) -> None:
        """Make images, and remember them."""
        with self.meter.clock("synthesis"), self.student.frozen() as model:
            for _ in range(rounds):
                batch = self.method.synthesize(model, self.state)
                self._remember(batch)
                self.state.round += 1
                self.state.images += len(batch.images)
                self.listen(self._progress("synthesis", self.state.round, rounds))

    def _remember(self, batch: SynthBatch) -> None:
        images, labels = batch.images, batch.labels
        for name, value in batch.losses.items():
            self.meter.add(name, value)
        if self.holdout is not None:
            # At random: labels come in class order, so that every n-th image could be of one class.
            rng, count = self.rng["holdout"], -(-len(images) // self.holdout_stride)
            order = torch.randperm(len(images), generator=rng, device=rng.device).to(images.device)
            self.holdout.add(images[order[:count]], labels[order[:count]], rng)
            images, labels = images[order[count:]], labels[order[count:]]
        self.bank.add(images, labels, self.rng["bank"])

    def _teach(self, steps: int, cycle: int) -> None:
        """Let the student learn from what was remembered."""
        done, of = cycle * steps, self.plan.cycles * steps
        with self.meter.clock("student"):
            for batch in self.method.replay(self.bank, steps) if steps else ():
                loss = self.student.step(self.method.student_loss, batch)
                self.meter.add("student", loss)
                self.state.seen += len(batch.images)
                done += 1
                self.listen(self._progress("student", done, of))

    def _progress(self, phase: str, done: int, of: int) -> dict[str, Any]:
        return {"event": "progress", "epoch": self.state.epoch + 1, "phase": phase, "done": done, "of": of}

    def _record(self, seconds: float, handled: int) -> dict[str, Any]:
        """Describe the finished epoch; here the host reads the losses, once."""
        losses = self.meter.means()
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            raise RunFailed(
                f"the loss '{bad[0]}' is not finite in epoch {self.state.epoch}",
                hint="resume from the last checkpoint with a lower learning rate, or with --amp off",
            )
        return {
            "event": "epoch",
            "epoch": self.state.epoch,
            "epochs": self.plan.total,
            "phase": "warm-up" if self.state.epoch <= self.plan.warmup_epochs else "student",
            "losses": losses,
            "images": self.state.images,
            "seen": self.state.seen,
            "seconds": seconds,
            "images_per_s": handled / seconds,
        }
