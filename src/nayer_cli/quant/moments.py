"""Follow the values of a network without an image: mean, variance and limits of each channel."""

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from nayer_cli.errors import InputError
from nayer_cli.quant.graph import QuantizedLayer
from nayer_cli.quant.ops import ADDITIONS, CURVES, GATES, PASSAGES, POOLS, RECTIFIERS, SHUFFLES, is_kind
from nayer_cli.quant.quantizers import ActivationQuantizer
from nayer_cli.quant.trace import module_of, shape_of
from nayer_cli.types import Normalization

Layer = nn.Conv2d | nn.Linear

REACH = 6.0
"""Standard deviations that limits are away from a mean (Nagel et al. 2019, as they set activation ranges)."""
POINTS = 481
"""Quantiles of a Gaussian that stand for all of it."""


class Gaussian(NamedTuple):
    """The assumed distribution of each channel's values: mean and standard deviation `[C]`."""

    mean: Tensor
    std: Tensor


class Moments(NamedTuple):
    """Mean, variance, least and greatest value of each channel, `[C]`."""

    mean: Tensor
    var: Tensor
    low: Tensor
    high: Tensor

    def limits(self) -> tuple[Tensor, Tensor]:
        """Return the least and the greatest value of all channels, 0-dimensional."""
        return self.low.amin(), self.high.amax()


Known = dict[fx.Node, Moments]


@torch.no_grad()
def follow(network: fx.GraphModule, outputs: Mapping[str, Gaussian], normalization: Normalization) -> Known:
    """Return the moments of each node's output.

    Pixels have mean 0 and variance 1, as a normalization promises, unless their limits do not allow it: then all values
    occur alike. After a BatchNorm they are what it promises. Elsewhere the inputs of a layer count as independent, and
    so do the terms of a sum. Pooling leaves moments as they are, and padding counts for nothing.

    Args:
        network: a CNN, as `quantize` returns it.
        outputs: what is known of layers' outputs by name.
        normalization: of the images: from the limits of pixels follow those of the input.

    Raises:
        InputError: there is an operation through which they cannot be followed.

    """
    known: Known = {}
    device = next(network.parameters()).device
    outputs = {name: Gaussian(mean.to(device), std.to(device)) for name, (mean, std) in outputs.items()}
    with device:  # constants are made where the weights are
        for node in network.graph.nodes:
            if node.op in ("placeholder", "call_module", "call_function", "call_method") and shape_of(node):
                known[node] = _fit(_moments_of(node, network, known, outputs, normalization), node)
    return known


def spread(node: fx.Node, network: fx.GraphModule, known: Known) -> tuple[Tensor, Tensor]:
    """Return values of each channel of what a node returns `[P, C]`, and their shares `[P]`, which add up to 1.

    They are those of a Gaussian, through the activation functions that the node ends with.
    """
    module = module_of(node, network)
    if not _is_curve(node, network):
        return _of_gaussian(known[node])
    values, shares = spread(node.all_input_nodes[0], network, known)
    return _call(node, module, values), shares


def normalized(norm: nn.BatchNorm2d) -> Gaussian:
    """Return what a BatchNorm promises of its output."""
    if not norm.affine:
        return Gaussian(torch.zeros(norm.num_features), torch.ones(norm.num_features))
    return Gaussian(norm.bias.detach().clone(), norm.weight.detach().abs())


def sum_of_products(layer: Layer, weight: Tensor, x: Tensor) -> Tensor:
    """Return what a layer with this weight and no bias makes `[O]` of an input that is `x` `[I]` everywhere."""
    weight = weight.flatten(2).sum(2, keepdim=True) if weight.ndim > 2 else weight.unsqueeze(2)
    return F.conv1d(x.view(1, -1, 1), weight, groups=getattr(layer, "groups", 1)).flatten()


def _moments_of(
    node: fx.Node,
    network: fx.GraphModule,
    known: Known,
    outputs: Mapping[str, Gaussian],
    normalization: Normalization,
) -> Moments:
    module = module_of(node, network)
    layer = module.layer if isinstance(module, QuantizedLayer) else module
    if node.op == "placeholder":
        return _of_pixels(normalization)
    if isinstance(layer, nn.BatchNorm2d):
        return _gaussian(*normalized(layer))
    if str(node.target) in outputs:
        return _gaussian(*outputs[str(node.target)])
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        return _through_layer(layer, _operand(node.args[0], known))
    if _is_curve(node, network):
        return _through_curve(lambda x: _call(node, module, x), _operand(node.args[0], known))
    if node.target is F.pad:
        return _padded(_operand(node.args[0], known), node.args[1])
    if is_kind(node, SHUFFLES, network):
        raise _lost(node)  # channels become places
    if isinstance(module, ActivationQuantizer) or is_kind(node, PASSAGES, network) or is_kind(node, POOLS, network):
        return _operand(node.args[0], known)
    if node.target is torch.cat:
        parts = [_operand(part, known) for part in node.args[0]]  # type: ignore[union-attr]
        return Moments(*map(torch.cat, zip(*parts, strict=True)))
    if is_kind(node, ADDITIONS, network):
        return _sum(_operand(node.args[0], known), _operand(node.args[1], known))
    if node.target is operator.mul:
        return _product(_operand(node.args[0], known), _operand(node.args[1], known))
    raise _lost(node)


