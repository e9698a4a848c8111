"""Layers that compute what plain layers of torch compute, turned into those, since only they have an integer form.

A subclass may compute anything. Many compute a plain layer nevertheless: TensorFlow's `same` padding is a constant at a
known size, and a standardized or reparametrized weight is a constant, too. What a layer does is seen while it runs.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.linear import Linear
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nayer_cli.activations import hooked

Pair = int | tuple[int, int]

KINDS = (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d)
PADDINGS = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d, "circular": nn.CircularPad2d}
SAME = 1e-4
"""Largest difference of a layer from its plain form, as a share of its largest output."""


@torch.no_grad()
def make_plain(network: nn.Module, images: Tensor) -> None:
    """Replace layers of `network` by plain ones, after padding if needed, where these return the same.

    Args:
        network: in evaluation mode; it is changed, and has then such padding as `images` need.
        images: a normalized batch `[B, C, H, W]`.

    """
    found: dict[nn.Module, nn.Module | None] = {}

    def see(layer: nn.Module, inputs: tuple[Any, ...], _: object) -> None:
        plain = found[layer] if layer in found else _plain(layer, inputs)
        found[layer] = plain if plain is not None and _is_same(layer, plain, inputs[0]) else None

    hooks = [layer.register_forward_hook(see) for layer in network.modules() if _may_be_plain(layer)]
    if hooks:
        with hooked(hooks):
            network(images.clone())
    for name, layer in list(network.named_modules(remove_duplicate=False)):
        plain = found.get(layer)
        if plain is not None and name:
            network.set_submodule(name, plain.eval())


def _may_be_plain(layer: nn.Module) -> bool:
    is_plain = type(layer) in (*KINDS, Linear) and getattr(layer, "padding_mode", "zeros") == "zeros"
    return isinstance(layer, KINDS) and not is_plain


def _plain(layer: nn.Module, inputs: tuple[object, ...]) -> nn.Module | None:
    """Return what a layer does as plain layers, or None if it does something else."""
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
        return None
    with _Calls() as seen:
        output = layer.forward(inputs[0])
    source, padding = inputs[0], None
    for function, args, kwargs, result in seen.calls:
        if args[0] is not source:
            return None
        if function is F.pad and padding is None:
            padding = _padding(*args[1:], **kwargs)
        else:
            return _joined(padding, BUILDERS[function](*args[1:], **kwargs)) if result is output else None
        source = result
    return None


class _Calls(TorchFunctionMode):
    """Writes down each call that pads, multiplies or pools, and its output."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., object], tuple[Any, ...], Mapping[str, Any], object]] = []

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if func is F.pad or func in BUILDERS:
            self.calls.append((func, args, kwargs or {}, result))
        return result


def _padding(pad: Any, mode: str = "constant", value: float | None = None) -> nn.Module:
    if mode != "constant":
        return PADDINGS[mode](tuple(pad))
    return nn.ConstantPad2d(tuple(pad), value) if value else nn.ZeroPad2d(tuple(pad))


def _joined(padding: nn.Module | None, layer: nn.Module) -> nn.Module | None:
    if type(padding) is nn.ConstantPad2d:
        return _rounded_up(padding, layer)
    return layer if padding is None else nn.Sequential(padding, layer)


def _rounded_up(padding: nn.ConstantPad2d, layer: nn.Module) -> nn.Module | None:
    """Return a maximum with windows that may begin within the image and end beyond it, for padding by −∞."""
    left, right, top, bottom = padding.padding
    if padding.value != -torch.inf or not isinstance(layer, nn.MaxPool2d) or left > right or top > bottom:
        return None
    return nn.MaxPool2d(layer.kernel_size, layer.stride, (top, left), layer.dilation, ceil_mode=True)


def _conv2d(
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> nn.Module:
    outputs, inputs, height, width = weight.shape
    layer = nn.Conv2d(inputs * groups, outputs, (height, width), stride, padding, dilation, groups, bias is not None)
    return _with_weights(layer, weight, bias)


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    return _with_weights(nn.Linear(weight.shape[1], weight.shape[0], bias is not None), weight, bias)


def _with_weights(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor | None) -> nn.Module:
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


BUILDERS: dict[Callable[..., object], Callable[..., nn.Module]] = {
    F.conv2d: _conv2d,
    F.linear: _linear,
    F.max_pool2d: nn.MaxPool2d,
    F.avg_pool2d: nn.AvgPool2d,
}
"""Functions that make the layer that a function computes, from the arguments after the first."""


def _is_same(layer: nn.Module, plain: nn.Module, x: Tensor) -> bool:
    """Say whether both return the same for values other than those that the plain one was made by."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    wanted, found = layer.forward(noise), plain(noise)
    if found.shape != wanted.shape:
        return False
    most = SAME * float(wanted.abs().amax()) + torch.finfo(torch.float32).tiny
    return torch.allclose(found, wanted, rtol=0, atol=most, equal_nan=True)
