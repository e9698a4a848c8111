"""Runs of seconds: the digits preset cut down, and a way to interrupt one."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nayer_cli import config
from nayer_cli.images.datasets import digits
from nayer_cli.runs.folder import RunFolder
from nayer_cli.runs.shards import open_bank
from nayer_cli.storage.runlog import read_metrics
from nayer_cli.storage.toml import read_file

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
    "spaceship": {"method.batch": 20, "method.g_steps": 2, "method.width": 4, "method.code_size": 16},
    "cmi": {"method.batch": 20, "method.g_steps": 2, "method.width": 4, "method.code_size": 16},
    "fm": {"method.batch": 20, "method.g_steps": 2, "method.width": 4, "method.code_size": 16},
    "zeroq": {"method.batch": 20, "method.g_steps": 2},
    "dfq": {"method.width": 4, "method.code_size": 16, "schedule.cycles": 2},
    "pre-dfkd": {"method.width": 4, "method.code_size": 16, "schedule.cycles": 2},
    "mb-dfkd": {"method.width": 4, "method.code_size": 16, "schedule.cycles": 2},
    "kakr": {"method.width": 4, "method.code_size": 16, "schedule.cycles": 2},
    "mad": {"method.width": 4, "method.code_size": 16, "method.conditional": "on", "schedule.cycles": 2},
    "zaq": {"method.width": 4, "method.code_size": 16, "schedule.cycles": 2},
    "zskt": {"method.width": 4, "method.code_size": 16, "schedule.cycles": 2},
}
WITHOUT_DATA: dict[str, Any] = {
    "preset": "cifar10",
    "teacher.name": "builtin:digits",
    "student.name": "resnet8_digits",
}
"""Changes after which there is nothing to measure on: digits are known, but not as what they are."""
TIMES = ("seconds", "processor_seconds", "seconds_left", "images_per_s", "worked", "worked_processor")


TIMED = ("run", "seconds", "processor_seconds", "peak_memory")
"""What differs in the results of two runs of the same."""


def quick(folder: Path, changes: dict[str, Any] | None = None, method: str = "nayer") -> dict[str, Any]:
    """Settings of a run in `folder`/run with a cache of its own; a change to None takes a setting out."""
    own = {"method.name": method, "lte.cache_dir": str(folder / "cache"), "output.out": str(folder / "run")}
    return {**QUICK, **OF_METHOD[method], **own, **(changes or {})}


def command(settings: dict[str, Any], *options: str) -> list[str]:
    """The command line of `nayer distill` with these settings."""
    given = [f"{key}={json.dumps(value)}" for key, value in settings.items() if value is not None]
    return ["distill", *options, *(word for assignment in given for word in ("--set", assignment))]


def few_images(folder: Path, count: int = 40) -> str:
    """A file of evaluation data that is soon gone through: images of noise, labelled like digits."""
    rng, path = np.random.default_rng(0), folder / "few.npz"
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    images = rng.integers(0, 256, (count, 16, 16, 1), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(count) % 10, class_names=names)
    return str(path)


def few_digits(folder: Path, count: int = 100) -> str:
    """A file of real digits, for what must be right about some of them."""
    images, labels = digits.load("validation")
    path = folder / "digits.npz"
    np.savez(path, images=images[:count], labels=labels[:count], class_names=digits.FACTS.class_names)
    return str(path)


def write(command: str, settings: dict[str, Any]) -> list[str]:
    """Write settings to a file; return the words that start a run with them, or go on with it."""
    out, places = Path(settings["output.out"]), ("output.out", "lte.cache_dir")  # which no file may name
    path = out.with_name("settings.toml")
    path.write_text(config.to_toml({k: v for k, v in settings.items() if v is not None and k not in places}))
    cache = ["--set", f"lte.cache_dir={settings['lte.cache_dir']}"] if settings.get("lte.cache_dir") else []
    return [command, "--config", str(path), "--out", str(out), "--resume", "auto", *cache]


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


def bank(run: Path) -> list[dict[str, Any]]:
    """What the bank of each process held when a run ended."""
    parts = checkpoint(run)["processes"]
    return [open_bank(run / "checkpoints/bank", part["bank"]).state_dict() for part in parts]


def outcome(run: Path) -> dict[str, Any]:
    """All that a run which has ended made, without times and places; how its shards are cut does not matter."""
    result = json.loads((run / "result.json").read_text())
    state = checkpoint(run)
    for part in state["processes"]:
        del part["bank"]["shards"]
    files = [*run.glob("student/*"), *run.glob("samples/*"), *run.glob("*.png"), *run.glob("lte.safetensors")]
    settings = read_file(run / "config.toml")
    return {
        "result": {key: value for key, value in result.items() if key not in TIMED},
        "metrics": metrics(run),
        "state": state,
        "bank": bank(run),
        "config": {key: value for key, value in settings.items() if key not in ("lte.cache_dir", "eval.data")},
        "files": {str(file.relative_to(run)): file.read_bytes() for file in files},
    }


EXPECTED = re.compile(
    r"\.lock|(config|settings)\.toml|(run|result|config)\.json|metrics\.jsonl|lte\.safetensors|model\.(onnx|safetensors)"
    r"|curves\.png|bank(-\d{4})?\.mmap|README\.md|epoch-\d{4}\.png|epoch-\d{6}(-\d{6}-\d{9})?\.(json|safetensors)"
    r"|(shard|rows)-\d{4}-of-\d{4}-\d{12}\.safetensors|few\.npz|[0-9a-f]{64}\.safetensors"
)
"""Names of all files that a run is meant to leave, of its cache and of its data."""


def leftovers(folder: Path) -> list[Path]:
    """Files anywhere below a folder that no run is meant to leave, whatever they are called."""
    return [path for path in folder.rglob("*") if not path.is_dir() and not EXPECTED.fullmatch(path.name)]


def differences(a: Any, b: Any, path: str = "") -> Iterator[str]:
    """Where two trees of dictionaries, lists, tensors and other values differ, be it by one bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            yield from differences(a.get(key, "absent"), b.get(key, "absent"), f"{path}/{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{path}/{i}")
    elif not same(a, b):
        yield path


def same(a: Any, b: Any) -> bool:
    """Whether two trees of dictionaries, lists, tensors and numbers are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
