"""A block in which no library can fetch anything or load pickled code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import local

from nayer_cli.classifiers.weights import refusing_code
from nayer_cli.errors import InputError

REFUSED = {
    "pickle.find_class": "load pickled code",
    "socket.getaddrinfo": "connect to the network",
    "socket.connect": "connect to the network",
    "urllib.Request": "connect to the network",
    "subprocess.Popen": "start a program",
    "os.system": "start a program",
}
"""Events of Python's audit, and what they mean."""

_here = local()
"""For each thread `depth`, the number of blocks around it."""


@contextmanager
def sealed() -> Iterator[None]:
    """Refuse network connections, programs and pickled code to this thread within the block.

    Some releases of timm unpickle code by default, and all of them fetch what a keyword names. Python reports both
    to an audit hook before they happen, by whatever name a library calls them.

    Raises:
        InputError: something in the block tried. A library may swallow the error, but does not get what it wanted.

    """
    _watch()
    _here.depth = int(getattr(_here, "depth", 0)) + 1
    try:
        with refusing_code():
            yield
    finally:
        _here.depth -= 1


@cache
def _watch() -> None:
    """Set up the hook, once: Python cannot take one away again."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event in REFUSED and getattr(_here, "depth", 0) > 0:
        raise InputError(
            f"building a network may not {REFUSED[event]}",
            hint="if you trust it, build it in a function of yours and name that: py:package.module:factory",
        )
