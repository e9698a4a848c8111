"""Teachers of many families, with random weights; `benchmarks/timm_networks.py` tries all of timm."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from nayer_cli.errors import InputError
from nayer_cli.runs.distill import distill
from nayer_cli.storage.runlog import read_metrics
from quick import quick

WITH_STATISTICS = (
    "resnet18",
    "resnext26ts",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "efficientnet_b0",
    "regnety_002",
    "densenet121",
)
WITHOUT = ("convnext_atto", "vit_tiny_patch16_224", "swinv2_tiny_window8_256", "mixer_s32_224")
SIDE = 64


def settings(family: str, folder: Path) -> dict[str, Any]:
    """Two rounds and one student step from a teacher with random weights."""
    torch.manual_seed(0)
    size = {"img_size": SIDE} if timm.get_pretrained_cfg(family).fixed_input_size else {}
    weights = timm.create_model(family, num_classes=10, **size).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "teacher.safetensors")
    changes = {
        "preset": "cifar10",
        "teacher.name": family,
        "teacher.weights": str(folder / "teacher.safetensors"),
        "teacher.num_classes": 10,
        "teacher.input_size": SIDE,
        "student.name": "resnet20_cifar_a",
        "lte.labels": "cifar10",
        "method.batch": 4,
        "schedule.warmup_epochs": 0,
        "schedule.epochs": 1,
        "schedule.rounds": 2,
        "schedule.kd_steps": 1,
        "schedule.batch_size": 4,
        "output.sample_every": 0,
    }
    return quick(folder, changes)


@pytest.mark.parametrize("family", [*WITH_STATISTICS, *WITHOUT])
def test_a_family_teaches(family: str, tmp_path: Path) -> None:
    notes: list[str] = []
    result = distill(
        settings(family, tmp_path), listen=lambda record: notes.extend(filter(None, [record.get("message")]))
    )
    (record,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    prior = "bn" if family in WITH_STATISTICS else "tv"
    assert set(record["losses"]) == {"ce", "adv", prior, "student"}
    assert sum("no BatchNorm2d" in note for note in notes) == (prior == "tv")
    assert result["teacher"]["name"] == family and result["images"] == {"synthesized": 8, "seen": 4}


def test_an_image_that_is_too_small_for_a_family_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'inception_v3' cannot take 3×64×64 images"):
        distill(settings("inception_v3", tmp_path))
