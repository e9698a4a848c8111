"""Rules of operations that only move values, and so can be written with integers."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli.onnx.graph import BATCH, INPUT, Call, Operand, Rule, Spelling, Value

FOREVER = 2**63 - 1
"""The end of a slice without end."""


def _cat(call: Call, tensors: Sequence[Operand], dim: int = 0) -> str:
    return call.add("Concat", *tensors, axis=dim)


def _split(call: Call, x: Value, split_size_or_sections: object, dim: int = 0) -> list[str]:
    sizes = [dims[dim] for dims in call.dims]
    if BATCH in sizes:
        raise call.reject("splits the batch")
    return call.add_many("Split", len(sizes), x, call.integers(sizes), axis=dim)


def _unbind(call: Call, x: Value, dim: int = 0) -> list[str]:
    count = len(call.dims)
    parts = call.add_many("Split", count, x, call.integers([1] * count), axis=dim)
    return [call.add("Squeeze", part, call.integers([dim])) for part in parts]


def _reshape(call: Call, x: Operand, *_: object, **__: object) -> Value:
    return call.move("Reshape", x, call.integers(call.dims))


def expand(call: Call, x: Operand, *_: object) -> str:
    """Repeat axes of length 1 to the size that the call returns."""
    if BATCH not in call.dims:
        return call.add("Expand", x, call.integers(call.dims))
    batch = call.add("Shape", INPUT, start=0, end=1)
    axis = call.dims.index(BATCH)
    before, after = call.integers(call.dims[:axis]), call.integers(call.dims[axis + 1 :])
    return call.add("Expand", x, call.add("Concat", before, batch, after, axis=0))


def transpose(call: Call, x: Value, dim0: int, dim1: int) -> Value:
    """Exchange two axes."""
    order = list(range(len(x.dims)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return call.move("Transpose", x, perm=order)


def _permute(call: Call, x: Value, *dims: Any) -> Value:
    given = dims[0] if isinstance(dims[0], Sequence) else dims
    return call.move("Transpose", x, perm=[dim % len(x.dims) for dim in given])


def _pad(call: Call, x: Value, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Value | str:
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    if mode not in modes:
        raise call.reject(f"pads by '{mode}'")
    rank = len(x.dims)
    begins, ends = [0] * rank, [0] * rank
    for index in range(len(pad) // 2):
        begins[-1 - index], ends[-1 - index] = pad[2 * index], pad[2 * index + 1]
    if value:
        return call.add("Pad", x, call.integers(begins + ends), float(value))
    return call.move("Pad", x, call.integers(begins + ends), call.moved_zero(x), mode=modes[mode])


def _getitem(call: Call, x: Any, index: Any) -> Value:
    if not isinstance(x, Value):
        chosen: Value = x[index]
        return chosen
    parts = _parts(x, index)
    picked = [axis for axis, part in enumerate(parts) if isinstance(part, (Tensor, list))]
    if picked:
        return _taken(call, x, parts, picked)
    slices = {axis: part for axis, part in enumerate(_slices(call, parts)) if part != slice(None)}
    if not slices:
        return _reshape(call, x)
    starts = [part.start or 0 for part in slices.values()]
    ends = [FOREVER if part.stop is None else part.stop for part in slices.values()]
    steps = [part.step or 1 for part in slices.values()]
    sliced = call.move("Slice", x, *map(call.integers, (starts, ends, list(slices), steps)))
    is_plain = len(call.dims) == len(x.dims)
    return sliced if is_plain else _reshape(call, sliced)


def _parts(x: Value, index: object) -> list[Any]:
    """Return what is asked for of each axis that is named; new axes follow from the shape."""
    parts = [part for part in (index if isinstance(index, tuple) else (index,)) if part is not None]
    where = next((place for place, part in enumerate(parts) if part is Ellipsis), None)
    if where is not None:
        parts[where : where + 1] = [slice(None)] * (len(x.dims) - len(parts) + 1)
    return parts


def _slices(call: Call, parts: list[Any]) -> list[slice]:
    """Return a slice for each axis; an integer is one of length 1."""
    found = [slice(part, part + 1 or None) if isinstance(part, int) else part for part in parts]
    if not all(isinstance(part, slice) for part in found):
        raise call.reject("takes elements by what is neither a number nor a slice")
    return found


def _taken(call: Call, x: Value, parts: list[Any], picked: list[int]) -> Value:
    """Take elements of one axis by a constant list of indices."""
    index = torch.as_tensor(parts[picked[0]])
    others = [part for axis, part in enumerate(parts) if axis not in picked]
    if len(picked) > 1 or index.dtype == torch.bool or any(part != slice(None) for part in others):
        raise call.reject("takes elements by more than one tensor of indices")
    return Value(call.add("Gather", x, index.long(), axis=picked[0]), call.dims)


def _padding(mode: str) -> Rule:
    return lambda call, x, padding: _pad(call, x, padding, mode)


def _constant_pad(call: Call, x: Value, padding: Sequence[int], value: float) -> Value | str:
    return _pad(call, x, padding, value=value)


def _pixel_shuffle(call: Call, x: Value, upscale_factor: int) -> Value:
    batch, channels, height, width = x.dims
    side = upscale_factor
    parts = call.integers([batch, channels // side**2, side, side, height, width])
    return _regrouped(call, x, parts, [0, 1, 4, 2, 5, 3])


def _pixel_unshuffle(call: Call, x: Value, downscale_factor: int) -> Value:
    batch, channels, height, width = x.dims
    side = downscale_factor
    parts = call.integers([batch, channels, height // side, side, width // side, side])
    return _regrouped(call, x, parts, [0, 1, 3, 5, 2, 4])


def _regrouped(call: Call, x: Value, parts: object, order: list[int]) -> Value:
    """Split axes into parts, bring those into another order, and join them to what the call returns."""
    moved = call.move("Transpose", call.move("Reshape", x, parts), perm=order)  # type: ignore[arg-type]
    return call.move("Reshape", moved, call.integers(call.dims))


MOVES: dict[Rule, tuple[Spelling, ...]] = {
    _cat: (torch.cat, torch.concat),
    _split: (torch.split, torch.chunk, "split", "chunk"),
    _unbind: (torch.unbind, "unbind"),
    _reshape: (
        *(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, nn.Flatten, nn.Unflatten),
        *("flatten", "reshape", "reshape_as", "view", "view_as", "squeeze", "unsqueeze", "unflatten"),
    ),
    expand: ("expand", "expand_as", "broadcast_to", torch.broadcast_to),
    transpose: (torch.transpose, torch.swapaxes, "transpose", "swapaxes", "swapdims"),
    _permute: (torch.permute, "permute"),
    _pixel_shuffle: (nn.PixelShuffle, F.pixel_shuffle),
    _pixel_unshuffle: (nn.PixelUnshuffle, F.pixel_unshuffle),
    _pad: (F.pad,),
    _padding("constant"): (nn.ZeroPad2d,),
    _padding("reflect"): (nn.ReflectionPad2d,),
    _padding("replicate"): (nn.ReplicationPad2d,),
    _padding("circular"): (nn.CircularPad2d,),
    _constant_pad: (nn.ConstantPad2d,),
    _getitem: (operator.getitem,),
}
"""Each rule with what it stands for: modules, functions, names of methods."""
