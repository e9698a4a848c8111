"""Weight files: safetensors, or torch checkpoints that hold no code. Pickled code is never executed."""

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nayer_cli.errors import InputError

Weights = dict[str, Tensor]

FILE_NAMES = ("model.safetensors", "pytorch_model.bin")
"""What timm calls the weights in a folder, best first."""
WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model", "net", "module")
"""Keys under which training scripts keep the weights, best first: averaged weights are what they report."""
PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""
MENTIONED = 3


def find_weights(folder: Path) -> Path:
    """Return the weight file of a model folder in timm's layout.

    Raises:
        InputError: there is none.

    """
    for name in FILE_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder} holds no weights: there is no {' or '.join(FILE_NAMES)}")


def read_weights(path: Path) -> Weights:
    """Return the tensors of a weight file by name, without wrappers and prefixes.

    Of a checkpoint with both plain and averaged (EMA) weights the averaged ones are taken, as timm does.

    Raises:
        InputError: the file is missing or damaged, would have to run code, or holds no weights.

    """
    if not path.is_file():
        raise InputError(f"there is no weight file {path}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not weights by name", hint=_resave(path))
    found = _unwrap(content)
    weights = {_strip(name): value for name, value in found.items() if isinstance(value, Tensor)}
    weights.pop("n_averaged", None)  # the counter of torch.optim.swa_utils
    if not weights:
        raise InputError(f"{path} holds no weights, only: {_some(list(map(str, content)))}", hint=_resave(path))
    return weights


def load_weights(network: nn.Module, weights: Weights, *, name: str, path: Path) -> None:
    """Copy `weights` into `network`, all of them.

    Raises:
        InputError: weights are missing, unexpected, or of another shape; the first of each are listed.

    """
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in wanted]
    misshaped = [
        f"{key} is {list(weights[key].shape)} instead of {list(value.shape)}"
        for key, value in wanted.items()
        if key in weights and isinstance(value, Tensor) and weights[key].shape != value.shape
    ]
    faults = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
    text = "; ".join(f"{len(keys)} {fault} ({_some(keys)})" for fault, keys in faults if keys)
    if text:
        raise InputError(
            f"the weights in {path} do not fit '{name}': {text}",
            hint="check the name of the architecture, the number of classes and the image size",
        )
    network.load_state_dict(weights, strict=False)


def require_finite(network: nn.Module, where: str) -> None:
    """Make sure that `network` holds no NaN and no infinity.

    Raises:
        InputError: it does.

    """
    for name, value in network.state_dict().items():
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"weight {name} of {where} is not finite (NaN or infinity)")


def _read_safetensors(path: Path) -> Weights:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not a whole safetensors file: {error}") from error


def _read_checkpoint(path: Path) -> Any:
    try:
        # timm's training script pickles its options beside the weights; a Namespace is mere data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            message = f"{path} holds pickled code ({code[1]}), which nayer never executes"
            raise InputError(message, hint=_resave(path)) from error
        raise InputError(f"{path} is neither a safetensors file nor a torch checkpoint") from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
    ) as error:  # what damaged archives bring about
        first_line = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be read as a torch checkpoint: {first_line}", hint=_resave(path)) from error


def _unwrap(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    for key in WRAPPERS:
        inner = content.get(key)
        if isinstance(inner, Mapping) and inner:
            return _unwrap(inner)
    return content


def _strip(name: Any) -> str:
    text = str(name)
    while text.startswith(PREFIXES):
        text = text.partition(".")[2]
    return text


def _some(words: list[str]) -> str:
    return ", ".join(words[:MENTIONED]) + (", …" if len(words) > MENTIONED else "")


def _resave(path: Path) -> str:
    return (
        "where you trust the file, save its weights alone: "
        f"safetensors.torch.save_file(model.state_dict(), '{path.stem}.safetensors')"
    )
