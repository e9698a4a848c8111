"""Rules of operations that sum over axes, or take the largest along them."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli.onnx.graph import Call, Operand, Pair, Rule, Spelling, Value
from nayer_cli.onnx.pools import axes_of


def _reduced(op: str) -> Rule:
    def rule(call: Call, x: Value, dim: Pair | None = None, keepdim: bool = False) -> str:
        return call.add(op, x, call.integers(axes_of(x, dim)), keepdims=int(keepdim))

    return rule


def _largest(op: str, where: str) -> Rule:
    """Return the rule of the largest elements, with their places where an axis is named, or of the larger of two."""

    def rule(call: Call, x: Value, dim: Any = None, keepdim: bool = False) -> Any:
        if dim is None:
            return call.add(f"Reduce{op}", x, call.integers(axes_of(x, None)), keepdims=0)
        if not isinstance(dim, int):
            return call.add(op, x, dim)
        values = call.add(f"Reduce{op}", x, call.integers(axes_of(x, dim)), keepdims=int(keepdim))
        return [values, call.add(where, x, axis=dim, keepdims=int(keepdim))]

    return rule


def _norm(call: Call, x: Value, p: object = 2, dim: Pair | None = None, keepdim: bool = False, **_: object) -> str:
    if p not in (1, 2, "fro"):
        raise call.reject(f"is a norm of order {p}")
    return call.add("ReduceL1" if p == 1 else "ReduceL2", x, call.integers(axes_of(x, dim)), keepdims=int(keepdim))


def _vector_norm(call: Call, x: Value, ord: object = 2, dim: Pair | None = None, keepdim: bool = False) -> str:
    return _norm(call, x, ord, dim, keepdim)


def _normalize(call: Call, x: Value, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> str:
    return call.add("Div", x, call.add("Max", _norm(call, x, p, dim, True), eps))


def _var(call: Call, x: Value, dim: Any = None, unbiased: bool = True, keepdim: bool = False, **more: Any) -> str:
    correction = more.get("correction", int(unbiased))
    axes = axes_of(x, dim)
    apart = call.add("Sub", x, call.add("ReduceMean", x, call.integers(axes), keepdims=1))
    mean = call.add("ReduceMean", call.add("Mul", apart, apart), call.integers(axes), keepdims=int(keepdim))
    count = 1
    for axis in axes:
        count *= x.dims[axis]
    if count <= correction:
        raise call.reject("is the variance over images, or of one value")
    return call.add("Mul", mean, count / (count - correction))


def _std(call: Call, x: Value, *args: Any, **kwargs: Any) -> str:
    return call.add("Sqrt", _var(call, x, *args, **kwargs))


def _rms_norm(
    call: Call, x: Value, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> str:
    axes = call.integers(list(range(-len(normalized_shape), 0)))
    mean = call.add("ReduceMean", call.add("Mul", x, x), axes, keepdims=1)
    size = call.add("Sqrt", call.add("Add", mean, torch.finfo(torch.float32).eps if eps is None else eps))
    scaled = call.add("Div", x, size)
    return scaled if weight is None else call.add("Mul", scaled, weight)


def _einsum(call: Call, equation: str, *operands: Any) -> str:
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else operands
    parts: list[Operand] = list(given)
    return call.add("Einsum", *parts, equation=equation)


SUMS: dict[Rule, tuple[Spelling, ...]] = {
    _reduced("ReduceMax"): (torch.amax, "amax"),
    _reduced("ReduceMin"): (torch.amin, "amin"),
    _reduced("ReduceLogSumExp"): (torch.logsumexp, "logsumexp"),
    _largest("Max", "ArgMax"): (torch.max, "max", torch.maximum, "maximum"),
    _largest("Min", "ArgMin"): (torch.min, "min", torch.minimum, "minimum"),
    _norm: (torch.norm, "norm"),
    _vector_norm: (torch.linalg.vector_norm, torch.linalg.norm),
    _normalize: (F.normalize,),
    _var: (torch.var, "var"),
    _std: (torch.std, "std"),
    _rms_norm: (F.rms_norm, nn.RMSNorm),
    _einsum: (torch.einsum,),
}
"""Each rule with what it stands for: modules, functions, names of methods."""
