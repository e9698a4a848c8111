"""Write tensors to a safetensors file one at a time, without copying those that lie in host memory in its form.

The library's own writer leaves the order of the metadata to chance and makes a temporary file of its own, which
stays for ever where the process is killed. The format: https://github.com/huggingface/safetensors#format
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nayer_cli.storage.files import Content, write_atomically

CODES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3", torch.int16: "I16", torch.uint16: "U16", torch.float16: "F16",
    torch.bfloat16: "BF16", torch.int32: "I32", torch.uint32: "U32", torch.float32: "F32",
    torch.complex64: "C64", torch.float64: "F64", torch.int64: "I64", torch.uint64: "U64",
}  # fmt: skip
"""The format's names for torch's types."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `tensors` and `metadata` to `path` atomically; equal content gives equal bytes.

    Beside the tensors themselves, the copy of one is held in memory at a time, and only of one that lies on another
    device or not contiguously. Tensors may share memory: each is written whole.

    Raises:
        EnvironmentFault: the disk is full.
        InputError: the file cannot be written.
        ValueError: the format has no such type of numbers.

    """
    # The largest numbers come first, so that every tensor begins at a multiple of its numbers' size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), CODES.get(item[1].dtype, ""), item[0]))
    header = _header(ordered, metadata)
    size = len(header) + sum(tensor.nbytes for _, tensor in ordered)
    write_atomically(path, _parts(header, (tensor for _, tensor in ordered)), size)


def _header(tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str]) -> bytes:
    """Return the header with its length: type, shape and place of each tensor, padded to a multiple of 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors:
        begin, end = end, end + tensor.nbytes
        entries[name] = {"dtype": _code(name, tensor), "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, sort_keys=True, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _code(name: str, tensor: Tensor) -> str:
    if tensor.dtype not in CODES:
        raise ValueError(f"tensor '{name}' is of {tensor.dtype}, which a safetensors file cannot hold")
    return CODES[tensor.dtype]


def _parts(header: bytes, tensors: Iterable[Tensor]) -> Iterator[Content]:
    yield header
    for tensor in tensors:
        yield _bytes_of(tensor)


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return the numbers of a tensor as they lie in the file."""
    flat = tensor.detach().cpu().resolve_conj().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
