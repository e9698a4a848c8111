"""Turn a graph that changes tensors in place into one that computes the same without.

Quantizers are put between a tensor and those that read it. That is right only where a tensor has one value for all of
its life: an activation that works in place also changes what a skip connection reads, and a view changes its base.
"""

import operator
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

Index = Sequence[slice | int]

INDEXED = (operator.getitem, operator.setitem)
SAME_ORDER = (
    *(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.unflatten, nn.Flatten, nn.Unflatten),
    *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as"),
)
"""Views that hold all elements in the order of their base."""
EXCHANGES = (torch.transpose, torch.swapaxes, "transpose", "swapaxes")
PERMUTATIONS = (torch.permute, "permute")
PARTS = (torch.chunk, torch.split, torch.tensor_split, "chunk", "split", "tensor_split")


class NotFunctional(Exception):
    """An operation changes a tensor in place, and has no other form here. The message names it."""


def make_functional(network: fx.GraphModule, images: Tensor) -> fx.GraphModule:
    """Return the network as a graph in which no tensor changes.

    It runs once, which shows what shares memory and what changes. A change then becomes a new value of the tensor, of
    its base and of all views of it.

    Args:
        network: a traced network in evaluation mode; its modules are shared, and no longer work in place.
        images: a batch of two that decides nothing but shapes.

    Raises:
        NotFunctional: something changes in a way that is not known here.

    """
    seen = _Watch(network)
    seen.run(images.clone())
    result = _Functional(network, seen, len(images)).rewrite()
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    check = _Watch(result)
    check.run(images.clone())
    left = [node.name for node, changed in check.changed.items() if changed]
    if left:
        raise NotFunctional(f"'{left[0]}' changes a tensor")
    return result


