"""The same seed gives the same files, and what only looks at a run does not change it."""

from pathlib import Path

import pytest

from nayer_cli.__main__ import main
from nayer_cli.runs.distill import distill
from quick import command, differences, few_images, outcome, quick

WATCHING = {"eval.every": 1, "output.save_every": 2, "output.save_minutes": 0, "output.sample_every": 1}


def test_the_same_seed_twice(tmp_path: Path) -> None:
    settings = quick(tmp_path, {"eval.data": few_images(tmp_path)})
    for name in ("one", "two"):
        distill(settings | {"output.out": str(tmp_path / name)})
    assert list(differences(outcome(tmp_path / "one"), outcome(tmp_path / "two"))) == []


def test_how_often_a_run_is_measured_saved_and_drawn_changes_nothing(tmp_path: Path) -> None:
    settings = quick(tmp_path, {"eval.data": few_images(tmp_path)})
    distill(settings | {"output.out": str(tmp_path / "one")})
    distill(settings | WATCHING | {"output.out": str(tmp_path / "two")})
    one, two = outcome(tmp_path / "one"), outcome(tmp_path / "two")
    assert one["bank"] and list(differences(one["bank"], two["bank"])) == []
    students = [made["files"]["student/model.safetensors"] for made in (one, two)]
    assert students[0] == students[1]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command(quick(tmp_path)), "--seed", str(seed)]) == 2
    assert "seed" in capsys.readouterr().err and not (tmp_path / "run").exists()
