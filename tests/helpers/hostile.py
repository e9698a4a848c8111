"""Files that lie about what they hold, and a process without memory to spare in which to read them."""

import json
import os
import pickle
import resource
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from forks import apart

TERA = 10**12
SPARE_MB = 512
"""Address space that `read_all` may take beyond what Python and torch have taken."""


class Refusal(NamedTuple):
    """What a reader made of a file."""

    kind: str
    """Class of the exception; empty if there was none."""
    message: str
    hint: str
    grown_mb: int


def read_all(files: Mapping[str, str]) -> dict[str, Refusal]:
    """Read each of `files` (path → reader, such as `nayer_cli.classifiers.weights:read_weights`) in one process.

    The process gets little memory beyond what it has when torch is loaded.
    """
    refusals: dict[str, Refusal] = apart(read, files)
    return refusals


def run_all(commands: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Run commands of nayer one after the other in one process; return exit codes and its peak memory after each."""
    peaks: list[tuple[int, int]] = apart(run, commands)
    return peaks


def run(commands: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Be the process of `run_all`."""
    from nayer_cli.__main__ import main

    return [(main(command), peak_mb()) for command in commands]


def read(files: Mapping[str, str]) -> dict[str, Refusal]:
    """Be the process of `read_all`."""
    from importlib import import_module

    readers = {}
    for path, reader in files.items():
        module, _, name = reader.partition(":")
        readers[path] = getattr(import_module(module), name)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + SPARE_MB * 2**20,) * 2)
    return {path: _refusal(read, Path(path)) for path, read in readers.items()}


def _refusal(read: Callable[[Path], object], path: Path) -> Refusal:
    before = peak_mb()
    try:
        read(path)
    except Exception as error:
        return Refusal(type(error).__name__, str(error), str(getattr(error, "hint", "")), peak_mb() - before)
    return Refusal("", "", "", peak_mb() - before)


def peak_mb() -> int:
    """Return the most memory that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class Payload:
    """Makes a folder when it is unpickled: the proof that code ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """Write a safetensors file with any header, and say that it is `length` bytes long."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: object, begin: object, end: object, kind: object = "F32") -> dict[str, object]:
    """Describe a tensor."""
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


def checkpoint(
    path: Path, size: tuple[int, ...], stride: tuple[int, ...], stored: int = 6, packed: bool = False
) -> None:
    """Write a torch checkpoint of six floats whose pickle declares something else.

    Args:
        path: the file.
        size: of the tensor.
        stride: of the tensor.
        stored: elements that its storage is said to have.
        packed: compress the records, and fill the storage to `stored` elements.

    """
    saved = BytesIO()
    torch.save({"weight": torch.ones(2, 3)}, saved)
    storage = bytes(4 * stored) if packed else None
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as target:
        for record in source.namelist():
            content = source.read(record)
            content = _declaring(stored, size, stride) if record.endswith("data.pkl") else content
            content = storage if storage and record.endswith("data/0") else content
            target.writestr(record, content, zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED, compresslevel=1)


def _declaring(stored: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """Write the pickle of `{"weight": tensor}`."""

    class Storage:
        pass

    class Tensor:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_tensor_v2, (Storage(), 0, size, stride, False, {})

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: object) -> object:
            return ("storage", torch.FloatStorage, "0", "cpu", stored) if isinstance(thing, Storage) else None

    file = BytesIO()
    Pickler(file, protocol=2).dump({"weight": Tensor()})
    return file.getvalue()


def npy(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    """Write the header of a NumPy array and nothing of the array."""
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue()


def npz(path: Path, members: Mapping[str, bytes], packed: bool = False) -> None:
    """Write a NumPy archive with the bytes given for each array."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def tar(path: Path, members: Mapping[str, int], kind: bytes = tarfile.REGTYPE) -> None:
    """Write a gzipped archive with members of so many zeros; `kind` tells files from long names."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, size in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.type = size, kind
            archive.addfile(member, _Zeros(size))


def lying_tar(path: Path, name: str, size: int, sparse: bool = False) -> None:
    """Write an archive with one member that has nothing of the `size` bytes that it declares."""
    member = tarfile.TarInfo(name)
    member.size = size
    if sparse:
        member.pax_headers = {"GNU.sparse.size": str(size), "GNU.sparse.map": f"{size},0"}
        member.size = 0
    path.write_bytes(member.tobuf(tarfile.PAX_FORMAT) + bytes(1024))


class _Zeros(BytesIO):
    """A file of zeros that takes no room."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.left = size

    def read(self, count: int | None = -1) -> bytes:
        given = self.left if count is None or count < 0 else min(count, self.left)
        self.left -= given
        return bytes(given)


def png(width: int, height: int) -> bytes:
    """Write a PNG that declares a size and has almost no data."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(data)) + kind + data + _crc(kind + data) for kind, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _crc(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


def read_tar(path: Path) -> object:
    """List an archive, and take its images."""
    from nayer_cli.images.sources.tar import TarSource

    source = TarSource(path, "validation")
    return [sample.load() for sample in source.samples(range(len(source)))]
