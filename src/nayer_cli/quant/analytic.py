"""Scales and biases from BatchNorm alone: the network stays as it is, and no image is needed.

What differs from `dfq_nagel` (Nagel et al., ICCV 2019): nothing is equalized, since each output channel has a scale of
its own, so ReLU6 stays ReLU6 and BatchNorm stays where it is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from nayer_cli.quant.calibrate import calibrate_weights
from nayer_cli.quant.graph import QuantizedLayer, grid_of, norm_after
from nayer_cli.quant.moments import Known, Moments, follow, sum_of_products
from nayer_cli.quant.quantizers import SMALLEST_SCALE, ActivationQuantizer
from nayer_cli.quant.trace import module_of
from nayer_cli.types import Normalization

MOST_NOISE = 0.05
"""Share of the variance that a BatchNorm knows. With more noise, rounding has changed what the network computes."""
DEAD = 1e-6
"""Channels with less than this part of a layer's mean variance say nothing about noise."""


@dataclass(frozen=True)
class Noise:
    """The noise that rounding adds to the output of one layer."""

    layer: str
    share: float
    """Its variance as a part of the one that BatchNorm knows, on average over channels."""


@torch.no_grad()
def calibrate(network: fx.GraphModule, normalization: Normalization) -> list[Noise]:
    """Choose all scales of a quantized network and correct its means, without an image.

    A grid reaches as far as values do by `moments.follow`: six standard deviations, or where the activation function
    ends. Weights are rounded with the least squared error, by channel. What that adds to the mean of a layer's output,
    Σ (ŵ − w) E[x], is taken off the running mean of its BatchNorm, or off its bias (Nagel et al. 2019, section 4.2).

    Args:
        network: as `quantize` returned it.
        normalization: of the images; the range of the network's input follows from that of pixels.

    Returns:
        For each layer that BatchNorm follows, how much noise rounding adds by these scales.

    Raises:
        InputError: the network has an operation through which no range can be followed.

    """
    known = follow(network, {}, normalization)
    for node in network.graph.nodes:
        module = module_of(node, network)
        if isinstance(module, ActivationQuantizer):
            module.calibrate(_reaching(module, known[node.args[0]]))
    calibrate_weights(network)
    return [found for node in network.graph.nodes if (found := _correct(node, network, known))]


def broken(noises: list[Noise]) -> Noise | None:
    """Return the layer that rounding disturbs most, if it disturbs it so much that accuracy is in doubt."""
    worst = max(noises, key=lambda noise: noise.share, default=None)
    return worst if worst is not None and worst.share > MOST_NOISE else None


def _reaching(quantizer: ActivationQuantizer, values: Moments) -> Tensor:
    """Return the scale at which nothing within the limits of `values` is clipped."""
    low, high = values.limits()
    below = low / quantizer.low if quantizer.low else low.new_zeros(())
    return torch.maximum(high / quantizer.high, below).clamp_min(SMALLEST_SCALE)


def _correct(node: fx.Node, network: fx.GraphModule, known: Known) -> Noise | None:
    """Subtract from the mean what rounding a layer's weight adds to it; return its noise if a BatchNorm shows it."""
    quantized = module_of(node, network)
    if not isinstance(quantized, QuantizedLayer):
        return None
    layer, x = quantized.layer, known[node.args[0]]  # type: ignore[index]
    error = quantized.quantizer(layer.weight) - layer.weight
    added = sum_of_products(layer, error, x.mean)
    norm_node = norm_after(node, network)
    norm = module_of(norm_node, network)
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        if layer.bias is not None:
            layer.bias.sub_(added)
        return None
    norm.running_mean.add_(added)
    return Noise(node.name, _share(quantized, error, x, _step_variance(node, network), norm.running_var))


def _step_variance(node: fx.Node, network: fx.GraphModule) -> Tensor:
    grid = grid_of(node.args[0], network)
    assert isinstance(grid, ActivationQuantizer)
    return grid.step().square() / 12


def _share(quantized: QuantizedLayer, error: Tensor, x: Moments, step_variance: Tensor, known: Tensor) -> float:
    """Return Σ (ŵ − w)² Var[x] + Σ ŵ² s²/12 as a part of BatchNorm's variance, averaged over channels."""
    layer = quantized.layer
    rounded = (layer.weight + error).square()
    noise = sum_of_products(layer, error.square(), x.var)
    noise += sum_of_products(layer, rounded, step_variance.expand_as(x.var))
    alive = known > DEAD * known.mean()
    return float((noise[alive] / known[alive]).mean()) if bool(alive.any()) else 0.0
