"""Record what a network does to images of a known size as a graph, while it runs: its code may branch on sizes.

It runs with two images and again with three others. What then is the same is a constant, and numbers that grow with the
batch are multiples of it. Layers of torch are one node each; all other modules are looked into.
"""

import operator
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from types import MethodDescriptorType, WrapperDescriptorType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

LAYERS = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.Linear, nn.MaxPool2d, nn.AvgPool2d)
"""Layers whose subclasses elsewhere compute something else: they are not looked into."""
ESCAPES = (
    *("__bool__", "__int__", "__float__", "__index__", "__contains__"),
    *("item", "tolist", "numpy", "equal", "allclose"),
)
"""Functions that give values of tensors to Python, whose branches may depend on them."""
UNCHANGED = ("to", "float", "type", "type_as", "contiguous", "cpu")
"""Methods that may return what they are given."""
BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
OTHERS = ("lt", "le", "gt", "ge", "eq", "ne", "neg", "invert", "getitem", "setitem")
OPERATORS = {
    **{name: getattr(operator, name) for name in (*BINARY, *OTHERS)},
    **{f"i{name}": getattr(operator, f"i{name}") for name in BINARY},
    **{f"{name}_": getattr(operator, f"i{name}") for name in ("add", "sub", "mul", "pow")},
    "div": operator.truediv,
    "idiv": operator.itruediv,
    "div_": operator.itruediv,
}
"""Methods of tensors that are operators of Python."""
MIRRORED = {f"r{name}": OPERATORS[name] for name in (*BINARY, "div")}
Function = Callable[..., object]
Arguments = tuple[Any, ...]
Options = dict[str, Any]
CONSTANT = "_tensor_constant"


class Unseen(Exception):
    """The calls of a network do not say what it does; the message says why."""


def record(network: nn.Module, two: Tensor, three: Tensor) -> fx.GraphModule:
    """Return the graph of a network for any number of images.

    Args:
        network: in evaluation mode; the graph shares its modules.
        two: images `[2, C, H, W]`.
        three: other images `[3, C, H, W]`.

    Raises:
        Unseen: it depends on the values of tensors, or not in a known way on the number of images.

    """
    first, second = (_Record(network).run(images) for images in (two, three))
    return _Merged(network, first, second).graph_module()


