"""Refuse files that name what only the user may name: code to run and things to fetch.

A file that somebody else wrote can shape a network and name classes. It can never name code, an address, or a path
outside its folder, unless the user says so on the command line.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from nayer_cli.errors import InputError
from nayer_cli.types import Settings

CODE = "py:"
"""Prefix of a name of code."""
FLAG = "--trust-code"
PLUGINS = ("method.name", "method.generator")
"""Settings whose dotted names are code; those of the package have no dot."""
DATA = ("data", "eval.data")
"""Settings that name data sets."""
DOTTED = re.compile(r"\w+(\.\w+)+")

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)


@contextmanager
def trusting_code(trusted: bool = True) -> Iterator[None]:
    """Run the code that files name, within the block: the user has said so."""
    token = _trusted.set(trusted)
    try:
        yield
    finally:
        _trusted.reset(token)


def require_word(named: str, where: object, what: str = "code to run") -> None:
    """Make sure that the user trusts `where`, a file that names `named`, which is `what`.

    Raises:
        InputError: the user has not said so.

    """
    if not _trusted.get():
        raise InputError(
            f"{where} names {what}, '{named}', which needs your consent",
            hint=f"if you trust it, add {FLAG}",
        )


def check_settings(settings: Settings, own: Settings, where: object) -> None:
    """Make sure that settings of a file name no code unless the user names the same or trusts it.

    Args:
        settings: dotted keys, as the file has them.
        own: what the user has given; these settings go before those of the file.
        where: the file.

    Raises:
        InputError: a setting names code, and the user has not.

    """
    for key, value in settings.items():
        if own.get(key) is None and (code := _code_in(key, value)):
            require_word(code, f"{key} of {where}")


def _code_in(key: str, value: object) -> str | None:
    """Return the name of code that a setting holds, if it holds one."""
    words = value if isinstance(value, Collection) and not isinstance(value, str) else [value]
    for word in words:
        if isinstance(word, str) and _is_code(key, word):
            return word
    return None


def _is_code(key: str, word: str) -> bool:
    if key in DATA:
        return "pipe:" in word  # which webdataset hands to a shell
    return word.startswith(CODE) or (key in PLUGINS and DOTTED.fullmatch(word) is not None)
