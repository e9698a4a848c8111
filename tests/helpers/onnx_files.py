"""Deployed networks, ONNX files of them, and what ONNX Runtime makes of these."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import onnxruntime
import torch
from torch import Tensor, fx, nn

import onnx
from nayer_cli.machine.distributed import Group
from nayer_cli.onnx.runner import OnnxNetwork
from nayer_cli.onnx.writer import write_onnx
from nayer_cli.quant.calibrate import calibrate
from nayer_cli.quant.deploy import deploy
from nayer_cli.quant.graph import quantize
from nayer_cli.quant.scheme import Scheme
from nayer_cli.types import ImageShape

SHAPE = ImageShape(3, 12, 12)


class Pair(NamedTuple):
    """What a network and its file return for the same images."""

    torch: Tensor
    onnx: Tensor


def images(count: int = 5, shape: ImageShape = SHAPE) -> Tensor:
    """Return normalized images, always the same."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(7))


def deployed(network: nn.Module, weights: int = 8, activations: int = 8, edges: int = 8) -> fx.GraphModule:
    """Return `network` with integers, calibrated on noise; its BatchNorm layers have seen some, too."""
    with torch.no_grad():
        network.train()(images(32))
    quantized = quantize(network.eval(), SHAPE, Scheme(weights, activations, edges=edges))
    calibrate(quantized, [images(32)], Group())
    return deploy(quantized)


def both(network: fx.GraphModule, path: Path, *, storage: str = "int8", shape: ImageShape = SHAPE) -> Pair:
    """Write a network to `path`, and let it and the file classify the same images."""
    write_onnx(network, shape, path, storage=storage, facts={})
    onnx.checker.check_model(str(path), full_check=True)
    with torch.no_grad():
        return Pair(network(images(shape=shape)), OnnxNetwork(path, threads=1)(images(shape=shape)))


def operations(path: Path) -> Counter[str]:
    """Count the operations that ONNX Runtime executes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
