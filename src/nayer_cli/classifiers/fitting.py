"""Match the tensors of a weight file with those of a network: by name, below one prefix, or in order."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nayer_cli.classifiers.weights import COUNTER, FLOATS, Weights, some_of
from nayer_cli.errors import InputError

State = Mapping[str, Any]
HINT = "check the name of the architecture, the number of classes and the image size"
BY_ORDER = "; --match order pairs them that way, whatever their names: check the accuracy afterwards"


def load_weights(network: nn.Module, weights: Weights, *, name: str, path: Path, match: str = "name") -> None:
    """Copy `weights` into `network`, all of them.

    Tensors that share memory in the network, as tied weights do, need only one of their names. Where every name in
    the file has one prefix more (or less) than in the network, such as Lightning's `model.`, the prefix is ignored.

    Args:
        network: is changed.
        weights: tensors by name, in the order of the file.
        name: of the network, for messages.
        path: of the file, for messages.
        match: `name`, or `order`: the first tensor of the file is the first of the network, and so on; all shapes
            must fit.

    Raises:
        InputError: weights are missing, unexpected, or of another shape or type; the first of each are listed.

    """
    wanted = network.state_dict()
    weights = _in_order(weights, wanted, name, path) if match == "order" else _below_a_prefix(weights, wanted, path)
    if text := _faults(weights, wanted):
        in_order = match == "name" and path.suffix != ".safetensors" and _fit_in_order(weights, wanted)
        hint = "the tensors fit one to one by order and shape" + BY_ORDER if in_order else HINT
        raise InputError(f"the weights in {path} do not fit '{name}': {text}", hint=hint)
    network.load_state_dict(weights, strict=False)


def _faults(weights: Weights, wanted: State) -> str:
    """Say what does not fit; empty if everything does."""
    common = {
        key: (weights[key], value) for key, value in wanted.items() if key in weights and isinstance(value, Tensor)
    }
    faults = {
        "missing": _missing(weights, wanted),
        "unexpected": [key for key in weights if key not in wanted],
        "of another shape": [
            f"{key} is {list(given.shape)} instead of {list(value.shape)}"
            for key, (given, value) in common.items()
            if given.shape != value.shape
        ],
        "of another type": [
            f"{key} is {_type(given)} instead of {_type(value)}"
            for key, (given, value) in common.items()
            if _is_mistyped(key, given, value)
        ],
    }
    return "; ".join(f"{len(keys)} {fault} ({some_of(keys)})" for fault, keys in faults.items() if keys)


def _missing(weights: Weights, wanted: State) -> list[str]:
    """Return the names that a file lacks; one of several names of the same memory is enough."""
    held = {_memory(value) for key, value in wanted.items() if key in weights} - {None}
    return [
        key
        for key, value in wanted.items()
        if key not in weights and not key.endswith(COUNTER) and _memory(value) not in held
    ]


def _memory(value: object) -> tuple[Any, ...] | None:
    """Return where a tensor lies; None for what lies nowhere."""
    if not isinstance(value, Tensor) or not value.numel():
        return None
    return value.data_ptr(), value.shape, value.stride()


def _below_a_prefix(weights: Weights, wanted: State, path: Path) -> Weights:
    """Return the weights with the network's names, if these differ by one prefix; else as they are.

    Raises:
        InputError: there are several networks in the file that fit.

    """
    if not _missing(weights, wanted):
        return weights
    fitting = {prefix: found for prefix, found in _candidates(weights, wanted) if _fits(found, wanted)}
    if len(fitting) > 1:
        raise InputError(
            f"{path} holds several networks that fit: {some_of(sorted(fitting))}",
            hint="save the weights of one network to a file of their own",
        )
    return next(iter(fitting.values()), weights)


def _candidates(weights: Weights, wanted: State) -> Iterator[tuple[str, Weights]]:
    """Yield each prefix that the network's first name may have in the file, with the weights below it."""
    first = next((key for key in wanted if not key.endswith(COUNTER)), "")
    for prefix in {key.removesuffix(first) for key in weights if key.endswith(f".{first}")}:
        yield prefix, {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    outer = first.partition(".")[0] + "."
    if all(key.startswith(outer) for key in wanted):
        yield f"without {outer}", {outer + key: value for key, value in weights.items()}


def _fits(weights: Weights, wanted: State) -> bool:
    return not _faults({key: value for key, value in weights.items() if key in wanted}, wanted)


def _in_order(weights: Weights, wanted: State, name: str, path: Path) -> Weights:
    """Give the tensors of a file the network's names, one after the other.

    Raises:
        InputError: the file keeps no order, or number or shapes do not fit.

    """
    if path.suffix == ".safetensors":
        raise InputError(
            f"{path} does not keep the order of its tensors: safetensors sorts them by type and name",
            hint="give the checkpoint that it was made from, or rename the tensors in it",
        )
    names, given = _ordered(wanted), list(_ordered(weights).items())
    if len(names) != len(given):
        message = f"the weights in {path} do not fit '{name}' in order: {len(given)} tensors instead of {len(names)}"
        raise InputError(message, hint=HINT)
    for (key, value), (theirs, tensor) in zip(names.items(), given, strict=True):
        if value.shape != tensor.shape:
            raise InputError(
                f"the weights in {path} do not fit '{name}' in order: {theirs} is {list(tensor.shape)}, where {key} is "
                f"{list(value.shape)}",
                hint=HINT,
            )
    return dict(zip(names, (tensor for _, tensor in given), strict=True))


def _fit_in_order(weights: Weights, wanted: State) -> bool:
    theirs, ours = (list(_ordered(state).values()) for state in (weights, wanted))
    return [tensor.shape for tensor in theirs] == [tensor.shape for tensor in ours]


def _ordered(state: State) -> dict[str, Tensor]:
    """Return the tensors that an order is about: some files have counters, some have not."""
    return {key: value for key, value in state.items() if isinstance(value, Tensor) and not key.endswith(COUNTER)}


def _is_mistyped(key: str, given: Tensor, wanted: Tensor) -> bool:
    if wanted.is_floating_point():
        return given.dtype not in FLOATS
    return given.is_floating_point() and not key.endswith(COUNTER)


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
