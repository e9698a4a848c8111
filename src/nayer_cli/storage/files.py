"""Everything that nayer writes goes through here. A reader sees the old file or the complete new one, never a part."""

import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from nayer_cli.errors import InputError
from nayer_cli.storage.disk import cannot_write, is_full

Content = bytes | bytearray | memoryview
"""Bytes; a view has one dimension of them."""
BLOCK = 2**20
"""Bytes from which a part is written alone; smaller ones are joined, because each write is a call to the system."""
TEMPORARY = re.compile(r"\..+\.\d+\.nayer-tmp")
"""Names of the files that are being written: no reader looks for them, and nobody else's are called so."""
PROBE = "probe"
"""Name of a file that is made only to see whether one can be made."""
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
"""Makes opening fail where somebody has put a symbolic link: what it points to is not ours to write."""


def write_atomically(path: Path, parts: Iterable[Content], size: int) -> None:
    """Write `parts`, one after the other, to a temporary file beside `path`, flush it, and move it into place.

    Args:
        path: the file to make or to replace; a link is replaced, not followed.
        parts: the content. One part is held at a time, so a generator may make them as they are needed.
        size: bytes of all parts, for the message where they do not fit.

    Raises:
        EnvironmentFault: the disk is full; the old file is intact, and no part of the new one is left.
        InputError: the folder cannot be written; the same holds.

    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.nayer-tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
            for block in _blocks(parts):
                _write_all(descriptor, block)
            os.fsync(descriptor)
        temporary.replace(path)
        _flush(path.parent)  # the new name, too, must outlive a power cut
    except BaseException as error:
        with suppress(OSError):  # it is not there if it could not be made
            temporary.unlink()
        if isinstance(error, OSError):
            raise cannot_write(path, error, size) from error
        raise


def write_by(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it, and move it into place.

    Raises:
        EnvironmentFault: the disk is full; no part of the file is left.
        InputError: the folder cannot be written; the same holds.

    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.nayer-tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as descriptor:
            with open(descriptor, "w+b", closefd=False) as file:
                write(file)
            os.fsync(descriptor)
        temporary.replace(path)
        _flush(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise cannot_write(path, error, 0) from error
        raise


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder` that takes its place when the block ends well, and is gone otherwise.

    What a process that was killed left of the same is removed first. `folder` must not be there, or be empty.

    Raises:
        EnvironmentFault: the disk is full.
        InputError: `folder` cannot be made.

    """
    target = Path(os.path.realpath(folder))
    for left in _abandoned(target):
        shutil.rmtree(left, ignore_errors=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.nayer-tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _flush(temporary)
        temporary.replace(target)
        _flush(target.parent)
    except OSError as error:
        raise cannot_write(folder, error, 0) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _abandoned(target: Path) -> Iterator[Path]:
    """Yield the temporary folders for `target` whose process has ended."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*.nayer-tmp"):
        number = path.name.removesuffix(".nayer-tmp").rpartition(".")[2]
        if path.is_dir() and not path.is_symlink() and number.isdecimal() and not _is_alive(int(number)):
            yield path


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def write_bytes(path: Path, content: Content) -> None:
    """Write `content` atomically; raises as `write_atomically` does."""
    write_atomically(path, [content], len(content))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` atomically; raises as `write_atomically` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, document: object) -> None:
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
        with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as descriptor:
            end = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, content)
                os.fsync(descriptor)
            except BaseException:
                os.ftruncate(descriptor, end)
                raise
    except OSError as error:
        raise cannot_write(path, error, len(content)) from error


def reserve(path: Path, size: int) -> None:
    """Make a file of `size` bytes whose every byte is there on the disk: a memory map of it cannot fail later.

    Raises:
        EnvironmentFault: the disk is full; the file is not there.
        InputError: the folder cannot be written.

    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
            try:
                _allocate(descriptor, size)
            except OSError:
                path.unlink()
                raise
    except OSError as error:
        raise cannot_write(path, error, size) from error


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    os.ftruncate(descriptor, size)


def make_folder(path: Path) -> None:
    """Make a folder and its parents.

    Raises:
        EnvironmentFault: the disk has no room for it.
        InputError: it cannot be made.

    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error, 0) from error


def check_writable(folder: Path) -> None:
    """Make sure that files can be made in `folder`, by making one: permissions alone do not show it.

    Raises:
        EnvironmentFault: the disk is full.
        InputError: they cannot.

    """
    try:
        # On most file systems it never has a name; where it has one, that is one that is swept.
        TemporaryFile(dir=folder, prefix=f".{PROBE}.", suffix=f".{os.getpid()}.nayer-tmp").close()
    except OSError as error:
        if is_full(error):
            raise cannot_write(folder, error, 0) from error
        reason = error.strerror or error
        raise InputError(f"{folder} is not writable: {reason}", hint="choose another --out") from error


def delete(paths: Iterable[Path]) -> None:
    """Delete files that we have written and need no longer; one that is gone already is not a fault."""
    for path in paths:
        path.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    """Return the temporary files in `folder` of writers that were killed."""
    return [path for path in folder.glob(".*.nayer-tmp") if TEMPORARY.fullmatch(path.name) and path.is_file()]


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file, for everybody whom the file mode mask admits."""
    descriptor = os.open(path, flags | NO_LINK, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _blocks(parts: Iterable[Content]) -> Iterator[Content]:
    """Join parts that are small."""
    block = bytearray()
    for part in parts:
        if block and len(block) + len(part) > BLOCK:
            yield block
            block = bytearray()
        if len(part) >= BLOCK:
            yield part
        else:
            block += part
    if block:
        yield block


def _write_all(descriptor: int, content: Content) -> None:
    """Write until the last byte is taken: a disk that gets full takes a part first, and says so the next time."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _flush(folder: Path) -> None:
    """Wait until a folder's list of files is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
