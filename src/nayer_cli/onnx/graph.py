"""An ONNX graph while it is built: nodes and constants as plain Python, turned into bytes at the end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from nayer_cli.errors import EnvironmentFault, InputError

if TYPE_CHECKING:
    from onnx import TensorProto, ValueInfoProto

BATCH = -1
"""Stands for the number of images wherever a size is that of the batch."""
INPUT, OUTPUT = "images", "logits"
INT8 = 3
"""ONNX's number of the type."""
MOST_BYTES = 2**31 - 1
"""Most bytes of a file without external data."""
OPSET, FORMAT = 21, 10
"""Versions of the operators and of the file format: the oldest ones that have four-bit integers."""

REAL = ("alpha", "beta", "epsilon", "lambd", "bias")
"""Attributes that are real numbers in every operation, and may be whole numbers in torch."""
Attribute = int | float | str | list[int]
Array = NDArray[Any]


class Unwritable(InputError):
    """The network does something that has no rule in ONNX here; the message names it."""


class Integers(NamedTuple):
    """A tensor of uint8: its name, the names of its scale and zero point, and its content."""

    name: str
    scale: str
    zero: str
    largest: int


class Value(NamedTuple):
    """A tensor of floats that depends on the images."""

    name: str
    dims: tuple[int, ...]
    """One of them may be `BATCH`."""
    integers: Integers | None = None
    """The integers that it was made from."""


Operand = Value | Tensor | Array | str | float | None
"""A value by itself or by its name, a constant, or an optional input that is left out."""


Pair = int | Sequence[int]
"""One number for height and width, or two."""


class Node(NamedTuple):
    """One operation."""

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Attribute]


