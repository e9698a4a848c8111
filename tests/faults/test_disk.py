"""A disk that gets full: the message says where and how much, what was saved is whole, and nothing half is left."""

import re
from pathlib import Path
from typing import Any

import pytest

from children import AtWrite, Limit, run
from disks import mount, mounted
from nayer_cli.runs.folder import RunFolder
from quick import command, differences, few_images, leftovers, outcome, quick

FULL = Limit(150)
CHANGES = {"bank.place": "disk", "output.sample_every": 1, "schedule.epochs": 2}
FIRST = [
    AtWrite(file, FULL)
    for file in ("lte.safetensors", "bank.mmap", "config.toml", "metrics.jsonl", "/shard-0000", "/epoch-000001.json")
]
LATER = [
    AtWrite("metrics.jsonl", FULL, nth=2),
    *(AtWrite(file, FULL) for file in ("epoch-0002.png", "/shard-0000", "/epoch-000003.safetensors")),
    *(AtWrite(file, FULL) for file in ("result.json", "curves.png", "model.safetensors", "student/config.json")),
]


def settings_in(folder: Path) -> dict[str, Any]:
    return quick(folder, CHANGES | {"eval.data": few_images(folder)})


def fills_up(words: list[str], accident: AtWrite, folder: RunFolder) -> str:
    """Run into a disk that gets full; return the last part of the hint."""
    done = run(words, accident)
    where = rf"error: cannot write \S*{re.escape(accident.part)}\S*: "
    found = re.search(
        where + r".*; ([\d,]+) bytes are needed, and a file may have 150 here \(ulimit -f\)\nhint: free", done.err
    )
    assert done.code == 3 and "Traceback" not in done.err, done.err
    assert found and int(found[1].replace(",", "")) > FULL.size, done.err
    assert leftovers(folder.path.parent) == []
    return done.err.rpartition("; ")[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    assert run(command(settings_in(folder))).code == 0
    return outcome(folder / "run")


def test_full_at_every_kind_of_file(whole: dict[str, Any], tmp_path: Path) -> None:
    words, folder = command(settings_in(tmp_path), "--resume", "auto"), RunFolder(tmp_path / "run")
    for accident in FIRST:
        assert fills_up(words, accident, folder) == "nothing was saved yet\n"
    for accident in LATER:
        assert fills_up(words, accident, folder) == f"continue with --resume {folder.path}\n"
        folder.checkpoints.newest_valid(pytest.fail)
    assert run(words).code == 0
    assert list(differences(outcome(folder.path), whole)) == []


def test_a_disk_without_room_for_another_file(whole: dict[str, Any], tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=50m,nr_inodes=14") as disk:
        words = command(settings_in(tmp_path) | {"output.out": str(disk / "run")}, "--resume", "auto")
        done = run(words)
        assert done.code == 3 and "0 of 14 files (inodes) are free: delete some files" in done.err, done.err
        assert leftovers(disk) == []
        assert mount(disk, "remount,nr_inodes=1000")
        assert run(words).code == 0
        assert list(differences(outcome(disk / "run"), whole)) == []


def test_a_small_disk(whole: dict[str, Any], tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=600k") as disk:
        words = command(settings_in(tmp_path) | {"output.out": str(disk / "run")}, "--resume", "auto")
        done = run(words)
        assert done.code == 3 and "No space left on device" in done.err and "bytes are needed" in done.err
        RunFolder(disk / "run").checkpoints.newest_valid(pytest.fail)
        assert mount(disk, "remount,size=50m")
        assert run(words).code == 0
        assert list(differences(outcome(disk / "run"), whole)) == []
        assert leftovers(disk) == []
