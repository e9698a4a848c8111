"""A run directory belongs to one run at a time, and what the user keeps in it belongs to the user."""

import json
import os
import platform
from pathlib import Path
from signal import SIGKILL

import pytest

from children import Child
from nayer_cli.__main__ import main
from nayer_cli.runs.distill import distill
from quick import bank, command, few_images, quick


def test_a_second_run_is_refused_and_told_who_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = quick(tmp_path, {"eval.data": few_images(tmp_path), "schedule.epochs": 500})
    first = Child(command(settings), tmp_path)
    first.until(lambda: list((tmp_path / "run").glob("checkpoints/epoch-*.json")))
    assert main(["distill", "--resume", str(tmp_path / "run")]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"another run is in {tmp_path / 'run'}: process {first.process.pid} on {platform.node()}" in error
    assert main(command(settings)) == 2
    assert "is not empty" in capsys.readouterr().err
    first.send(SIGKILL)
    assert first.wait().code == -SIGKILL
    assert json.loads((tmp_path / "run/.owner.json").read_text())["pid"] != os.getpid()
    dead = command({"schedule.epochs": 1, "output.save_every": 1}, "--resume", str(tmp_path / "run"), "--quiet")
    assert main(dead) in (0, 2)  # 2 where more epochs are done already: the lock of the dead is no hindrance
    assert "another run" not in capsys.readouterr().err


def test_files_of_the_user_are_never_deleted(tmp_path: Path) -> None:
    distill(quick(tmp_path, {"eval.data": few_images(tmp_path)}))
    run = tmp_path / "run"
    mine = [
        run / "notes.txt",
        run / "checkpoints/notes.txt",
        run / "checkpoints/bank/keep.txt",
        run / "student/mine.md",
    ]
    for path in mine:
        path.write_text("mine")
    distill({"schedule.epochs": 6, "output.keep": 1}, resume=str(run))
    assert [path.read_text() for path in mine] == ["mine"] * 4


def test_old_images_never_join_a_new_run(tmp_path: Path) -> None:
    settings = quick(tmp_path, {"eval.data": few_images(tmp_path), "bank.place": "disk"})
    distill(settings | {"output.out": str(tmp_path / "clean")})
    run = tmp_path / "run"
    distill(settings | {"seed": 7})
    for path in [*run.glob("checkpoints/epoch-*.json"), run / "result.json"]:
        path.unlink()  # as if it had been killed before its first checkpoint was complete
    (run / "config.toml").write_text((tmp_path / "clean/config.toml").read_text())
    distill(settings, resume="auto")
    for ours, theirs in zip(bank(run), bank(tmp_path / "clean"), strict=True):
        assert ours["added"] == theirs["added"] and ours["images"].equal(theirs["images"])