@dataclass
class OnnxGraph:
    """Nodes in order and the constants which they read.

    Args:
        storage: of weights: `int8`, or `int4` where they fit.
        exact: whether weights are stored as uint8 where int8 could saturate on processors without VNNI.
        symmetric: whether all integers are int8 and zero stands for zero, as TensorRT wants it.

    """

    storage: str
    exact: bool = True
    symmetric: bool = False
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    packed: set[str] = field(default_factory=set)
    """Constants of integers from −8 to 7 that are stored two in a byte."""
    names: set[str] = field(default_factory=lambda: {INPUT, OUTPUT, ""})

    def add(
        self, scope: str, op: str, operands: tuple[Operand, ...], outputs: int, **attributes: Attribute
    ) -> list[str]:
        """Append a node whose names begin with `scope`; return the names of its outputs."""
        inputs = [self._operand(scope, operand) for operand in operands]
        found = [self._unused(f"{scope}/{op}") for _ in range(outputs)]
        typed = {key: float(value) if key in REAL else value for key, value in attributes.items()}  # type: ignore[arg-type]
        self.nodes.append(Node(op, found[0], inputs, found, typed))
        return found

    def constant(self, name: str, content: Tensor | Array, *, packed: bool = False) -> str:
        """Keep a constant; return the name that it got."""
        name = self._unused(name)
        array = content.detach().cpu().numpy() if isinstance(content, Tensor) else content
        self.constants[name] = np.asarray(array, order="C")  # not ascontiguousarray, which makes scalars vectors
        if packed:
            self.packed.add(name)
        return name

    def finish(self, result: Value) -> None:
        """Make `result` the output."""
        self.nodes.append(Node("Identity", OUTPUT, [result.name], [OUTPUT], {}))
        self._drop_unread()

    def serialize(self, images: Value, logits: Value, facts: Mapping[str, str]) -> bytes:
        """Return the file.

        Raises:
            EnvironmentFault: the package onnx is not installed.
            Unwritable: it would be larger than files of this format may be.

        """
        if sum(array.nbytes for array in self.constants.values()) > MOST_BYTES:
            raise Unwritable("the network is larger than the 2 GiB that one ONNX file can hold")
        onnx = _onnx()
        helper = onnx.helper
        graph = helper.make_graph(
            [helper.make_node(op, reads, writes, name, **more) for op, name, reads, writes, more in self.nodes],
            "network",
            [_declare(helper, images, INPUT)],
            [_declare(helper, logits, OUTPUT)],
            [self._tensor(onnx, name, array) for name, array in self.constants.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=FORMAT, producer_name="nayer"
        )
        helper.set_model_props(model, dict(facts))
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def _drop_unread(self) -> None:
        read, kept = {OUTPUT}, []
        for node in reversed(self.nodes):
            if not read.isdisjoint(node.outputs):
                read.update(node.inputs)
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {name: array for name, array in self.constants.items() if name in read}

    def _operand(self, scope: str, operand: Operand) -> str:
        match operand:
            case None:
                return ""
            case Value():
                return operand.name
            case str():
                return operand
            case Tensor() | np.ndarray():
                return self.constant(f"{scope}/constant", operand)
        return self.constant(f"{scope}/constant", np.array(operand, np.float32))

    def _tensor(self, onnx: ModuleType, name: str, array: Array) -> "TensorProto":
        if name not in self.packed:
            kept: TensorProto = onnx.numpy_helper.from_array(array, name)
            return kept
        # raw=True, because integers in a list would take a byte or more each.
        packed: TensorProto = onnx.helper.make_tensor(name, onnx.TensorProto.INT4, array.shape, pack(array), raw=True)
        return packed

    def _unused(self, name: str) -> str:
        found, number = name, 1
        while found in self.names:
            found, number = f"{name}_{number}", number + 1
        self.names.add(found)
        return found


class Call:
    """One operation of the network that is being written: what a rule is given.

    Args:
        graph: where nodes go.
        name: of the operation, for people.
        dims: of what it returns; a tuple of them if that is several tensors.

    """

    def __init__(self, graph: OnnxGraph, name: str, dims: Any) -> None:
        self.graph, self.name, self.dims = graph, name, dims

    def add(self, op: str, *operands: Operand, **attributes: Attribute) -> str:
        """Append a node with one output; return its name."""
        return self.graph.add(self.name, op, operands, 1, **attributes)[0]

    def move(self, op: str, x: Operand, *operands: Operand, **attributes: Attribute) -> Value:
        """Append a node that only moves values, and so can do it with integers."""
        if not isinstance(x, Value) or x.integers is None:
            return Value(self.add(op, x, *operands, **attributes), self.dims)
        if self.graph.symmetric:  # TensorRT moves no bytes; rounding once more what is moved changes nothing
            return self.round_again(x.integers, self.add(op, x, *operands, **attributes))
        return self.dequantize(x.integers._replace(name=self.add(op, x.integers.name, *operands, **attributes)))

    def moved_zero(self, x: Value) -> str | None:
        """Return what stands for zero among the values that `move` moves; None where they are floats."""
        return x.integers.zero if x.integers and not self.graph.symmetric else None

    def dequantize(self, integers: Integers) -> Value:
        """Append the node that makes floats of integers."""
        floats = self.add("DequantizeLinear", integers.name, integers.scale, integers.zero)
        return Value(floats, self.dims, integers)

    def round_again(self, grid: Integers, floats: str) -> Value:
        """Append the nodes that take floats, which lie on a grid, to its integers and back."""
        integers = self.add("QuantizeLinear", floats, grid.scale, grid.zero)
        return self.dequantize(grid._replace(name=integers))

    def keep(self, what: str, content: Tensor | Array) -> str:
        """Keep a constant that several nodes read; return its name."""
        return self.graph.constant(f"{self.name}/{what}", content)

    def add_many(self, op: str, outputs: int, *operands: Operand, **attributes: Attribute) -> list[str]:
        """Append a node with several outputs; return their names."""
        return self.graph.add(self.name, op, operands, outputs, **attributes)

    def integers(self, values: tuple[int, ...] | list[int]) -> Array:
        """Return a constant of sizes or indices."""
        return np.array(values, dtype=np.int64)

    def reject(self, why: str) -> Unwritable:
        """Return the fault that says why this cannot be written."""
        return Unwritable(f"the network cannot be written as ONNX: '{self.name}' {why}")


Spelling = type[nn.Module] | Callable[..., object] | str
"""A module, a function, or the name of a method."""
Rule = Callable[..., Operand | list[str]]
"""Writes an operation and returns what it returns. Takes a `Call`, then what the operation takes: its arguments, and
the attributes of a module that have the names of its parameters."""


def pair(size: Pair) -> list[int]:
    """Return height and width."""
    return [size, size] if isinstance(size, int) else list(size) * (2 // len(size))


def pack(integers: Array) -> bytes:
    """Pack integers from −8 to 7 two in a byte, the first in the lower half, as ONNX's INT4 has it."""
    halves = integers.astype(np.int8).reshape(-1).view(np.uint8) & 15
    halves = np.append(halves, np.zeros(halves.size % 2, np.uint8))
    return bytes(halves[0::2] | halves[1::2] << 4)


def _declare(helper: ModuleType, value: Value, name: str) -> "ValueInfoProto":
    shape = ["batch" if size == BATCH else size for size in value.dims]
    declared: ValueInfoProto = helper.make_tensor_value_info(name, 1, shape)
    return declared


def _onnx() -> ModuleType:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise EnvironmentFault("the package 'onnx' is not installed", hint="pip install 'nayer-cli[onnx]'") from error
    return onnx
