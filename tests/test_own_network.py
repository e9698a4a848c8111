"""README's own network, from its weights to a class that ONNX Runtime says."""

import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import documents
from example_files import CLASSES, write_own_weights
from nayer_cli.__main__ import main
from nayer_cli.classifiers.model import load_classifier
from nayer_cli.config import ModelConfig

README = documents.ROOT / "README.md"
SHORT = {
    "distill": "--epochs 1 --batch-size 8 --encoder random --device cpu --set method.batch=10 --set method.g_steps=1 "
    "--set method.width=4 --set method.code_size=8 --set schedule.warmup_epochs=1 --set schedule.warmup_rounds=1 "
    "--set schedule.rounds=1 --set schedule.kd_steps=1",
    "quantize": "--mode ptq --device cpu",
}


def test_readmes_own_network_becomes_a_class_in_onnx_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, text in documents.named_files(README):
        Path(name).write_text(text)
    Path("classes.txt").write_text("\n".join(CLASSES))
    write_own_weights(Path("cnn.pth"))
    Image.new("RGB", (32, 32), (200, 60, 20)).save("picture.png")
    for line in documents.commands(README):
        words = shlex.split(line.text)[1:]
        if "runs/cnn" in words:
            code = main([*words, *shlex.split(SHORT[words[0]])])
            assert code == 0, capsys.readouterr().err
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["classify.py", "runs/cnn-w8a8/model.onnx", "picture.png"])
    runpy.run_path("classify.py")
    assert capsys.readouterr().out.strip() == _said_by_the_integers((200, 60, 20))


def _said_by_the_integers(color: tuple[int, int, int]) -> str:
    """Return the class that the network of integers names for a picture of one color."""
    classifier = load_classifier(ModelConfig(name="runs/cnn-w8a8"))
    pixels = torch.tensor(color).view(1, 3, 1, 1).expand(1, 3, 32, 32) / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in classifier.normalization)
    assert classifier.labels is not None
    return classifier.labels[int(classifier.network((pixels - mean) / std).argmax())]


def test_the_script_is_the_same_in_the_page_about_onnx() -> None:
    pages = (README, documents.ROOT / "docs/guides/onnx.md")
    first, second = (dict(documents.named_files(page))["classify.py"] for page in pages)
    assert first == second