class _Watch(fx.Interpreter):
    """Runs a graph, and keeps what each node returns and which node changes which."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}
        self.changed: dict[fx.Node, list[fx.Node]] = {}

    def run_node(self, n: fx.Node) -> Any:
        before = {source: _versions(self.values[source]) for source in n.all_input_nodes}
        result = super().run_node(n)
        self.values[n] = result
        self.changed[n] = [source for source, was in before.items() if _versions(self.values[source]) != was]
        return result


class _Functional:
    """Copies a graph node by node; `now` is the value that each old node has at this point."""

    def __init__(self, network: fx.GraphModule, seen: _Watch, batch: int) -> None:
        self.network, self.seen, self.batch = network, seen, batch
        self.graph = fx.Graph()
        self.now: dict[fx.Node, fx.Node] = {}
        self.bases: dict[fx.Node, fx.Node | None] = {}

    def rewrite(self) -> fx.GraphModule:
        for node in self.network.graph.nodes:
            changed = self.seen.changed[node]
            if changed:
                self._change(node, changed)
            else:
                self.now[node] = self._copy(node)
                self.bases[node] = self._base(node)
        result = fx.GraphModule(self.network, self.graph)
        result.graph.eliminate_dead_code()
        result.graph.lint()
        result.recompile()
        return result

    def _change(self, node: fx.Node, changed: list[fx.Node]) -> None:
        """Copy a node that changes a tensor, and let all that share its memory see it."""
        target = node.kwargs.get("out", node.args[0] if node.args else None)
        if not isinstance(target, fx.Node) or target not in changed:
            raise NotFunctional(f"'{node.name}' changes a tensor that is not its first argument")
        self.bases[node] = target if self._is_alias(node, target) else None
        value = self._result(node, target)
        if value is not None:
            self._spread(target, value)
        self.now[node] = self.now[target]

    def _base(self, node: fx.Node) -> fx.Node | None:
        """Return the node that a node is a view of, if it is one."""
        base = next((one for one in node.all_input_nodes if self._share(one, node)), None)
        if base is None or isinstance(self.seen.values[base], Tensor):
            return base
        owner = self.bases[base]  # of several views; or else they are results, and each is its own
        return base if owner is not None and isinstance(self.seen.values[owner], Tensor) else None

    def _spread(self, target: fx.Node, value: fx.Node) -> None:
        """Give a tensor a new value, its bases too, and renew all other views of them."""
        new = {target: value}
        while (base := self.bases[target]) is not None:
            owner = base if isinstance(self.seen.values[base], Tensor) else self.bases[base]
            assert owner is not None
            value = self._put_back(target, base, owner, value)
            target = owner
            new[target] = value
        if target.op == "get_attr":
            raise NotFunctional(f"the parameter or buffer '{target.target}' is changed")
        for view, base in list(self.bases.items()):
            if base in new and view not in new:
                new[view] = new[base] if self._is_alias(view, base) else self._copy(view, self.now | new)
        self.now.update(new)

    def _result(self, node: fx.Node, target: fx.Node) -> fx.Node | None:
        """Append what a node computes, without changing anything; None if it writes back the same value."""
        if node.target is operator.setitem:
            return self._with_items(target, *node.args[1:])
        if node.op == "call_module":
            if getattr(self.network.get_submodule(str(node.target)), "inplace", False) is not True:
                raise NotFunctional(f"the module '{node.target}' changes what it is given")
            return self._copy(node)
        if node.target in ("zero_", "fill_"):
            return self._filled(self.now[target], node.args[1] if len(node.args) > 1 else 0.0)
        if node.target == "copy_":
            return self._fitted(node.args[1], self.seen.values[target].shape)
        new = self._copy(node)
        new.target = _method(node) if node.op == "call_method" else _function(node.target)
        new.args, new.kwargs = _out_of_place(new)
        return new

    def _with_items(self, target: fx.Node, index: object, value: object) -> fx.Node | None:
        """Return the node of a tensor in which some elements are other ones."""
        base = self.seen.values[target]
        parts = self._index(target, index)
        place = base[tuple(parts)]
        if isinstance(value, fx.Node) and isinstance(self.seen.values[value], Tensor):
            if _geometry(self.seen.values[value]) == _geometry(place):
                return None  # x[i] += y is x[i] = (x[i] += y)
            return self._scattered(self.now[target], tuple(base.shape), parts, self._fitted(value, place.shape))
        old = self._call(operator.getitem, self.now[target], tuple(parts))
        return self._scattered(self.now[target], tuple(base.shape), parts, self._filled(old, value))

    def _filled(self, like: fx.Node, value: object) -> fx.Node:
        if isinstance(value, fx.Node) or not isinstance(value, (int, float)):
            raise NotFunctional("a part of a tensor is filled with something other than a number or a tensor")
        return self._call(torch.clamp, like, float(value), float(value))

    def _fitted(self, value: object, shape: Sequence[int]) -> fx.Node:
        """Return a value, repeated if need be, of a shape."""
        if not isinstance(value, fx.Node) or not isinstance(self.seen.values[value], Tensor):
            raise NotFunctional("a tensor is overwritten with something that is not a tensor")
        if self.seen.values[value].shape == shape:
            return self.now[value]
        return self.graph.call_method("expand", (self.now[value], *self._open(shape)))

    def _put_back(self, view: fx.Node, base: fx.Node, owner: fx.Node, value: fx.Node) -> fx.Node:
        """Return the node of a view's base after the view has become `value`: what undoes the view."""
        shape, kind = tuple(self.seen.values[owner].shape), self._kind(view)
        if base is not owner:
            return self._joined(view, base, value)
        if self._is_alias(view, base):
            return value
        if kind in SAME_ORDER:
            return self._call(torch.reshape, value, tuple(self._open(shape)))
        if kind in EXCHANGES:
            return self._call(torch.transpose, value, *view.args[1:])
        if kind in PERMUTATIONS:
            dims = view.args[1] if isinstance(view.args[1], Sequence) else view.args[1:]
            back = torch.tensor(dims).remainder(len(shape)).argsort().tolist()
            return self._call(torch.permute, value, tuple(back))
        if kind is operator.getitem:
            return self._scattered(self.now[owner], shape, self._index(owner, view.args[1]), value)
        raise NotFunctional(f"'{view.name}' is a view that is changed, of a kind that is not known")

    def _joined(self, part: fx.Node, parts: fx.Node, value: fx.Node) -> fx.Node:
        """Return the base of several parts after one of them became `value`."""
        if self._kind(parts) not in PARTS or part.target is not operator.getitem:
            raise NotFunctional(f"'{part.name}' is one of several views and is changed")
        found = self.seen.values[parts]
        axis = next((axis for axis in range(found[0].ndim) if self._is_cut(parts, found[0], axis)), None)
        if axis is None:  # one part that is all
            return value
        index = range(len(found))[part.args[1]]  # type: ignore[index]
        all_parts = [self._call(operator.getitem, self.now[parts], which) for which in range(len(found))]
        all_parts[index] = value
        return self._call(torch.cat, all_parts, axis)

    def _is_cut(self, parts: fx.Node, part: Tensor, axis: int) -> bool:
        owner = self.bases[parts]
        assert owner is not None
        return bool(part.shape[axis] != self.seen.values[owner].shape[axis])

    def _scattered(self, base: fx.Node, shape: tuple[int, ...], index: Index, value: fx.Node) -> fx.Node:
        """Return the node of a tensor whose elements at `index` are `value`."""
        for axis, part in enumerate(index):
            if isinstance(part, int):
                value = self._call(torch.unsqueeze, value, axis)
        bounds = [self._bounds(part, size) for part, size in zip(index, shape, strict=True)]
        cut = next((axis for axis, size in enumerate(shape) if bounds[axis] != (0, size)), None)
        if cut is None:
            return value
        if cut == 0:
            raise NotFunctional("some images of a batch are changed")
        return self._between(base, shape, cut, bounds, value)

    def _between(
        self, base: fx.Node, shape: tuple[int, ...], axis: int, bounds: list[tuple[int, int]], value: fx.Node
    ) -> fx.Node:
        """Put `value` between the parts before and after it along one axis, and cut the later axes in the same way."""
        start, stop = bounds[axis]
        along = [slice(None)] * axis
        inner_shape = (*shape[:axis], stop - start, *shape[axis + 1 :])
        rest = [slice(0, size) for size in inner_shape[: axis + 1]] + [slice(*one) for one in bounds[axis + 1 :]]
        inner = self._call(operator.getitem, base, (*along, slice(start, stop)))
        parts = [self._scattered(inner, inner_shape, rest, value)]
        if start > 0:
            parts.insert(0, self._call(operator.getitem, base, (*along, slice(0, start))))
        if stop < shape[axis]:
            parts.append(self._call(operator.getitem, base, (*along, slice(stop, None))))
        return self._call(torch.cat, parts, axis)

    def _bounds(self, part: slice | int, size: int) -> tuple[int, int]:
        if isinstance(part, int):
            return part % size, part % size + 1
        start, stop, step = part.indices(size)
        if step != 1:
            raise NotFunctional("every so many elements of a tensor are changed")
        return start, max(start, stop)

    def _index(self, owner: fx.Node, index: Any) -> list[slice | int]:
        """Return a slice or a number for each axis of a tensor that is indexed."""
        found = fx.node.map_arg(index, lambda node: self.seen.values[node])
        parts = list(found) if isinstance(found, tuple) else [found]
        missing = self.seen.values[owner].ndim - len(parts)
        where = next((place for place, part in enumerate(parts) if part is Ellipsis), None)
        filling: list[Any] = [slice(None)] * (missing if where is None else missing + 1)
        parts = [*parts, *filling] if where is None else [*parts[:where], *filling, *parts[where + 1 :]]
        if not all(isinstance(part, (slice, int)) and not isinstance(part, bool) for part in parts):
            raise NotFunctional("elements are changed that a tensor, a list or a new axis selects")
        return parts

    def _open(self, shape: Sequence[int]) -> list[int]:
        """Return a shape for any number of images."""
        if not shape or shape[0] != self.batch:
            raise NotFunctional("a view that mixes images is changed")
        return [-1, *shape[1:]]

    def _copy(self, node: fx.Node, now: dict[fx.Node, fx.Node] | None = None) -> fx.Node:
        values = now or self.now
        if node.target is getattr and node.args[1] == "data":
            return self.graph.call_method("detach", (values[node.args[0]],))  # type: ignore[index]
        new = self.graph.node_copy(node, lambda old: values[old])
        if new.target in IN_PLACE_OPERATORS:
            new.target = IN_PLACE_OPERATORS[new.target]
        return new

    def _call(self, function: Callable[..., Any], *args: Any) -> fx.Node:
        return self.graph.call_function(function, args)

    def _kind(self, node: fx.Node) -> Any:
        return type(self.network.get_submodule(str(node.target))) if node.op == "call_module" else node.target

    def _share(self, one: fx.Node, other: fx.Node) -> bool:
        return bool(_memory(self.seen.values[one]) & _memory(self.seen.values[other]))

    def _is_alias(self, one: fx.Node, other: fx.Node) -> bool:
        """Say whether two nodes return the very same elements."""
        geometry = _geometry(self.seen.values[one])
        return geometry is not None and geometry == _geometry(self.seen.values[other])


