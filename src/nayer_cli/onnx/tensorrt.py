"""Find what TensorRT's ONNX parser would refuse in a quantized file, by our own reading of its rules.

Read in the source of onnx-tensorrt 10 (`QuantDequantLinearHelper` and the importer of Clip): bytes are signed, zero
stands for zero, scales are positive constants, only weights have one for each channel, and Clip takes no bytes.
No file was tried on NVIDIA's hardware.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from nayer_cli.onnx.runner import package, read_model

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

ROUNDING = ("QuantizeLinear", "DequantizeLinear")


def complaints(path: Path) -> list[str]:
    """Return a sentence for each node that the parser would refuse; none if there is nothing to say.

    Raises:
        EnvironmentFault: the package onnx is not installed.
        InputError: the file is damaged, or refers to other files.

    """
    model, numpy_helper = read_model(path), package("onnx").numpy_helper
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    small = _integers(model)
    return [f"{node.name}: {fault}" for node in model.graph.node for fault in _faults(node, constants, small)]


def _integers(model: "ModelProto") -> set[str]:
    """Return the names of tensors that hold bytes: outputs of QuantizeLinear, and tensors made only from these."""
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" or (node.op_type != "DequantizeLinear" and node.input[0] in found):
            found.update(node.output)
    return found


def _faults(node: "NodeProto", constants: dict[str, NDArray[Any]], small: set[str]) -> Iterator[str]:
    if node.op_type == "Clip" and node.input[0] in small:
        yield "Clip takes no integers"
    if node.op_type not in ROUNDING:
        return
    source = constants.get(node.input[0])
    scale, zero = constants.get(node.input[1]), constants.get("".join(node.input[2:3]))
    if source is not None and source.dtype.name not in ("int8", "int4", "float32"):
        yield f"constants of {source.dtype} cannot be dequantized"
    if scale is None or zero is None:
        yield "its scale or its zero point is not a constant"
        return
    if zero.dtype.name not in ("int8", "int4"):
        yield f"integers of {zero.dtype} are not taken"
    if zero.any():
        yield "zero does not stand for zero"
    if not (scale > 0).all():
        yield "a scale is not positive"
    if scale.size != zero.size:
        yield "there are not as many zero points as scales"
    if scale.size > 1 and source is None:
        yield "only constants may have a scale for each channel"
