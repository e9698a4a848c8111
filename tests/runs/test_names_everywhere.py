"""Class names in an order that is not alphabetical: every command, reader and file gives the same top-1."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from nayer_cli.__main__ import main

COLORS = {"zebra": (255, 0, 0), "ant": (0, 255, 0), "mole": (0, 0, 255), "bee": (0, 0, 0)}
"""In the order of the network's outputs, which no sorting gives."""
NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)
        )
"""
FACTS = ("--input-size", 8, "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")
NAMES = ("--labels", "names.txt")
SHORT = (
    *("--preset", "cifar10", "--encoder", "random", "--device", "cpu", "--epochs", 1, "--batch-size", 8, "--lr", 0),
    *("--set", "method.batch=8", "--set", "method.width=4", "--set", "method.code_size=8", "--set", "method.g_steps=1"),
    *("--set", "schedule.warmup_epochs=1", "--set", "schedule.warmup_rounds=1", "--set", "schedule.rounds=1"),
    *("--set", "schedule.kd_steps=1", "--set", "optimizer.lr_min=0"),
)
Nayer = Callable[..., dict[str, Any]]


@pytest.fixture
def nayer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Nayer:
    """`nayer("eval", …)` in a folder with a network, its weights, names and images gives the result document."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("colors_net.py").write_text(NET)
    Path("names.txt").write_text("\n".join(COLORS))
    torch.save(_weights(), "t.pth")
    for name, color in COLORS.items():
        for i in range(4):
            path = Path("val", name, f"{i}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), color).save(path)

    def run(*arguments: object) -> dict[str, Any]:
        code = main([str(argument) for argument in (*arguments, "--trust-code", "--json")])
        out, err = capsys.readouterr()
        assert code == 0, err
        document: dict[str, Any] = json.loads(out)
        return document | {"said": err}

    return run


def _weights() -> dict[str, torch.Tensor]:
    """Of a network that tells red, green and blue apart, and takes the rest for bees."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Flatten(), nn.Linear(4, 4)
    )
    conv, linear = network[0], network[5]
    assert isinstance(conv, nn.Conv2d) and isinstance(linear, nn.Linear)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(4)[:, :3, None, None])
        conv.bias.zero_() if conv.bias is not None else None
        linear.weight.copy_(3 * torch.eye(4))
        linear.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))
    return network.state_dict()


def test_own_order_through_every_command_reader_and_file(nayer: Nayer) -> None:
    own = ("py:colors_net:Net", "--weights", "t.pth")

    def top1(*model: object) -> float:
        return float(nayer("eval", *model, "--data", "val")["results"][0]["top1"])

    assert top1(*own, *FACTS, *NAMES) == 1
    student = ("--student", "py:colors_net:Net", "--student-weights", "t.pth")
    teacher = ("--teacher", "py:colors_net:Net", "--teacher-weights", "t.pth")
    run = nayer("distill", *teacher, *student, *FACTS, *NAMES, *SHORT, "--eval-data", "val", "--out", "run")
    assert run["label_names"] == list(COLORS) and run["teacher"]["top1"] == 1
    assert json.loads(Path("run/student/config.json").read_text())["label_names"] == list(COLORS)
    assert all(name in Path("run/student/README.md").read_text() for name in COLORS)
    assert top1("run") == run["student"]["top1"] == 1

    few = nayer("quantize", "--model", "run", "--mode", "ptq", "--bits", "w8a8", "--eval-data", "val", "--out", "few")
    stages = few["quantization"]["stages"]
    assert top1("few") == stages["deployed"]["top1"] == 1
    if few["quantization"]["onnx"]:  # where the extra is installed
        assert top1("few/model.onnx") == stages["onnxruntime"]["top1"] == 1

    nayer("sample", "run", "--per-class", 1, "--out", "images")
    manifest = json.loads(Path("images/manifest.json").read_text())
    assert all(entry["name"] == list(COLORS)[entry["index"]] for entry in manifest.values()) and manifest

    nayer("distill", "--resume", "run", "--epochs", 2)
    assert top1("run") == 1
    reference = [f"--reference-{option[2:]}" if str(option).startswith("--") else option for option in (*FACTS, *NAMES)]
    both = nayer(
        "eval", "few", "--reference", "py:colors_net:Net", "--reference-weights", "t.pth", *reference, "--data", "val"
    )
    assert both["reference"]["top1"] == both["results"][0]["agreement"] == 1 and not both["warnings"]


def test_train_takes_an_order_of_its_own(nayer: Nayer) -> None:
    model = ("--model", "py:colors_net:Net", "--student-weights", "t.pth")
    short = ("--epochs", 1, "--lr", 0, "--batch-size", 16, "--device", "cpu", "--set", "augment.pad=0")
    run = nayer("train", *model, *FACTS, *NAMES, "--data", "val", "--eval-data", "val", *short, "--out", "trained")
    assert run["label_names"] == list(COLORS) and run["student"]["top1"] == 1
    assert nayer("eval", "trained", "--data", "val")["results"][0]["top1"] == 1


def test_an_order_that_is_assumed_is_said(nayer: Nayer) -> None:
    document = nayer("eval", "py:colors_net:Net", "--weights", "t.pth", *FACTS, "--data", "val")
    assert document["results"][0]["top1"] < 1
    (warning,) = document["warnings"]
    assert "'ant', 'bee', 'mole'" in warning and "--labels" in warning
    assert f"warning: {warning}" in document["said"]
