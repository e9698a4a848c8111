"""Everything that nayer writes goes through here. A reader sees the old file or the whole new one, never a part."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from nayer_cli.errors import EnvironmentFault, InputError, NayerError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TEMPORARY = re.compile(r"\..+\.\d+\.nayer-tmp")
"""Names of the files that are being written: no reader looks for them, and nobody else's are called so."""


def write_atomically(path: Path, write: Callable[[Path], object], size: int) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, and move it into place.

    Args:
        path: the file to make or to replace.
        write: fills the file whose path it is given.
        size: bytes that it will write, for the message where they do not fit.

    Raises:
        EnvironmentFault: the disk is full; the old file is intact, and no part of the new one is left.
        InputError: the folder cannot be written; the same holds.

    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.nayer-tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.chmod(0o666 & ~_umask())  # some writers make files that only their owner may read
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)  # the new name, too, must outlive a power cut
    except OSError as error:
        raise _fault(path, error, size) from error
    finally:
        with suppress(OSError):  # it is not there if all went well, and cannot be if its folder is a file
            temporary.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` atomically; raises as `write_atomically` does."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content), len(content))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` atomically; raises as `write_atomically` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, document: Any) -> None:
    """Write `document` as indented JSON atomically; NaN is refused because JSON has none."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file that only grows, flush it to disk, and take back a part that was written of it.

    Raises:
        EnvironmentFault: the disk is full; the file is as it was.
        InputError: the file cannot be written.

    """
    content = f"{line}\n".encode()
    try:
        with path.open("ab", buffering=0) as file:  # a buffer would try again when the file is closed
            end = file.tell()
            try:
                _write_all(file, content)
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(end)
                raise
    except OSError as error:
        raise _fault(path, error, len(content)) from error


def _write_all(file: FileIO, content: bytes) -> None:
    """Write until the last byte is taken: a disk that gets full takes a part first, and says so the next time."""
    while content:
        content = content[file.write(content) :]


def reserve(path: Path, size: int) -> None:
    """Make a file of `size` bytes whose every byte is there on the disk: a memory map of it cannot fail later.

    Raises:
        EnvironmentFault: the disk is full; the file is not there.
        InputError: the folder cannot be written.

    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            os.ftruncate(file.fileno(), size)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise _fault(path, error, size) from error


def check_writable(folder: Path) -> None:
    """Make sure that files can be made in `folder`, by making one: permissions alone do not tell.

    Raises:
        InputError: they cannot.

    """
    try:
        TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{folder} is not writable: {reason}", hint="choose another --out") from error


def delete(paths: Iterable[Path]) -> None:
    """Delete files that we have written and need no longer; one that is gone already is no fault."""
    for path in paths:
        path.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    """Return the temporary files in `folder` of writers that were killed."""
    return [path for path in folder.glob(".*.nayer-tmp") if TEMPORARY.fullmatch(path.name) and path.is_file()]


def _fault(path: Path, error: OSError, size: int) -> NayerError:
    """Say what went wrong with `path`, and what to do."""
    if error.errno not in FULL:
        return InputError(f"cannot write {path}: {error.strerror or error}", hint="choose another --out")
    return EnvironmentFault(
        f"cannot write {path}: {error.strerror or error}; {size:,} bytes are needed, {_free(path)}",
        hint="make room, or use another disk with --out",
    )


def _free(path: Path) -> str:
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    return f"{shutil.disk_usage(existing).free:,} are free"


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """Return the process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
