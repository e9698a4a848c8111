"""Measures, draws and saves once in a while during a run, and writes the result at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from nayer_cli.config import EvalConfig, OutputConfig
from nayer_cli.engine import Engine
from nayer_cli.errors import InputError, RunFailed
from nayer_cli.gates import Count, Gate, Limits, Pair, judge
from nayer_cli.machine import breakdown
from nayer_cli.machine.memory import peak_memory
from nayer_cli.runs import snapshot
from nayer_cli.runs.diversity import Diversity, synthesis
from nayer_cli.runs.documents import Best, Budget, Network, Quantization, Result, Scores
from nayer_cli.runs.folder import RunFolder
from nayer_cli.runs.measure import Measure
from nayer_cli.runs.pictures import draw_curves, draw_grid, newest_of_each, save_png
from nayer_cli.runs.shards import Shards
from nayer_cli.runs.stages import STAGES
from nayer_cli.storage.files import write_json
from nayer_cli.storage.runlog import RunLog, read_metrics

RESULT_FORMAT = "nayer.result/1"


@dataclass(frozen=True)
class Provenance:
    """The origin of a result."""

    kind: str
    """The command."""
    method: str
    encoder: str | None
    """The encoder of the class names, if a method used their embeddings."""
    label_names: list[str] | None


@dataclass
class Recorder:
    """Writes a run directory while the engine runs; `evaluate`, `after_epoch` and `save` are the engine's callbacks."""

    folder: RunFolder
    log: RunLog
    measure: Measure
    evaluation: EvalConfig
    output: OutputConfig
    names: Sequence[str]
    shards: dict[str, Shards]
    """Shards of the bank and of the method's store; empty for a bank of real data, which is read again instead."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Fingerprints that tell teacher, classes and data from others of the same name."""
    best: Best | None = None
    """The best top-1 over the epochs: an oracle, since choosing by it would choose on the evaluation data."""

    facts: dict[str, Any] = field(default_factory=dict)
    """Facts that a command finds during the run and reports at its end."""

    def __post_init__(self) -> None:
        """Listen to the teacher's features only where that is asked for."""
        of = self.measure
        wanted = self.evaluation.synthesis
        self.diversity = Diversity(of.teacher, of.device, of.group, of.batch_size) if wanted else None

    def evaluate(self, engine: Engine, record: dict[str, Any]) -> None:
        """Measure the student on its own stride, and always in the last epoch.

        Raises:
            Stopped: the run was asked to end.

        """
        epoch, learned = record["epoch"], engine.state.student_epoch + 1
        if learned > 0 and (engine.ends_with(epoch) or learned % self.evaluation.every == 0):
            with engine.meter.clock("evaluation"):
                record["student"] = self._measure(engine, epoch)
                if self.diversity is not None:
                    record["diversity"] = self.diversity(engine.bank, engine.kept_of_round)

    def after_epoch(self, engine: Engine, record: dict[str, Any]) -> None:
        """Write down, draw and save, each on its own stride, and always after the last epoch."""
        epoch, last = record["epoch"], engine.ends_with(record["epoch"])
        record["seconds_left"] = _seconds_left(engine, record)
        record["lr"] = float(engine.student.optimizer.param_groups[0]["lr"])
        self.log.epoch(record)
        if record["skipped"]:
            self.log.note(
                f"{record['skipped']} steps of epoch {epoch} were left out: a loss or a gradient was not finite",
                level="warning",
            )
        if self.folder.is_main and self.output.sample_every and (last or epoch % self.output.sample_every == 0):
            self._draw(engine, epoch)
        if last or epoch % self.output.save_every == 0:
            engine.checkpoint()

    def _measure(self, engine: Engine, epoch: int) -> Scores:
        scores = self.measure.student(engine.student.model)
        if "top1" in scores and (self.best is None or scores["top1"] > self.best["top1"]):
            self.best = {"top1": scores["top1"], "epoch": epoch}
        return scores

    def _draw(self, engine: Engine, epoch: int) -> None:
        bank = engine.bank
        if not self.shards or len(bank) == 0:
            return
        slots = newest_of_each(bank, 10).to(bank.device)
        grid = draw_grid(bank.images[slots].cpu(), bank.labels[slots].cpu(), self.names)
        save_png(self.folder.samples / f"epoch-{epoch:04d}.png", grid)
        self.log.picture("samples", np.asarray(grid), epoch)

    def save(self, engine: Engine) -> None:
        """Write a checkpoint: every process gives what is its own, and the main one writes."""
        own, shards = snapshot.own_state(engine, self.shards)
        parts = engine.group.gather((own, shards))
        if not parts:
            return
        check_finite(engine.student.model)
        state = snapshot.common_state(engine, [part for part, _ in parts])
        state |= {"best": self.best, "fingerprints": self.fingerprints, "facts": self.facts, "names": list(self.names)}
        needed = [shard for part, _ in parts for kind in self.shards for shard in part[kind]["shards"]]
        new = {shard: content for _, written in parts for shard, content in written.items()}
        path = self.folder.checkpoints.save(snapshot.name(engine.state), state, self.output.keep, new, needed)
        self.log({"event": "saved", "path": str(path)})

    def restore(self, engine: Engine) -> None:
        """Put the engine where the newest intact checkpoint left it, for any earlier number of processes.

        Raises:
            InputError: the plan ends before that, or teacher, classes or data are not those of the run.
            RunFailed: there is no checkpoint, or none is intact.

        """
        found = None
        if engine.group.is_main:
            found = self.folder.checkpoints.newest_valid(lambda message: self.log.note(message, level="warning"))
        state = self.folder.checkpoints.load_run(engine.group.from_main(found))
        self._check_same(state["fingerprints"])
        self._check_plan(engine, state["loop"])
        try:
            snapshot.restore(engine, state, self.shards)
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            if breakdown.explain(error):
                raise
            raise RunFailed(
                f"the checkpoint of {self.folder.path} does not fit the networks as they are made today: {error}",
                hint="resume it with the versions that run.json names, or start a new run with another --out",
            ) from error
        self.best, self.facts = state["best"], dict(state.get("facts", {}))
        self.log.rewind(engine.state.epoch)
        if self.folder.is_main:
            self.folder.checkpoints.sweep(self.output.keep)

    def _check_same(self, before: dict[str, str]) -> None:
        for what, fingerprint in self.fingerprints.items():
            if before.get(what, fingerprint) != fingerprint:
                raise InputError(
                    f"cannot resume {self.folder.path}: {what} is not the one it was started with (its content was "
                    f"{before[what]}, and is {fingerprint})",
                    hint="put the old one back to continue the run, or start a new run with another --out",
                )

    def _check_plan(self, engine: Engine, loop: dict[str, Any]) -> None:
        done, wanted = loop["epoch"] + bool(loop["round"] or loop["step"]), engine.plan.total
        if wanted is not None and done > wanted:
            raise InputError(
                f"{self.folder.path} has done {done} epochs, warm-up included, so it cannot end after {wanted}",
                hint=f"resume it with --epochs {done - engine.plan.warmup_epochs} or more",
            )

    def write_result(
        self,
        engine: Engine,
        teacher: Network | None,
        student: Network,
        *,
        scores: Scores | None = None,
        shipped: Mapping[str, Scores] | None = None,
        pairs: Sequence[Pair] = (),
        quantization: Quantization | None = None,
        about: Provenance,
    ) -> Result:
        """Measure teacher and student a last time, write `result.json` and the curves, and return the result.

        Args:
            engine: the run that is over.
            teacher: what else is known about it.
            student: likewise.
            scores: of what is kept as the student, if that is not the network that learned.
            shipped: scores of all that is kept, by stage, if that is more than the student: gates are about the worst.
            pairs: stages that should agree: a warning if they do not.
            quantization: what else `nayer quantize` reports.
            about: what the run was.

        """
        check_finite(engine.student.model)
        student = {**student, **(scores or self.measure.student(engine.student.model))}
        if teacher is not None:
            teacher = {**teacher, **self.measure.of_teacher()}
        if teacher and "top1" in teacher:
            self.log.level("teacher/top1", teacher["top1"], engine.state.epoch)
        gates = self._gates(teacher, shipped or {"": student}, pairs)
        result = self._result(engine, teacher, student, gates, self._warn(pairs), about)
        if quantization is not None:
            result["quantization"] = quantization
        if self.diversity is not None:
            records = read_metrics(self.folder.metrics) if self.folder.is_main else []
            result["synthesis"] = synthesis(engine.group.from_main(records))
        if not self.folder.is_main:
            return result
        write_json(self.folder.result, result)
        if not self._draw_curves(engine, result):
            self.log.note("curves.png is left out: matplotlib is not installed (pip install 'nayer-cli[report]')")
        return result

    def _result(
        self,
        engine: Engine,
        teacher: Network | None,
        student: Network,
        gates: list[Gate],
        warnings: list[str],
        about: Provenance,
    ) -> Result:
        return {
            "schema": RESULT_FORMAT,
            "kind": about.kind,
            "run": str(self.folder.path),
            "method": about.method,
            "encoder": about.encoder,
            "seed": engine.rng.seed,
            "teacher": teacher,
            "student": student,
            "best_oracle": self.best,
            "images": {"synthesized": engine.state.images, "seen": engine.state.seen},
            "processes": engine.group.size,
            "budget": _of_budget(engine),
            "seconds": _with_total(engine.meter.seconds),
            "processor_seconds": _with_total(engine.meter.processor_seconds),
            "peak_memory": peak_memory(),
            "gates": gates,
            "passed": all(gate["passed"] for gate in gates),
            "warnings": warnings,
            "label_names": about.label_names,
        }

    def _warn(self, pairs: Sequence[Pair]) -> list[str]:
        """Say which stages do not agree, and return what was said."""
        warnings = [_disagreement(pair) for pair in pairs if not pair.agrees]
        for warning in warnings:
            self.log.note(warning, level="warning")
        return warnings

    def _draw_curves(self, engine: Engine, result: Result) -> bool:
        teacher, student = result["teacher"], result["student"]
        networks = f"{teacher['name']} → {student['name']}" if teacher else student["name"]
        return draw_curves(
            self.folder.curves,
            read_metrics(self.folder.metrics),
            title=f"{networks}, {result['method']}",
            teacher=teacher.get("top1") if teacher else None,
            warmup_epochs=engine.plan.warmup_epochs,
        )

    def _gates(self, teacher: Network | None, shipped: Mapping[str, Scores], pairs: Sequence[Pair]) -> list[Gate]:
        limits = Limits(self.evaluation.min_top1, self.evaluation.max_drop)
        if not limits:
            return []
        counts = {stage: Count.of(scores) for stage, scores in shipped.items()}
        return judge(counts, Count.of(teacher) if teacher and teacher.get("n") else None, limits, pairs)


