"""The layers of a deployed network: integers and scales, in the arithmetic that ONNX defines for QDQ graphs.

Between layers travel float tensors whose values are multiples of a scale: a `Grid` is QuantizeLinear, Clip and
DequantizeLinear in a row, an integer layer is a convolution of what DequantizeLinear returns. Where a grid alone reads
a layer, one factor takes its sums to the grid's steps, as in ONNX Runtime's kernels: a constant that lies between two
steps is then rounded alike.
Weights and biases are parameters of an integer type, so they count as parameters and never learn.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli.quant.lanes import largest_byte

CONTAINER = 8
"""Bits of the integers that hold activations and weights; those of fewer bits use a part of the range."""


class Grid(nn.Module):
    """Rounds to the nearest multiple of `scale` between low · scale and high · scale; halves go to even.

    Args:
        signed: whether the integers are signed: ONNX then stores them plus 128.

    Attributes:
        in_steps: whether what comes in is counted in steps already.
        scale: 0-dimensional float32.
        low, high: 0-dimensional int32. A ReLU before the grid is `low` = 0, a ReLU6 also limits `high`.

    """

    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, signed: bool) -> None:
        super().__init__()
        self.signed = signed
        self.in_steps = False
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("low", torch.zeros((), dtype=torch.int32))
        self.register_buffer("high", torch.zeros((), dtype=torch.int32))

    @property
    def largest_byte(self) -> int:
        """The largest byte that holds one of the integers."""
        return largest_byte(int(self.high), self.signed)

    def forward(self, x: Tensor) -> Tensor:
        """Return the nearest values to `x` on the grid, of the same shape."""
        steps = x if self.in_steps else x / self.scale
        return torch.clamp(steps.round(), self.low, self.high) * self.scale


class IntegerLayer(nn.Module):
    """The common part of convolution and linear layer.

    Args:
        shape: of the weight, output channels first.
        bits: of one weight.

    Attributes:
        weight: int8.
        weight_scale: `[O]` float32.
        input_scale: 0-dimensional float32: that of the grid which the input lies on.
        bias: `[O]` int32, in units of input_scale · weight_scale.
        output_scale: 0-dimensional float32: what the output is counted in; that of the grid that alone reads it, or 1.

    """

    weight_scale: Tensor
    input_scale: Tensor
    output_scale: Tensor

    def __init__(self, shape: tuple[int, ...], bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.weight = nn.Parameter(torch.zeros(shape, dtype=torch.int8), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(shape[0], dtype=torch.int32), requires_grad=False)
        self.register_buffer("weight_scale", torch.ones(shape[0]))
        self.register_buffer("input_scale", torch.ones(()))
        self.register_buffer("output_scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map multiples of `input_scale` to multiples of `input_scale · weight_scale / output_scale` of each channel.

        Sums of products are whole numbers in float32: exact up to 2²⁴, and beyond that to seven digits.
        """
        sums = self.accumulate((x / self.input_scale).round(), self.weight.float(), self.bias.float())
        return sums * self.per_channel(self.input_scale * self.weight_scale / self.output_scale)

    def accumulate(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return sums of products of whole numbers, plus `bias`."""
        raise TypeError(f"{type(self).__name__} must define accumulate")

    def per_channel(self, values: Tensor) -> Tensor:
        """Shape values `[O]` to broadcast against the output."""
        raise TypeError(f"{type(self).__name__} must define per_channel")


class IntegerConv2d(IntegerLayer):
    """A 2D convolution `[B, I, H, W]` → `[B, O, H', W']`.

    Args:
        like: the convolution in whose place it stands; its padding must be zeros.
        bits: of one weight.

    """

    def __init__(self, like: nn.Conv2d, bits: int) -> None:
        super().__init__(tuple(like.weight.shape), bits)
        self.stride, self.padding, self.dilation, self.groups = like.stride, like.padding, like.dilation, like.groups

    def accumulate(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Convolve."""
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def per_channel(self, values: Tensor) -> Tensor:
        """Channels are the second axis."""
        return values.view(-1, 1, 1)


class IntegerLinear(IntegerLayer):
    """A linear layer on the last axis `[…, I]` → `[…, O]`.

    Args:
        like: the layer in whose place it stands.
        bits: of one weight.

    """

    def __init__(self, like: nn.Linear, bits: int) -> None:
        super().__init__(tuple(like.weight.shape), bits)

    def accumulate(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Multiply."""
        return F.linear(x, weight, bias)

    def per_channel(self, values: Tensor) -> Tensor:
        """Channels are the last axis."""
        return values
