"""Floors: operations over the machine's measured rate of multiplying, bytes over its measured rate of copying.

Bytes are those that each operation of the bare networks reads and writes, as if nothing stayed in a cache; fused
operations move fewer.
"""

from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nayer_cli.machine.operations import OperationCounter
from nayer_cli.machine.precision import Precision
from nayer_cli.runs import assemble

from .common import Clock, Figure, Step, compare, make_clock
from .networks import phases, settings

REPEATS = 7


def figures(options: Namespace) -> Iterator[Figure]:
    """Tell the machine's rates, then how far each phase is from its floor."""
    machine = assemble.new_machine(settings(options))
    clock = make_clock(options.clock, machine.device)
    rates = {
        "operations": multiply_rate(machine.device, machine.precision, clock),
        "bytes": copy_rate(machine.device, clock),
    }
    yield Figure("measured rate of multiplying", rates["operations"] / 1e9, "GFLOP/s")
    yield Figure("measured rate of copying, bytes read and bytes written", rates["bytes"] / 1e9, "GB/s")
    for name, batch, bare, engine, _ in phases(options, count=1):
        *_, bare_s, engine_s = compare(bare, engine, REPEATS, clock)
        work = {"operations": operations(bare), "bytes": moved(bare)}
        floors = {what: amount / rates[what] for what, amount in work.items()}
        detail = {
            "GFLOP": work["operations"] / 1e9,
            "GB": work["bytes"] / 1e9,
            "operations ms": 1e3 * floors["operations"],
            "bytes ms": 1e3 * floors["bytes"],
            "bare ms": 1e3 * bare_s,
            "engine's bytes / bare": moved(engine) / work["bytes"],
        }
        title = f"{name} step, batch {batch}: engine / floor"
        yield Figure(title, engine_s / max(floors.values()), "×", detail=detail)


def multiply_rate(device: torch.device, precision: Precision, clock: Clock) -> float:
    """FLOP/s of the networks' precision: the best of a matrix product and of a convolution."""
    size = 8192 if device.type == "cuda" else 2048
    with torch.no_grad(), precision():
        matrix = torch.randn(size, size, device=device)
        matrix = (matrix @ matrix).clone()  # in the precision
        conv = nn.Conv2d(256, 256, 3, padding=1, bias=False, device=device, dtype=matrix.dtype)
        conv, images = conv.to(memory_format=torch.channels_last), matrix.new_ones(size // 64, 256, 32, 32)
        images = images.to(memory_format=torch.channels_last)
        works = [lambda: matrix @ matrix, lambda: conv(images)]
        return max(operations(work) / best(work, clock) for work in works)


def copy_rate(device: torch.device, clock: Clock) -> float:
    """Bytes a second, read and written, of copying more than any cache holds."""
    source = torch.ones(2**27, device=device)  # 512 MiB
    target = torch.empty_like(source)
    return 2 * source.nbytes / best(lambda: target.copy_(source), clock)


def best(work: Step, clock: Clock) -> float:
    """Seconds of the fastest of some repeats: a rate of the machine, not of what else it does."""
    work()
    return min(clock(work) for _ in range(REPEATS))


def operations(work: Step) -> int:
    """Floating-point operations of products and convolutions; a multiplication and an addition are two."""
    with (counter := OperationCounter()):
        work()
    return counter.take()


def moved(work: Step) -> int:
    """Bytes that all operations together read and write."""
    with Moved() as mode:
        work()
    return mode.bytes


class Moved(TorchDispatchMode):
    """Adds up the sizes of what each operation takes and returns; views and allocations move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and not func._schema.name.startswith("aten::empty"):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            # An expanded tensor has more elements than there are to read.
            self.bytes += sum(min(tensor.nbytes, tensor.untyped_storage().nbytes()) for tensor in tensors)
        return result
