"""The integers, ONNX Runtime as it is by default, and OpenVINO name the same class of 500 digits."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx

from nayer_cli.classifiers.model import load_classifier
from nayer_cli.config import ModelConfig
from nayer_cli.images.labelled import open_images
from nayer_cli.machine.distributed import Group
from nayer_cli.onnx.runner import OnnxNetwork
from nayer_cli.onnx.writer import write_onnx
from nayer_cli.quant.calibrate import calibrate
from nayer_cli.quant.deploy import deploy
from nayer_cli.quant.graph import quantize
from nayer_cli.quant.scheme import Scheme, parse_bits

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")


@pytest.fixture(scope="module")
def digits():
    """The network that ships, 500 normalized images of digits, and their labels."""
    model = load_classifier(ModelConfig("builtin:digits"))
    (pixels, labels), *_ = open_images("digits", shape=model.shape).batches(500)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in model.normalization)
    return model, (pixels.float() / 255 - mean) / std, labels


def learn(network: fx.GraphModule, images: Tensor, labels: Tensor, steps: int = 30) -> None:
    """Two bits alone, without learning, give one class for all images."""
    optimizer = torch.optim.Adam(network.train().parameters(), 2e-3)
    for step in range(steps):
        some = slice(step * 50 % 500, step * 50 % 500 + 50)
        optimizer.zero_grad()
        F.cross_entropy(network(images[some]), labels[some]).backward()
        optimizer.step()


def in_openvino(path: Path, images: Tensor) -> Tensor:
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return torch.from_numpy(openvino.Core().compile_model(str(path), "CPU", settings)(images.numpy())[0])


@pytest.mark.parametrize("bits", ["w8a8", "w4a4", "w2a2"])
def test_every_runtime_names_the_classes_of_the_integers(digits, tmp_path, bits):
    model, images, labels = digits
    torch.manual_seed(0)
    quantized = quantize(model.network, model.shape, Scheme(*parse_bits(bits)))
    calibrate(quantized, [images[:128]], Group())
    if bits == "w2a2":
        learn(quantized, images, labels)
    integers = deploy(quantized)
    write_onnx(integers, model.shape, tmp_path / "model.onnx", facts={})
    with torch.no_grad():
        expected = integers(images).argmax(1)
    assert (expected == labels).float().mean() > 0.5
    assert torch.equal(OnnxNetwork(tmp_path / "model.onnx", threads=1)(images).argmax(1), expected)
    assert torch.equal(in_openvino(tmp_path / "model.onnx", images).argmax(1), expected)
