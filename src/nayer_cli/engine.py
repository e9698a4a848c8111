"""The only training loop. It knows `Method`, never a method; it prints nothing and asks nothing about devices."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from nayer_cli.bank import MemoryBank
from nayer_cli.budget import FLOP, IMAGES, SECONDS, Budget
from nayer_cli.errors import Interrupted, RunFailed
from nayer_cli.machine.distributed import Group
from nayer_cli.machine.interruption import Interruption, Stopped
from nayer_cli.machine.operations import OperationCounter
from nayer_cli.machine.rng import Streams
from nayer_cli.meter import Meter
from nayer_cli.method import Lesson, LoopState, Method, SynthBatch
from nayer_cli.student import Student
from nayer_cli.synthesis import steps_until

Listener = Callable[[dict[str, Any]], None]

CHECK_STRIDE = 100
"""Student steps between two looks at how many were left out."""
CONVERGED = 0.1
"""Cross-entropy below which a round has converged (NAYER, Table 4)."""
SHARE = 10**12
"""Number of parts of a budget: processes compare how many are used."""
COOLER = "start again with a lower learning rate or with --amp off; the last good checkpoint is kept"


@dataclass(frozen=True)
class Plan:
    """The numbers of rounds and steps in an epoch, and of epochs in a run. They are the same in every process."""

    epochs: int
    warmup_epochs: int
    cycles: int
    rounds: int
    warmup_rounds: int
    kd_steps: int
    max_skipped: int = 20
    budget: Budget | None = None
    """Ends the run instead of `epochs`, in the middle of an epoch if necessary."""

    @property
    def total(self) -> int | None:
        """Epochs of the run, warm-up included; None where a budget ends it."""
        return None if self.budget else self.warmup_epochs + self.epochs

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
        """Images that a process synthesizes in `epochs`, in rounds of `batch`."""
        return batch * (self.warmup_epochs * self.warmup_rounds + self.epochs * self.cycles * self.rounds)


@dataclass
class Engine:
    """A run in progress: its parts, and where it stands.

    Args:
        method, student, bank: what makes images, what learns from them, and where they are kept.
        plan: how much of what.
        rng: the random generators of this process.
        state: where the loop stands.
        evaluate: measures; called at the end of an epoch, with the engine and the epoch's record.
        after_epoch: writes down, draws and saves; called likewise once the epoch is over.
        before_learning: called with the engine before the first student step, when there are images.
        save: writes a checkpoint; called with the engine, between two steps.
        save_seconds: how long an epoch may take before a checkpoint is written inside it.
        listen: receives progress records.
        holdout: images kept from the student, to measure agreement on; one in `holdout_stride` goes there.
        group: the processes that share the run.
        interruption: whether it was asked to end.
        counts_steps: whether records say after how many of its steps a round has converged.

    """

    method: Lesson
    student: Student
    bank: MemoryBank
    plan: Plan
    rng: Streams
    state: LoopState
    evaluate: Callable[["Engine", dict[str, Any]], None]
    after_epoch: Callable[["Engine", dict[str, Any]], None]
    before_learning: Callable[["Engine"], None] = lambda engine: None
    save: Callable[["Engine"], None] = lambda engine: None
    save_seconds: float = float("inf")
    listen: Listener = lambda record: None
    holdout: MemoryBank | None = None
    holdout_stride: int = 50
    group: Group = field(default_factory=Group)
    interruption: Interruption = field(default_factory=lambda: Interruption(Group()))
    counts_steps: bool = False
    meter: Meter = field(default_factory=Meter)
    saved_at: float = field(default_factory=time.monotonic)
    read_of_student: float = 0.0
    """Student steps of this process that were left out, as far as the host knows."""
    operations: OperationCounter = field(default_factory=OperationCounter)

    def run(self) -> None:
        """Run until the plan is fulfilled.

        Raises:
            Interrupted: a signal asked for it; a checkpoint is written.
            RunFailed: too many losses were not finite, or the budget was used up before the student learned.

        """
        with self.interruption.listening():
            self._spend()
            while self.state.is_inside_epoch or not self.ends_with(self.state.epoch):
                self._epoch()
            self._pause()

    def ends_with(self, epoch: int) -> bool:
        """Say whether the run is over after `epoch` epochs, the last of which may be cut short."""
        return self.is_spent if self.plan.total is None else epoch >= self.plan.total

    @property
    def is_spent(self) -> bool:
        """Whether there is a budget, and nothing is left of it."""
        return self.plan.budget is not None and self.state.spent >= 1

    def _epoch(self) -> None:
        plan, state = self.plan, self.state
        started, before = time.perf_counter(), state.images + state.seen
        self._pause()
        self.student.anneal(self._learned())
        while state.cycle < plan.cycles_at(state.epoch) and not self.is_spent:
            self._synthesize(until=(state.cycle + 1) * plan.rounds_at(state.epoch))
            self._teach(until=(state.cycle + 1) * plan.student_steps_at(state.epoch))
            state.cycle += 1
        record = self._record(time.perf_counter() - started, state.images + state.seen - before)
        self._check_progress()
        try:
            self.evaluate(self, record)
        except Stopped:
            self._pause()
        self.meter.start_epoch()
        state.start_epoch()
        self.after_epoch(self, record)

    def _synthesize(self, until: int) -> None:
        """Make images, and remember them."""
        with self.meter.clock("synthesis"), self.student.frozen() as model:
            while self.state.round < until and not self.is_spent:
                batch = self._round(model)
                if batch is not None:
                    self._remember(batch)
                    self.state.round += 1
                    self.listen(self._progress("synthesis", self.state.round, until))
                self._pause()

    def _round(self, model: nn.Module) -> SynthBatch | None:
        """Make one round; None if it was given up, and everything is as it was before."""
        assert isinstance(self.method, Method)  # a lesson from real images has no rounds
        before = deepcopy((self.method.state_dict(), self.rng.state_dict(), list(model.buffers())))
        try:
            with self._counting():
                batch = self.method.synthesize(model, self.state)
        except Stopped:
            self.operations.take()
            of_method, of_rng, buffers = before
            self.method.load_state_dict(of_method)
            self.rng.load_state_dict(of_rng)
            for buffer, old in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(old)
            return None
        self.group.average_statistics(self.method)
        return batch

    def _remember(self, batch: SynthBatch) -> None:
        for name, value in batch.losses.items():
            self.meter.add(name, value)
        if self.counts_steps and batch.course:
            self._watch(batch.course)
        is_sound = torch.stack(list(batch.losses.values())).isfinite().all()
        skipped = torch.zeros_like(self._unread) if batch.skipped is None else batch.skipped
        # The one time in a round that the host waits for the device.
        of_round, of_student, sound = torch.stack([skipped, self._unread, is_sound]).tolist()
        self._count_of_student(of_student)
        self._count_skipped(of_round, f"round {self.state.round + 1}")
        self.state.images += len(batch.images) * self.group.size
        if sound and of_round != batch.steps:
            self.keep(batch.images, batch.labels)
            if self.method.store is not None and batch.rows is not None:
                self.method.store.push(batch.rows)
        else:
            self.state.failed_rounds += 1

    def _watch(self, course: Sequence[Tensor]) -> None:
        """Note after how many steps a round has converged; the host reads it with the losses of the epoch."""
        steps = steps_until(course, CONVERGED)
        self.meter.add("convergence.share", steps.isfinite().float())
        self.meter.add("convergence.steps", steps)  # not finite where it has not: left out of the mean
        self.meter.add("convergence.bounded", steps.nan_to_num(len(course) + 1.0))

    def keep(self, images: Tensor, labels: Tensor) -> None:
        """Put images `[B, C, H, W]` in [0, 1] with labels `[B]` into the bank, except some that are held back."""
        if self.holdout is not None:
            # At random: labels come in class order, so that every n-th image could be of one class.
            rng, count = self.rng["holdout"], -(-len(images) // self.holdout_stride)
            order = torch.randperm(len(images), generator=rng, device=rng.device)
            self.holdout.add(images[order[:count]], labels[order[:count]], self.rng.on("cpu", "bank"))
            images, labels = images[order[count:]], labels[order[count:]]
        self.bank.add(images, labels, self.rng.on("cpu", "bank"))

    @property
    def kept_of_round(self) -> int:
        """Images of a round that go to the bank of this process; 0 where no round makes any."""
        batch = self.method.batch if isinstance(self.method, Method) else 0
        return batch if self.holdout is None else batch - -(-batch // self.holdout_stride)

    def _teach(self, until: int) -> None:
        """Let the student learn from what was remembered."""
        state = self.state
        if state.step == until or self.is_spent:
            return
        if len(self.bank) == 0:
            self._give_up("no image could be made")
        if state.seen == 0:
            self.before_learning(self)
            state.spent_before = state.spent
        with self.meter.clock("student"), self._counting():
            for batch in self.method.replay(self.bank, until - state.step):
                if self.plan.budget:
                    self.student.anneal(self._learned())
                for name, loss in self.student.step(self.method.student_loss, batch).items():
                    self.meter.add(name, loss)
                state.seen += len(batch) * self.group.size
                state.step += 1
                self.listen(self._progress("student", state.step, self.plan.cycles * self.plan.kd_steps))
                if state.step % CHECK_STRIDE == 0:
                    self._count_of_student(self._unread.item())
                self._pause()
                if self.is_spent:
                    break
        self.student.average_statistics()

    @property
    def _unread(self) -> Tensor:
        """Student steps that were left out since the host last read how many, 0-dimensional, on the device."""
        return self.student.descent.skipped - self.read_of_student

    def _count_of_student(self, count: float) -> None:
        """Count what the host has read of `_unread`."""
        self.read_of_student += count
        self.state.failed_steps += self._count_skipped(count, f"step {self.state.step}")

    def _count_skipped(self, count: float, where: str) -> int:
        """Count steps that were left out, and return how many there are of any process.

        Raises:
            RunFailed: there are more than the plan allows.

        """
        skipped = self.group.largest(int(count))
        self.state.skipped += skipped
        if self.state.skipped > self.plan.max_skipped:
            raise RunFailed(
                f"losses or gradients are not finite: {self.state.skipped} steps of epoch {self.state.epoch + 1} were "
                f"left out by {where}, and {self.plan.max_skipped} are allowed",
                hint=COOLER,
            )
        return skipped

    def _check_progress(self) -> None:
        """Refuse an epoch in which nothing was learned, however many steps may be left out."""
        state = self.state
        if self.is_spent and not state.seen:
            raise RunFailed(
                "the budget was used up before the student began to learn",
                hint="give a larger --budget, or a shorter warm-up: --set schedule.warmup_epochs=0",
            )
        failed_rounds = self.group.largest(state.failed_rounds)
        if state.step and state.failed_steps >= state.step:
            self._give_up(f"not one of the student's {state.step} steps was taken")
        if state.round and failed_rounds >= state.round:
            self._give_up(f"no image could be made in {state.round} rounds")

    def _give_up(self, why: str) -> NoReturn:
        raise RunFailed(f"{why} in epoch {self.state.epoch + 1}: losses or gradients were not finite", hint=COOLER)

    def _pause(self) -> None:
        """Between two steps: see what is left, save if it is time, and end here if the run was asked to."""
        self._spend()
        due = int(time.monotonic() - self.saved_at > self.save_seconds)
        signal = self.interruption.asked(other=due)
        if signal:
            self._count_of_student(self._unread.item())  # a run that goes on from here counts from 0
            self.checkpoint()
        if signal > 1:
            self.group.largest(0)  # once one process ends, its launcher ends all: not while the main one still writes
            raise Interrupted(signal)

    def _spend(self) -> None:
        """Find out which share of the budget is used up; the processes agree on the largest."""
        if self.plan.budget:
            self.state.flop += self.operations.take() * self.group.size
            share = self.used() / self.plan.budget.amount
            self.state.spent = self.group.largest(int(share * SHARE)) / SHARE

    def used(self) -> float:
        """Return how much of the budget is used, in its own unit."""
        counts = self.plan.budget.counts if self.plan.budget else SECONDS
        if counts in (IMAGES, FLOP):
            return self.state.seen if counts == IMAGES else self.state.flop
        self.meter.lap()
        seconds, of_processors = self.meter.worked()
        return seconds if counts == SECONDS else of_processors

    def _learned(self) -> float:
        """Return which share of its learning the student has done."""
        state = self.state
        if self.plan.budget:
            return (state.spent - state.spent_before) / (1 - state.spent_before)
        return state.student_epoch / max(self.plan.epochs, 1)

    def _counting(self) -> AbstractContextManager[object]:
        """Within the block operations are counted, if the budget is one of operations."""
        is_counted = self.plan.budget is not None and self.plan.budget.counts == FLOP
        return self.operations if is_counted else nullcontext()

    def checkpoint(self) -> None:
        """Write a checkpoint now."""
        with self.meter.clock("saving"):
            self.save(self)
        self.saved_at = time.monotonic()

    def _progress(self, phase: str, done: int, of: int) -> dict[str, Any]:
        about = {"event": "progress", "epoch": self.state.epoch + 1, "phase": phase, "done": done, "of": of}
        return about | ({"spent": self.state.spent} if self.plan.budget else {})

    def _record(self, seconds: float, handled: int) -> dict[str, Any]:
        """Describe the finished epoch; here the host waits for the device, once."""
        state = self.state
        losses, skipped = self.meter.read(self.group, self._unread)
        self._count_of_student(skipped)
        worked, of_processors = self.meter.worked()
        return {
            "event": "epoch",
            "epoch": state.epoch + 1,
            "epochs": self.plan.total,
            "phase": "warm-up" if state.warming_up else "student",
            "losses": losses,
            "skipped": state.skipped,
            "images": state.images,
            "seen": state.seen,
            "seconds": seconds,
            "images_per_s": handled / seconds,
            **self._convergence(losses),
            "worked": worked,
            "worked_processor": of_processors,
            **({"spent": state.spent} if self.plan.budget else {}),
        }

    def _convergence(self, losses: dict[str, float]) -> dict[str, Any]:
        """Take what `_watch` noted out of the means of the epoch."""
        found = {name: losses.pop(f"convergence.{name}", None) for name in ("share", "steps", "bounded")}
        return {} if found["share"] is None else {"convergence": {"rounds": self.state.round, **found}}
