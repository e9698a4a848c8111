"""Quantization without any image: equalized layers, and ranges and biases from BatchNorm (Nagel et al., ICCV 2019).

arXiv 1906.04721. `equalize` before quantizers are put in, `calibrate` after; both rest on what BatchNorm promises of
each channel: a mean of β and a standard deviation of |γ|.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nayer_cli.quant.graph import QuantizedLayer, norm_after
from nayer_cli.quant.moments import Gaussian, Layer, follow, normalized, sum_of_products
from nayer_cli.quant.ops import HOMOGENEOUS, RECTIFIERS, is_kind
from nayer_cli.quant.quantizers import SMALLEST_SCALE, ActivationQuantizer
from nayer_cli.quant.trace import module_of, trace
from nayer_cli.types import ImageShape, Normalization

SWEEPS = 200
TOLERANCE = 1e-3
"""Sweeps over all pairs end when no channel is scaled by more than this part of itself."""
TAIL = 3
"""Standard deviations below the mean of a channel; what remains above 0 there is absorbed."""


class Pair(NamedTuple):
    """Two layers, where only the second reads the first."""

    first: str
    second: str
    rectified: bool
    """Whether there is a ReLU between them."""


@torch.no_grad()
def equalize(network: nn.Module, shape: ImageShape) -> tuple[fx.GraphModule, dict[str, Gaussian]]:
    """Return a copy of `network` whose layers survive one scale for all channels, and what its layers return.

    ReLU6 becomes ReLU, BatchNorm is folded into the layer before it, scales move between layers and so do biases
    that no ReLU ever clips (paper, section 4.1). Every convolution and linear layer has a bias. But for
    ReLU6 and the absorbed tails, the network computes what it did.

    Args:
        network: maps normalized images `[B, C, H, W]` to logits.
        shape: of one image.

    Returns:
        The network, and by name of a layer what BatchNorm promises of its output, where there was one.

    Raises:
        InputError: it has no graph.

    """
    traced = trace(network, shape)
    _without_six(traced)
    outputs = _fold_norms(traced)
    layers = dict(_layers(traced))
    for layer in layers.values():
        layer.weight.data = layer.weight.data.contiguous()
        layer.bias = layer.bias if layer.bias is not None else nn.Parameter(layer.weight.new_zeros(len(layer.weight)))
    pairs = list(_pairs(traced, layers))
    for _ in range(SWEEPS):
        moves = [_equalize_pair(layers, pair, outputs) for pair in pairs]
        if max(moves, default=0.0) < TOLERANCE:
            break
    for pair in pairs:
        if pair.rectified and pair.first in outputs:
            _absorb(layers[pair.first], layers[pair.second], pair.first, outputs)
    return traced, outputs


@torch.no_grad()
def calibrate(quantized: fx.GraphModule, outputs: dict[str, Gaussian], normalization: Normalization) -> None:
    """Choose all scales of a quantized network, and correct its biases, without an image (paper, section 4.2).

    Weights of a layer have one scale, that of the largest. Activations reach from six standard deviations below the
    mean of their lowest channel to six above that of their highest.

    Args:
        quantized: what `quantize` made of the network that `equalize` returned.
        outputs: what `equalize` returned with it.
        normalization: of the images; the range of the network's input follows from that of pixels.

    Raises:
        InputError: the network has an operation through which no range can be followed.

    """
    values = follow(quantized, outputs, normalization)
    for node in quantized.graph.nodes:
        module = module_of(node, quantized)
        if isinstance(module, ActivationQuantizer):
            low, high = values[node.args[0]].limits()
            below = low / module.low if module.low else low.new_zeros(())
            module.calibrate(torch.maximum(high / module.high, below).clamp_min(SMALLEST_SCALE))
        elif isinstance(module, QuantizedLayer):
            _round_weights(module, values[node.args[0]].mean)


def _round_weights(quantized: QuantizedLayer, mean: Tensor) -> None:
    """Give all channels one scale, and take from the bias what rounding adds to a mean output."""
    layer, quantizer = quantized.layer, quantized.quantizer
    quantizer.calibrate((layer.weight.abs().amax() / quantizer.high).clamp_min(SMALLEST_SCALE))
    _bias(layer).sub_(sum_of_products(layer, quantizer(layer.weight) - layer.weight, mean))


def _without_six(network: fx.GraphModule) -> None:
    for node in network.graph.nodes:
        if isinstance(module_of(node, network), nn.ReLU6):
            network.set_submodule(str(node.target), nn.ReLU())
        elif node.target is F.relu6:
            node.target = F.relu
    network.recompile()


def _fold_norms(network: fx.GraphModule) -> dict[str, Gaussian]:
    """Fold BatchNorm into the convolution before it, where both are called once."""
    outputs: dict[str, Gaussian] = {}
    for name, node in _called_once(network):
        conv, norm_node = module_of(node, network), norm_after(node, network)
        norm = module_of(norm_node, network)
        if norm_node is None or not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            continue
        network.set_submodule(name, fuse_conv_bn_eval(conv, norm))
        outputs[name] = normalized(norm)
        norm_node.replace_all_uses_with(node)
        network.graph.erase_node(norm_node)
    network.graph.lint()
    network.recompile()
    network.delete_all_unused_submodules()
    return outputs


def _called_once(network: fx.GraphModule) -> Iterator[tuple[str, fx.Node]]:
    calls = [node for node in network.graph.nodes if node.op == "call_module"]
    times = Counter(node.target for node in calls)
    return ((str(node.target), node) for node in calls if times[node.target] == 1)


def _layers(network: fx.GraphModule) -> Iterator[tuple[str, Layer]]:
    for name, module in network.named_modules():
        if type(module) in (nn.Conv2d, nn.Linear):
            yield name, module


def _pairs(network: fx.GraphModule, layers: dict[str, Layer]) -> Iterator[Pair]:
    once = dict(_called_once(network))
    for name, node in once.items():
        rectified = False
        while len(node.users) == 1:
            node = next(iter(node.users))
            if not is_kind(node, HOMOGENEOUS, network):
                break
            rectified |= is_kind(node, RECTIFIERS, network)
        second = str(node.target)
        if second == name or once.get(second) is not node or not {name, second} <= layers.keys():
            continue
        groups, _, inputs, _ = _by_input(layers[second]).shape
        if len(layers[name].weight) == groups * inputs:
            yield Pair(name, second, rectified)


def _equalize_pair(layers: dict[str, Layer], pair: Pair, outputs: dict[str, Gaussian]) -> float:
    """Give each channel between two layers the same range on both sides; return the largest move."""
    first, second = layers[pair.first], layers[pair.second]
    leaving = first.weight.flatten(1).abs().amax(1)
    columns = _by_input(second)
    entering = columns.abs().amax((1, 3)).flatten()
    scale = (entering / leaving).sqrt().clamp(1e-8, 1e8)
    scale[(entering == 0) | (leaving == 0)] = 1.0
    first.weight.mul_(scale.view(-1, *[1] * (first.weight.ndim - 1)))
    _bias(first).mul_(scale)
    columns.div_(scale.view(columns.shape[0], 1, -1, 1))
    if pair.first in outputs:
        mean, std = outputs[pair.first]
        outputs[pair.first] = Gaussian(mean * scale, std * scale)
    return float((scale - 1).abs().amax())


def _by_input(layer: Layer) -> Tensor:
    """View a weight as `[G, O / G, I / G, positions]`: input channels are the first and the third axis."""
    groups = getattr(layer, "groups", 1)
    return layer.weight.data.view(groups, len(layer.weight) // groups, layer.weight.shape[1], -1)


def _absorb(first: Layer, second: Layer, name: str, outputs: dict[str, Gaussian]) -> None:
    """Let the second layer's bias take over what a ReLU passes on of nearly every value."""
    mean, std = outputs[name]
    constant = (mean - TAIL * std).clamp_min(0)
    _bias(first).sub_(constant)
    outputs[name] = Gaussian(mean - constant, std)
    _bias(second).add_(sum_of_products(second, second.weight, constant))


def _bias(layer: Layer) -> Tensor:
    assert layer.bias is not None  # `equalize` gives one to each
    return layer.bias
