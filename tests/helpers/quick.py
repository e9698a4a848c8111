"""Runs of seconds: the digits preset cut down, and a way to interrupt one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nayer_cli.runlog import read_metrics
from nayer_cli.runs.folder import RunFolder

QUICK: dict[str, Any] = {
    "preset": "digits",
    "device": "cpu",
    "amp": "off",
    "lte.encoder": "random",
    "schedule.epochs": 2,
    "schedule.warmup_epochs": 1,
    "schedule.warmup_rounds": 1,
    "schedule.rounds": 1,
    "schedule.kd_steps": 3,
    "schedule.batch_size": 16,
}
OF_METHOD: dict[str, dict[str, Any]] = {
    "nayer": {"method.batch": 20, "method.g_steps": 2, "method.width": 4, "method.code_size": 16},
    "deepinv": {"method.batch": 20, "method.g_steps": 2},
    "zskt": {"method.width": 4, "method.code_size": 16, "schedule.cycles": 2},
}
TIMES = ("seconds", "seconds_left", "images_per_s")


def quick(folder: Path, changes: dict[str, Any] | None = None, method: str = "nayer") -> dict[str, Any]:
    """Settings of a run in `folder`/run with a cache of its own; a change to None takes a setting out."""
    own = {"method.name": method, "lte.cache_dir": str(folder / "cache"), "output.out": str(folder / "run")}
    return {**QUICK, **OF_METHOD[method], **own, **(changes or {})}


class StopError(Exception):
    """Ends a run from outside."""


def stop_at(epoch: int, phase: str, done: int, error: BaseException | None = None) -> Callable[[dict[str, Any]], None]:
    """A listener that raises when `done` rounds or steps of an epoch are done."""

    def listen(record: dict[str, Any]) -> None:
        if [record.get(key) for key in ("epoch", "phase", "done")] == [epoch, phase, done]:
            raise error or StopError

    return listen


def checkpoint(run: Path) -> dict[str, Any]:
    """The newest checkpoint of a run, without times."""
    state = RunFolder(run).checkpoints.load()
    return {key: value for key, value in state.items() if key not in TIMES}


def metrics(run: Path) -> list[dict[str, Any]]:
    """What a run wrote down of every epoch, without times."""
    return [{k: v for k, v in record.items() if k not in TIMES} for record in read_metrics(run / "metrics.jsonl")]


def same(a: Any, b: Any) -> bool:
    """Whether two trees of dictionaries, lists, tensors and numbers are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
