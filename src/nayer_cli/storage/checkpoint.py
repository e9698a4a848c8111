"""Checkpoints: a nested state (dicts, lists, numbers, tensors) in a safetensors file, and a manifest that seals it.

The manifest lists every file that a checkpoint consists of with size and checksum. It is written last: a checkpoint
without a manifest was never finished.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nayer_cli.errors import RunFailed
from nayer_cli.storage.files import write_json
from nayer_cli.storage.tensors import save_tensors

FORMAT = "nayer.checkpoint/2"
DAMAGED = (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""Exceptions of reading a file whose content is not what we wrote."""


RESTORE = "restore the directory from a backup, or start again with another --out"


class Seal(NamedTuple):
    """Size and checksum, which show whether a file is still as it was written."""

    bytes: int
    sha256: str


def save_state(path: Path, state: object) -> None:
    """Save `state`, a tree of dicts, lists, tuples, tensors and JSON scalars, to `path` atomically."""
    tensors: dict[str, Tensor] = {}
    skeleton = _strip(state, tensors)
    metadata = {"format": FORMAT, "state": json.dumps(skeleton, allow_nan=False)}
    save_tensors(path, tensors, metadata)


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
        return _fill(skeleton, tensors)
    except DAMAGED as error:
        raise damaged(f"cannot read checkpoint {path}: {error}") from error


def seal(path: Path) -> Seal:
    """Read a file and return its size and checksum."""
    with path.open("rb") as file:
        return Seal(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def fingerprint(content: object) -> str:
    """Return a short checksum of a tree of dicts, lists, tensors and JSON scalars; equal for equal content."""
    return digest(content)[:16]


def digest(content: object) -> str:
    """Return the SHA-256 of a tree of dicts, lists, tensors and JSON scalars, in hexadecimal.

    It is the same wherever tensors are stored, and in whatever layout: each is taken as if it were channels-last.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _strip(content, tensors, _may_be_channels_last)
    found = hashlib.sha256(json.dumps(skeleton).encode())
    for tensor in tensors.values():
        found.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def write_manifest(path: Path, seals: Mapping[str, Seal]) -> None:
    """Seal a checkpoint: `seals` are its files, by their paths relative to the manifest's folder."""
    files = {name: found._asdict() for name, found in seals.items()}
    write_json(path, {"format": FORMAT, "files": files, "sha256": _digest(files)})


def read_manifest(path: Path) -> dict[str, Seal]:
    """Return the files of a checkpoint and what they must be; nothing but the manifest is read.

    Raises:
        RunFailed: the manifest is damaged, or of another version.

    """
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != FORMAT:
            raise damaged(f"{path} is not a checkpoint of this version ({FORMAT})")
        if document["sha256"] != _digest(document["files"]):
            raise damaged(f"{path} is damaged: its checksum does not match")
        return {name: _seal(name, entry) for name, entry in document["files"].items()}
    except DAMAGED as error:
        raise damaged(f"cannot read checkpoint {path}: {type(error).__name__}: {error}") from error


def verify(path: Path) -> None:
    """Read every file that the manifest at `path` lists.

    Raises:
        RunFailed: one of them is missing, or not as it was written.

    """
    for name, expected in read_manifest(path).items():
        file = path.parent / name
        try:
            if not file.is_file():
                raise damaged(f"{file} is missing")
            found = seal(file)
        except OSError as error:
            raise damaged(f"cannot read {file}: {error.strerror or error}") from error
        if found.bytes != expected.bytes:
            raise damaged(f"{file} has {found.bytes:,} bytes instead of {expected.bytes:,}")
        if found != expected:
            raise damaged(f"{file} is damaged: its checksum does not match")


def damaged(message: str) -> RunFailed:
    """Return the error for a checkpoint of which something is not as it was written."""
    return RunFailed(message, hint=RESTORE)


def _seal(name: str, entry: Mapping[str, Any]) -> Seal:
    """Return an entry of a manifest.

    Raises:
        ValueError: it is none, or is of a file elsewhere.

    """
    found = Seal(**entry)
    if not isinstance(found.bytes, int) or not isinstance(found.sha256, str):
        raise ValueError(f"{name!r} has no size or no checksum")
    if name.startswith("/") or {"", "..", "."} & set(name.split("/")) or "\0" in name:
        raise ValueError(f"{name!r} is not a file of a checkpoint")
    return found


def _digest(files: object) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _skeleton(file: Any, path: Path) -> Any:
    """Return the tree with marks where the tensors belong."""
    metadata: Mapping[str, str] = file.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise damaged(f"{path} is not a checkpoint of this version ({FORMAT})")
    return json.loads(metadata["state"])


def _strip(node: object, tensors: dict[str, Tensor], marked: Callable[[Tensor], bool] | None = None) -> Any:
    """Return `node` with each tensor moved to `tensors` and its place marked; dicts become pair lists."""
    if isinstance(node, Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = node
        return {"tensor": name, "channels_last": (marked or _is_channels_last)(node)}
    if isinstance(node, Mapping):
        return {"dict": [[key, _strip(value, tensors, marked)] for key, value in node.items()]}
    if isinstance(node, (list, tuple)):
        return [_strip(value, tensors, marked) for value in node]
    return node


def _is_channels_last(tensor: Tensor) -> bool:
    """Say whether the layout must be restored: fused optimizers mix up a moment and a weight in different layouts."""
    return not tensor.is_contiguous() and tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


def _may_be_channels_last(tensor: Tensor) -> bool:
    """Say whether `_is_channels_last` holds once the tensor is: with one channel or one pixel both layouts are one."""
    return tensor.ndim == 4 and tensor.shape[1] > 1 and tensor.shape[2:].numel() > 1


def _fill(node: object, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, list):
        return [_fill(value, tensors) for value in node]
    if isinstance(node, dict):
        if "tensor" in node:
            tensor = tensors[node["tensor"]]
            is_channels_last = node["channels_last"] and tensor.ndim == 4
            return tensor.contiguous(memory_format=torch.channels_last) if is_channels_last else tensor
        return {key: _fill(value, tensors) for key, value in node["dict"]}
    return node
