"""Rounding weights one input after another: those to come make up for what those before are off by.

GPTQ (Frantar et al., ICLR 2023, arXiv 2210.17323), on few images and in closed form. What is kept small is the variance
of Σ (ŵ − w) x, since its mean is taken off where BatchNorm takes off others. Generated images tell which channels go
together, but are rougher than photographs: spatial kernels are rounded by what is known of those (`keeping_sums`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from nayer_cli.activations import hooked
from nayer_cli.machine.distributed import Group
from nayer_cli.quant.graph import QuantizedLayer
from nayer_cli.quant.moments import Known, sum_of_products
from nayer_cli.quant.quantizers import WeightQuantizer, unrounded
from nayer_cli.quant.rounding import keeping_sums, put, take_off
from nayer_cli.quant.trace import module_of

POSITIONS = 512
"""Places that are looked at of each image."""
DAMPING = 0.01
"""Of the mean variance of inputs, added to each: few images do not tell how all inputs go together."""


@dataclass
class Products:
    """Sums over places of what each group of a layer reads: x `[G, K]` and x xᵀ `[G, K, K]`, in double precision."""

    places: Tensor
    first: Tensor
    second: Tensor

    def covariance(self) -> Tensor:
        """Return E[x xᵀ] − E[x] E[x]ᵀ."""
        mean = self.first / self.places
        return self.second / self.places - mean[:, :, None] * mean[:, None, :]


@torch.no_grad()
def compensate(network: fx.GraphModule, batches: Iterable[Tensor], group: Group, known: Known) -> None:
    """Put all weights of a network on their grids by what its layers read, and correct its means.

    Args:
        network: as `calibrate` left it. Activations are rounded while images pass, weights are not.
        batches: normalized images.
        group: processes with images of their own; all get the same weights.
        known: what `moments.follow` tells of means.

    """
    network.eval()  # else BatchNorm would learn from made images
    seen = _collect(network, batches)
    group.average([each for sums in seen.values() for each in (sums.places, sums.first, sums.second)])
    added = {layer: _round(layer, sums) for layer, sums in seen.items()}
    for node in network.graph.nodes:
        module = module_of(node, network)
        if isinstance(module, QuantizedLayer):
            take_off(node, network, sum_of_products(module.layer, added[module], known[node.args[0]].mean))


def round_in_turn(weight: Tensor, step: Tensor, limit: int, covariance: Tensor) -> Tensor:
    """Return whole steps for weights `[G, O, K]`, of which each column is rounded after those of more variance.

    Args:
        weight: in double precision.
        step: `[G, O, 1]`.
        limit: the largest number of steps.
        covariance: of the inputs `[G, K, K]`.

    """
    order = covariance.diagonal(dim1=1, dim2=2).mean(0).argsort(descending=True)
    upper = _inverse_factor(covariance[:, order][:, :, order])
    left, whole = (weight / step)[:, :, order], torch.empty_like(weight)
    for place, column in enumerate(order.tolist()):
        rounded = left[:, :, place].round().clamp_(-limit, limit)
        error = (left[:, :, place] - rounded) / upper[:, place, place, None]
        left[:, :, place:] -= error[:, :, None] * upper[:, None, place, place:]
        whole[:, :, column] = rounded
    return whole


def _inverse_factor(covariance: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse of a damped covariance `[G, K, K]`."""
    mean = covariance.diagonal(dim1=1, dim2=2).mean(1).clamp_min(torch.finfo(torch.float32).tiny)
    damped = covariance + torch.eye(covariance.shape[1], device=mean.device) * (DAMPING * mean)[:, None, None]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    upper: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return upper


def _round(quantized: QuantizedLayer, sums: Products) -> Tensor:
    """Round the weights of a layer; return what that adds to them."""
    weight = quantized.layer.weight
    is_spatial = weight[0].numel() > weight.shape[1]
    steps = keeping_sums(quantized) if is_spatial else _in_turn(quantized, sums.covariance())
    return put(quantized, steps)


def _in_turn(quantized: QuantizedLayer, covariance: Tensor) -> Tensor:
    groups, quantizer, weight = len(covariance), quantized.quantizer, quantized.layer.weight
    rows = weight.double().reshape(groups, len(weight) // groups, -1)
    step = quantizer.step().double().view(groups, -1, 1)
    return round_in_turn(rows, step, quantizer.high, covariance)


def _collect(network: nn.Module, batches: Iterable[Tensor]) -> dict[QuantizedLayer, Products]:
    """Return what each layer reads while images pass through a network whose weights are float."""
    seen: dict[QuantizedLayer, Products] = {}
    layers = [module for module in network.modules() if isinstance(module, QuantizedLayer)]
    hooks = [layer.register_forward_pre_hook(lambda layer, given: _see(seen, layer, given[0])) for layer in layers]
    with hooked(hooks), unrounded(network, WeightQuantizer):
        for images in batches:
            network(images)
    return seen


def _see(seen: dict[QuantizedLayer, Products], quantized: QuantizedLayer, x: Tensor) -> None:
    read = _read(quantized.layer, x.float())
    places = torch.full((), read.shape[2], dtype=torch.double, device=x.device)
    first, second = read.sum(2).double(), (read @ read.transpose(1, 2)).double()
    if quantized in seen:
        sums = seen[quantized]
        places, first, second = sums.places + places, sums.first + first, sums.second + second
    seen[quantized] = Products(places, first, second)


def _read(layer: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    """Return what the weights of each group meet at some places, `[G, K, P]`."""
    if isinstance(layer, nn.Linear):
        return x.flatten(0, -2).T[None]
    height, width = layer.kernel_size
    above, left = layer.padding if not isinstance(layer.padding, str) else _same(layer)
    padded = F.pad(x, (left, left, above, above))
    rows, columns = _places(layer, padded)
    (down, right), taps = layer.dilation, []
    for row in range(height):
        taps += [padded[:, :, rows + row * down, columns + column * right] for column in range(width)]
    read = torch.stack(taps, 2).permute(1, 2, 0, 3).flatten(2)
    return read.reshape(layer.groups, -1, read.shape[2])


def _same(layer: nn.Conv2d) -> tuple[int, int]:
    """Return the padding of a layer that names it: half of what its kernel covers, or nothing."""
    if layer.padding == "valid":
        return 0, 0
    height, width = (step * (size - 1) // 2 for step, size in zip(layer.dilation, layer.kernel_size, strict=True))
    return height, width


def _places(layer: nn.Conv2d, padded: Tensor) -> tuple[Tensor, Tensor]:
    """Return row and column of some places, at random, where the kernel begins."""
    sizes = [
        (size - step * (kernel - 1) - 1) // stride + 1
        for size, step, kernel, stride in zip(
            padded.shape[2:], layer.dilation, layer.kernel_size, layer.stride, strict=True
        )
    ]
    count = sizes[0] * sizes[1]
    some = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:POSITIONS].to(padded.device)
    return some // sizes[1] * layer.stride[0], some % sizes[1] * layer.stride[1]
