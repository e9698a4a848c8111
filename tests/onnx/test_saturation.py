"""No written file depends on how the processor adds products: proven on its integers, whatever runs these tests."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import timm
import torch
from torch import nn

import nayer_cli.classifiers.models  # noqa: F401 - registers the networks
import onnx
from nayer_cli.machine.distributed import Group
from nayer_cli.onnx.runner import OnnxNetwork, integer_share
from nayer_cli.onnx.writer import write_onnx
from nayer_cli.quant.calibrate import calibrate
from nayer_cli.quant.deploy import deploy
from nayer_cli.quant.graph import quantize
from nayer_cli.quant.lanes import LANE
from nayer_cli.quant.scheme import Scheme
from nayer_cli.types import ImageShape
from onnx import numpy_helper

SHAPE = ImageShape(3, 16, 16)
LAYERS = ("Conv", "Gemm", "MatMul")
PASSAGES = ("MaxPool", "Reshape", "Flatten", "Transpose", "Pad", "Slice", "Squeeze", "Unsqueeze")


class Extreme(nn.Module):
    """Grouped, depthwise and pointwise convolutions and products of which all weights have the largest magnitude."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6()),
            *(nn.Conv2d(8, 8, 1), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU()),
        )
        self.tokens, self.head = nn.Linear(8, 8), nn.Linear(8, 4)
        with torch.no_grad():
            for index, parameter in enumerate(self.parameters()):
                signs = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)).sign()
                parameter.copy_(signs / 4 if parameter.ndim > 1 else 0 * signs)
            self.body[0].weight.abs_()
            self.head.weight.abs_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.tokens(self.body(x).flatten(2).transpose(1, 2))
        return self.head(features.relu().mean(1))


class Layer(NamedTuple):
    """A layer of a file: its weights as they are stored, output channels first, and the largest byte that it reads."""

    name: str
    weight: np.ndarray
    largest: int


class Reader:
    """Finds out from a file alone what each of its layers multiplies."""

    def __init__(self, path: Path) -> None:
        self.graph = onnx.load(path).graph
        self.constants = {one.name: numpy_helper.to_array(one) for one in self.graph.initializer}
        self.makers = {name: node for node in self.graph.node for name in node.output}

    def layers(self) -> list[Layer]:
        nodes = [node for node in self.graph.node if node.op_type in LAYERS]
        found = [(node, self.weight(node.input[1])) for node in nodes]
        return [Layer(node.name, weight, self.largest(node.input[0])) for node, weight in found if weight is not None]

    def weight(self, name: str) -> np.ndarray | None:
        """Go back to a stored weight; `None` for a product of two activations."""
        while name not in self.constants:
            if self.makers[name].op_type not in ("DequantizeLinear", "Cast", "Transpose"):
                return None
            name = self.makers[name].input[0]
        return self.constants[name]

    def largest(self, name: str) -> int:
        """Go back to what limits an activation."""
        node: Any = self.makers[name]
        while node.op_type in ("DequantizeLinear", *PASSAGES):
            node = self.makers[node.input[0]]
        if node.op_type == "Clip":
            return int(self.constants[node.input[2]])
        assert node.op_type == "QuantizeLinear", f"{node.name} is not rounded"
        return 255


def saturating(path: Path) -> list[str]:
    """Return the layers of which two signed weights of one channel can exceed 16 bits, whichever two may meet."""
    found = []
    for name, weight, largest in Reader(path).layers():
        ordered = np.sort(weight.reshape(len(weight), -1).astype(int))
        worst = max(ordered[:, -2:].clip(0).sum(1).max(), -ordered[:, :2].clip(max=0).sum(1).min())
        if weight.dtype != np.uint8 and worst * largest > LANE:
            found.append(name)
    return found


def written(network: nn.Module, path: Path, scheme: Scheme, shape: ImageShape = SHAPE, **options: Any) -> nn.Module:
    """Quantize, calibrate on noise, write; return the network of integers."""
    quantized = quantize(network.eval(), shape, scheme)
    calibrate(quantized, [noise(shape)], Group(), clip=False)
    integers = deploy(quantized)
    write_onnx(integers, shape, path, facts={}, **options)
    return integers


def noise(shape: ImageShape = SHAPE) -> torch.Tensor:
    return torch.randn(24, *shape, generator=torch.Generator().manual_seed(3))


SCHEMES = [Scheme(8, 8), Scheme(4, 4), Scheme(8, 4), Scheme(2, 2), Scheme(8, 8, 7, 7), Scheme(8, 7, 0, 0)]


@pytest.mark.parametrize("weight_range", ["7bit", "u8u8"])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_no_layer_of_extreme_weights_can_saturate(tmp_path, scheme, weight_range):
    integers = written(Extreme(), path := tmp_path / "m.onnx", replace(scheme, weight_range=weight_range))
    assert len(Reader(path).layers()) == 6 and saturating(path) == []
    with torch.no_grad():
        expected = integers(noise())
    assert torch.equal(OnnxNetwork(path, threads=1)(noise()).argmax(1), expected.argmax(1))


def test_the_full_range_can_saturate_in_every_layer(tmp_path):
    written(Extreme(), path := tmp_path / "m.onnx", Scheme(8, 8, weight_range="full"), exact=False)
    assert len(saturating(path)) == 6


def test_full_range_stays_signed_where_nothing_can_saturate(tmp_path):
    written(Extreme(), path := tmp_path / "m.onnx", Scheme(8, 4, weight_range="u8u8"))
    kinds = {layer.weight.dtype.name for layer in Reader(path).layers()}
    assert kinds == {"int8", "uint8"}
    assert max(abs(layer.weight.astype(int)).max() for layer in Reader(path).layers() if layer.largest == 15) == 127


@pytest.mark.parametrize(("weight_range", "storage"), [("7bit", "int8"), ("7bit", "int4"), ("u8u8", "int8")])
@pytest.mark.parametrize("name", ["resnet8_digits", "mobilenetv2_cifar", "regnety_002"])
def test_no_layer_of_real_networks_can_saturate(tmp_path, name, weight_range, storage):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=4)
    shape = ImageShape(1 if "digits" in name else 3, 16, 16)
    scheme = Scheme(4 if storage == "int4" else 8, 8, weight_range=weight_range)
    written(network, path := tmp_path / "m.onnx", scheme, shape, storage=storage)
    assert len(Reader(path).layers()) > 7 and saturating(path) == []
    share = integer_share(path)
    assert share.convolutions.integers == share.convolutions.total
