"""`kill -9` at every change that a run makes on disk: the same command ends with the same bits, and nothing is left.

One run for each change: the process ends just before it, and of a write also when half of it is written.
"""

import json
import re
import signal
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from changes import AtChange, Moment, Tally, read_report
from children import Done, run
from nayer_cli.storage.checkpoint import load_state, read_manifest
from quick import OF_METHOD, QUICK, TIMED, TIMES, few_images, metrics, same

SMALL = {
    **QUICK, **OF_METHOD["nayer"], "schedule.epochs": 1, "schedule.kd_steps": 2, "schedule.batch_size": 4,
    "method.batch": 4, "output.save_minutes": 0, "output.keep": 1, "eval.every": 1,
}  # fmt: skip
COMMANDS: dict[str, dict[str, Any]] = {
    "distill": {**SMALL, "bank.place": "disk", "output.sample_every": 1},
    "train": {
        "student.name": "resnet8_digits", "device": "cpu", "amp": "off", "schedule.epochs": 2, "schedule.batch_size": 6,
        "output.save_minutes": 0, "output.keep": 1,
    },
    "quantize": {**SMALL, "teacher.name": "builtin:digits", "quantizer.bits": "w4a4", "quantizer.images": 4,
                 "output.sample_every": 0, "student.name": None},
}  # fmt: skip
PARTS = 6
SOME = 5
"""Moments of each command that are tried where all would take too long."""
PAGE = Path(__file__).parents[2] / "docs/concepts/reliability.md"


class Whole(NamedTuple):
    """A run that was not disturbed."""

    words: list[str]
    made: dict[str, Any]
    tally: Tally
    done: Done


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a run of each command makes; each is carried out once."""

    @cache
    def carried_out(command: str) -> Whole:
        folder = tmp_path_factory.mktemp(command)
        data = few_images(folder, 10)
        own = {"data": data} if command == "train" else {"eval.data": data, "lte.cache_dir": str(folder / "cache")}
        given = {key: json.dumps(value) for key, value in (COMMANDS[command] | own).items() if value is not None}
        words = [command, "--quiet", *(word for key, text in given.items() for word in ("--set", f"{key}={text}"))]
        done = run(in_folder(words, folder), AtChange(folder / "run", report=folder / "tally.json"))
        assert done.code == 0, done.err
        return Whole(words, made(folder / "run"), read_report(folder / "tally.json"), done)

    return carried_out


def in_folder(words: list[str], folder: Path) -> list[str]:
    return [*words, "--out", str(folder / "run"), "--resume", "auto"]


def made(run_path: Path) -> dict[str, Any]:
    """Every file and folder of a run, whatever it is called, with its content but for times and places."""
    return {str(path.relative_to(run_path)): _content(path) for path in sorted(run_path.rglob("*"))}


def _content(path: Path) -> Any:
    if path.is_dir():
        return "a folder"
    if path.name in ("run.json", ".lock"):  # who started it, and when
        return "a file"
    if path.name == "metrics.jsonl":
        return metrics(path.parent)
    if path.name == "result.json":
        document = json.loads(path.read_text())
        quantization = document.get("quantization") or {}
        (quantization.get("onnx") or {}).pop("path", None)
        return {key: value for key, value in document.items() if key not in TIMED}
    if re.fullmatch(r"epoch-[\d-]+\.safetensors", path.name):
        return {key: value for key, value in load_state(path).items() if key not in TIMES}
    if re.fullmatch(r"epoch-[\d-]+\.json", path.name):
        return sorted(read_manifest(path))
    return path.read_bytes()


def killed(whole: Whole, folder: Path, *moments: Moment) -> str:
    """Kill a run at each moment in turn, let the same command end it; return what differs from the undisturbed one."""
    folder.mkdir()
    where = f"{moments} ({whole.tally.changes[moments[0].number - 1]})"
    for moment in moments:
        first = run(in_folder(whole.words, folder), AtChange(folder / "run", moment))
        if first.code != -signal.SIGKILL:
            return f"{where}: was not killed, {first.err}"
    last = run(in_folder(whole.words, folder))
    if last.code:
        return f"{where}: {last.err}"
    found, wanted = made(folder / "run"), whole.made
    names = sorted({*found, *wanted})
    different = [name for name in names if not same(found.get(name, "absent"), wanted.get(name, "absent"))]
    return f"{where}: {different}" if different else ""


def survives(whole: Whole, folder: Path, cases: Sequence[Sequence[Moment]]) -> None:
    """Every case of moments at which a run is killed ends like the undisturbed run; each is an own run."""
    assert cases
    assert [wrong for k, moments in enumerate(cases) if (wrong := killed(whole, folder / str(k), *moments))] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_byte_that_a_run_writes_is_seen(command: str, whole: Any) -> None:
    made, tally, done = whole(command).made, whole(command).tally, whole(command).done
    printed = len(done.out.encode()) + len(done.err.encode())
    # ONNX Runtime writes the graph as it runs it into the system's temporary folder, to count its integer layers.
    elsewhere = len(made.get("model.onnx", b""))
    assert 0 <= tally.counted - tally.bytes - printed < elsewhere + 64  # a thread that is woken costs 8 bytes


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_some_of_its_changes(command: str, whole: Any, tmp_path: Path) -> None:
    moments = whole(command).tally.moments()
    survives(whole(command), tmp_path, [(moment,) for moment in moments[:: -(-len(moments) // SOME)]])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_every_one_of_its_changes(command: str, part: int, whole: Any, tmp_path: Path) -> None:
    survives(whole(command), tmp_path, [(moment,) for moment in whole(command).tally.moments()[part::PARTS]])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_killed_again_while_it_goes_on(part: int, whole: Any, tmp_path: Path) -> None:
    moments = whole("distill").tally.moments()
    middle = moments[len(moments) // 2]
    (tmp_path / "again").mkdir()
    words = in_folder(whole("distill").words, tmp_path / "again")
    run(words, AtChange(tmp_path / "again/run", middle))
    assert run(words, AtChange(tmp_path / "again/run", report=tmp_path / "tally.json")).code == 0
    later = read_report(tmp_path / "tally.json").moments()
    survives(whole("distill"), tmp_path, [(middle, moment) for moment in later[part::PARTS]])


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_says_how_many_there_are(command: str, whole: Any) -> None:
    assert f"{len(whole(command).tally.moments())} of `{command}`" in PAGE.read_text()
