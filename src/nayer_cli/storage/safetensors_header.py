"""The header of a safetensors file against its length, before anything is allocated.

The library looks at the same things, but its messages name no tensor. The format:
https://github.com/huggingface/safetensors#format
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError

from nayer_cli.storage.text import parse_json, printable

LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""
BITS = {
    "F4": 4, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Size of an element of each type that torch has."""
MAGIC = {
    b"PK\x03\x04": "a zip archive, such as torch.save and numpy.savez write",
    b"\x93NUMPY": "a NumPy array",
    b"\x80": "a pickle",
}


class _Span(NamedTuple):
    """The bytes of a tensor, counted from the end of the header."""

    begin: int
    end: int
    name: str


def check_header(path: Path) -> None:
    """Make sure that the tensors which a safetensors file declares are those which it holds.

    Raises:
        SafetensorError: they are not; the message names the tensor, and not the file.
        OSError: the file cannot be read.

    """
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):
            raise SafetensorError(_no_header(first, length, size))
        document = _parse(file.read(length))
    spans = [_span(name, entry) for name, entry in document.items() if name != "__metadata__"]
    _check_order(spans, size - 8 - length)


def _no_header(first: bytes, length: int, size: int) -> str:
    for magic, what in MAGIC.items():
        if first.startswith(magic):
            return f"it is {what}"
    if size < 8:
        return f"it has {size} bytes, and the length of a header takes 8"
    return f"its header is said to be {length:,} bytes long, in a file of {size:,}"


def _parse(text: bytes) -> dict[str, Any]:
    try:
        document = parse_json(text.decode("utf-8"))
    except ValueError as error:
        raise SafetensorError(f"its header is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise SafetensorError("its header is not an object of tensors")
    return document


def _span(name: str, entry: Any) -> _Span:
    """Return where a tensor lies, after making sure that shape and type fill exactly these bytes."""
    who = f"tensor '{printable(name)}'"
    try:
        kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        bits = BITS.get(kind)
    except (KeyError, TypeError, ValueError) as error:
        raise SafetensorError(f"{who} is described by something other than dtype, shape and data_offsets") from error
    if bits is None:
        raise SafetensorError(f"{who} is of the unknown type {printable(str(kind))}")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise SafetensorError(f"{who} has a shape or an offset that is not a list of whole numbers from 0")
    if bits * _count(shape, 8 * end) != 8 * (end - begin):
        raise SafetensorError(f"{who} has {max(end - begin, 0):,} bytes, which is not its shape in {kind}")
    return _Span(begin, end, who)


def _count(shape: Sequence[int], enough: int) -> int:
    """Multiply up `shape`, but no further than beyond `enough`: a header may hold a million huge numbers."""
    count = 0 if 0 in shape else 1
    for n in shape:
        if not 0 < count <= enough:
            break
        count *= n
    return count


def _check_order(spans: Iterable[_Span], size: int) -> None:
    """Make sure that the tensors fill `size` bytes, one after the other."""
    ordered = [_Span(0, 0, "its header"), *sorted(spans)]
    for before, span in pairwise(ordered):
        if span.end > size:
            raise SafetensorError(f"{span.name} ends at byte {span.end:,}, but there are {size:,}: the file is cut off")
        if span.begin < before.end:
            raise SafetensorError(f"{span.name} overlaps with {before.name}")
        if span.begin > before.end:
            raise SafetensorError(f"{span.begin - before.end:,} bytes before {span.name} belong to no tensor")
    if ordered[-1].end < size:
        raise SafetensorError(f"{size - ordered[-1].end:,} bytes after {ordered[-1].name} belong to no tensor")