class _Record(TorchFunctionMode):
    """Runs a network, and writes down each call that concerns its images or its parameters."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.graph = fx.Graph()
        self.seen: dict[int, tuple[Tensor, fx.Node]] = {}  # tensors are kept, since numbers of dead ones come again
        self.of_images: set[fx.Node] = set()
        self.constants: dict[str, Tensor] = {}
        self.inside: list[str] = []
        self.is_off = False
        both = chain(network.named_parameters(remove_duplicate=False), network.named_buffers(remove_duplicate=False))
        self.names = {id(tensor): name for name, tensor in reversed(list(both))}
        self.older = sum(name.startswith(CONSTANT) for name in self.names.values())

    @torch.no_grad()
    def run(self, images: Tensor) -> "_Record":
        self._note(images, self.graph.placeholder("x"), True)
        with self._hooked():
            try:
                with self:
                    result = self.network(images)
            except Exception as error:
                where = f"in '{self.inside[-1]}': " if self.inside and self.inside[-1] else ""
                raise Unseen(f"{where}{next(iter(str(error).splitlines()), type(error).__name__)}") from error
        self.graph.output(self._node(only_logits(result)))
        return self

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        with ExitStack() as hooks:
            for name, module in self.network.named_modules():
                enter, leave = partial(self._enter, name), partial(self._leave, name)
                before = module.register_forward_pre_hook(enter, with_kwargs=True)
                after = module.register_forward_hook(leave, with_kwargs=True)
                hooks.callback(before.remove)
                hooks.callback(after.remove)
            yield

    def _enter(self, name: str, module: nn.Module, *_: object) -> None:
        if not self.is_off:
            self.inside.append(name)
            self.is_off = _is_leaf(module)

    def _leave(self, name: str, module: nn.Module, args: Arguments, kwargs: Options, result: object) -> None:
        if self.inside[-1] != name:
            return
        if self.is_off:
            self._write("call_module", name, args, kwargs, result)
        self.is_off = False
        self.inside.pop()

    def __torch_function__(
        self, func: Function, types: object, args: Arguments = (), kwargs: Options | None = None
    ) -> object:
        kwargs = kwargs or {}
        if self.is_off:
            return func(*args, **kwargs)
        if getattr(func, "__name__", "") == "__iter__":
            return iter(self._unbound(args[0]))
        result = func(*args, **kwargs)
        self._see(func, args, kwargs, result)
        return result

    def _unbound(self, tensor: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = torch.unbind(tensor, 0)
        self._see(torch.unbind, (tensor, 0), {}, parts)
        return parts

    def _see(self, func: Function, args: Arguments, kwargs: Options, result: object) -> None:
        name = getattr(func, "__name__", "")
        sources = [one for one in _tensors((args, kwargs)) if self._knows(one)]
        if not sources:
            return
        if name in ESCAPES and any(self._node(one) in self.of_images for one in sources):
            raise Unseen("its forward depends on the values of tensors")
        if name in UNCHANGED and result is args[0]:
            return
        if _tensors(result) or name == "__setitem__":
            self._write(*_spelled(func, args, kwargs), result)

    def _write(self, op: str, target: fx.node.Target, args: Arguments, kwargs: Options, result: object) -> None:
        inputs, named = self._filled(args), self._filled(kwargs)
        node = self.graph.create_node(op, target, inputs, named)
        self._keep(node, result, any(source in self.of_images for source in node.all_input_nodes))

    def _keep(self, node: fx.Node, result: object, of_images: bool) -> None:
        """Remember which node, and which part of its output, a tensor is."""
        if of_images:
            self.of_images.add(node)
        if isinstance(result, Tensor):
            self._note(result, node, of_images)
        elif isinstance(result, (tuple, list)):
            for index, part in enumerate(result):
                if _tensors(part):
                    self._keep(self.graph.call_function(operator.getitem, (node, index)), part, of_images)

    def _note(self, tensor: Tensor, node: fx.Node, of_images: bool) -> None:
        self.seen[id(tensor)] = tensor, node
        if of_images:
            self.of_images.add(node)

    def _knows(self, tensor: Tensor) -> bool:
        return id(tensor) in self.seen or id(tensor) in self.names

    def _node(self, tensor: object) -> fx.Node:
        if not isinstance(tensor, Tensor):
            raise Unseen(f"it returns a {type(tensor).__name__}")
        if id(tensor) not in self.seen:
            self._note(tensor, self._attribute(tensor), False)
        return self.seen[id(tensor)][1]

    def _attribute(self, tensor: Tensor) -> fx.Node:
        """Append the node of a parameter, a buffer or a constant."""
        if id(tensor) in self.names:
            return self.graph.create_node("get_attr", self.names[id(tensor)])
        name = f"{CONSTANT}{self.older + len(self.constants)}"
        self.constants[name] = tensor.detach().clone()
        return self.graph.create_node("get_attr", name)

    def _filled(self, value: Any) -> Any:
        return fx.node.map_aggregate(value, lambda one: self._node(one) if isinstance(one, Tensor) else one)


class _Merged:
    """The graph of two records of one network: numbers that differ become multiples of the number of images."""

    def __init__(self, network: nn.Module, first: _Record, second: _Record) -> None:
        self.network, self.first, self.second = network, first, second
        self.graph = fx.Graph()
        self.batch: fx.Node | None = None
        self.now: dict[fx.Node, fx.Node] = {}

    def graph_module(self) -> fx.GraphModule:
        pairs = list(zip(self.first.graph.nodes, self.second.graph.nodes, strict=False))
        if len(self.first.graph.nodes) != len(self.second.graph.nodes) or any(not _is_alike(*pair) for pair in pairs):
            raise Unseen("it does other things to two images than to three")
        for name, tensor in self.first.constants.items():
            self.network.register_buffer(name, tensor[:1] if self._grows(name) else tensor)
        for one, other in pairs:
            args, kwargs = self._merge(one.args, other.args), self._merge(one.kwargs, other.kwargs)
            self.now[one] = self.graph.create_node(one.op, one.target, args, kwargs)
            if one.op == "placeholder":
                self.batch = self.graph.call_method("size", (self.now[one], 0))
            elif one.op == "get_attr" and self._grows(str(one.target)):
                rows = (self.batch, *[-1] * (self.first.constants[str(one.target)].ndim - 1))
                self.now[one] = self.graph.call_method("expand", (self.now[one], *rows))
        return fx.GraphModule(self.network, self.graph)

    def _grows(self, name: str) -> bool:
        """Say whether a constant has a row for each image; all of them are then the same."""
        one, other = (record.constants.get(name) for record in (self.first, self.second))
        if one is None or other is None or torch.equal(one, other):
            return False
        sizes = (one.shape[:1], other.shape[:1])
        if sizes != ((2,), (3,)) or not all(_is_repeated(rows, one[:1]) for rows in (one, other)):
            raise Unseen("it makes a tensor in a way that torch does not show")
        return True

    def _merge(self, one: object, other: object) -> Any:
        if isinstance(one, fx.Node):
            return self.now[one]
        if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)) and len(one) == len(other):
            parts = map(self._merge, one, other)
            return list(parts) if isinstance(one, list) else tuple(parts)
        if isinstance(one, dict) and isinstance(other, dict):
            return {key: self._merge(value, other[key]) for key, value in one.items()}
        if isinstance(one, slice) and isinstance(other, slice):
            return slice(*map(self._merge, (one.start, one.stop, one.step), (other.start, other.stop, other.step)))
        if one is other or one == other:
            return one
        return self._multiple(one, other)

    def _multiple(self, one: object, other: object) -> fx.Node:
        """Return the node of the number of images times what both numbers are multiples of."""
        if isinstance(one, int) and isinstance(other, int) and one % 2 == 0 and 3 * one == 2 * other:
            assert self.batch is not None
            return self.batch if one == 2 else self.graph.call_function(operator.mul, (self.batch, one // 2))
        raise Unseen(f"it depends on the number of images: {one} for two, {other} for three")


def only_logits(output: object) -> Any:
    """Choose the logits among a network's outputs: the entry or attribute `logits`, or else the first of several."""
    named = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    if named is not None:
        return only_logits(named)
    return only_logits(output[0]) if isinstance(output, (tuple, list)) else output


