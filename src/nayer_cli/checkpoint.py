"""Checkpoints: a nested state (dicts, lists, numbers, tensors) in one safetensors file, written atomically."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nayer_cli.errors import RunFailed
from nayer_cli.files import write_atomically

FORMAT = "nayer.checkpoint/1"


def save_state(path: Path, state: Any) -> None:
    """Save `state`, a tree of dicts, lists, tuples, tensors and JSON scalars, to `path` atomically."""
    tensors: dict[str, Tensor] = {}
    skeleton = _strip(state, tensors)
    metadata = {"format": FORMAT, "state": json.dumps(skeleton, allow_nan=False)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def load_state(path: Path, device: torch.device | str = "cpu") -> Any:
    """Load what `save_state` wrote.

    Keys of dictionaries keep their types (int or str), tensors their memory layout; tuples come back as lists.

    Raises:
        RunFailed: the file is missing, damaged, or not a checkpoint.

    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            skeleton = _skeleton(file, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise RunFailed(f"cannot read checkpoint {path}: {error}") from error
    return _fill(skeleton, tensors)


def load_outline(path: Path) -> Any:
    """Load what `save_state` wrote with None in place of every tensor, from the file's header alone.

    Raises:
        RunFailed: as `load_state` does.

    """
    try:
        with safe_open(path, framework="pt") as file:
            return _fill(_skeleton(file, path), {})
    except (OSError, SafetensorError) as error:
        raise RunFailed(f"cannot read checkpoint {path}: {error}") from error


def _skeleton(file: Any, path: Path) -> Any:
    """Return the tree with marks where the tensors belong."""
    metadata: Mapping[str, str] = file.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise RunFailed(f"{path} is not a checkpoint of this version ({FORMAT})")
    return json.loads(metadata["state"])


def _strip(node: Any, tensors: dict[str, Tensor]) -> Any:
    """Return `node` with each tensor moved to `tensors` and its place marked; dicts become pair lists."""
    if isinstance(node, Tensor):
        name = f"t{len(tensors)}"
        # A copy each: safetensors refuses tensors that share storage.
        tensors[name] = node.detach().clone(memory_format=torch.contiguous_format)
        return {"tensor": name, "channels_last": _is_channels_last(node)}
    if isinstance(node, Mapping):
        return {"dict": [[key, _strip(value, tensors)] for key, value in node.items()]}
    if isinstance(node, (list, tuple)):
        return [_strip(value, tensors) for value in node]
    return node


def _is_channels_last(tensor: Tensor) -> bool:
    """Say whether the layout must be restored: fused optimizers mix up a moment and a weight in different layouts."""
    return not tensor.is_contiguous() and tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


def _fill(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, list):
        return [_fill(value, tensors) for value in node]
    if isinstance(node, dict):
        if "tensor" in node:
            tensor = tensors.get(node["tensor"])
            if tensor is not None and node["channels_last"]:
                return tensor.contiguous(memory_format=torch.channels_last)
            return tensor
        return {key: _fill(value, tensors) for key, value in node["dict"]}
    return node
