"""`kill -9`, at any moment: the same command ends with the same bits, and reads nothing that was never finished."""

import json
import random
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from children import KILL, AtLine, AtWrite, Child, CountLines, Limit, run
from quick import command, differences, few_images, leftovers, outcome, quick

SETTINGS = {"output.sample_every": 2, "output.save_minutes": 0, "schedule.epochs": 2, "schedule.warmup_rounds": 2}
KILLED = (-signal.SIGKILL, -signal.SIGXFSZ)
PLACES = ("files", "checkpoint", "bank", "methods.nayer", "descent", "engine", "runs.recorder", "runs.folder")
"""Modules to be killed in: writing, generating, appending to the bank, learning, measuring, drawing, locking."""


class Whole(NamedTuple):
    """A run that was not disturbed."""

    settings: dict[str, Any]
    outcome: dict[str, Any]
    lines: dict[str, int]
    """How many lines each module executed."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    settings = quick(folder, SETTINGS | {"eval.data": few_images(folder)})
    assert run(command(settings), CountLines(folder / "lines.json")).code == 0
    return Whole(settings, outcome(folder / "run"), json.loads((folder / "lines.json").read_text()))


def command_in(folder: Path, whole: Whole) -> list[str]:
    return command(whole.settings | {"output.out": str(folder / "run")}, "--resume", "auto")


def ends_like(whole: Whole, folder: Path) -> None:
    """The same command, once more, ends as the undisturbed run did."""
    done = run(command_in(folder, whole))
    assert done.code == 0, done.err
    assert list(differences(outcome(folder / "run"), whole.outcome)) == []
    assert leftovers(folder / "run") == []


def killed_again_and_again(whole: Whole, folder: Path, accidents: Iterable[Any]) -> int:
    """Let one run have each accident in turn, and then end; return how often it was killed."""
    ends = [run(command_in(folder, whole), accident) for accident in accidents]
    for done in ends:
        assert done.code in (*KILLED, 0), done.err
    ends_like(whole, folder)
    return sum(done.code in KILLED for done in ends)


def random_moments(whole: Whole, rng: random.Random) -> list[AtLine]:
    """One in every place."""
    return [AtLine(rng.randint(1, whole.lines[place]), KILL, place) for place in PLACES]


def test_killed_where_it_hurts(whole: Whole, tmp_path: Path) -> None:
    before = [AtLine(1, KILL, "runs.recorder"), AtLine(30, KILL, "runs.distill")]  # there is nothing to go on from
    inside = [AtLine(20, KILL, "bank"), AtLine(60, KILL, "methods.nayer"), AtLine(200, KILL, "checkpoint")]
    after = [AtLine(1, KILL, "runs.pictures"), AtWrite("result.json", KILL)]
    assert killed_again_and_again(whole, tmp_path, [*before, *inside, *after]) == 7


def test_killed_in_the_middle_of_a_write(whole: Whole, tmp_path: Path) -> None:
    first = [AtWrite(part, Limit(100, deadly=True)) for part in ("lte.", "config.toml", "/shard-", "/epoch-")]
    later = [AtWrite(part, Limit(100, deadly=True), nth=2) for part in ("/shard-", "/epoch-", ".jsonl")]
    last = [AtWrite(part, Limit(100, deadly=True)) for part in (".png", "result.json", "student/")]
    accidents = [*first, *later, *last]
    assert killed_again_and_again(whole, tmp_path, accidents) == len(accidents)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_moments(seed: int, whole: Whole, tmp_path: Path) -> None:
    rng = random.Random(seed)
    accidents = random_moments(whole, rng)
    rng.shuffle(accidents)
    killed_again_and_again(whole, tmp_path, accidents)


@pytest.mark.slow
def test_killed_by_the_clock(whole: Whole, tmp_path: Path) -> None:
    rng = random.Random(0)
    start = time.monotonic()
    run(command_in(tmp_path / "other", whole))
    took = time.monotonic() - start
    for _ in range(12):
        child = Child(command_in(tmp_path, whole))
        time.sleep(rng.uniform(0, took))
        child.send(signal.SIGKILL)
        child.wait()
    ends_like(whole, tmp_path)
