import json
from pathlib import Path

import pytest
import timm
import torch
from timm.data import resolve_data_config

from nayer_cli.classifiers.config_json import PREPARATION, check_facts
from nayer_cli.classifiers.model import load_classifier, new_classifier, save_classifier
from nayer_cli.config import ModelConfig
from nayer_cli.errors import InputError
from nayer_cli.types import Preparation

NAME = "resnet10t"
"""Trained with 176 pixels, validated with 224, and with another crop."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of the network as timm has it, and with four classes."""
    folder = tmp_path_factory.mktemp("weights")
    for classes in (1000, 4):
        torch.save(timm.create_model(NAME, num_classes=classes).state_dict(), folder / f"{classes}.pth")
    return folder


def load(weights, classes=1000, validating=True, **more):
    return load_classifier(ModelConfig(NAME, weights=str(weights / f"{classes}.pth"), **more), validating=validating)


@pytest.mark.parametrize("validating", [True, False])
def test_size_and_crop_are_those_of_timms_configuration(weights, validating):
    model = load(weights, validating=validating)
    wanted = resolve_data_config(pretrained_cfg=vars(timm.get_pretrained_cfg(NAME)), use_test_size=validating)
    assert tuple(model.shape) == tuple(wanted["input_size"]) == (3, *[224 if validating else 176] * 2)
    preparation = model.preparation._asdict()
    assert preparation.pop("border") == wanted["mean"]
    assert preparation == {name: wanted[name] for name in ("interpolation", "crop_pct", "crop_mode")}


def test_a_size_that_is_named_takes_the_crop_of_the_training_size(weights):
    model = load(weights, input_size=160)
    assert model.shape.height == 160 and model.preparation.crop_pct == timm.get_pretrained_cfg(NAME).crop_pct


def test_weights_of_other_classes_are_not_what_timm_tells_of(weights):
    model = load(weights, classes=4)
    assert model.preparation == Preparation(border=model.normalization.mean) and model.shape.height == 176


def test_what_is_said_goes_first(weights):
    model = load(weights, preparation="nayer")
    assert model.preparation == Preparation(border=model.normalization.mean) and model.shape.height == 176
    model = load(weights, interpolation="nearest", crop_pct=0.5, crop_mode="squash")
    assert model.preparation[:3] == ("nearest", 0.5, "squash")
    assert load(weights, preparation="nayer", crop_pct=0.5).preparation[:3] == ("bicubic", 0.5, "center")


def test_students_and_saved_networks_see_what_their_teacher_saw(weights, tmp_path):
    teacher = load(weights, validating=False)
    student = new_classifier(ModelConfig("resnet10t"), teacher)
    assert student.preparation == teacher.preparation
    save_classifier(tmp_path, student, card="", extra={})
    for validating in (True, False):
        again = load_classifier(ModelConfig(str(tmp_path)), validating=validating)
        assert again.preparation == teacher.preparation and again.shape == teacher.shape


def test_every_configuration_of_timm_is_one_that_files_may_tell():
    for name in timm.list_pretrained():
        facts = vars(timm.get_pretrained_cfg(name))
        check_facts({fact: facts[fact] for fact in PREPARATION if fact != "test_input_size"}, Path(name))


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("crop_pct", 0),
        ("crop_pct", 2.5),
        ("crop_pct", "all"),
        ("test_crop_pct", -1),
        ("interpolation", "cubic"),
        ("crop_mode", "none"),
    ],
)
def test_a_file_that_tells_nonsense_is_refused(weights, fact, value, tmp_path):
    save_classifier(tmp_path, load(weights, classes=4), card="", extra={})
    document = json.loads((tmp_path / "config.json").read_text())
    document["pretrained_cfg"][fact] = value
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=fact):
        load_classifier(ModelConfig(str(tmp_path)))
