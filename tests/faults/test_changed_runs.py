"""A run is continued with what it was started with, or not at all."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from nayer_cli.__main__ import main
from nayer_cli.classifiers.model import load_classifier, save_classifier
from nayer_cli.config import ModelConfig
from nayer_cli.errors import InputError
from nayer_cli.runs.distill import distill
from nayer_cli.runs.train import train
from quick import few_images, quick

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture
def own(tmp_path: Path) -> dict[str, object]:
    """Settings with a teacher and class names in files, which may change behind the run's back."""
    teacher = load_classifier(ModelConfig(name="builtin:digits"))
    save_classifier(tmp_path / "teacher", teacher, card="", extra={})
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    changes = {"teacher.name": str(tmp_path / "teacher"), "lte.labels": str(tmp_path / "names.txt")}
    return quick(tmp_path, {"eval.data": few_images(tmp_path), **changes})


def test_a_teacher_with_other_weights_is_another_teacher(own: dict[str, object], tmp_path: Path) -> None:
    distill(own)
    teacher = load_classifier(ModelConfig(name="builtin:digits"))
    next(teacher.network.parameters()).data[0, 0, 0, 0] += 1e-3
    shutil.rmtree(tmp_path / "teacher")
    save_classifier(tmp_path / "teacher", teacher, card="", extra={})
    with pytest.raises(InputError, match=r"the teacher is not .* \(its content was \w+, and is"):
        distill({"schedule.epochs": 3}, resume=str(tmp_path / "run"))


def test_a_class_list_with_other_names_is_another_list(own: dict[str, object], tmp_path: Path) -> None:
    distill(own)
    (tmp_path / "names.txt").write_text("\n".join(reversed(NAMES)))
    with pytest.raises(InputError):
        distill({"schedule.epochs": 3}, resume=str(tmp_path / "run"))


def test_training_data_with_other_content_is_other_data(tmp_path: Path) -> None:
    data = few_images(tmp_path)
    settings = {"student.name": "resnet8_digits", "data": data, "device": "cpu", "amp": "off"}
    small = {"schedule.epochs": 1, "schedule.batch_size": 8, "output.out": str(tmp_path / "run")}
    train({**settings, **small})
    content = dict(np.load(data))
    content["images"][3] ^= 1
    np.savez(data, **content)
    with pytest.raises(InputError, match="the data is not the one it was started with"):
        train({"schedule.epochs": 2}, resume=str(tmp_path / "run"))


def test_every_setting_that_differs_is_shown(
    own: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    distill(own)
    code = main(["distill", "--resume", str(tmp_path / "run"), "--batch-size", "8", "--teacher", "resnet18"])
    error = " ".join(capsys.readouterr().err.split())
    assert code == 2 and "schedule.batch_size = 8: it was started with 16" in error
    assert f"teacher.name = 'resnet18': it was started with '{tmp_path / 'teacher'}'" in error
