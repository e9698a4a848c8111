"""Write the layers of a deployed network so that ONNX Runtime fuses them into integer kernels.

Activations are uint8 always, signed ones plus 128: kernels want one type for what they read and what they return.
Ranges narrower than the container are a Clip of integers, which fuses; a Clip of floats before would not.

TensorRT wants the opposite of each: int8 for everything, zero for zero, ranges limited in float before they are
rounded, and biases in float. Integers up to 255 do not fit there: their steps are made as much larger.
"""

import numpy as np
import torch
from torch import nn

from nayer_cli.onnx.graph import INT8, Call, Integers, Operand, Rule, Value
from nayer_cli.onnx.ops import conv2d, linear
from nayer_cli.quant.integers import CONTAINER, Grid, IntegerConv2d, IntegerLayer, IntegerLinear
from nayer_cli.quant.lanes import MIDDLE, can_saturate

MOST = 2**CONTAINER - 1
PACKED_BITS = 4
LOWEST, HIGHEST = -128, 127
"""Limits of int8."""


def grid(call: Call, layer: Grid, x: Operand) -> Value:
    """Round, limit, and return floats."""
    if call.graph.symmetric:
        return _symmetric_grid(call, layer, x)
    zero = MIDDLE if layer.signed else 0
    low, high = (int(limit) + zero for limit in (layer.low, layer.high))
    scale, zero_point = call.keep("scale", layer.scale), call.keep("zero_point", np.array(zero, np.uint8))
    integers = call.add("QuantizeLinear", x, scale, zero_point)
    if (low, high) != (0, MOST):
        integers = call.add("Clip", integers, np.array(low, np.uint8), np.array(high, np.uint8))
    return call.dequantize(Integers(integers, scale, zero_point, layer.largest_byte))


def _symmetric_grid(call: Call, layer: Grid, x: Operand) -> Value:
    """Limit, round to int8, and return floats."""
    low, high, step = int(layer.low), int(layer.high), float(layer.scale)
    if low == 0:
        x = call.add("Relu", x) if high >= HIGHEST else call.add("Clip", x, 0.0, high * step)
    elif (low, high) != (LOWEST, HIGHEST):
        x = call.add("Clip", x, low * step, high * step)
    scale = call.keep("scale", np.array(step * max(high, HIGHEST) / HIGHEST, np.float32))
    zero_point = call.keep("zero_point", np.array(0, np.int8))
    integers = call.add("QuantizeLinear", x, scale, zero_point)
    return call.dequantize(Integers(integers, scale, zero_point, HIGHEST))


def loses_a_bit(network: nn.Module) -> bool:
    """Say whether some integers of a network do not fit in int8, so that a symmetric file rounds more coarsely."""
    return any(isinstance(layer, Grid) and int(layer.high) > HIGHEST for layer in network.modules())


def convolution(call: Call, layer: IntegerConv2d, x: Operand) -> str:
    """Convolve."""
    return conv2d(
        call,
        x,
        _weight(call, layer, x),
        _bias(call, layer),
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        kernel_size=layer.weight.shape[2:],
    )


def product(call: Call, layer: IntegerLinear, x: Value) -> str:
    """Multiply matrices."""
    return linear(call, x, _weight(call, layer, x), _bias(call, layer))


def _weight(call: Call, layer: IntegerLayer, x: Operand) -> str:
    """Write a weight as int8, or as uint8 where a processor that adds pairs of products in 16 bits would lose some."""
    largest = x.integers.largest if isinstance(x, Value) and x.integers else MOST
    zero = MIDDLE if call.graph.exact and not call.graph.symmetric and can_saturate(layer.weight, largest) else 0
    content = (layer.weight.int() + zero).to(torch.uint8 if zero else torch.int8)
    packed = call.graph.storage == "int4" and layer.bits <= PACKED_BITS
    integers = call.graph.constant(f"{call.name}/weight", content, packed=packed)
    if packed:  # folded when the file is loaded: the kernels that take int8 are the fast ones
        integers = call.add("Cast", integers, to=INT8)
    zeros = torch.full((len(content),), zero, dtype=content.dtype)  # without them linear layers would stay float
    return call.add("DequantizeLinear", integers, layer.weight_scale, zeros, axis=0)


def _bias(call: Call, layer: IntegerLayer) -> Operand:
    if call.graph.symmetric:
        return layer.bias * (layer.input_scale * layer.weight_scale)
    return call.add("DequantizeLinear", layer.bias, layer.input_scale * layer.weight_scale, axis=0)


LAYERS: dict[type[nn.Module], Rule] = {Grid: grid, IntegerConv2d: convolution, IntegerLinear: product}
"""Rules that take the layer first."""
