"""What happens once in a while during a run: measure, draw, save; and the result at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nayer_cli.bankstore import BankStore
from nayer_cli.config import EvalConfig, OutputConfig
from nayer_cli.engine import Engine
from nayer_cli.errors import InputError
from nayer_cli.files import write_json
from nayer_cli.runlog import RunLog, read_metrics
from nayer_cli.runs.folder import RunFolder
from nayer_cli.runs.measure import Measure
from nayer_cli.runs.pictures import draw_curves, draw_grid, newest_of_each, save_png

RESULT_FORMAT = "nayer.result/1"


@dataclass
class Recorder:
    """Writes a run directory while the engine runs; `after_epoch` is the engine's callback."""

    folder: RunFolder
    log: RunLog
    measure: Measure
    evaluation: EvalConfig
    output: OutputConfig
    names: Sequence[str]
    store: BankStore | None
    """Where the bank is kept; None for a bank of real data, which is read again instead."""
    best: dict[str, Any] = field(default_factory=dict)
    """The best top-1 over the epochs: an oracle, since choosing by it would choose on the evaluation data."""

    def after_epoch(self, engine: Engine, record: dict[str, Any]) -> None:
        """Measure, draw and save, each on its own stride, and always after the last epoch."""
        epoch, last = record["epoch"], record["epoch"] == engine.plan.total
        learned = engine.state.student_epoch
        if learned > 0 and (last or learned % self.evaluation.every == 0):
            with engine.meter.clock("evaluation"):
                record["student"] = self._measure(engine, epoch)
        record["seconds_left"] = record["seconds"] * (engine.plan.total - epoch)
        self.log.epoch(record)
        if self.output.sample_every and (last or epoch % self.output.sample_every == 0):
            self._draw(engine, epoch)
        if last or epoch % self.output.save_every == 0:
            with engine.meter.clock("saving"):
                self.save(engine)

    def _measure(self, engine: Engine, epoch: int) -> dict[str, Any]:
        scores = self.measure.student(engine.student.model)
        if scores.get("top1", -1.0) > self.best.get("top1", -1.0):
            self.best = {"top1": scores["top1"], "epoch": epoch}
        return scores

    def _draw(self, engine: Engine, epoch: int) -> None:
        bank = engine.bank
        if self.store is None or len(bank) == 0:
            return
        slots = newest_of_each(bank.labels[: len(bank)], 10, bank.added, bank.capacity).to(bank.labels.device)
        grid = draw_grid(bank.images[slots].cpu(), bank.labels[slots].cpu(), self.names)
        save_png(self.folder.samples / f"epoch-{epoch:04d}.png", grid)

    def save(self, engine: Engine) -> None:
        """Write a checkpoint: first the bank's new shard, then the state that names it."""
        state = {
            "loop": vars(engine.state),
            "student": engine.student.state_dict(),
            "method": engine.method.state_dict(),
            "rng": engine.rng.state_dict(),
            "bank": self.store.save() if self.store else None,
            "holdout": engine.holdout.state_dict() if engine.holdout is not None else None,
            "seconds": engine.meter.seconds,
            "best": self.best,
        }
        path = self.folder.save_checkpoint(engine.state.epoch, state, self.output.keep)
        if self.store:
            self.store.prune(self.folder.shards())
        self.log({"event": "saved", "path": str(path)})

    def restore(self, engine: Engine) -> None:
        """Put the engine where the newest checkpoint left it.

        Raises:
            InputError: the plan ends before that.
            RunFailed: there is no checkpoint, or it is damaged.

        """
        state = self.folder.load_checkpoint()
        done, wanted = state["loop"]["epoch"], engine.plan.total
        if done > wanted:
            raise InputError(
                f"{self.folder.path} has done {done} epochs, warm-up included, and cannot end after {wanted}",
                hint=f"resume it with --epochs {done - engine.plan.warmup_epochs} or more",
            )
        vars(engine.state).update(state["loop"])
        engine.student.load_state_dict(state["student"])
        engine.method.load_state_dict(state["method"])
        engine.rng.load_state_dict(state["rng"])
        engine.meter.seconds = dict(state["seconds"])
        self.best = dict(state["best"])
        if self.store:
            self.store.load(state["bank"])
        if engine.holdout is not None and state["holdout"] is not None:
            engine.holdout.load_state_dict(state["holdout"])
        self.log.rewind(engine.state.epoch)

    def finish(self, engine: Engine, method: str, teacher: dict[str, Any], student: dict[str, Any]) -> dict[str, Any]:
        """Measure teacher and student a last time, write `result.json` and the curves, and return the result."""
        student |= self.measure.student(engine.student.model)
        teacher |= self.measure.of_teacher()
        gates = self._gates(teacher, student)
        result = {
            "schema": RESULT_FORMAT,
            "run": str(self.folder.path),
            "method": method,
            "seed": engine.rng.seed,
            "teacher": teacher or None,
            "student": student,
            "best_oracle": self.best or None,
            "images": {"synthesized": engine.state.images, "seen": engine.state.seen},
            "seconds": {**engine.meter.seconds, "total": sum(engine.meter.seconds.values())},
            "gates": gates,
            "passed": all(gate["passed"] for gate in gates),
        }
        write_json(self.folder.result, result)
        if not draw_curves(self.folder.curves, read_metrics(self.folder.metrics)):
            self.log.note("curves.png is left out: matplotlib is not installed (pip install 'nayer-cli[report]')")
        return result

    def _gates(self, teacher: dict[str, Any], student: dict[str, Any]) -> list[dict[str, Any]]:
        gates = []
        if self.evaluation.min_top1 is not None:
            gates.append(_gate("top1", ">=", self.evaluation.min_top1, student["top1"]))
        if self.evaluation.max_drop is not None:
            gates.append(_gate("drop", "<=", self.evaluation.max_drop, teacher["top1"] - student["top1"]))
        return gates


def _gate(metric: str, op: str, threshold: float, value: float) -> dict[str, Any]:
    passed = value >= threshold if op == ">=" else value <= threshold
    return {"metric": metric, "op": op, "threshold": threshold, "value": value, "passed": passed}
