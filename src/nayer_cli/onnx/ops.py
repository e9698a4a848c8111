"""Rules of float layers that have weights, and of attention; all rules of float operations, collected."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.linear import Linear as TimmLinear
from torch import Tensor, nn

from nayer_cli.onnx.elementwise import ELEMENTWISE
from nayer_cli.onnx.graph import Call, Operand, Pair, Rule, Spelling, Value, pair
from nayer_cli.onnx.moves import MOVES, transpose
from nayer_cli.onnx.picks import PICKS
from nayer_cli.onnx.pools import POOLS
from nayer_cli.onnx.sums import SUMS


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
    """Return the pads before and after; torch's `same` puts the odd one after."""
    if padding == "same":
        sums = [dilated * (taps - 1) for taps, dilated in zip(kernel, dilation, strict=True)]
        return [both // 2 for both in sums] + [both - both // 2 for both in sums]
    return [0] * 4 if isinstance(padding, str) else pair(padding) * 2


def _dims(x: Any) -> tuple[int, ...]:
    return tuple(x.dims if isinstance(x, Value) else x.shape)


WEIGHTED: dict[Rule, tuple[Spelling, ...]] = {
    _conv_transpose2d: (nn.ConvTranspose2d, F.conv_transpose2d),
    _conv1d: (nn.Conv1d, F.conv1d),
    conv2d: (nn.Conv2d, F.conv2d),
    linear: (nn.Linear, TimmLinear, F.linear),
    _batch_norm: (nn.BatchNorm2d, nn.BatchNorm1d, F.batch_norm),
    _layer_norm: (nn.LayerNorm, F.layer_norm),
    _group_norm: (nn.GroupNorm, F.group_norm),
    _attention: (F.scaled_dot_product_attention,),
}
"""Each rule with what it stands for: modules, functions, names of methods."""

RULES: dict[Spelling, Rule] = {
    spelling: rule
    for rule, spellings in (ELEMENTWISE | WEIGHTED | POOLS | SUMS | MOVES | PICKS).items()
    for spelling in spellings
}
