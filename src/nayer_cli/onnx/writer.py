"""Write a traced network as ONNX, in nodes that ONNX Runtime fuses into integer kernels."""

import inspect
import operator
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import fx

from nayer_cli.onnx.graph import BATCH, INPUT, Call, OnnxGraph, Rule, Unwritable, Value
from nayer_cli.onnx.layers import LAYERS
from nayer_cli.onnx.ops import RULES
from nayer_cli.onnx.shapes import Shape, holds_shapes, results
from nayer_cli.storage import files
from nayer_cli.types import ImageShape, Normalization

IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


def write_onnx(
    network: fx.GraphModule,
    shape: ImageShape,
    path: Path,
    *,
    storage: str = "int8",
    exact: bool = True,
    symmetric: bool = False,
    normalization: Normalization | None = None,
    facts: Mapping[str, str],
) -> None:
    """Write a file that maps `images` `[batch, C, H, W]`, which are normalized outside, to `logits` `[batch, K]`.

    Args:
        network: a deployed network, or any float network that is traced; in evaluation mode.
        shape: of one image.
        path: the file.
        storage: of weights: `int8`, or `int4`, which packs those of at most four bits.
        exact: whether 8-bit weights whose products could exceed 16 bits in pairs are stored as uint8: every processor
            multiplies these without loss, those without VNNI more slowly.
        symmetric: whether the integers are those that TensorRT reads; see `layers`.
        normalization: becomes the first step of the file, which then takes images in [0, 1].
        facts: goes into the file's metadata.

    Raises:
        Unwritable: the network does something that no rule knows; nothing is written.
        EnvironmentFault: the package onnx is not installed, or the disk is full.
        InputError: the file cannot be written.

    """
    graph = OnnxGraph(storage, exact, symmetric)
    logits = _Writer(network, graph, results(network, shape), normalization).write()
    files.write_bytes(path, graph.serialize(Value(INPUT, (BATCH, *shape)), logits, facts))


class _Writer:
    """Goes through the nodes of a network in order."""

    def __init__(
        self, network: fx.GraphModule, graph: OnnxGraph, found: dict[fx.Node, Any], normalization: Normalization | None
    ) -> None:
        self.network, self.graph, self.found, self.normalization = network, graph, found, normalization
        self.values: dict[fx.Node, Any] = {}

    def write(self) -> Value:
        """Write all nodes; return the logits."""
        for node in self.network.graph.nodes:
            self.values[node] = self._value(node)
            if _is_in_place(node, self.network):
                self._replace(self.values[node.args[0]], self.values[node])
        result = self.values[node]
        if not isinstance(result, Value) or len(result.dims) != 2:
            raise Unwritable(
                "the network cannot be written as ONNX: it does not return one row of logits for each image"
            )
        self.graph.finish(result)
        return result

    def _value(self, node: fx.Node) -> Any:
        result = self.found[node]
        if node.op == "placeholder" and isinstance(result, Shape):
            return self._normalized(Value(INPUT, tuple(result)))
        if node.op == "output":
            return self._filled(node.args[0])
        return self._written(node, result) if holds_shapes(result) else result

    def _normalized(self, images: Value) -> Value:
        if self.normalization is None:
            return images
        call = Call(self.graph, "normalization", images.dims)
        mean, std = (np.array(values, np.float32).reshape(1, -1, 1, 1) for values in self.normalization)
        return Value(call.add("Div", call.add("Sub", images, mean), std), images.dims)

    def _written(self, node: fx.Node, result: object) -> Any:
        """Append what a node does, and return its values."""
        call = Call(self.graph, node.name, result)
        rule = self._rule(node, call)
        signature = inspect.signature(rule)
        args, kwargs = self._filled(node.args), self._filled(node.kwargs)
        kwargs = {name: value for name, value in kwargs.items() if value is not None or name in signature.parameters}
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise call.reject(f"is called in a way that has no rule: {error}") from error
        return _as_values(rule(*args, **kwargs), result)

    def _filled(self, arguments: Any) -> Any:
        return fx.node.map_arg(arguments, lambda node: self.values[node])

    def _rule(self, node: fx.Node, call: Call) -> Rule:
        """Return the rule of an operation; it takes the arguments of the call."""
        if node.op == "call_module":
            module = self.network.get_submodule(str(node.target))
            if type(module) in LAYERS:
                return partial(LAYERS[type(module)], call, module)
            rule = _known(call, type(module))
            names = [name for name in inspect.signature(rule).parameters if hasattr(module, name)]
            return partial(rule, call, **{name: getattr(module, name) for name in names})
        return partial(_known(call, node.target.rstrip("_") if isinstance(node.target, str) else node.target), call)

    def _replace(self, old: object, new: object) -> None:
        """Let all that had a value see what an operation in its place made of it."""
        self.values.update({node: new for node, value in self.values.items() if value is old})


def _known(call: Call, operation: object) -> Rule:
    if operation not in RULES:
        raise call.reject(f"is {getattr(operation, '__name__', operation)}, which has no rule")
    return RULES[operation]


def _as_values(written: Any, shapes: Any) -> Any:
    if isinstance(shapes, Shape):
        return written if isinstance(written, Value) else Value(written, tuple(shapes))
    return tuple(_as_values(*pair) for pair in zip(written, shapes, strict=True))


def _is_in_place(node: fx.Node, network: fx.GraphModule) -> bool:
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    is_method = node.op == "call_method" and str(node.target).endswith("_")
    return is_method or node.target in IN_PLACE or bool(node.kwargs.get("inplace"))
