"""NaN and infinity: a step is left out, many end the run, and none becomes a result."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nayer_cli import losses
from nayer_cli.__main__ import main
from nayer_cli.checkpoint import load_state
from nayer_cli.errors import RunFailed
from nayer_cli.runs.distill import distill
from nayer_cli.runs.folder import RunFolder
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


def test_a_student_that_is_broken_is_never_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(network: nn.Module, *arguments: object, **options: object) -> nn.Module:
        next(iter(network.buffers())).fill_(torch.inf)
        return network

    settings = quick(tmp_path, {"eval.data": few_images(tmp_path)})
    distill(settings)

    def spoil(record: dict) -> None:
        if record.get("phase") == "student" and record.get("done") == 1:
            broken(spoiled[0])

    from nayer_cli.runs import distill as recipe

    spoiled: list[nn.Module] = []
    right = recipe.carry_out

    def watched(job, **options):  # type: ignore[no-untyped-def]
        spoiled.append(job.engine.student.model.network)
        return right(job, **options)

    monkeypatch.setattr(recipe, "carry_out", watched)
    with pytest.raises(RunFailed, match="not finite"):
        distill({"schedule.epochs": 3}, resume=str(tmp_path / "run"), listen=spoil)
    state = RunFolder(tmp_path / "run").checkpoints.load()
    assert state["loop"]["epoch"] == 3
