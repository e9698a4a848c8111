"""Rules of float operations, one each, with the parameters of the function in torch that it stands for."""

import operator
from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.linear import Linear as TimmLinear
from torch import Tensor, nn

from nayer_cli.onnx.graph import Call, Operand, Pair, Rule, Value, pair
from nayer_cli.onnx.moves import MOVES, transpose
from nayer_cli.onnx.picks import PICKS
from nayer_cli.onnx.pools import POOLS
from nayer_cli.onnx.sums import SUMS

SOFTPLUS_IS_A_LINE = 15
"""In float32, from here on."""


def _named(op: str, **attributes: float) -> Rule:
    """Return the rule of an elementwise function that ONNX has under this name."""
    return lambda call, x, inplace=False: call.add(op, x, **attributes)


def _binary(op: str) -> Rule:
    def rule(call: Call, x: Operand, y: Operand, *, alpha: float = 1) -> str:
        return call.add(op, x, _times(call, y, alpha))

    return rule


def _times(call: Call, x: Operand, alpha: float) -> Operand:
    return x if alpha == 1 else call.add("Mul", x, alpha)


def _same(call: Call, x: Value, *_: object, **__: object) -> Value:
    """Write nothing: what has no effect in evaluation mode, or none on values."""
    return x


def _relu6(call: Call, x: Operand, inplace: bool = False) -> str:
    return call.add("Clip", x, 0.0, 6.0)


def _clamp(call: Call, x: Operand, min: float | None = None, max: float | None = None) -> str:
    return call.add("Clip", x, min, max)


def _hardtanh(call: Call, x: Operand, min_val: float = -1, max_val: float = 1, inplace: bool = False) -> str:
    return call.add("Clip", x, min_val, max_val)


def _hardsigmoid(call: Call, x: Operand, inplace: bool = False) -> str:
    # As torch rounds it: x / 6 + 1/2, which HardSigmoid computes, tips roundings of the next grid.
    return call.add("Div", call.add("Clip", call.add("Add", x, 3.0), 0.0, 6.0), 6.0)


def _hardswish(call: Call, x: Operand, inplace: bool = False) -> str:
    return call.add("Div", call.add("Mul", x, call.add("Clip", call.add("Add", x, 3.0), 0.0, 6.0)), 6.0)


def _silu(call: Call, x: Operand, inplace: bool = False) -> str:
    return call.add("Mul", x, call.add("Sigmoid", x))


def _mish(call: Call, x: Operand, inplace: bool = False) -> str:
    return call.add("Mul", x, call.add("Tanh", call.add("Softplus", x)))


def _gelu(call: Call, x: Operand, approximate: str = "none") -> str:
    return call.add("Gelu", x, approximate=approximate)


def _sum(call: Call, x: Operand, y: Operand, *, alpha: float = 1) -> str:
    return call.add("Add", _rounded_again(call, x), _times(call, _rounded_again(call, y), alpha))


def _rounded_again(call: Call, x: Operand) -> Operand:
    """Round integers once more, which changes nothing.

    OpenVINO fuses a convolution, its rounding, the sum and the sum's rounding into one kernel, which leaves out the
    first rounding. The second one it keeps. ONNX Runtime removes it when it loads the file.
    """
    if not isinstance(x, Value) or x.integers is None or call.graph.symmetric:
        return x
    return call.round_again(x.integers, x.name).name


def _rsqrt(call: Call, x: Operand) -> str:
    return call.add("Reciprocal", call.add("Sqrt", x))


def _square(call: Call, x: Operand) -> str:
    return call.add("Mul", x, x)


def _addcmul(call: Call, x: Operand, y: Operand, z: Operand, *, value: float = 1) -> str:
    return call.add("Add", x, _times(call, call.add("Mul", y, z), value))


def _plus_product(call: Call, x: Operand, y: Operand, z: Operand, *, beta: float = 1, alpha: float = 1) -> str:
    return call.add("Add", _times(call, x, beta), _times(call, call.add("MatMul", y, z), alpha))


