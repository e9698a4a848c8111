"""Scales and biases from BatchNorm alone: the network stays as it is, and no image is needed.

What differs from `dfq_nagel` (Nagel et al., ICCV 2019): nothing is equalized, since each output channel has a scale of
its own, so ReLU6 stays ReLU6 and BatchNorm stays where it is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from nayer_cli.quant.calibrate import best_scale, calibrate_weights
from nayer_cli.quant.graph import QuantizedLayer, grid_of, limit_weights, norm_after
from nayer_cli.quant.moments import Moments, follow, spread, sum_of_products
from nayer_cli.quant.quantizers import SMALLEST_SCALE, ActivationQuantizer
from nayer_cli.quant.rounding import round_weights, take_off
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
def calibrate(network: fx.GraphModule, normalization: Normalization, *, limit: bool = False) -> list[Noise]:
    """Choose all scales of a quantized network and correct its means, without an image.

    Values are taken for Gaussians, by `moments.follow`, which activation functions cut off, and the step of a grid has
    the least expected squared error. So has that of each channel of a weight. Spatial kernels keep their sums
    (`round_weights`). What rounding adds to the mean of a layer's output, Σ (ŵ − w) E[x], is taken off the running mean
    of its BatchNorm, or off its bias (Nagel et al. 2019, section 4.2).

    Args:
        network: as `quantize` returned it.
        normalization: of the images; the range of the network's input follows from that of pixels.
        limit: whether weights have limits, which chosen steps of activations widen (`limit_weights`).

    Returns:
        For each layer that BatchNorm follows, how much noise rounding adds by these scales.

    Raises:
        InputError: the network has an operation through which no range can be followed.

    """
    known = follow(network, {}, normalization)
    for node in network.graph.nodes:
        module = module_of(node, network)
        if isinstance(module, ActivationQuantizer):
            module.calibrate(_best_step(module, *spread(node.args[0], network, known)))
    if limit:
        limit_weights(network)
    calibrate_weights(network)
    added = round_weights(network)
    layers = [node for node in network.graph.nodes if isinstance(module_of(node, network), QuantizedLayer)]
    return [found for node in layers if (found := _correct(node, network, known[node.args[0]], added))]


def broken(noises: list[Noise]) -> Noise | None:
    """Return the layer that rounding disturbs most, if it disturbs it so much that accuracy is in doubt."""
    worst = max(noises, key=lambda noise: noise.share, default=None)
    return worst if worst is not None and worst.share > MOST_NOISE else None


def _best_step(quantizer: ActivationQuantizer, values: Tensor, shares: Tensor) -> Tensor:
    """Return the scale with the least expected squared error of values `[P, C]` that occur by `shares` `[P]`."""
    below = values.amin() / quantizer.low if quantizer.low else values.new_zeros(())
    reaching = torch.maximum(values.amax() / quantizer.high, below).clamp_min(SMALLEST_SCALE)
    each = shares[:, None].expand_as(values).flatten()
    return best_scale(values.reshape(1, -1), (reaching * quantizer.high).view(1, 1), quantizer, shares=each).view(())


def _correct(node: fx.Node, network: fx.GraphModule, x: Moments, added: dict[QuantizedLayer, Tensor]) -> Noise | None:
    """Subtract from the mean what rounding a layer's weight adds to it; return its noise if a BatchNorm shows it."""
    quantized, norm = module_of(node, network), module_of(norm_after(node, network), network)
    assert isinstance(quantized, QuantizedLayer)
    error = added[quantized]
    take_off(node, network, sum_of_products(quantized.layer, error, x.mean))
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None:
        return None
    return Noise(node.name, _share(quantized, error, x, _step_variance(node, network), norm.running_var))


def _step_variance(node: fx.Node, network: fx.GraphModule) -> Tensor:
    grid = grid_of(node.args[0], network)
    assert isinstance(grid, ActivationQuantizer)
    return grid.step().square() / 12


def _share(quantized: QuantizedLayer, error: Tensor, x: Moments, step_variance: Tensor, known: Tensor) -> float:
    """Return Σ (ŵ − w)² Var[x] + Σ ŵ² s²/12 as a part of BatchNorm's variance, averaged over channels."""
    layer = quantized.layer
    noise = sum_of_products(layer, error.square(), x.var)
    noise += sum_of_products(layer, layer.weight.square(), step_variance.expand_as(x.var))
    alive = known > DEAD * known.mean()
    return float((noise[alive] / known[alive]).mean()) if bool(alive.any()) else 0.0