def _is_curve(node: fx.Node, network: fx.GraphModule) -> bool:
    return any(is_kind(node, kinds, network) for kinds in (RECTIFIERS, CURVES, GATES))


def _lost(node: object) -> InputError:
    return InputError(
        f"ranges cannot be followed through '{node}' without images",
        hint="this works for CNNs of convolutions, BatchNorm and activation functions; choose another --method",
    )


def _operand(value: object, known: Known) -> Moments:
    if isinstance(value, (int, float)):
        constant = torch.tensor([float(value)])
        return Moments(constant, torch.zeros(1), constant, constant)
    if value not in known:
        raise _lost(value)
    return known[value]


def _fit(moments: Moments, node: fx.Node) -> Moments:
    """Give each channel of a node's output moments: flattening repeats those of a channel."""
    shape, channels = shape_of(node) or (), len(moments.mean)
    if len(shape) not in (2, 4) or shape[1] % channels or (len(shape) == 4 and channels not in (1, shape[1])):
        raise _lost(node)
    return Moments(*(each.repeat_interleave(shape[1] // channels) for each in moments))


def _of_pixels(normalization: Normalization) -> Moments:
    mean, std = torch.tensor(normalization.mean), torch.tensor(normalization.std)
    low, high = -mean / std, (1 - mean) / std
    even = (high - low).square() / 12
    return Moments(torch.where(even < 1, (low + high) / 2, 0.0), even.clamp(max=1), low, high)


def _gaussian(mean: Tensor, std: Tensor) -> Moments:
    return Moments(mean, std.square(), mean - REACH * std, mean + REACH * std)


def _padded(x: Moments, sizes: Any) -> Moments:
    """Add channels of zeros; sizes are those of the last axis first."""
    before, after = (*sizes, 0, 0, 0, 0, 0, 0)[4:6]
    return Moments(*(F.pad(each, (before, after)) for each in x))


def _through_layer(layer: Layer, x: Moments) -> Moments:
    mean = sum_of_products(layer, layer.weight, x.mean)
    var = sum_of_products(layer, layer.weight.square(), x.var)
    return _gaussian(mean if layer.bias is None else mean + layer.bias, var.sqrt())


def _through_curve(curve: Callable[[Tensor], Tensor], x: Moments) -> Moments:
    """Apply an activation function to many quantiles of a Gaussian, which need not be symmetric where x has limits."""
    values, shares = _of_gaussian(x)
    y = curve(values)
    mean = shares @ y
    return Moments(mean, shares @ (y - mean).square(), y.amin(0), y.amax(0))


def _of_gaussian(x: Moments) -> tuple[Tensor, Tensor]:
    """Return values `[POINTS, C]` within the limits of x, and their shares."""
    points = torch.linspace(-REACH, REACH, POINTS, device=x.mean.device)
    values = (x.mean + x.var.sqrt() * points[:, None]).clamp(x.low, x.high)
    return values, torch.softmax(-0.5 * points.square(), dim=0)


def _call(node: fx.Node, module: nn.Module | None, x: Tensor) -> Tensor:
    if module is not None:
        result = module(x)
    elif callable(node.target):
        result = node.target(x, *node.args[1:], **node.kwargs)
    else:
        result = getattr(x, node.target)(*node.args[1:], **node.kwargs)
    assert isinstance(result, Tensor)
    return result


def _sum(a: Moments, b: Moments) -> Moments:
    mean, var = a.mean + b.mean, a.var + b.var
    reach = REACH * var.sqrt()
    return Moments(mean, var, (mean - reach).maximum(a.low + b.low), (mean + reach).minimum(a.high + b.high))


def _product(a: Moments, b: Moments) -> Moments:
    mean = a.mean * b.mean
    var = a.var * b.var + a.var * b.mean.square() + b.var * a.mean.square()
    corners = torch.stack([a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high])
    return Moments(mean, var, corners.amin(0), corners.amax(0))
