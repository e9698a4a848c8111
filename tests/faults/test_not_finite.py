"""NaN and infinity: a step is left out, many end the run, and none becomes a result."""

import json
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nayer_cli import losses
from nayer_cli.__main__ import main
from nayer_cli.errors import RunFailed
from nayer_cli.runs.distill import distill
from nayer_cli.runs.folder import RunFolder
from nayer_cli.storage.checkpoint import load_state
from quick import command, few_images, metrics, quick

AT = {"a generator's loss": "cross_entropy", "a student's loss": "distillation_kl"}


def ruin(monkeypatch: pytest.MonkeyPatch, name: str, calls: range) -> None:
    """Let a loss be NaN in some of its calls."""
    right, count = getattr(losses, name), iter(range(10**6))

    def wrong(*arguments: Tensor) -> Tensor:
        return right(*arguments) + (float("nan") if next(count) in calls else 0.0)

    monkeypatch.setattr(f"nayer_cli.losses.{name}", wrong)
    monkeypatch.setattr(f"nayer_cli.method.{name}", wrong, raising=False)


@pytest.mark.parametrize("where", AT)
def test_a_few_steps_are_left_out_and_counted(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ruin(monkeypatch, AT[where], range(3, 5))
    result = distill(quick(tmp_path, {"eval.data": few_images(tmp_path)}))
    assert sum(record["skipped"] for record in metrics(tmp_path / "run")) == 2
    assert "NaN" not in json.dumps(result) and result["images"]["seen"] == 96
    student = RunFolder(tmp_path / "run").checkpoints.load()["student"]["model"]
    assert all(value.isfinite().all() for value in student.values())


@pytest.mark.parametrize("where", AT)
def test_too_many_end_the_run_which_keeps_its_last_good_checkpoint(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ruin(monkeypatch, AT[where], range(4, 10**6))
    settings = quick(tmp_path, {"eval.data": few_images(tmp_path), "schedule.max_skipped": 1})
    assert main(command(settings, "--quiet")) == 4
    error = " ".join(capsys.readouterr().err.split())
    assert "not finite" in error and "of epoch 3 were left out by" in error and "1 are allowed" in error
    assert "the last good checkpoint is kept" in error
    saved = RunFolder(tmp_path / "run").checkpoints.newest_valid()
    state = load_state(saved.with_suffix(".safetensors"))
    assert state["loop"]["epoch"] == 2 and not (tmp_path / "run/result.json").exists()
    assert all(value.isfinite().all() for value in state["student"]["model"].values())


@pytest.mark.parametrize("teacher", ["nan_logits", "infinite_activations", "huge_activations"])
def test_a_teacher_that_sometimes_fails(teacher: str, tmp_path: Path) -> None:
    size = {"teacher.input_size": 16, "teacher.channels": 1, "teacher.num_classes": 10, "teacher.mean": [0.5]}
    changes = {"preset": "cifar10", "teacher.name": f"py:moody:{teacher}", "teacher.std": [0.5], **size}
    student = {"student.name": "resnet8_digits", "lte.labels": "digits", "eval.data": None}
    rounds = {"schedule.rounds": 6, "schedule.kd_steps": 9, "schedule.max_skipped": 40}
    notes: list[dict[str, Any]] = []
    result = distill(quick(tmp_path, changes | student | rounds), listen=notes.append)
    skipped = [record["skipped"] for record in metrics(tmp_path / "run")]
    warned = [note["message"] for note in notes if note.get("level") == "warning"]
    assert sum(skipped) > 0 and all(count < 21 for count in skipped), skipped
    assert [line.split(" ")[0] for line in warned if "left out" in line] == [str(count) for count in skipped if count]
    assert all(isfinite(value) for record in metrics(tmp_path / "run") for value in record["losses"].values())
    assert "NaN" not in json.dumps(result) and "Infinity" not in json.dumps(result)


def test_a_student_that_explodes_is_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = quick(tmp_path, {"eval.data": few_images(tmp_path), "optimizer.lr": 1e38, "schedule.kd_steps": 30})
    assert main(command(settings, "--quiet")) == 4
    assert "not finite" in capsys.readouterr().err
    state = RunFolder(tmp_path / "run").checkpoints.load()
    assert state["loop"]["epoch"] == 1 and not (tmp_path / "run/student").exists()
    assert all(value.isfinite().all() for value in state["student"]["model"].values())


def test_a_student_with_broken_statistics_is_not_kept(tmp_path: Path) -> None:
    """Weights and losses can be fine where a BatchNorm has seen infinity."""
    settings = quick(tmp_path, {"eval.data": few_images(tmp_path), "schedule.epochs": 1})
    distill(settings)
    state = RunFolder(tmp_path / "run").checkpoints
    path = state.newest_valid()
    content = state.load(path)
    statistics = content["processes"][0]["statistics"]
    statistics[next(key for key in statistics if "running_var" in key)][0] = torch.inf
    state.save("epoch-000003", content, keep=9, needed=content["processes"][0]["bank"]["shards"])
    with pytest.raises(RunFailed, match="the student has values that are not finite"):
        distill({"schedule.epochs": 2}, resume=str(tmp_path / "run"))
