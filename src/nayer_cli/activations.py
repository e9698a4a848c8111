"""Activations of a network as outputs of a call of it: what layers read, what they return, and stages."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nayer_cli.errors import ConfigError

R = TypeVar("R")
T = TypeVar("T")

Stages = dict[tuple[int, int], Tensor]
"""Outputs of the last activation function at each resolution: H, W → `[B, C, H, W]`, in order of execution."""


@contextmanager
def hooked(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove hooks after the block: for networks that are not compiled, since a compiled one ignores such hooks."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class Activations(Generic[T]):
    """Records what some layers see while a network is called through here. Other calls leave no trace.

    The hooks stay for good, and a mark says whether anybody wants what they see. torch.compile never looks at the hooks
    of a compiled network again, but it does look at the mark: a call with activations is compiled apart, and they
    are outputs of it.

    Args:
        layers: whose activations are wanted.
        read: called as `read(layer, input)` before each of them, or as `read(layer, input, output)` after it.
        before: which of the two.

    """

    def __init__(self, layers: Iterable[nn.Module], read: Callable[..., T], *, before: bool = False) -> None:
        self._read = read
        self._seen: list[tuple[nn.Module, T]] | None = None
        for layer in layers:
            if before:
                layer.register_forward_pre_hook(self._before)
            else:
                layer.register_forward_hook(self._after)
        if "torch._dynamo" in sys.modules:
            torch.compiler.reset()  # what was compiled until now knows nothing of these hooks

    def __call__(self, call: Callable[..., R], *arguments: Any) -> tuple[R, list[tuple[nn.Module, T]]]:
        """Return the result of `call(*arguments)`, and each layer with its input, in order of execution."""
        seen = self._seen = []
        try:
            return call(*arguments), seen
        finally:
            self._seen = None

    def _before(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self._seen is not None:
            self._seen.append((layer, self._read(layer, inputs[0])))

    def _after(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self._seen is not None:
            self._seen.append((layer, self._read(layer, inputs[0], output)))


class Staged:
    """Lets a network return its stages besides its logits.

    It listens to leaf modules alone: a traced network still calls them, but none that contains others. Activation
    functions are those without parameters that keep the shape. What they return is final, even where they work in
    place, unlike what a layer before them returns. Single positions (gates, pooled features) are no stage.
    """

    def __init__(self, network: nn.Module) -> None:
        leaves = [module for module in network.modules() if _is_activation(module)]
        self._outputs = Activations(leaves, lambda leaf, x, y: (x.shape, y))

    def __call__(self, call: Callable[[Tensor], R], images: Tensor) -> tuple[R, Stages]:
        """Return what `call(images)`, which is or calls the network, returns; and the stages."""
        result, seen = self._outputs(call, images)
        stages: Stages = {}
        for _, (shape, output) in seen:
            if output.ndim == 4 and output.shape == shape and output.shape[2:].numel() > 1:
                stages[output.shape[2], output.shape[3]] = output
        return result, stages


class Penultimate:
    """Lets a network return, besides its logits, the input of its last linear layer, `[B, D]`, or None without one.

    A network that ends otherwise, as in a 1×1 convolution, has none.
    """

    def __init__(self, network: nn.Module) -> None:
        heads = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        self._inputs = Activations(heads, lambda head, x: x, before=True)

    def __call__(self, call: Callable[[Tensor], R], images: Tensor) -> tuple[R, Tensor | None]:
        """Return what `call(images)`, which is or calls the network, returns; and the features."""
        result, seen = self._inputs(call, images)
        features = [x for _, x in seen if x.ndim == 2]
        return result, features[-1] if features else None


class PerNetwork(Generic[T]):
    """Makes something of each network that comes along, once."""

    def __init__(self, make: Callable[[nn.Module], T]) -> None:
        self._make = make
        self._made: WeakKeyDictionary[nn.Module, T] = WeakKeyDictionary()

    def __call__(self, network: nn.Module) -> T:
        """Return what was made of this network."""
        if network not in self._made:
            self._made[network] = self._make(network)
        return self._made[network]


def uncompiled() -> AbstractContextManager[object]:
    """Return a block in which compiled networks run as they were written.

    Gradients with respect to activations need it: autograd sees a compiled network as a single operation.
    """
    if "torch._dynamo" not in sys.modules:
        return nullcontext()  # nothing is compiled, and the import would take seconds
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def named_layers(network: nn.Module, names: Iterable[str]) -> list[nn.Module]:
    """Return the modules of a network that a user knows by these names, whatever wraps the network.

    Raises:
        ConfigError: there is none of a name.

    """
    return [_find(network, name) for name in names]


def _find(network: nn.Module, name: str) -> nn.Module:
    modules: dict[str, nn.Module] = dict(network.named_modules())
    for path, module in modules.items():
        if path == name or path.endswith(f"network.{name}"):
            return module
    raise ConfigError(f"the network has no module '{name}'", hint="use a name that network.named_modules() lists")


def common(stages: Stages, others: Stages) -> list[tuple[Tensor, Tensor]]:
    """Pair stages with those of another network that have the same shape."""
    return [
        (mine, others[size]) for size, mine in stages.items() if size in others and mine.shape == others[size].shape
    ]


def _is_activation(module: nn.Module) -> bool:
    is_leaf = next(module.children(), None) is None
    has_state = next(module.parameters(), None) is not None or next(module.buffers(), None) is not None
    return is_leaf and not has_state and not isinstance(module, (nn.Identity, nn.Dropout, nn.Dropout2d))
