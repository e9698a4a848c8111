"""Bytes that nobody wrote on purpose, and what a reader may make of them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import strategies as st

import hostile
from nayer_cli.errors import NayerError

CALLS, MEGABYTES = 2_000_000, 64


def refused_or_read(read: Callable[[Path], object], content: bytes, name: str = "x.txt") -> object:
    """Read `content`; return what it is, or the fault. Anything else fails, as do endless work and much memory."""
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        before = hostile.peak_mb()
        try:
            with at_most(CALLS):
                found = read(path)
        except NayerError as fault:
            found = fault
            assert str(fault) and "\x1b" not in str(fault)
    assert hostile.peak_mb() - before < MEGABYTES
    return found


@contextmanager
def at_most(calls: int) -> Iterator[None]:
    """Fail after so many calls of functions: unlike seconds, they are the same on every machine."""
    left = calls

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal left
        left -= event in ("call", "c_call")
        assert left > 0, "this takes too long"

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)


@st.composite
def edited(draw: st.DrawFn, whole: bytes) -> bytes:
    """Change, insert, delete, repeat or cut off bytes of a valid file."""
    content = whole
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(start + 40, len(content))))
        piece = draw(st.binary(max_size=9) | st.just(content[start:end] * 2) | st.sampled_from(AWKWARD))
        content = content[:start] + piece + (content[end:] if draw(st.booleans()) else content[start:])
        content = content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 9)) == 0 else content
    return content


AWKWARD = (
    b"\xff" * 8,
    b"\0",
    b'"',
    b"[",
    b"{",
    b"9" * 20,
    b"-1",
    b"1e999",
    b"\\ud800",
    b"\xc3",
    b"\r",
    b"\xef\xbb\xbf",
)
