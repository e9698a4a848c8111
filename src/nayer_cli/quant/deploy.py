"""From quantizers to integers: BatchNorm folded into int8 weights, int32 biases, ReLU folded into ranges."""

from copy import deepcopy

import torch
from torch import Tensor, fx, nn

from nayer_cli.quant.graph import QuantizedLayer, grid_of, highest, norm_after
from nayer_cli.quant.integers import Grid, IntegerConv2d, IntegerLayer, IntegerLinear
from nayer_cli.quant.ops import RECTIFIERS, is_kind
from nayer_cli.quant.quantizers import ActivationQuantizer, shortened
from nayer_cli.quant.trace import erase, module_of

LARGEST_BIAS = 2.0**30
"""Limit of a bias as int32, with room for the sum that is added to it."""
SCALE_BITS = 7
"""Stored bits of the mantissa of a weight's scale: products with sums below 2¹⁶ are exact."""


@torch.no_grad()
def deploy(quantized: fx.GraphModule) -> fx.GraphModule:
    """Return the network that computes with integers what `quantized` computes in evaluation mode.

    The two differ where a bias is rounded to a whole number of steps, and where that tips a rounding later. Of a
    network that is not calibrated the result has the form, but no meaning until its state is loaded.

    Args:
        quantized: as `quantize` returned it, trained or not; it is left as it is.

    """
    # A copy moves to the host: `quantized` goes on where it is, and shares its modules with any graph made of it.
    network = deepcopy(fx.GraphModule(quantized, _copy(quantized.graph))).cpu()
    for node in list(network.graph.nodes):
        if isinstance(module_of(node, network), ActivationQuantizer):
            _put(network, node, _grid(node, network))
    for node in list(network.graph.nodes):
        if isinstance(module_of(node, network), QuantizedLayer):
            norm = norm_after(node, network)
            _put(network, node, _integers(node, norm, network))
            if norm is not None:
                norm.replace_all_uses_with(node)
                network.graph.erase_node(norm)
    erase(network, lambda node: is_kind(node, RECTIFIERS, network) and _is_absorbed(node, network))
    for node in network.graph.nodes:
        _count_in_steps(node, network)
    return network.eval().requires_grad_(False)


def _count_in_steps(node: fx.Node, network: fx.GraphModule) -> None:
    """Let a layer return steps of the grid that alone reads it."""
    layer, readers = module_of(node, network), list(node.users)
    grid = module_of(readers[0], network) if len(readers) == 1 else None
    if isinstance(layer, IntegerLayer) and isinstance(grid, Grid):
        layer.output_scale.copy_(grid.scale)
        grid.in_steps = True


def _copy(graph: fx.Graph) -> fx.Graph:
    copy = fx.Graph()
    result = copy.graph_copy(graph, {})
    copy.output(result)
    return copy


def _put(network: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    """Let a node call another module, of its own: a layer that is called twice may read two grids."""
    network.add_submodule(f"integers.{node.name}", module)
    node.target = f"integers.{node.name}"


def _grid(node: fx.Node, network: fx.GraphModule) -> Grid:
    quantizer = module_of(node, network)
    assert isinstance(quantizer, ActivationQuantizer)
    grid, step = Grid(quantizer.signed), quantizer.step().cpu()
    grid.scale.copy_(step)
    grid.low.fill_(quantizer.low)
    grid.high.fill_(highest(node, network))
    return grid


def _is_absorbed(node: fx.Node, network: fx.GraphModule) -> bool:
    """Say whether all that read a ReLU are grids from 0 up."""
    readers = [module_of(user, network) for user in node.users]
    return bool(readers) and all(isinstance(reader, Grid) and not reader.signed for reader in readers)


def _integers(node: fx.Node, norm: fx.Node | None, network: fx.GraphModule) -> IntegerLayer:
    """Make the integer layer that stands for a layer and its BatchNorm."""
    quantized, grid = module_of(node, network), grid_of(node.args[0], network)
    assert isinstance(quantized, QuantizedLayer) and isinstance(grid, Grid)
    layer, quantizer = quantized.layer, quantized.quantizer
    weight_scale = quantizer.step().cpu()
    weight = torch.round(layer.weight.cpu() / weight_scale).clamp(quantizer.low, quantizer.high)
    weight_scale = weight_scale.flatten().expand(len(weight))
    slope, offset = _line(module_of(norm, network), len(weight))
    bias = offset if layer.bias is None else offset + slope * layer.bias.cpu()
    integers = _new_layer(layer, quantizer.bits)
    weight_scale, weight = _fold(weight_scale, weight, slope)
    weight_scale, weight = _with_room(weight_scale, weight, bias, grid.scale)
    integers.input_scale.copy_(grid.scale)
    integers.weight_scale.copy_(weight_scale)
    integers.weight.copy_(weight)
    integers.bias.copy_(torch.round(bias.double() / (grid.scale.double() * weight_scale.double())))
    return integers


def _line(norm: nn.Module | None, channels: int) -> tuple[Tensor, Tensor]:
    """Return slope and offset `[O]` of a BatchNorm in evaluation mode."""
    if norm is None:
        return torch.ones(channels), torch.zeros(channels)
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    gamma = norm.weight if norm.affine else torch.ones(channels)
    beta = norm.bias if norm.affine else torch.zeros(channels)
    slope = gamma.cpu() / torch.sqrt(norm.running_var.cpu() + norm.eps)
    return slope, beta.cpu() - slope * norm.running_mean.cpu()


def _fold(scale: Tensor, weight: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Multiply each channel by its slope: the scale takes its size, the integers take its sign."""
    return shortened(scale * slope.abs(), SCALE_BITS), weight * slope.sign().view(-1, *[1] * (weight.ndim - 1))


def _with_room(scale: Tensor, weight: Tensor, bias: Tensor, input_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Make the steps of channels longer whose bias would not fit into an int32: their weights are next to nothing."""
    least = (bias.abs() / (input_scale * LARGEST_BIAS)).clamp_min(torch.finfo(torch.float32).tiny)
    wider = torch.maximum(scale, least)
    shrunk = torch.round(weight * (scale / wider).view(-1, *[1] * (weight.ndim - 1)))
    return wider, shrunk


def _new_layer(layer: nn.Module, bits: int) -> IntegerLayer:
    if isinstance(layer, nn.Conv2d):
        return IntegerConv2d(layer, bits)
    assert isinstance(layer, nn.Linear)
    return IntegerLinear(layer, bits)