def _glu(call: Call, x: Value, dim: int = -1) -> str:
    half = x.dims[dim] // 2
    value, gate = call.add_many("Split", 2, x, call.integers([half, half]), axis=dim)
    return call.add("Mul", value, call.add("Sigmoid", gate))


def _log_softmax(call: Call, x: Operand, dim: int = -1, **_: object) -> str:
    return call.add("LogSoftmax", x, axis=dim)


def _clamp_min(call: Call, x: Operand, min: float) -> str:
    return _clamp(call, x, min)


def _clamp_max(call: Call, x: Operand, max: float) -> str:
    return _clamp(call, x, None, max)


def _as_float(call: Call, x: Value, *args: object, **kwargs: object) -> Value:
    kinds = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.dtype)]
    if any(kind != torch.float32 for kind in kinds):
        raise call.reject("computes in another type than float32")
    return x


def _log_sigmoid(call: Call, x: Operand) -> str:
    return call.add("Neg", call.add("Softplus", call.add("Neg", x)))


def _hardshrink(call: Call, x: Operand, lambd: float = 0.5) -> str:
    return call.add("Shrink", x, lambd=lambd)


def _softshrink(call: Call, x: Operand, lambd: float = 0.5) -> str:
    return call.add("Shrink", x, lambd=lambd, bias=lambd)


def _tanhshrink(call: Call, x: Operand) -> str:
    return call.add("Sub", x, call.add("Tanh", x))


def _threshold(call: Call, x: Operand, threshold: float, value: float, inplace: bool = False) -> str:
    return call.add("Where", call.add("Greater", x, threshold), x, value)


