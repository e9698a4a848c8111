"""A CUDA device that is not there: torch runs on the CPU as if some tensors lived on `cuda:0`.

Values, gradients and optimizers are real. Every storage carries a label that says where its memory would be. Two modes
of torch read and write the labels. `_Calls` sees functions and methods: it answers `.device`, `.to(...)` and `device=`.
`_Kernels` sees every ATen operation, those of backward passes too. What a device would refuse raises `RuntimeError`
and is noted as a "fault". What makes the host wait for the device is noted as a "wait", and what copies pageable
memory to the device as a "copy".

What it cannot show: times, results of other kernels, the memory that a device has, and races between streams.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

HOST, DEVICE, EITHER = "host", "device", "either"
"""Labels; EITHER is memory that an operation made for itself without an operand that tells where."""
CUDA = torch.device("cuda", 0)
MEMORY = (60 * 10**9, 80 * 10**9)
"""Free and total bytes of the device."""

ops = torch.ops.aten
COPIES = {ops.copy_, ops._to_copy, ops._foreach_copy_, ops._foreach_copy, ops.set_}
INDEXING = {ops.index, ops.index_put, ops.index_put_, ops._index_put_impl_, ops._unsafe_index}
READS = {
    ops._local_scalar_dense: "item",
    ops.is_nonzero: "bool",
    ops.equal: "equal",
    ops.nonzero: "nonzero",
    ops.masked_select: "masked_select",
    ops.bincount: "bincount",
    ops._unique2: "unique",
    ops.unique_dim: "unique",
    ops.unique_consecutive: "unique",
}
"""Operations whose result, or its shape, the host must know."""
ONE_DEVICE = {"cat", "stack", "_amp_foreach_non_finite_check_and_unscale_"}
"""Operations that take not even a single number from elsewhere, as those on lists of tensors do not."""


class Event(NamedTuple):
    """Something that happened."""

    kind: str
    """`fault`, `wait` or `copy`."""
    what: str
    place: str
    """The innermost function of the package under test: `runs/measure.py:student`."""
    line: int


class Ledger:
    """Counts events, by the line of the package under test that they come from."""

    def __init__(self, package: Path) -> None:
        self._package = str(package)
        self.events: Counter[Event] = Counter()

    def note(self, kind: str, what: str) -> None:
        """Write down that something happened."""
        frame = sys._getframe(1)
        while frame.f_back is not None and not frame.f_code.co_filename.startswith(self._package):
            frame = frame.f_back
        place = f"{frame.f_code.co_filename.removeprefix(self._package + '/')}:{frame.f_code.co_name}"
        self.events[Event(kind, what, place, frame.f_lineno)] += 1

    def fault(self, what: str, error: type[Exception] = RuntimeError) -> None:
        """Write down what a device would refuse, and refuse it."""
        self.note("fault", what)
        raise error(what)


def label(tensor: Tensor) -> str:
    """Say where the memory of a tensor would be."""
    with torch._C.DisableTorchFunction():
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            return HOST
        return getattr(tensor.untyped_storage(), "nayer_label", HOST)


def _mark(tensors: Any, where: str, *, pinned: bool = False) -> Any:
    with torch._C.DisableTorchFunction():
        for tensor in _tensors(tensors):
            if tensor.layout == torch.strided and tensor.device.type == "cpu":
                storage = tensor.untyped_storage()
                storage.nayer_label, storage.nayer_pinned = where, pinned
    return tensors


def _is_pinned(tensor: Tensor) -> bool:
    with torch._C.DisableTorchFunction():
        return getattr(tensor.untyped_storage(), "nayer_pinned", False)


def _tensors(tree: Any) -> list[Tensor]:
    """Return the tensors among arguments or results; torch's own walk would take most of the time here."""
    if isinstance(tree, Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _device(name: Any) -> torch.device | None:
    """Return the device that a caller names; every CUDA device is `cuda:0`."""
    if name is None or isinstance(name, int):
        return None if name is None else CUDA
    device = torch.device(name)
    return CUDA if device.type == "cuda" else device


def _where(device: torch.device) -> str:
    return DEVICE if device.type == "cuda" else HOST


class _Kernels(TorchDispatchMode):
    """Sees every operation after autograd, checks where its operands are, and labels its results."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.calls_on_device = 0
        """How many calls are under way that have an operand on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            operands = _tensors((args, kwargs))
            places = [label(tensor) for tensor in operands]
            if DEVICE in places:
                self._check(func, args, kwargs, operands, places)
            result = func(*args, **kwargs)
            self._label(_tensors(result), operands, places)
        return result

    def _check(self, func: Any, args: Any, kwargs: Any, operands: Sequence[Tensor], places: Sequence[str]) -> None:
        kind = func.overloadpacket
        if kind in READS and places[0] == DEVICE:
            self.ledger.note("wait", READS[kind])
        if kind is ops.repeat_interleave and kwargs.get("output_size") is None and places[0] == DEVICE:
            self.ledger.note("wait", "repeat_interleave")
        if kind in INDEXING:
            self._check_indices(args)
        elif kind is ops.copy_:
            self.check_copy(places[1], places[0], operands[1], non_blocking=bool(args[2:] and args[2]))
        elif kind not in COPIES:
            name = func.__name__.partition(".")[0]
            is_strict = "foreach" in name or "fused" in name or name in ONE_DEVICE
            if any(p == HOST and (t.ndim or is_strict) for t, p in zip(operands, places, strict=True)):
                shapes = [(place, list(tensor.shape)) for tensor, place in zip(operands, places, strict=True)]
                self.ledger.fault(f"{name}: expected all tensors to be on the same device, but found {shapes[:6]}")

    def _check_indices(self, args: Any) -> None:
        here = label(args[0])
        for index in _tensors(args[1]):
            if here == HOST and label(index) == DEVICE:
                self.ledger.fault("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
            if index.dtype == torch.bool:
                self.ledger.note("wait", "boolean mask")
            elif here == DEVICE and label(index) == HOST:
                self.ledger.note("wait", "index on the host")
        if any(label(value) not in (here, EITHER) and value.ndim for value in _tensors(args[2:])):
            self.ledger.fault("index_put: expected all tensors to be on the same device")

    def check_copy(self, source: str, target: str, tensor: Tensor, non_blocking: bool) -> None:
        """Note what a copy of `tensor` between host and device costs."""
        if source == DEVICE and target == HOST:
            self.ledger.note("wait", "copy to the host")
        elif source == HOST and target == DEVICE:
            if not non_blocking:
                self.ledger.note("wait", "copy to the device")
            elif not _is_pinned(tensor):
                self.ledger.note("copy", "pageable memory")

    def _label(self, results: Iterable[Tensor], operands: Sequence[Tensor], places: Sequence[str]) -> None:
        known = {tensor.untyped_storage()._cdata for tensor in operands if tensor.layout == torch.strided}
        is_unknown = not operands and (self.calls_on_device or torch._C._current_graph_task_id() != -1)
        where = DEVICE if DEVICE in places else EITHER if EITHER in places or is_unknown else HOST
        if where != HOST:
            _mark([one for one in results if one.untyped_storage()._cdata not in known], where)


class _Calls(TorchFunctionMode):
    """Sees every function and method of torch before autograd, and answers what asks for a device."""

    def __init__(self, kernels: _Kernels) -> None:
        super().__init__()
        self.kernels, self.ledger = kernels, kernels.ledger
        self._answers = {
            Tensor.device.__get__: lambda x: CUDA if label(x) == DEVICE else torch.device("cpu"),
            Tensor.is_cuda.__get__: lambda x: label(x) == DEVICE,
            Tensor.is_cpu.__get__: lambda x: label(x) != DEVICE,
            Tensor.get_device: lambda x: 0 if label(x) == DEVICE else -1,
            Tensor.is_pinned: lambda x, *_: _is_pinned(x),
            Tensor.pin_memory: lambda x, *_: _mark(x.clone(), HOST, pinned=True),
            Tensor.__deepcopy__: _deep_copy,
            Tensor.to: self._to,
            Tensor.cuda: lambda x, device=0, non_blocking=False, **_: self._to(x, "cuda", non_blocking=non_blocking),
            Tensor.cpu: lambda x, **_: self._to(x, "cpu"),
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in self._answers:
            return self._answers[func](*args, **kwargs)
        operands = _tensors((args, kwargs))
        is_on_device = any(label(tensor) == DEVICE for tensor in operands)
        self._check_generator(func, operands, kwargs)
        if is_on_device and func in (Tensor.numpy, Tensor.__array__):
            self.ledger.fault("can't convert cuda:0 device type tensor to numpy", TypeError)
        if is_on_device and func in (Tensor.tolist, Tensor.__repr__):
            self.ledger.note("wait", func.__name__)
            with self._within_device():
                return func(*map(_as_host, args), **kwargs)
        if _device(kwargs.get("device")) or kwargs.get("pin_memory"):
            return self._make(func, args, kwargs)
        if not is_on_device:
            return func(*args, **kwargs)
        with self._within_device():
            return func(*args, **kwargs)

    @contextmanager
    def _within_device(self) -> Iterator[None]:
        self.kernels.calls_on_device += 1
        try:
            yield
        finally:
            self.kernels.calls_on_device -= 1

    def _make(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Make a tensor where the caller wants it."""
        target, pinned = _device(kwargs.pop("device", None)), bool(kwargs.pop("pin_memory", False))
        data = args[0] if args else kwargs.get("data")
        name = getattr(func, "__name__", "")
        if name in ("as_tensor", "asarray") and isinstance(data, Tensor):
            return self._to(data, target or "cpu")
        where = _where(target) if target else HOST
        if where == DEVICE and name in ("tensor", "as_tensor", "asarray", "new_tensor"):
            self.ledger.note("wait", "copy to the device")
        return _mark(func(*args, **kwargs), where, pinned=pinned)

    def _check_generator(self, func: Any, operands: Sequence[Tensor], kwargs: dict[str, Any]) -> None:
        generator = kwargs.get("generator")
        if not isinstance(generator, torch._C.Generator):
            return
        device = _device(kwargs.get("device"))
        target = device.type if device else "cuda" if operands and label(operands[0]) == DEVICE else "cpu"
        if generator.device.type != target:
            self.ledger.fault(f"Expected a '{target}' device type for generator but found '{generator.device.type}'")

    def _to(self, tensor: Tensor, *words: Any, copy: bool = False, **named: Any) -> Tensor:
        """Do what `Tensor.to` does, where memory may change its label."""
        other = words[0] if words else named.pop("other", None)
        if isinstance(other, Tensor):
            words = (CUDA if label(other) == DEVICE else "cpu", other.dtype, *words[1:])
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*words, **named)
        here, goal = label(tensor), label(tensor) if device is None else _where(device)
        result = tensor.to(dtype=dtype or tensor.dtype, memory_format=layout or torch.preserve_format)
        if DEVICE not in (here, goal) or (here == goal and not copy):
            return result.clone() if copy and result is tensor else result
        self.kernels.check_copy(here, goal, tensor, non_blocking)
        return _mark(result.clone() if result is tensor else result, goal)


def _deep_copy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    copy = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    result: Tensor = memo.setdefault(id(tensor), copy)
    return result


def _as_host(value: Any) -> Any:
    """Return a copy of a tensor that may be read: that it is read has been noted."""
    return _mark(value.detach().clone(), EITHER) if isinstance(value, Tensor) else value


class _Generator(torch._C.Generator):
    """A generator of the CPU that says it is one of the device."""

    def __new__(cls, device: Any = "cpu") -> "_Generator":
        self = super().__new__(cls, "cpu")
        self.named_device = _device(device)
        return self

    @property
    def device(self) -> torch.device:
        return self.named_device

    def set_state(self, state: Tensor) -> "_Generator":
        if label(state) == DEVICE:
            raise TypeError("RNG state must be a torch.ByteTensor")
        super().set_state(state)
        return self


class _Autocast(torch.autocast):
    """Autocast of the CPU where that of the device is asked for."""

    def __init__(self, device_type: str, dtype: torch.dtype | None = None, *rest: Any, **named: Any) -> None:
        if device_type == "cuda" and dtype is None:
            dtype = torch.float16
        super().__init__("cpu" if device_type == "cuda" else device_type, dtype, *rest, **named)


def _answers_of_cuda() -> dict[str, Any]:
    """Return what `torch.cuda` says of the device, by name of its function."""
    state = [torch.zeros(16, dtype=torch.uint8)]
    answers = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "set_device": None,
        "get_device_name": "virtual",
        "get_device_capability": (9, 0),
        "mem_get_info": MEMORY,
        "is_bf16_supported": True,
        "is_initialized": False,
        "is_current_stream_capturing": False,
        "manual_seed": None,
        "manual_seed_all": None,
        "synchronize": None,
        "empty_cache": None,
        "_is_in_bad_fork": False,
    }
    functions: dict[str, Any] = {name: _always(value) for name, value in answers.items()}
    functions["get_rng_state"] = lambda *_: state[0].clone()
    functions["set_rng_state"] = lambda new, *_: state.__setitem__(0, new.clone())
    return functions


def _always(value: Any) -> Any:
    return lambda *_, **__: value


def _grouped(group: Any) -> Any:
    """Let optimizers see devices by label, which the function in C++ that groups their tensors does not."""

    def grouped(lists: Any, with_indices: bool = False) -> Any:
        result = {}
        for (device, dtype), (members, indices) in group(lists, with_indices).items():
            first = next(iter(_tensors(members)), None)
            result[CUDA if first is not None and label(first) == DEVICE else device, dtype] = (members, indices)
        return result

    return grouped


@contextmanager
def virtual_device(package: Path) -> Iterator[Ledger]:
    """Within the block there is a device `cuda:0`; what happens on it is in the ledger, by line of `package`."""
    ledger = Ledger(package)
    kernels = _Kernels(ledger)
    optimizer = torch.optim.Optimizer
    with ExitStack() as stack:
        for name, function in _answers_of_cuda().items():
            stack.enter_context(mock.patch.object(torch.cuda, name, function))
        stack.enter_context(mock.patch.object(torch.accelerator, "is_available", _always(False)))
        stack.enter_context(mock.patch.object(torch, "Generator", _Generator))
        for module in (torch, torch.amp, torch.amp.autocast_mode):
            stack.enter_context(mock.patch.object(module, "autocast", _Autocast))
        for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
            stack.enter_context(mock.patch.object(optimizer, name, _always(None), create=True))
        group = "_group_tensors_by_device_and_dtype"
        stack.enter_context(mock.patch.object(torch._C, group, _grouped(getattr(torch._C, group))))
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(kernels)
        stack.enter_context(_Calls(kernels))
        yield ledger
