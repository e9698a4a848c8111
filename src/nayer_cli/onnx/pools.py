"""Rules of operations that pool, average and resize."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nayer_cli.onnx.graph import Call, Pair, Rule, Spelling, Value, pair

RESIZING: dict[str, dict[str, Any]] = {
    "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    "bicubic": {"mode": "cubic", "coordinate_transformation_mode": "half_pixel", "cubic_coeff_a": -0.75},
}
"""ONNX's words for torch's modes."""


def _max_pool2d(
    call: Call,
    x: Value,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    if return_indices:
        raise call.reject("returns the indices of maxima")
    window = _window(call, x, kernel_size, stride, padding, dilation)
    return call.move("MaxPool", x, dilations=pair(dilation), **window)


def _avg_pool2d(
    call: Call,
    x: Value,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> str:
    if divisor_override:
        raise call.reject("divides by a number of its own")
    window = _window(call, x, kernel_size, stride, padding)
    counts = count_include_pad and any(pair(padding))
    if counts and window["pads"] != pair(padding) * 2:  # padding counts, and what `ceil_mode` adds does not
        window |= {"pads": pair(padding) * 2, "ceil_mode": 1}
    return call.add("AveragePool", x, count_include_pad=int(counts), **window)


def _adaptive_avg_pool2d(call: Call, x: Value, output_size: object = None) -> Value | str:
    found, wanted = x.dims[2:], call.dims[2:]
    if wanted == (1, 1):
        return call.add("GlobalAveragePool", x)
    if found == wanted:
        return x
    if all(size % part == 0 for size, part in zip(found, wanted, strict=True)):
        return _avg_pool2d(call, x, [size // part for size, part in zip(found, wanted, strict=True)])
    # Windows differ in size, but averages are linear: with what they make of unit vectors, two products do the same.
    height, width = (F.adaptive_avg_pool1d(torch.eye(size), part) for size, part in zip(found, wanted, strict=True))
    return call.add("MatMul", call.add("MatMul", height.t(), x), width)


def _adaptive_max_pool2d(call: Call, x: Value, output_size: object = None, return_indices: bool = False) -> str:
    if call.dims[2:] != (1, 1):
        raise call.reject("pools to more than one pixel")
    return call.add("GlobalMaxPool", x)


def _interpolate(
    call: Call,
    x: Value,
    size: object = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Value | str:
    if mode == "area":
        return _adaptive_avg_pool2d(call, x)
    if mode not in RESIZING or antialias:
        raise call.reject(f"interpolates by '{mode}'{' with antialias' if antialias else ''}")
    factors: Any = [float(new) / old for new, old in zip(call.dims[2:], x.dims[2:], strict=True)]
    if scale_factor is not None and not recompute_scale_factor:  # torch then keeps it, although sizes are whole numbers
        factors = pair(scale_factor) if isinstance(scale_factor, (int, tuple, list)) else [scale_factor] * 2
    scales = np.array([1, 1, *factors], dtype=np.float32)
    corners = {} if mode == "nearest" or not align_corners else {"coordinate_transformation_mode": "align_corners"}
    return call.add("Resize", x, None, scales, **(RESIZING[mode] | corners))


def _mean(call: Call, x: Value, dim: Pair | None = None, keepdim: bool = False) -> str:
    axes = axes_of(x, dim)
    if len(x.dims) == 4 and axes == [2, 3]:  # the operation that integers have
        pooled = call.add("GlobalAveragePool", x)
        return pooled if keepdim else call.add("Reshape", pooled, call.integers(call.dims))
    return call.add("ReduceMean", x, call.integers(axes), keepdims=int(keepdim))


def _total(call: Call, x: Value, dim: Pair | None = None, keepdim: bool = False) -> str:
    return call.add("ReduceSum", x, call.integers(axes_of(x, dim)), keepdims=int(keepdim))


def _window(
    call: Call, x: Value, kernel_size: Pair, stride: Pair | None, padding: Pair, dilation: Pair = 1
) -> dict[str, Any]:
    """Return kernel, strides and pads: longer ones at the end where `ceil_mode` adds a window.

    ONNX Runtime infers other sizes than torch where it is told of `ceil_mode` itself.
    """
    kernel, pads = pair(kernel_size), pair(padding)
    strides = pair(kernel_size if stride in (None, [], ()) else stride)
    axes = zip(x.dims[2:], call.dims[2:], kernel, strides, pads, pair(dilation), strict=True)
    reach = [
        (windows - 1) * step + dilated * (taps - 1) + 1 - size - pad for size, windows, taps, step, pad, dilated in axes
    ]
    return {"kernel_shape": kernel, "strides": strides, "pads": [*pads, *map(max, reach, pads)]}


def axes_of(x: Value, dim: Pair | None) -> list[int]:
    """Return which axes are meant; all, if none is named."""
    rank = len(x.dims)
    given = range(rank) if dim is None else [dim] if isinstance(dim, int) else dim
    return sorted(axis % rank for axis in given)


POOLS: dict[Rule, tuple[Spelling, ...]] = {
    _max_pool2d: (nn.MaxPool2d, F.max_pool2d, torch.max_pool2d),
    _avg_pool2d: (nn.AvgPool2d, F.avg_pool2d),
    _adaptive_avg_pool2d: (nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d),
    _adaptive_max_pool2d: (nn.AdaptiveMaxPool2d, F.adaptive_max_pool2d),
    _interpolate: (nn.Upsample, F.interpolate),
    _mean: (torch.mean, "mean"),
    _total: (torch.sum, "sum"),
}
"""Each rule with what it stands for: modules, functions, names of methods."""