IN_PLACE_OPERATORS: dict[Any, Any] = {
    getattr(operator, f"i{name}"): getattr(operator, other)
    for name, other in {
        **{name: name for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")},
        "and": "and_",
        "or": "or_",
        "xor": "xor",
        "lshift": "lshift",
        "rshift": "rshift",
    }.items()
}
"""Augmented assignments and what they compute."""


def _method(node: fx.Node) -> str:
    name = str(node.target).removesuffix("_")
    if name == node.target or not hasattr(Tensor, name):
        raise NotFunctional(f"the method '{node.target}' changes a tensor")
    return name


def _function(target: object) -> Any:
    """Return the function that computes what one does in place."""
    name = str(getattr(target, "__name__", target))
    if not name.endswith("_"):
        return IN_PLACE_OPERATORS.get(target, target)
    plain = next((getattr(room, name[:-1]) for room in (F, torch) if hasattr(room, name[:-1])), None)
    if plain is None:
        raise NotFunctional(f"the function '{name}' changes a tensor")
    return plain


def _out_of_place(node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments without those that ask for a change."""
    kwargs = {name: value for name, value in node.kwargs.items() if name not in ("out", "inplace")}
    if node.op != "call_function" or len(node.args) < 2:
        return node.args, kwargs
    try:
        names = list(signature(node.target).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return node.args, kwargs
    at = names.index("inplace") if "inplace" in names else len(node.args)
    return tuple(False if place == at else value for place, value in enumerate(node.args)), kwargs


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [one for part in value for one in _tensors(part)] if isinstance(value, (tuple, list)) else []


def _versions(value: object) -> list[int]:
    return [one._version for one in _tensors(value)]


def _memory(value: object) -> set[int]:
    return {one.untyped_storage().data_ptr() for one in _tensors(value) if one.numel()}


def _geometry(value: object) -> tuple[object, ...] | None:
    """Return where the elements of a tensor lie; None of anything else."""
    if not isinstance(value, Tensor):
        return None
    place = value.untyped_storage().data_ptr(), value.storage_offset()
    return place, tuple(value.shape), value.stride(), value.dtype
