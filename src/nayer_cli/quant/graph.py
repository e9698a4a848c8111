"""Insert quantizers in a network: `quantize` returns a copy that rounds weights and activations while it learns."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import timm.layers.linear
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from nayer_cli.errors import InputError
from nayer_cli.quant.integers import Grid, IntegerLayer
from nayer_cli.quant.lanes import largest_byte, safe_weight
from nayer_cli.quant.ops import (
    ADDITIONS,
    CURVES,
    GATES,
    NOT_ROUNDED,
    PASSAGES,
    POOLS,
    REASONS,
    RECTIFIERS,
    SIX,
    is_kind,
)
from nayer_cli.quant.quantizers import ActivationQuantizer, Quantizer, WeightQuantizer
from nayer_cli.quant.scheme import Scheme
from nayer_cli.quant.trace import module_of, note_shapes, shape_of, trace
from nayer_cli.types import ImageShape

GRIDS = (ActivationQuantizer, Grid)


class QuantizedLayer(nn.Module):
    """A convolution or linear layer whose weight is rounded each time it is used; its bias is not.

    Args:
        layer: the layer; it is kept, not copied.
        bits: of one weight.

    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, bits: int) -> None:
        super().__init__()
        self.layer = layer
        self.quantizer = WeightQuantizer(bits, layer.weight)
        self._grids: list[ActivationQuantizer] = []

    def read(self, grid: ActivationQuantizer) -> None:
        """Note on which grid an input lies; the module that rounds to it stays where it is in the network."""
        if grid not in self._grids:
            self._grids.append(grid)

    def forward(self, x: Tensor) -> Tensor:
        """Do what the layer does, with the rounded weight."""
        if _computes_in_bfloat16(x) and self.quantizer.is_calibrated and len(self._grids) == 1:
            return self._by_integers(x, self._grids[0])
        result: Tensor = torch.func.functional_call(self.layer, {"weight": self.quantizer(self.layer.weight)}, (x,))
        return result

    def _by_integers(self, x: Tensor, grid: ActivationQuantizer) -> Tensor:
        """Do it with steps counted: bfloat16 has all integers up to 256, but would round s · q by up to a step.

        Scales are detached: that of the input and that of the weight have their gradients from where they round.
        """
        layer, scale = self.layer, self.quantizer.step().detach()
        input_scale = grid.step().detach() if grid.is_calibrated else torch.ones((), device=x.device)
        steps, weight = x / input_scale, self.quantizer(layer.weight) / scale
        per_channel: tuple[int, ...] = (-1,)
        if isinstance(layer, nn.Conv2d):
            sums = F.conv2d(steps, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
            per_channel = (-1, 1, 1)
        else:
            sums = F.linear(steps, weight)
        result = sums.float() * (scale.view(per_channel) * input_scale)
        return result if layer.bias is None else result + layer.bias.view(per_channel)


def _computes_in_bfloat16(x: Tensor) -> bool:
    kind = x.device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose running statistics stay as they are, while weight and bias learn."""

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        """Stay in evaluation mode."""
        super().train(False)
        return self


@dataclass(frozen=True)
class KeptFloat:
    """An operation of a quantized network that computes in float32."""

    name: str
    """The name of its node in the graph."""
    what: str
    """Its type."""
    reason: str


def quantize(network: nn.Module, shape: ImageShape, scheme: Scheme, *, frozen: bool = False) -> fx.GraphModule:
    """Return a copy of `network` that computes on the grids of `scheme`, once it is calibrated.

    Quantizers stand at the input, after each layer with its BatchNorm and ReLU, after each addition and pooling, and
    before each layer whose input would be float otherwise.

    Args:
        network: maps normalized images `[B, C, H, W]` to logits.
        shape: of one image.
        scheme: the bits.
        frozen: whether running statistics of BatchNorm stay as they are in training, too.

    Raises:
        InputError: the network has no graph, or no layer that can be quantized.

    """
    traced = trace(network, shape)
    layers = list(_layers(traced))
    if not layers:
        raise InputError(
            "the network cannot be quantized: it has no convolution or linear layer with padding by zeros",
            hint="choose a network that has one",
        )
    for node in layers:
        ends = node in (layers[0], layers[-1])
        _quantize_layer(traced, node, scheme.first_last_bits if ends else scheme.weights)
    for node in list(_sites(traced)):
        _round_after(traced, node, scheme)
    for node in list(_layers(traced)):
        source = grid_of(node.args[0], traced)
        if source is None:
            _round_after(traced, node.args[0], scheme)
    if scheme.weight_range == "7bit":
        limit_weights(traced)
    for node in _layers(traced):
        layer, source = module_of(node, traced), grid_of(node.args[0], traced)
        assert isinstance(layer, QuantizedLayer) and isinstance(source, ActivationQuantizer)
        layer.read(source)
    if frozen:
        _freeze(traced)
    traced.graph.lint()
    traced.recompile()
    traced.delete_all_unused_submodules()
    note_shapes(traced, shape)
    return traced


def quantizers(network: nn.Module) -> Iterator[tuple[str, Quantizer]]:
    """Yield all quantizers with their names."""
    return ((name, module) for name, module in network.named_modules() if isinstance(module, Quantizer))


def is_calibrated(network: nn.Module) -> bool:
    """Say whether all quantizers are."""
    return all(quantizer.is_calibrated for _, quantizer in quantizers(network))


def grid_of(node: object, network: fx.GraphModule) -> ActivationQuantizer | Grid | None:
    """Return the module on whose grid the values of a node lie, or None if they are float."""
    module = module_of(_source(node, network), network)
    return module if isinstance(module, GRIDS) else None


def highest(node: fx.Node, network: fx.GraphModule) -> int:
    """Return the greatest integer that comes out of a quantizer: that of min(x, 6), where the values end there.

    Rounding is monotonous, so min(x, 6) before it is a clamp to the integer next to 6.
    """
    quantizer = module_of(node, network)
    assert isinstance(quantizer, ActivationQuantizer)
    if not is_kind(node.args[0], SIX, network):
        return quantizer.high
    return int(torch.round(6 / quantizer.step().detach()).clamp(max=quantizer.high))


def limit_weights(network: fx.GraphModule) -> None:
    """Let no two products of any layer exceed 16 bits.

    Once steps of activations are chosen, and do not learn, more weights are possible behind ReLU6: its bytes end at 6.
    """
    for node in _layers(network):
        layer, grid = module_of(node, network), grid_of(node.args[0], network)
        assert isinstance(layer, QuantizedLayer) and isinstance(grid, ActivationQuantizer)
        largest = largest_byte(highest(_source(node.args[0], network), network), grid.signed)
        layer.quantizer.limit(safe_weight(largest))


def norm_after(node: fx.Node, network: fx.GraphModule) -> fx.Node | None:
    """Return the BatchNorm that alone reads what a layer returns, and so can be folded into it."""
    user = _only_user(node)
    module = module_of(user, network)
    known = isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
    return user if known else None


def kept_float(network: fx.GraphModule) -> list[KeptFloat]:
    """Return what computes in float32 in a quantized or deployed network, in order."""
    nodes = (node for node in network.graph.nodes if shape_of(node) is not None)
    reasons = ((node, _why_float(node, network)) for node in nodes)
    return [KeptFloat(node.name, _type(node, network), reason) for node, reason in reasons if reason]


def _source(node: Any, network: fx.GraphModule) -> Any:
    """Return what made the values that a node passes on."""
    while is_kind(node, PASSAGES, network):
        node = node.args[0]
    return node


def _layers(network: fx.GraphModule) -> Iterator[fx.Node]:
    """Yield the calls of layers that can be, or are, quantized."""
    read = {str(node.target).rpartition(".")[0] for node in network.graph.find_nodes(op="get_attr")}
    for node in network.graph.nodes:
        module = module_of(node, network)
        if isinstance(module, QuantizedLayer) or (_is_plain(module) and str(node.target) not in read):
            yield node


def _is_plain(module: nn.Module | None) -> bool:
    # A subclass that is left may compute anything, and ONNX's convolution pads by zeros alone.
    if type(module) in (nn.Linear, timm.layers.linear.Linear):
        return True
    return type(module) is nn.Conv2d and module.padding_mode == "zeros"


def _quantize_layer(network: fx.GraphModule, node: fx.Node, bits: int) -> None:
    module = module_of(node, network)
    if isinstance(module, (nn.Conv2d, nn.Linear)):  # else it is called twice, and quantized already
        network.set_submodule(str(node.target), QuantizedLayer(module, bits))


def _sites(network: fx.GraphModule) -> Iterator[fx.Node]:
    """Yield the nodes after which values are rounded, whatever reads them."""
    for node in network.graph.nodes:
        if node.op == "placeholder" and shape_of(node) is None:
            continue  # an argument that is not given
        if node.op == "placeholder" or (is_kind(node, POOLS, network) and _is_image(node.args[0])):
            yield node
        elif is_kind(node, ADDITIONS, network) and all(map(_is_image, node.args[:2])):
            yield _with_rectifier(node, network)
        elif isinstance(module_of(node, network), QuantizedLayer) and not _is_logits(node):
            yield _with_rectifier(norm_after(node, network) or node, network)
        elif is_kind(node, RECTIFIERS, network):
            yield node


def _with_rectifier(node: fx.Node, network: fx.GraphModule) -> fx.Node:
    user = _only_user(node)
    return user if user is not None and is_kind(user, RECTIFIERS, network) else node


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_image(node: object) -> bool:
    """Say whether a node returns `[B, C, H, W]` that depends on the input."""
    return isinstance(node, fx.Node) and node.op != "get_attr" and len(shape_of(node) or ()) == 4


def _is_logits(node: fx.Node) -> bool:
    """Say whether the network returns the output of a layer."""
    user = _only_user(node)
    if user is None or user.op == "output":
        return user is not None
    return user.target in PASSAGES[1] + PASSAGES[2] and _is_logits(user)


def _round_after(network: fx.GraphModule, node: Any, scheme: Scheme) -> None:
    """Put a quantizer between a node and all that read it, unless one is there."""
    if any(isinstance(module_of(user, network), ActivationQuantizer) for user in node.users):
        return
    activated = is_kind(node, RECTIFIERS, network) or is_kind(node, CURVES, network)
    bits = scheme.activations if activated else scheme.edge_bits
    # By number, so that it is the same whether or not BatchNorm is folded already.
    name = f"grids.{sum(isinstance(module, ActivationQuantizer) for module in network.modules())}"
    network.add_submodule(name, ActivationQuantizer(bits, signed=not _is_nonnegative(node, network)))
    with network.graph.inserting_after(node):
        grid = network.graph.call_module(name, (node,))
    node.replace_all_uses_with(grid, delete_user_cb=lambda user: user is not grid)
    grid.meta = dict(node.meta)


def _is_nonnegative(node: object, network: fx.GraphModule) -> bool:
    if not isinstance(node, fx.Node):
        return False
    if is_kind(node, RECTIFIERS, network) or is_kind(node, GATES, network):
        return True
    module = module_of(node, network)
    if isinstance(module, ActivationQuantizer):
        return not module.signed
    if is_kind(node, PASSAGES, network) or is_kind(node, POOLS, network):
        return _is_nonnegative(node.args[0], network)
    if is_kind(node, ADDITIONS, network) or node.target is operator.mul:
        return all(_is_nonnegative(arg, network) for arg in node.args[:2])
    return node.target is torch.cat and all(_is_nonnegative(part, network) for part in node.all_input_nodes)


def _freeze(network: fx.GraphModule) -> None:
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = FrozenBatchNorm2d


def _why_float(node: fx.Node, network: fx.GraphModule) -> str:
    """Say why a node computes in float32; empty if it does not, or computes nothing."""
    module = module_of(node, network)
    if node.op in ("placeholder", "output", "get_attr") or is_kind(node, PASSAGES, network):
        return ""
    if isinstance(module, (QuantizedLayer, IntegerLayer, *GRIDS)):
        return ""
    if isinstance(module, nn.BatchNorm2d):
        return "" if _is_folded(node, network) else "no convolution before it to fold it into"
    for kinds, reason in REASONS:
        if is_kind(node, kinds, network):
            return "" if reason == NOT_ROUNDED and _is_rounded(node, network) else reason
    return "no integer form of it is known"


def _is_folded(norm: fx.Node, network: fx.GraphModule) -> bool:
    layer = norm.args[0]
    return isinstance(module_of(layer, network), QuantizedLayer) and norm_after(layer, network) is norm  # type: ignore[arg-type]


def _is_rounded(node: fx.Node, network: fx.GraphModule) -> bool:
    """Say whether what a node returns is rounded, if need be after a ReLU."""
    user = _only_user(node)
    if user is not None and is_kind(user, RECTIFIERS, network):
        node = user
    return any(isinstance(module_of(reader, network), GRIDS) for reader in node.users)


def _type(node: fx.Node, network: fx.GraphModule) -> str:
    module = module_of(node, network)
    if module is not None:
        return type(module).__name__
    return str(node.target) if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
