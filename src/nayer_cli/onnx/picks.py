"""Rules of operations that pick, repeat, turn and join elements of float tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli.onnx.graph import BATCH, Call, Operand, Pair, Rule, Spelling, Value, pair
from nayer_cli.onnx.moves import FOREVER, expand, transpose


def _stack(call: Call, tensors: Sequence[Operand], dim: int = 0) -> str:
    axis = dim % len(call.dims)
    parts = [call.add("Unsqueeze", tensor, call.integers([axis])) for tensor in tensors]
    return call.add("Concat", *parts, axis=axis)


def _repeat(call: Call, x: Value, *sizes: Any) -> str:
    times = list(sizes[0] if isinstance(sizes[0], Sequence) else sizes)
    if BATCH not in times:
        longer = [1] * (len(times) - len(x.dims)) + list(x.dims)
        return call.add("Tile", call.add("Reshape", x, call.integers(longer)), call.integers(times))
    if any(size not in (1, BATCH) for size in times):
        raise call.reject("repeats images and more at once")
    return expand(call, x)


def _repeat_interleave(call: Call, x: Value, repeats: Any, dim: int | None = None, **_: object) -> str:
    if not isinstance(repeats, int) or dim is None:
        raise call.reject("repeats elements by a tensor of numbers")
    after = dim % len(x.dims) + 1
    apart = call.add("Reshape", x, call.integers([*x.dims[:after], 1, *x.dims[after:]]))
    times = [1] * (len(x.dims) + 1)
    times[after] = repeats
    return call.add("Reshape", call.add("Tile", apart, call.integers(times)), call.integers(call.dims))


def _roll(call: Call, x: Value, shifts: Any, dims: Any = None) -> Operand:
    if dims is None:
        raise call.reject("rolls all elements as one row")
    rolled: Operand = x
    for shift, dim in [(shifts, dims)] if isinstance(shifts, int) else zip(shifts, dims, strict=True):
        axis = dim % len(x.dims)
        cut = -shift % x.dims[axis]
        if cut:
            rolled = call.add("Concat", *_halves(call, rolled, cut, axis), axis=axis)
    return rolled


def _halves(call: Call, x: Operand, cut: int, axis: int) -> list[str]:
    bounds = ((cut, FOREVER), (0, cut))
    return [call.add("Slice", x, *(call.integers([at]) for at in (start, stop, axis))) for start, stop in bounds]


def _flip(call: Call, x: Value, *dims: Any) -> str:
    given = dims[0] if isinstance(dims[0], Sequence) else dims
    axes = [dim % len(x.dims) for dim in given]
    last, end, step = ([value] * len(axes) for value in (-1, -FOREVER, -1))
    return call.add("Slice", x, *map(call.integers, (last, end, axes, step)))


def _windows(call: Call, x: Value, dimension: int, size: int, step: int) -> str:
    axis, count = dimension % len(x.dims), call.dims[dimension % len(x.dims)]
    index = step * np.arange(count)[:, None] + np.arange(size)
    order = [place for place in range(len(call.dims)) if place != axis + 1]
    return call.add("Transpose", call.add("Gather", x, index, axis=axis), perm=[*order, axis + 1])


def _columns(call: Call, x: Value, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1) -> str:
    """Write each window as a column, by a convolution that picks one element each."""
    kernel, channels = pair(kernel_size), x.dims[1]
    more = {"strides": pair(stride), "dilations": pair(dilation), "pads": pair(padding) * 2}
    picked = call.add("Conv", x, _unit(channels, kernel), kernel_shape=kernel, group=channels, **more)
    return call.add("Reshape", picked, call.integers(call.dims))


def _fold(
    call: Call,
    x: Value,
    output_size: Pair,
    kernel_size: Pair,
    dilation: Pair = 1,
    padding: Pair = 0,
    stride: Pair = 1,
) -> str:
    """Add up columns where windows overlap."""
    kernel, size, channels = pair(kernel_size), call.dims[2:], call.dims[1]
    axes = list(zip(size, kernel, pair(dilation), pair(padding), pair(stride), strict=True))
    spans = [(taps - 1) * wide + 1 for _, taps, wide, _, _ in axes]
    counts = [
        (length + 2 * pads - span) // step + 1 for (length, _, _, pads, step), span in zip(axes, spans, strict=True)
    ]
    left = [
        length - ((count - 1) * step - 2 * pads + span)
        for (length, _, _, pads, step), span, count in zip(axes, spans, counts, strict=True)
    ]
    image = call.add("Reshape", x, call.integers([x.dims[0], x.dims[1], *counts]))
    more = {"strides": pair(stride), "dilations": pair(dilation), "pads": pair(padding) * 2, "output_padding": left}
    return call.add("ConvTranspose", image, _unit(channels, kernel), kernel_shape=kernel, group=channels, **more)


def _unit(channels: int, kernel: Sequence[int]) -> Tensor:
    taps = kernel[0] * kernel[1]
    return torch.eye(taps).view(taps, 1, *kernel).repeat(channels, 1, 1, 1)


def _index_select(call: Call, x: Operand, dim: int, index: Tensor) -> str:
    return call.add("Gather", x, index, axis=dim)


def _where(call: Call, condition: Operand, x: Operand, y: Operand) -> str:
    return call.add("Where", condition, x, y)


def _masked_fill(call: Call, x: Operand, mask: Operand, value: Operand) -> str:
    return call.add("Where", mask, value, x)


def _movedim(call: Call, x: Value, source: int, destination: int) -> Value:
    order = [axis for axis in range(len(x.dims)) if axis != source % len(x.dims)]
    order.insert(destination % len(x.dims), source % len(x.dims))
    return call.move("Transpose", x, perm=order)


def _turned(call: Call, x: Value) -> Value:
    return transpose(call, x, -2, -1)


def _attribute(call: Call, x: Value, name: str) -> Value:
    if name not in ("T", "mT", "data"):
        raise call.reject(f"reads '{name}'")
    return x if name == "data" else _turned(call, x)


def _narrow(call: Call, x: Value, dim: int, start: int, length: int) -> str:
    return call.add("Slice", x, *(call.integers([at]) for at in (start, start + length, dim % len(x.dims))))


def _select(call: Call, x: Value, dim: int, index: int) -> str:
    return call.add("Gather", x, np.array(index), axis=dim % len(x.dims))


PICKS: dict[Rule, tuple[Spelling, ...]] = {
    _stack: (torch.stack,),
    _repeat: ("repeat", "tile", torch.tile),
    _repeat_interleave: (torch.repeat_interleave, "repeat_interleave"),
    _roll: (torch.roll, "roll"),
    _flip: (torch.flip, "flip"),
    _windows: ("unfold",),
    _columns: (nn.Unfold, F.unfold),
    _fold: (nn.Fold, F.fold),
    _index_select: (torch.index_select, "index_select"),
    _where: (torch.where,),
    _masked_fill: (torch.masked_fill, "masked_fill"),
    _movedim: (torch.movedim, "movedim"),
    _turned: (torch.t, "t"),
    _attribute: (getattr,),
    _narrow: (torch.narrow, "narrow"),
    _select: (torch.select, "select"),
}
"""Each rule with what it stands for: modules, functions, names of methods."""
