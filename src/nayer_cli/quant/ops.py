"""The kinds of operations: every spelling of each, as a module, a function or a method, and why a kind stays float.

Whoever rewrites a graph asks here. Each spelling has an ONNX rule as well, which a test holds.
"""

import operator
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import fx, nn

from nayer_cli.quant.trace import module_of

Kinds = tuple[tuple[type[nn.Module], ...], tuple[Callable[..., object], ...], tuple[str, ...]]
"""An operation as modules, as functions, and as methods of a tensor."""

RECTIFIERS: Kinds = ((nn.ReLU, nn.ReLU6), (F.relu, F.relu6, torch.relu), ("relu", "relu_"))
"""Activation functions that an integer's range does for free."""
SIX: Kinds = ((nn.ReLU6,), (F.relu6,), ())
"""The ones among them that also end at 6."""
CURVES: Kinds = (
    (
        *(nn.SiLU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Mish, nn.PReLU, nn.SELU, nn.CELU, nn.Softplus),
        *(nn.Tanh, nn.Hardtanh, nn.Softsign, nn.LogSigmoid, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Threshold),
        *(nn.RReLU, nn.GLU),
    ),
    (
        *(F.silu, F.gelu, F.hardswish, F.leaky_relu, F.elu, F.mish, F.selu, F.celu, F.softplus),
        *(F.prelu, torch.prelu, torch.selu, torch.celu, F.glu),
        *(F.tanh, torch.tanh, F.hardtanh, F.softsign, F.logsigmoid, F.hardshrink, F.softshrink, F.tanhshrink),
        *(F.threshold, F.rrelu),
    ),
    ("tanh", "tanh_"),
)
"""Activation functions that stay float."""
GATES: Kinds = ((nn.Sigmoid, nn.Hardsigmoid), (torch.sigmoid, F.sigmoid, F.hardsigmoid), ("sigmoid", "sigmoid_"))
POOLS: Kinds = (
    (nn.AvgPool2d, nn.AdaptiveAvgPool2d),
    (F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean),
    ("mean",),
)
ADDITIONS: Kinds = ((), (operator.add, operator.iadd, torch.add), ("add", "add_"))
PASSAGES: Kinds = (
    (
        *(nn.MaxPool2d, nn.Flatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.Unflatten),
        *(nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d),
    ),
    (
        F.max_pool2d,
        F.pad,
        F.pixel_shuffle,
        F.pixel_unshuffle,
        torch.flatten,
        torch.permute,
        torch.transpose,
        torch.reshape,
        torch.squeeze,
        operator.getitem,
    ),
    ("flatten", "view", "reshape", "permute", "transpose", "contiguous", "squeeze", "unsqueeze", "expand"),
)
"""Operations that return only values that they were given, and zeros."""
HOMOGENEOUS: Kinds = (
    (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten),
    (F.relu, torch.relu, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, torch.flatten),
    ("relu", "relu_", "mean", "flatten"),
)
"""Operations that map s · x to s · f(x) for positive s, channel by channel."""
NORMS: Kinds = ((nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), (F.layer_norm, F.group_norm, F.rms_norm, F.normalize), ())
"""Operations that divide by a size that they measure in each image."""
SHARES: Kinds = ((nn.Softmax,), (F.softmax, torch.softmax), ("softmax",))
PRODUCTS: Kinds = (
    (),
    (
        *(operator.mul, operator.imul, torch.mul, operator.matmul, torch.matmul, torch.bmm, torch.einsum),
        F.scaled_dot_product_attention,
    ),
    ("mul", "mul_", "matmul"),
)
SHUFFLES: Kinds = ((nn.PixelShuffle, nn.PixelUnshuffle), (F.pixel_shuffle, F.pixel_unshuffle), ())
"""Passages that exchange channels for places."""
NOT_ROUNDED = "what it returns is not rounded"
CURVED = "a curve, not a line: integers would need a table"
OTHER_LAYERS: Kinds = ((nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear), (F.conv2d, F.linear), ())
JOINTS: Kinds = ((), (torch.cat,), ())
TABLE = {
    "layer": OTHER_LAYERS,
    "rectifier": RECTIFIERS,
    "curve": CURVES,
    "gate": GATES,
    "pool": POOLS,
    "addition": ADDITIONS,
    "passage": PASSAGES,
    "joint": JOINTS,
    "norm": NORMS,
    "share": SHARES,
    "product": PRODUCTS,
    "homogeneous": HOMOGENEOUS,
    "shuffle": SHUFFLES,
}
"""Every kind; only the last two overlap with others."""
REASONS = (
    (OTHER_LAYERS, "its kind, its padding or what else reads its weight has no integer form"),
    (RECTIFIERS, NOT_ROUNDED),
    (POOLS, NOT_ROUNDED),
    (ADDITIONS, NOT_ROUNDED),
    (CURVES, CURVED),
    (GATES, CURVED),
    (JOINTS, "its parts lie on different grids"),
    (NORMS, "it divides by what it measures of each image"),
    (SHARES, "a quotient of exponentials: integers would need a table"),
    (PRODUCTS, "a product of two tensors, and only layers have integers to multiply"),
)
"""The reasons why operations stay float; additions and the like do only if nothing rounds their outputs."""


def is_kind(node: object, kinds: Kinds, network: fx.GraphModule) -> bool:
    """Say whether a node is such an operation."""
    modules, functions, methods = kinds
    if not isinstance(node, fx.Node):
        return False
    match node.op:
        case "call_module":
            return isinstance(module_of(node, network), modules)
        case "call_function":
            return node.target in functions and not _is_filled(node)
        case "call_method":
            return node.target in methods
    return False


def _is_filled(node: fx.Node) -> bool:
    """Say whether a node pads by a number other than zero, which no grid need have."""
    return node.target is F.pad and bool(node.kwargs.get("value") or (node.args[3] if len(node.args) > 3 else 0))
