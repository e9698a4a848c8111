"""Count the parameters of an ONNX graph, and its operations for one image."""

from math import prod
from typing import TYPE_CHECKING, NamedTuple

from nayer_cli.onnx.runner import package

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

ROUNDING = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
ASIDE: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), (1, 2)),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul"), (1, 2, 4, 5, 6, 7)),
    **dict.fromkeys(("ConvInteger", "MatMulInteger"), (2, 3)),
    "BatchNormalization": (3, 4),
}
"""Inputs that are scales, zero points and running statistics: none of them is a parameter."""
WEIGHTS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}
"""The input of each kind of convolution that holds its weights."""
PRODUCTS = ("MatMul", "MatMulInteger", "QLinearMatMul", "Gemm")
Sizes = dict[str, list[int]]


class Counts(NamedTuple):
    """The counts of a file."""

    parameters: int
    """Numbers that it stores; as torch counts them: no scales, zero points, statistics or indices."""
    macs: int | None
    """Multiplications with additions of convolutions and matrix products, for one image; None if shapes are unknown."""
    is_quantized: bool
    """Whether anything in it is rounded to integers."""


def count(model: "ModelProto") -> Counts:
    """Count what `read_model` returned."""
    nodes = list(model.graph.node)
    return Counts(_parameters(model), _macs(model), any(_rounds(node.op_type) for node in nodes))


def _rounds(kind: str) -> bool:
    return kind in ROUNDING or kind.startswith("QLinear") or kind.endswith("Integer")


def _parameters(model: "ModelProto") -> int:
    onnx = package("onnx")
    indices = (onnx.TensorProto.INT64, onnx.TensorProto.BOOL, onnx.TensorProto.STRING)
    aside = {node.input[i] for node in model.graph.node for i in ASIDE.get(node.op_type, ()) if i < len(node.input)}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name not in aside]
    return sum(prod(tensor.dims) for tensor in tensors if tensor.data_type not in indices)


def _macs(model: "ModelProto") -> int | None:
    """Add up all layers; None if the shape of one is unknown."""
    sizes = _sizes(model)
    if sizes is None:
        return None
    try:
        return sum(_of_node(node, sizes) for node in model.graph.node)
    except (KeyError, IndexError):
        return None


def _of_node(node: "NodeProto", sizes: Sizes) -> int:
    if (place := WEIGHTS.get(node.op_type)) is not None:
        # Each output is a sum over a kernel; in a transposed convolution each input goes through one.
        each = node.input[0] if node.op_type == "ConvTranspose" else node.output[0]
        return prod(sizes[each]) * prod(sizes[node.input[place]][1:])
    if node.op_type in PRODUCTS:
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return prod(sizes[node.output[0]]) * sizes[node.input[0]][0 if transposed else -1]
    return 0


def _sizes(model: "ModelProto") -> Sizes | None:
    """Return the shape of every tensor whose shape is known, for a batch of one; None if it cannot be known."""
    onnx = package("onnx")
    alone = type(model)()
    alone.CopyFrom(model)
    del alone.graph.value_info[:]  # they may speak of another batch
    for value in (*alone.graph.input, *alone.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    try:
        graph = onnx.shape_inference.infer_shapes(alone).graph
    except (onnx.shape_inference.InferenceError, ValueError):  # the second: more than 2 GB
        return None
    known = {value.name: _shape(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    return {name: sizes for name, sizes in (known | weights).items() if sizes is not None}


def _shape(value: "ValueInfoProto") -> list[int] | None:
    sizes = value.type.tensor_type.shape.dim
    return [size.dim_value for size in sizes] if all(size.HasField("dim_value") for size in sizes) else None
