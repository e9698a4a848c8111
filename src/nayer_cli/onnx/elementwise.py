"""Rules of operations on each value by itself: activations, arithmetic, softmax."""

import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli.onnx.graph import Call, Operand, Rule, Spelling, Value

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


ELEMENTWISE: dict[Rule, tuple[Spelling, ...]] = {
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
    _binary("Pow"): (operator.pow, torch.pow, "pow"),
    _binary("Less"): (operator.lt, torch.lt, "lt"),
    _binary("Greater"): (operator.gt, torch.gt, "gt"),
    _relu6: (nn.ReLU6, F.relu6),
    _clamp: (torch.clamp, "clamp"),
    _hardtanh: (nn.Hardtanh, F.hardtanh),
    _silu: (nn.SiLU, F.silu),
    _mish: (nn.Mish, F.mish),
    _gelu: (nn.GELU, F.gelu),
    _leaky_relu: (nn.LeakyReLU, F.leaky_relu),
    _elu: (nn.ELU, F.elu),
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
}
"""Each rule with what it stands for: modules, functions, names of methods."""
