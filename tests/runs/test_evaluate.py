import json

import pytest
import torch
from PIL import Image

from nayer_cli.classifiers.model import new_network, save_classifier
from nayer_cli.config import ModelConfig
from nayer_cli.errors import ConfigError, EnvironmentFault, InputError
from nayer_cli.runs.evaluate import evaluate_models
from nayer_cli.types import ImageShape, Normalization

FACTORIES = """
import torch
from torch import nn

class Threshold(nn.Module):
    def __init__(self, at):
        super().__init__()
        self.at = nn.Parameter(torch.tensor(at))

    def forward(self, images):
        level = images.mean((1, 2, 3)) - self.at
        return torch.stack([-level, level], 1)

def half(): return Threshold(0.0)
def high(): return Threshold(1.0)
"""
OVERRIDES = {"num_classes": 2, "input_size": 8, "mean": [0.5], "std": [0.25]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Ten dark and ten bright images; `high` takes the five less bright ones for dark."""
    (tmp_path / "thresholds.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    for i in range(20):
        path = tmp_path / "images" / ("dark" if i < 10 else "light") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        level = 20 + i if i < 10 else 150 if i < 15 else 250
        Image.new("RGB", (8, 8), (level,) * 3).save(path)
    return str(tmp_path / "images")


def measure(folder, *models, **settings):
    names = [f"py:thresholds:{name}" for name in models]
    return evaluate_models({"models": names, "data": folder, "device": "cpu", **OVERRIDES, **settings})


def test_the_document_holds_what_it_promises(folder, tmp_path):
    document = measure(folder, "high", out=str(tmp_path / "deep" / "result.json"))
    assert json.loads((tmp_path / "deep" / "result.json").read_text()) == document
    assert (document["schema"], document["gates"], document["passed"]) == ("nayer.eval/1", [], True)
    (result,) = document["results"]
    assert (result["n"], result["top1"], result["top5"], result["skipped"]) == (20, 0.75, 1.0, 0)
    assert (result["model"], result["parameters"]) == ("py:thresholds:high", 1)
    assert result["ci95"][0] < 0.75 < result["ci95"][1]
    assert result["agreement"] is None
    assert result["images_per_s"] > 0


def test_gates_compare_with_threshold_and_reference(folder):
    settings = {"reference": "py:thresholds:half", "mean": None, "std": None}
    with pytest.raises(InputError):  # the reference takes mean and std from its checkpoint, and this has none
        measure(folder, "high", **settings)
    document = measure(folder, "half", "high", min_top1=0.8)
    assert [gate["passed"] for gate in document["gates"]] == [True, False]
    assert document["gates"][1] == {
        "model": "py:thresholds:high",
        "metric": "top1",
        "op": ">=",
        "threshold": 0.8,
        "value": 0.75,
        "passed": False,
    }
    assert document["passed"] is False


@pytest.mark.parametrize(("setting", "value"), [("min_top1", 90), ("max_drop", -0.1), ("min_top", 0.9)])
def test_settings_out_of_range_are_refused(folder, setting, value):
    with pytest.raises(ConfigError, match=setting):
        measure(folder, "half", **{setting: value})


def test_percent_get_a_hint(folder):
    with pytest.raises(ConfigError, match="between 0 and 1") as caught:
        measure(folder, "half", min_top1=90)
    assert "fraction" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": None}, "--data is missing"),
        ({"models": []}, "no model"),
        ({"max_drop": 0.1}, "--max-drop needs"),
        ({"models": ["a", "b"], "weights": "x"}, "names one file, but there are 2 models"),
        ({"data": "no-such-folder"}, "no data 'no-such-folder'"),
    ],
)
def test_what_is_missing_is_said(folder, change, message):
    with pytest.raises(InputError, match=message):
        measure(folder, "half", **change)


def test_a_device_that_is_absent(folder):
    with pytest.raises(EnvironmentFault, match="cuda:99"):
        measure(folder, "half", device="cuda:99")


def checkpoint(path, labels, seed=0):
    torch.manual_seed(seed)
    shape, normalization = ImageShape(3, 8, 8), Normalization((0.5,) * 3, (0.25,) * 3)
    spec = ModelConfig(name="wrn_16_1")
    classifier = new_network(spec, len(labels), labels, shape=shape, normalization=normalization)
    save_classifier(path, classifier, card="", extra={})
    return str(path)


def test_a_reference_gives_agreement_and_drop(folder, tmp_path):
    model, reference = (checkpoint(tmp_path / str(seed), ("Dark", "Light"), seed) for seed in (0, 1))
    settings = {"data": folder, "device": "cpu", "reference": reference, "max_drop": 1.0}
    document = evaluate_models({"models": [reference, model], **settings})
    same, other = document["results"]
    assert (same["agreement"], same["drop"]) == (1.0, 0.0)
    assert document["reference"]["top1"] == same["top1"]
    assert other["drop"] == pytest.approx(same["top1"] - other["top1"])
    assert [gate["metric"] for gate in document["gates"]] == ["drop", "drop"]


def test_the_order_of_a_models_classes_is_respected(folder, tmp_path):
    one = checkpoint(tmp_path / "one", ("dark", "light"))
    other = checkpoint(tmp_path / "other", ("light", "dark"))
    document = evaluate_models({"models": [one, other], "data": folder, "device": "cpu"})
    first, second = document["results"]
    assert first["top1"] == pytest.approx(1 - second["top1"])  # equal weights, so opposite answers
    with pytest.raises(InputError, match="a different order"):
        evaluate_models({"models": [one], "reference": other, "data": folder, "device": "cpu"})


def test_a_limit_and_damaged_images_show_in_the_result(folder, tmp_path):
    assert measure(folder, "half", limit=4)["results"][0]["n"] == 4
    for i in range(100):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / "dark" / f"more{i}.png")
    (tmp_path / "images" / "dark" / "more7.png").write_bytes(b"nothing")
    (result,) = measure(folder, "half")["results"]
    assert (result["n"], result["skipped"], result["unreadable"]) == (119, 1, ["dark/more7.png"])


def test_a_real_teacher_on_real_images(shared):
    document = evaluate_models(
        {
            "models": ["resnet20_cifar_a"],
            "weights": str(shared / "teachers" / "resnet20-12fca82f.th"),
            "data": str(shared / "data" / "cifar10-jpeg-test5k.tar"),
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "limit": 1000,
            "device": "cpu",
        }
    )
    (result,) = document["results"]
    assert result["n"] == 1000
    assert result["ci95"][0] < 0.81 < result["ci95"][1]
