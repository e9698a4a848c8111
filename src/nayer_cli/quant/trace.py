"""From a network to a plain graph of layers: what quantization, deployment and ONNX work on."""

from collections.abc import Callable
from copy import deepcopy
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from nayer_cli.errors import InputError
from nayer_cli.quant.functional import NotFunctional, make_functional
from nayer_cli.quant.plain import make_plain
from nayer_cli.quant.record import only_logits, record
from nayer_cli.types import ImageShape

Modules = dict[str, nn.Module]

WITHOUT_EFFECT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
"""Layers that do nothing in evaluation mode; a quantized network learns without dropout."""
DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, torch.dropout)
NOISE = 3
"""Images by which a graph is compared with its network: not as many as those that it was traced with."""
TOLERANCE = 1e-5
"""Largest difference of logits, as a share of the largest logit."""


def trace(network: nn.Module, shape: ImageShape) -> fx.GraphModule:
    """Return a copy of `network` as a graph, in evaluation mode; each node knows the shape of its output.

    Normalization layers with a built-in activation function become two layers, subclasses of layers become plain ones
    where they compute the same, and layers without effect go.

    Args:
        network: maps normalized images `[B, C, H, W]` to logits.
        shape: of one image; the graph takes others only if no size of theirs is a constant of it.

    Raises:
        InputError: what it does depends on the values that it sees, so it has no graph.

    """
    network = deepcopy(network).cpu().eval().requires_grad_(True)
    _split_norm_acts(network)
    noise = torch.randn(NOISE, *shape, generator=torch.Generator().manual_seed(0))
    try:
        wanted = _logits_for(network, noise)
        make_plain(network, noise)
        traced = record(network, noise[:2].clone(), noise.flip(1, 2))
        traced = _functional(traced, torch.zeros(2, *shape))
        erase(traced, lambda node: node.target in DROPOUTS or isinstance(module_of(node, traced), WITHOUT_EFFECT))
        note_shapes(traced, shape)
        _flatten_logits(traced, shape)
        found = _logits_for(traced, noise)
    except InputError:
        raise
    except Exception as error:  # a thousand networks have as many ways to be no graph
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"the network cannot be quantized: it has no graph ({reason})",
            hint="its forward must not branch on the values of tensors, and must use only torch, as timm's networks do",
        ) from error
    _check(found, wanted)
    return traced


def _functional(traced: fx.GraphModule, images: Tensor) -> fx.GraphModule:
    try:
        with torch.no_grad():
            return make_functional(traced, images)
    except NotFunctional as error:
        raise InputError(
            f"the network cannot be quantized: it changes tensors in place in a way that nayer does not know ({error})",
            hint="write the result to a new tensor there: y = x + 1, not x += 1",
        ) from error


@torch.no_grad()
def _logits_for(network: nn.Module, images: Tensor) -> Tensor:
    logits = only_logits(network(images.clone()))
    assert isinstance(logits, Tensor)
    return logits.flatten(1)


def _flatten_logits(network: fx.GraphModule, shape: ImageShape) -> None:
    """Let logits `[B, K, 1, 1]` be `[B, K]`."""
    (output,) = network.graph.find_nodes(op="output")
    logits = output.args[0]
    found = shape_of(logits) or ()
    if len(found) <= 2 or prod(found[2:]) != 1:
        return
    with network.graph.inserting_before(output):
        output.args = (network.graph.call_function(torch.flatten, (logits, 1)),)
    network.recompile()
    note_shapes(network, shape)


def _check(found: Tensor, wanted: Tensor) -> None:
    """Refuse a graph that does not compute what its network does: branches, state or chance may be lost in it.

    Raises:
        InputError: the logits for noise differ by more than rounding explains.

    """
    tolerance = TOLERANCE * float(wanted.abs().amax()) + torch.finfo(torch.float32).tiny
    if found.shape == wanted.shape and torch.allclose(found, wanted, rtol=0, atol=tolerance, equal_nan=True):
        return
    raise InputError(
        "the network cannot be quantized: its graph does not give the logits that the network itself gives",
        hint="its forward must do the same for any number of images, without chance or memory of earlier calls",
    )


@torch.no_grad()
def note_shapes(network: fx.GraphModule, shape: ImageShape) -> None:
    """Write down at each node the shape of its output for two images."""
    training = network.training
    device = next(network.parameters()).device
    ShapeProp(network.eval()).propagate(torch.zeros(2, *shape, device=device))
    network.train(training)


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """Return the shape of a node's output, or None if it is not a tensor."""
    found = node.meta.get("tensor_meta")
    return tuple(found.shape) if found is not None and hasattr(found, "shape") else None


def module_of(node: object, network: fx.GraphModule) -> nn.Module | None:
    """Return the module that a node calls, or None."""
    if isinstance(node, fx.Node) and node.op == "call_module":
        return network.get_submodule(str(node.target))
    return None


def _split_norm_acts(network: nn.Module) -> None:
    """Replace timm's BatchNorm layers that also hold an activation function by both, one after the other."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d) and isinstance(getattr(child, "act", None), nn.Module):
                drop: nn.Module = getattr(child, "drop", nn.Identity())
                setattr(module, name, nn.Sequential(_plain_norm(child), drop, child.get_submodule("act")))


def _plain_norm(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    plain = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    plain.load_state_dict({key: value for key, value in norm.state_dict().items() if key in plain.state_dict()})
    return plain.eval()


def erase(network: fx.GraphModule, unwanted: Callable[[fx.Node], object]) -> None:
    """Take out nodes that return their first input, and what is not used any more."""
    for node in list(network.graph.nodes):
        if unwanted(node):
            node.replace_all_uses_with(node.args[0])
            network.graph.erase_node(node)
    network.graph.lint()
    network.recompile()
    network.delete_all_unused_submodules()