def _rrelu(
    call: Call, x: Operand, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> str:
    return call.add("LeakyRelu", x, alpha=(lower + upper) / 2)


def _leaky_relu(call: Call, x: Operand, negative_slope: float = 0.01, inplace: bool = False) -> str:
    return call.add("LeakyRelu", x, alpha=negative_slope)


def _elu(call: Call, x: Operand, alpha: float = 1.0, inplace: bool = False) -> str:
    return call.add("Elu", x, alpha=alpha)


def _celu(call: Call, x: Operand, alpha: float = 1.0, inplace: bool = False) -> str:
    return call.add("Celu", x, alpha=alpha)


def _softplus(call: Call, x: Operand, beta: float = 1.0, threshold: float = 20.0) -> str:
    if threshold < SOFTPLUS_IS_A_LINE:
        raise call.reject(f"is a softplus that is a line from {threshold:g} on")
    return (
        call.add("Softplus", x) if beta == 1 else call.add("Div", call.add("Softplus", call.add("Mul", x, beta)), beta)
    )


def _prelu(call: Call, x: Value, weight: Tensor) -> str:
    return call.add("PRelu", x, weight.reshape(-1, *[1] * (len(x.dims) - 2)))


def _softmax(call: Call, x: Operand, dim: int = -1, **_: object) -> str:
    return call.add("Softmax", x, axis=dim)


def conv2d(
    call: Call,
    x: Operand,
    weight: Operand,
    bias: Operand = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    kernel_size: Sequence[int] | None = None,
) -> str:
    """Convolve; `kernel_size` is needed if the weight has no shape."""
    if padding_mode != "zeros":
        raise call.reject(f"pads by '{padding_mode}'")
    kernel = list(kernel_size or _dims(weight)[2:])
    optional = () if bias is None else (bias,)
    return call.add(
        "Conv",
        x,
        weight,
        *optional,
        kernel_shape=kernel,
        strides=pair(stride),
        dilations=pair(dilation),
        pads=_pads(kernel, padding, pair(dilation)),
        group=groups,
    )


def _conv1d(
    call: Call,
    x: Operand,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
) -> str:
    if padding_mode != "zeros" or isinstance(padding, str):
        raise call.reject("pads in a way that has no rule")
    one = {"strides": stride, "dilations": dilation, "pads": padding}
    more = {name: [size] if isinstance(size, int) else list(size) for name, size in one.items()}
    more["pads"] *= 2
    optional = () if bias is None else (bias,)
    return call.add("Conv", x, weight, *optional, kernel_shape=list(weight.shape[2:]), group=groups, **more)


def _conv_transpose2d(
    call: Call,
    x: Operand,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> str:
    more = {"strides": pair(stride), "pads": pair(padding) * 2, "dilations": pair(dilation)}
    optional = () if bias is None else (bias,)
    return call.add(
        "ConvTranspose",
        x,
        weight,
        *optional,
        kernel_shape=list(weight.shape[2:]),
        output_padding=pair(output_padding),
        group=groups,
        **more,
    )


def linear(call: Call, x: Value, weight: Operand, bias: Operand = None) -> str:
    """Multiply with the transposed weight."""
    optional = () if bias is None else (bias,)
    if len(x.dims) == 2:
        return call.add("Gemm", x, weight, *optional, transB=1)
    product = call.add("MatMul", x, call.add("Transpose", weight, perm=[1, 0]))
    return call.add("Add", product, *optional) if optional else product


def _batch_norm(
    call: Call,
    x: Operand,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> str:
    if running_mean is None or training:
        raise call.reject("normalizes with the statistics of the batch")
    scale = torch.ones_like(running_mean) if weight is None else weight
    shift = torch.zeros_like(running_mean) if bias is None else bias
    return call.add("BatchNormalization", x, scale, shift, running_mean, running_var, epsilon=eps)


def _layer_norm(
    call: Call,
    x: Operand,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> str:
    scale = torch.ones(tuple(normalized_shape)) if weight is None else weight
    return call.add("LayerNormalization", x, scale, bias, axis=-len(normalized_shape), epsilon=eps)


def _group_norm(
    call: Call,
    x: Value,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> str:
    # GroupNormalization, which ONNX has, is a dozen nodes in the runtime.
    grouped = call.add("Reshape", x, call.integers([0, num_groups, -1]))
    ones, zeros = torch.ones(num_groups), torch.zeros(num_groups)
    y = call.add("InstanceNormalization", grouped, ones, zeros, epsilon=eps)
    y = call.add("Reshape", y, call.integers(x.dims))
    per_channel = (-1, *[1] * (len(x.dims) - 2))
    y = y if weight is None else call.add("Mul", y, weight.reshape(per_channel))
    return y if bias is None else call.add("Add", y, bias.reshape(per_channel))


def _attention(
    call: Call,
    query: Value,
    key: Value,
    value: Operand,
    attn_mask: Operand = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: object,
) -> str:
    if is_causal:
        raise call.reject("is causal attention")
    turned = transpose(call, key, -2, -1)
    scores = call.add("Mul", call.add("MatMul", query, turned), scale or 1 / sqrt(query.dims[-1]))
    scores = scores if attn_mask is None else call.add("Add", scores, attn_mask)
    return call.add("MatMul", call.add("Softmax", scores, axis=-1), value)


def _pads(kernel: Sequence[int], padding: Pair | str, dilation: Sequence[int]) -> list[int]:
    """Return the pads before and after; torch's `same` puts the odd one behind."""
    if padding == "same":
        sums = [dilated * (taps - 1) for taps, dilated in zip(kernel, dilation, strict=True)]
        return [both // 2 for both in sums] + [both - both // 2 for both in sums]
    return [0] * 4 if isinstance(padding, str) else pair(padding) * 2


def _dims(x: Any) -> tuple[int, ...]:
    return tuple(x.dims if isinstance(x, Value) else x.shape)


SPELLINGS: dict[Rule, tuple[Any, ...]] = {
    _same: (nn.Identity, nn.Dropout, nn.Dropout2d, F.dropout, F.dropout2d, "contiguous", "clone", "detach", "float"),
    _named("Relu"): (nn.ReLU, F.relu, F.relu_, torch.relu, "relu"),
    _named("Sigmoid"): (nn.Sigmoid, F.sigmoid, torch.sigmoid, "sigmoid"),
    _named("Tanh"): (nn.Tanh, F.tanh, torch.tanh, "tanh"),
    _hardsigmoid: (nn.Hardsigmoid, F.hardsigmoid),
    _hardswish: (nn.Hardswish, F.hardswish),
    _named("Sqrt"): (torch.sqrt, "sqrt"),
    _named("Exp"): (torch.exp, "exp"),
    _named("Neg"): (operator.neg, torch.neg, "neg"),
    _named("Abs"): (torch.abs, "abs"),
    _named("Log"): (torch.log, "log"),
    _named("Sin"): (torch.sin, "sin"),
    _named("Cos"): (torch.cos, "cos"),
    _named("Erf"): (torch.erf, "erf"),
    _named("Reciprocal"): (torch.reciprocal, "reciprocal"),
    _named("Softsign"): (nn.Softsign, F.softsign),
    _log_sigmoid: (nn.LogSigmoid, F.logsigmoid),
    _hardshrink: (nn.Hardshrink, F.hardshrink),
    _softshrink: (nn.Softshrink, F.softshrink),
    _tanhshrink: (nn.Tanhshrink, F.tanhshrink),
    _threshold: (nn.Threshold, F.threshold),
    _rrelu: (nn.RReLU, F.rrelu),
    _rsqrt: (torch.rsqrt, "rsqrt"),
    _square: (torch.square, "square"),
    _addcmul: (torch.addcmul, "addcmul"),
    _plus_product: (torch.addmm, torch.baddbmm, "addmm", "baddbmm"),
    _glu: (nn.GLU, F.glu),
    _log_softmax: (nn.LogSoftmax, F.log_softmax, torch.log_softmax, "log_softmax"),
    _clamp_min: (torch.clamp_min, "clamp_min"),
    _clamp_max: (torch.clamp_max, "clamp_max"),
    _as_float: ("to", "type", "type_as"),
    _conv_transpose2d: (nn.ConvTranspose2d, F.conv_transpose2d),
    _conv1d: (nn.Conv1d, F.conv1d),
    _binary("Pow"): (operator.pow, torch.pow, "pow"),
    _binary("Less"): (operator.lt, torch.lt, "lt"),
    _binary("Greater"): (operator.gt, torch.gt, "gt"),
    _relu6: (nn.ReLU6, F.relu6),
    _clamp: (torch.clamp, "clamp"),
    _hardtanh: (nn.Hardtanh, F.hardtanh),
    _silu: (nn.SiLU, F.silu),
    _mish: (nn.Mish, F.mish),
    _gelu: (
        nn.GELU,
        F.gelu,
    ),
    _leaky_relu: (
        nn.LeakyReLU,
        F.leaky_relu,
    ),
    _elu: (
        nn.ELU,
        F.elu,
    ),
    _celu: (nn.CELU, F.celu, torch.celu),
    _named("Selu"): (nn.SELU, F.selu, torch.selu),
    _softplus: (nn.Softplus, F.softplus),
    _prelu: (nn.PReLU, F.prelu, torch.prelu),
    _softmax: (nn.Softmax, F.softmax, torch.softmax, "softmax"),
    _sum: (operator.add, operator.iadd, torch.add, "add"),
    _binary("Sub"): (operator.sub, operator.isub, torch.sub, "sub"),
    _binary("Mul"): (operator.mul, operator.imul, torch.mul, "mul"),
    _binary("Div"): (operator.truediv, operator.itruediv, torch.div, "div"),
    _binary("MatMul"): (operator.matmul, torch.matmul, torch.bmm, "matmul"),
    conv2d: (
        nn.Conv2d,
        F.conv2d,
    ),
    linear: (
        nn.Linear,
        TimmLinear,
        F.linear,
    ),
    _batch_norm: (
        nn.BatchNorm2d,
        nn.BatchNorm1d,
        F.batch_norm,
    ),
    _layer_norm: (
        nn.LayerNorm,
        F.layer_norm,
    ),
    _group_norm: (
        nn.GroupNorm,
        F.group_norm,
    ),
    _attention: (F.scaled_dot_product_attention,),
}
"""Each rule with what it stands for: modules, functions, names of methods."""

RULES: dict[Any, Rule] = {
    spelling: rule for rule, spellings in (SPELLINGS | POOLS | SUMS | MOVES | PICKS).items() for spelling in spellings
}
