"""Host reads of device values: each makes the host wait for the device.

On a GPU CUDA's own debug mode counts them. On a CPU nothing waits, so the calls that would are counted: those that
torch dispatches (`item` and whatever has a size that depends on data), and those that Python makes on a tensor
(`tolist`, `numpy`, `cpu`). A copy by `.to(device)` cannot be told from none there.

Whole epochs of the engine are counted that differ in one number, so that what an epoch or a round reads once is told
from what every step reads.
"""

import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from nayer_cli.machine.device import resolve_device

from .common import Figure, Step
from .networks import epoch, running

DISPATCHED = {
    "aten::_local_scalar_dense",
    "aten::_unique2",
    "aten::equal",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::nonzero",
    "aten::repeat_interleave",
    "aten::unique_consecutive",
    "aten::unique_dim",
}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_"}
PYTHON = {Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__}
SMALL = {"schedule__batch_size": 8, "method__batch": 20}


def figures(options: Namespace) -> Iterator[Figure]:
    """Count reads for each more step, and for each more round."""
    student = _slope(count(options, kd_steps=2), count(options, kd_steps=5), 3)
    step = _slope(count(options, rounds=1, g_steps=2), count(options, rounds=1, g_steps=5), 3)
    once = _slope(count(options, rounds=1, g_steps=2), count(options, rounds=4, g_steps=2), 3)
    yield Figure("host reads in a steady student step", student.total(), "", 0, detail=dict(student))
    yield Figure("host reads in a steady generator step", step.total(), "", 0, detail=dict(step))
    yield Figure("host reads in a round, beside its steps", once.total(), "", detail=dict(once))


def _slope(fewer: Counter[str], more: Counter[str], by: int) -> Counter[str]:
    return Counter({name: number / by for name, number in (more - fewer).items()})


def count(options: Namespace, *, kd_steps: int = 0, rounds: int = 0, g_steps: int = 1) -> Counter[str]:
    """Host reads of one epoch, the second of its kind, by name."""
    with running(options, method__g_steps=g_steps, **SMALL) as job:
        step = epoch(job.engine, rounds=rounds, kd_steps=kd_steps)
        step()
        on_cuda = resolve_device(options.device).type == "cuda"
        return _waits(step) if on_cuda else _calls(step)


def _waits(step: Step) -> Counter[str]:
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{warning.filename}:{warning.lineno}" for warning in caught if "synchroniz" in str(warning.message))


def _calls(step: Step) -> Counter[str]:
    found: Counter[str] = Counter()
    with FunctionReads(found), DispatchReads(found):
        step()
    return found


class DispatchReads(TorchDispatchMode):
    """Counts what torch itself must read to go on."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name in DISPATCHED or (name in INDEXING and _has_mask(args[1])):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


class FunctionReads(TorchFunctionMode):
    """Counts what Python reads without torch dispatching anything."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PYTHON:
            self.found[f"Tensor.{func.__name__}"] += 1
        return func(*args, **(kwargs or {}))


def _has_mask(indices: Any) -> bool:
    """Say whether a boolean mask is among the indices: its size as a list of places must be asked."""
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