def _spelled(func: Function, args: Arguments, kwargs: Options) -> tuple[str, fx.node.Target, Arguments, Options]:
    """Return a call as a node has it: op, target, arguments."""
    name, owner = getattr(func, "__name__", ""), getattr(func, "__self__", None)
    if name == "__get__":
        return "call_function", getattr, (args[0], getattr(owner, "__name__", "")), {}
    plain = name.removeprefix("__").removesuffix("__") if name.startswith("__") else name
    if not isinstance(func, (MethodDescriptorType, WrapperDescriptorType)) and not _is_method(func, name):
        return "call_function", func, args, kwargs
    if plain in MIRRORED and name.startswith("__"):
        return "call_function", MIRRORED[plain], (args[1], args[0]), kwargs
    if plain in OPERATORS and not kwargs:
        return "call_function", OPERATORS[plain], args, kwargs
    return "call_method", name, args, kwargs


def _is_method(func: object, name: str) -> bool:
    return getattr(Tensor, name, None) is func or getattr(func, "__module__", "") == "torch._tensor"


def _is_leaf(module: nn.Module) -> bool:
    of_torch = type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)
    return isinstance(module, LAYERS) or of_torch


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    fx.node.map_aggregate(value, lambda one: found.append(one) if isinstance(one, Tensor) else None)
    return found


def _is_alike(one: fx.Node, other: fx.Node) -> bool:
    return one.op == other.op and one.target == other.target


def _is_repeated(rows: Tensor, row: Tensor) -> bool:
    return rows.shape[1:] == row.shape[1:] and bool((rows == row).all())
