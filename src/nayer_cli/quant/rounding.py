"""Which way weights are rounded, where each to the nearest is not the best for what a layer returns."""

import torch
from torch import Tensor, fx, nn

from nayer_cli.quant.graph import QuantizedLayer, norm_after
from nayer_cli.quant.trace import module_of


@torch.no_grad()
def round_weights(network: nn.Module) -> dict[QuantizedLayer, Tensor]:
    """Put all weights on their grids such that the sum of each spatial kernel is kept to half a step.

    Neighbouring pixels are alike, so what rounding adds to Σ wₜ xₜ over the taps of a kernel is nearly x̄ Σ (ŵₜ − wₜ).
    As few weights as can be, those next to a half, are rounded the other way.

    Args:
        network: with steps of weights chosen.

    Returns:
        What was added to the weights of each layer.

    """
    layers = [module for module in network.modules() if isinstance(module, QuantizedLayer)]
    return {layer: put(layer, keeping_sums(layer)) for layer in layers}


@torch.no_grad()
def put(layer: QuantizedLayer, steps: Tensor) -> Tensor:
    """Give a layer a weight of whole steps, and return what that adds to it."""
    weight = layer.layer.weight
    before = weight.clone()
    weight.copy_(steps.reshape(weight.shape) * layer.quantizer.step())
    return weight - before


def keeping_sums(layer: QuantizedLayer) -> Tensor:
    """Return whole steps for the weights of a layer, each the nearest but for what the sums of its kernels need."""
    quantizer, weight = layer.quantizer, layer.layer.weight
    steps = (weight / quantizer.step()).clamp(quantizer.low, quantizer.high)
    whole = round_kernels(steps.flatten(2)) if weight.ndim > 2 else steps.round()
    return whole.clamp_(quantizer.low, quantizer.high)


def round_kernels(steps: Tensor) -> Tensor:
    """Round `[O, I, T]` to whole numbers whose sums over T differ from those of `steps` by at most a half."""
    whole = steps.round()
    missing = steps - whole
    short = missing.sum(2, keepdim=True).round()
    rank = (missing * short.sign()).argsort(2, descending=True).argsort(2)
    return whole + short.sign() * (rank < short.abs())


@torch.no_grad()
def take_off(node: fx.Node, network: fx.GraphModule, added: Tensor) -> None:
    """Take off the mean of what a layer returns what was added to it `[O]`: where BatchNorm does, or its bias."""
    quantized, norm = module_of(node, network), module_of(norm_after(node, network), network)
    assert isinstance(quantized, QuantizedLayer)
    if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
        norm.running_mean.add_(added)
    elif quantized.layer.bias is not None:
        quantized.layer.bias.sub_(added)
