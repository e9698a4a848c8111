"""A run goes on from any folder, and with files that were moved: they are named again, and known by their content."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nayer_cli.classifiers.names import ASSETS
from nayer_cli.config import DistillConfig, QuantizeConfig, TrainConfig, build
from nayer_cli.errors import InputError
from nayer_cli.machine.distributed import Group
from nayer_cli.runs.distill import distill
from nayer_cli.runs.folder import RunFolder, run_folder
from nayer_cli.runs.resume import resumed_settings
from quick import few_images, quick

FILES = {
    (DistillConfig, "teacher.weights"): "nayer distill --resume {run} --teacher-weights PATH",
    (DistillConfig, "teacher.name"): "nayer distill --resume {run} --teacher PATH",
    (DistillConfig, "student.name"): "nayer distill --resume {run} --student PATH",
    (DistillConfig, "lte.labels"): "nayer distill --resume {run} --labels PATH",
    (DistillConfig, "eval.data"): "nayer distill --resume {run} --eval-data PATH",
    (QuantizeConfig, "teacher.name"): "nayer quantize --resume {run} --model PATH",
    (QuantizeConfig, "teacher.weights"): "nayer quantize --resume {run} --weights PATH",
    (TrainConfig, "data"): "nayer train --resume {run} --data PATH",
    (TrainConfig, "student.weights"): "nayer train --resume {run} --student-weights PATH",
}


def started(path: Path, schema: type, settings: dict[str, Any]) -> RunFolder:
    with run_folder(str(path), "", Group()) as folder:
        folder.note_start(build(schema, settings))
        (folder.path / "kept").touch()
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a run is started."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize(("schema", "key"), FILES)
def test_a_file_is_found_from_elsewhere_and_can_be_named_again(
    schema: type, key: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("some").mkdir()
    folder = started(here / "run", schema, {key: "some"})
    assert resumed_settings(folder, {}, schema)[key] == "some"
    monkeypatch.chdir(here.parent)
    assert resumed_settings(folder, {}, schema)[key] == str(here / "some")
    shutil.move(here / "some", here / "other")
    with pytest.raises(InputError, match=f"{key} = 'some', and {here / 'some'} is no longer there") as refused:
        resumed_settings(folder, {}, schema)
    assert FILES[schema, key].format(run=folder.path) in str(refused.value.hint)
    assert resumed_settings(folder, {key: str(here / "other")}, schema)[key] == str(here / "other")
    with pytest.raises(InputError):
        resumed_settings(
            folder, {key: "resnet18" if key.endswith("name") else "nowhere"}, schema
        ) if key != "eval.data" else resumed_settings(folder, {}, schema)


def test_what_is_not_read_again_need_not_be_there(here: Path) -> None:
    Path("source").mkdir()
    folder = started(here / "run", QuantizeConfig, {"reuse": "source", "teacher.name": "builtin:digits"})
    Path("source").rmdir()
    assert resumed_settings(folder, {}, QuantizeConfig)["reuse"] == "source"


def test_a_run_goes_on_after_all_was_moved(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ASSETS / "digits/model.safetensors", "t.safetensors")
    changes = {"eval.data": Path(few_images(here)).name, "teacher.name": "resnet14_digits", "output.out": "run"}
    facts = {"teacher.weights": "t.safetensors", "teacher.mean": [0.0], "teacher.std": [1.0], "lte.labels": "digits"}
    distill(quick(here, changes | facts | {"schedule.epochs": 1}))
    monkeypatch.chdir(here.parent)
    Path("here/run").rename("moved")
    assert distill({"schedule.epochs": 2}, resume="moved")["teacher"]
    Path("here/t.safetensors").rename("new.safetensors")
    again = {"schedule.epochs": 3, "teacher.weights": "new.safetensors"}
    weights = load_file("new.safetensors")
    save_file({name: value + 1 if value.ndim == 4 else value for name, value in weights.items()}, "other.safetensors")
    with pytest.raises(InputError, match="the teacher is not the one"):
        distill(again | {"teacher.weights": "other.safetensors"}, resume="moved")
    assert distill(again, resume="moved")["teacher"]
    assert torch.isfinite(torch.tensor(distill({"schedule.epochs": 3}, resume="moved")["student"]["loss"]))
