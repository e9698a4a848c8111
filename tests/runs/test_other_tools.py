"""The recipes of docs/guides/other-tools.md, on the network that ships: scripts of the page run as they stand there."""

import runpy
import sys

import numpy as np
import pytest
import torch

import documents
from nayer_cli.classifiers.model import load_classifier
from nayer_cli.config import ModelConfig
from nayer_cli.gates import LEAST_AFTER_ROUNDING
from nayer_cli.images.labelled import open_images
from nayer_cli.runs.onnx_file import export_onnx
from nayer_cli.runs.sample import sample

PAGE = documents.ROOT / "docs" / "guides" / "other-tools.md"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A float file, a set for it, and the scripts of the page."""
    folder = tmp_path_factory.mktemp("tools")
    export_onnx({"model": "builtin:digits", "out": str(folder / "digits.onnx")})
    made = {"count": 64, "method.batch": 64, "method.g_steps": 60, "out": str(folder / "set")}
    sample({"model.name": "builtin:digits", **made})
    for name, text in documents.named_files(PAGE):
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def digits():
    """Normalized images of digits, and what the float network says of them."""
    model = load_classifier(ModelConfig("builtin:digits"))
    (pixels, _), *_ = open_images("digits", shape=model.shape).batches(500)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in model.normalization)
    images = (pixels.float() / 255 - mean) / std
    with torch.no_grad():
        return images.numpy(), model.network(images).argmax(1).numpy()


def follow(files, script, out, monkeypatch):
    monkeypatch.setattr(sys, "argv", [script, str(files / "digits.onnx"), str(files / "set"), str(files / out)])
    runpy.run_path(str(files / script))
    return files / out


@pytest.mark.filterwarnings("ignore")
def test_onnx_runtime_quantizes_by_such_a_set(files, digits, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    out = follow(files, "quantize_ort.py", "int8.onnx", monkeypatch)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    images, classes = digits
    (logits,) = session.run(None, {"images": images})
    assert np.mean(logits.argmax(1) == classes) > LEAST_AFTER_ROUNDING
    assert out.stat().st_size < 0.5 * (files / "digits.onnx").stat().st_size


@pytest.mark.filterwarnings("ignore")
def test_nncf_quantizes_by_such_a_set(files, digits, monkeypatch):
    pytest.importorskip("nncf", reason="NNCF is not installed")
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    out = follow(files, "quantize_nncf.py", "int8.xml", monkeypatch)
    images, classes = digits
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    logits = openvino.Core().compile_model(str(out), "CPU", settings)(images)[0]
    assert np.mean(logits.argmax(1) == classes) > LEAST_AFTER_ROUNDING
