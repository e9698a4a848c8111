from dataclasses import replace

import pytest
import torch

from nayer_cli.config import DistillConfig, QuantizeConfig
from nayer_cli.machine.distributed import Group
from nayer_cli.runs import assemble, choice


@pytest.fixture
def preset():
    """The preset for large images, and a small teacher."""
    teacher = assemble.resolve({"teacher.name": "builtin:digits"}, DistillConfig, "distill")[1]
    asked = {"preset": "imagenet-ptq", "teacher.name": "builtin:digits", "device": "cpu"}
    return assemble.resolve(asked, QuantizeConfig, "quantize")[0], teacher


def test_no_images_are_made_where_ranges_can_be_followed(preset, monkeypatch):
    monkeypatch.setattr(choice, "_seconds_an_image", lambda _: 0.15)
    config, text = choice.settle(*preset, {}, Group())
    assert config.quantizer.calibration == "analytic"
    assert "With 32 images of zeroq (--mode ptq) it takes about 5 minutes" in text
    assert "--reconstruct takes about 45," in text


def test_who_asks_gets_what_was_asked_for(preset, monkeypatch):
    monkeypatch.setattr(choice, "_seconds_an_image", lambda _: pytest.fail("nothing is to be chosen"))
    assert choice.settle(*preset, {"quantizer.mode": "ptq"}, Group()) == (preset[0], "")


def test_images_are_made_where_ranges_cannot_be_followed(preset, monkeypatch):
    config, teacher = preset
    monkeypatch.setattr(choice, "_seconds_an_image", lambda _: 1.0)
    odd = torch.nn.Sequential(teacher.network, torch.nn.LayerNorm(10))
    config, text = choice.settle(config, replace(teacher, network=odd), {}, Group())
    assert config.quantizer.calibration == "mse" and "by 32 images of zeroq, which takes about 32 minutes" in text


def test_an_image_takes_time(preset):
    _, teacher = preset
    assert choice._seconds_an_image(teacher) > 0
