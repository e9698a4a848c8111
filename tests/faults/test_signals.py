"""Signals that ask a run to end: it saves, soon, says how to go on, and goes on as if nothing had been."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from signal import Signals
from typing import Any

import pytest

from children import AtLine, AtWrite, Done, Send, run
from nayer_cli.runs.folder import RunFolder
from quick import command, differences, few_images, leftovers, outcome, quick

INT, TERM = Signals.SIGINT, Signals.SIGTERM
Whole = Callable[[str], dict[str, Any]]

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "nayer": ("nayer", {}),
    "deepinv, full bank": ("deepinv", {"bank.capacity": 50, "method.g_steps": 3}),
    "zskt, reservoir": ("zskt", {"bank.capacity": 30, "bank.policy": "reservoir"}),
    "nayer, bank on disk": ("nayer", {"bank.place": "disk"}),
    "nayer, adam, images held back": ("nayer", {"optimizer.name": "adam", "optimizer.lr": 1e-3, "eval.data": None}),
}


def in_folder(folder: Path, kind: str = "nayer", **changes: Any) -> list[str]:
    method, own = METHODS[kind]
    settings = quick(folder, {"eval.data": str(folder / "few.npz"), **own, **changes}, method)
    if settings["eval.data"] is None:  # the preset has some
        settings |= {"preset": "cifar10", "teacher.name": "builtin:digits", "lte.labels": "digits"}
        settings |= {"student.name": "resnet8_digits", "augment.pad": 1}
    return command(settings, "--resume", "auto")


def interrupted(done: Done, number: int, folder: Path) -> None:
    """The end is as a signal's should be: its code, two lines, nothing left behind."""
    word = "interrupted" if number == INT else "terminated"
    assert done.code == 128 + number, done.err
    assert done.err.endswith(f"error: {word}\nhint: continue with --resume {folder / 'run'}\n")
    assert "Traceback" not in done.err and done.err.count("error") == 1
    assert leftovers(folder) == [] and done.orphans == [] and not (folder / "run/.owner.json").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What a run of each kind makes that is not disturbed; each is carried out once."""

    @cache
    def made(kind: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("whole")
        few_images(folder)
        assert run(in_folder(folder, kind)).code == 0
        return outcome(folder / "run")

    return made


def goes_on(folder: Path, expected: dict[str, Any], kind: str = "nayer") -> None:
    """The same command, once more, ends as a run that was not disturbed."""
    done = run(in_folder(folder, kind))
    assert done.code == 0, done.err
    assert list(differences(outcome(folder / "run"), expected)) == []


MOMENTS = {
    "a round": AtLine(30, Send(TERM), "methods.nayer", "synthesize"),
    "a student step": AtLine(5, Send(TERM), "student", "step"),
    "the start of a save": AtWrite("/shard-", Send(TERM), nth=2),
    "a measurement": AtLine(20, Send(TERM), "evaluate", "_judge"),
    "the last save": AtWrite("epoch-000003.json", Send(TERM)),
    "the result": AtWrite("result.json", Send(TERM)),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_terminated_in(moment: AtLine | AtWrite, tmp_path: Path, whole: Whole) -> None:
    few_images(tmp_path)
    interrupted(run(in_folder(tmp_path), moment), TERM, tmp_path)
    goes_on(tmp_path, whole("nayer"))


SLOW = ("nayer, bank on disk", "nayer, adam, images held back")


@pytest.mark.parametrize(
    "kind",
    ["deepinv, full bank", "zskt, reservoir", *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)],
)
def test_interrupted_in_a_round_of(kind: str, tmp_path: Path, whole: Whole) -> None:
    few_images(tmp_path)
    moment = AtLine(30, Send(INT), f"methods.{METHODS[kind][0]}", "synthesize")
    interrupted(run(in_folder(tmp_path, kind), moment), INT, tmp_path)
    goes_on(tmp_path, whole(kind), kind)


IN_A_ROUND = {"where": "methods.nayer", "function": "synthesize"}
SAVE = {
    "before": AtWrite("/epoch-"),
    "inside": AtLine(4, where="storage.files", function="write_atomically"),
    "after": AtLine(2, where="runs.checkpoints"),
}
FAST = (("inside", TERM, TERM, TERM), ("inside", INT, INT, INT))
SOME = [(when, *numbers) for when in SAVE for numbers in ((TERM, TERM, TERM), (INT, INT, INT), (TERM, INT, INT))]


@pytest.mark.parametrize(
    ("when", "first", "second", "end"),
    [*FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in SOME if case not in FAST)],
)
def test_again_in_the_save(
    when: str, first: Signals, second: Signals, end: Signals, tmp_path: Path, whole: Whole
) -> None:
    few_images(tmp_path)
    later = replace(SAVE[when], do=Send(second))
    moment = AtLine(5, Send(first, then=later), "student", "step")  # there is something to save then
    interrupted(run(in_folder(tmp_path), moment), end, tmp_path)
    goes_on(tmp_path, whole("nayer"))


def test_an_impatient_user(tmp_path: Path, whole: Whole) -> None:
    few_images(tmp_path)
    third = AtLine(3, Send(INT), "runs.folder")
    second = AtLine(1, Send(INT, then=third))
    interrupted(run(in_folder(tmp_path), AtLine(60, Send(INT, then=second), **IN_A_ROUND)), INT, tmp_path)
    goes_on(tmp_path, whole("nayer"))


def test_terminated_before_there_is_anything_to_save(tmp_path: Path) -> None:
    few_images(tmp_path)
    done = run(in_folder(tmp_path), AtLine(1, Send(TERM), "critic"))
    assert (done.code, done.err) == (143, "loading torch\nerror: terminated\nhint: nothing was saved yet\n")
    assert not (tmp_path / "run").exists()


def test_a_long_round_does_not_keep_anybody_waiting(tmp_path: Path) -> None:
    few_images(tmp_path)
    changes = {"method.g_steps": 10**9, "method.batch": 50}  # it would never end
    moment = AtLine(60, Send(TERM), "methods.deepinv", "synthesize")
    interrupted(run(in_folder(tmp_path, "deepinv, full bank", **changes), moment), TERM, tmp_path)
    assert [path.stem for path in RunFolder(tmp_path / "run").checkpoints.all()] == ["epoch-000000"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [INT, TERM])
def test_a_process_with_nothing_special_about_it(number: Signals, tmp_path: Path) -> None:
    few_images(tmp_path)
    arguments = in_folder(tmp_path, **{"schedule.epochs": 10**4})
    process = subprocess.Popen([sys.executable, "-m", "nayer_cli", *arguments], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run/checkpoints/epoch-000002.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate()
    interrupted(Done(process.returncode, "", err, []), number, tmp_path)
