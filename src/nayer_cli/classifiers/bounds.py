"""Limits on the size of a network, checked while it is counted and before it takes any memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from nayer_cli.errors import InputError

MOST_PARAMETERS = 1_000_000_000
MOST_TENSORS = 20_000
"""Parameters and buffers, as tensors; the deepest of timm's networks have some 3,000."""


@contextmanager
def bounded(most: int, name: str) -> Iterator[None]:
    """Count the parameters and buffers of networks that are built within the block.

    Args:
        most: numbers that they may hold.
        name: of the network, for messages.

    Raises:
        InputError: they are more, or too many tensors.

    """
    tensors = numbers = 0

    def count(module: nn.Module, key: str, value: Tensor | None) -> None:
        nonlocal tensors, numbers
        tensors, numbers = tensors + 1, numbers + (0 if value is None else value.numel())
        if numbers > most or tensors > MOST_TENSORS:
            what = f"{MOST_TENSORS:,} tensors" if tensors > MOST_TENSORS else f"{most:,} parameters"
            way = "check its model_args" if tensors > MOST_TENSORS else "raise its max_parameters with --set"
            raise InputError(f"'{name}' would have more than {what}", hint=f"if it is meant to be that large, {way}")

    hooks = [
        torch_module.register_module_parameter_registration_hook(count),
        torch_module.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_size(build: Callable[[], object], most: int, name: str) -> None:
    """Make sure that what `build` makes is no larger than it may be, by building it on torch's device without memory.

    Raises:
        InputError: it is.

    """
    with bounded(most, name), torch.random.fork_rng(devices=[]), torch.device("meta"):
        try:
            build()
        except InputError:
            raise
        except Exception:  # some constructors need numbers, and are counted when they are built
            return