def _with_total(seconds: Mapping[str, float]) -> dict[str, float]:
    return {**seconds, "total": sum(seconds.values())}


def _of_budget(engine: Engine) -> Budget | None:
    budget = engine.plan.budget
    if budget is None:
        return None
    return {"text": budget.text, "counts": budget.counts, "amount": budget.amount, "used": engine.used()}


def _seconds_left(engine: Engine, record: Mapping[str, Any]) -> float:
    """Estimate the seconds left; 0 if nothing is known."""
    if engine.plan.total is not None:
        return float(record["seconds"] * (engine.plan.total - record["epoch"]))
    spent = engine.state.spent
    return sum(engine.meter.seconds.values()) * (1 / spent - 1) if 0 < spent < 1 else 0.0


def _disagreement(pair: Pair) -> str:
    one, other = STAGES[pair.reference], STAGES[pair.stage]
    return (
        f"'{one}' and '{other}' give the same class on only {pair.same.hits:,} of {pair.same.n:,} images: "
        f"at least {100 * pair.least:g} % is required"
    )


def check_finite(model: nn.Module) -> None:
    """Refuse to keep a student that is broken: what was saved before is better.

    Raises:
        RunFailed: a weight or a statistic is not finite.

    """
    values = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    finite = torch.stack([value.isfinite().all() for value in values.values()]).tolist() if values else []
    bad = [name for name, is_finite in zip(values, finite, strict=True) if not is_finite]
    if bad:
        raise RunFailed(
            f"the student has values that are not finite, in {len(bad)} of its tensors, the first '{bad[0]}'",
            hint="start again with a lower learning rate or with --amp off; the last good checkpoint is kept",
        )
