"""The directory is the registry: a plug-in is one file, its name is the file's, names are listed unimported."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from nayer_cli.errors import InputError, did_you_mean

PACKAGE = Path(__file__).parent
OUTSIDE = "py:"
"""What the name of code from outside begins with."""
ROOMS = {
    "datasets": "images/datasets",
    "encoders": "lte/encoders",
    "generators": "generators",
    "methods": "methods",
    "models": "classifiers/models",
    "sources": "images/sources",
}
"""The folder of each kind of plug-in."""
OPEN = ("encoders", "generators", "methods")
"""Kinds that may come from outside of the package."""


def folder(kind: str) -> Path:
    """Return the folder that holds the plug-ins of a kind, such as `methods`."""
    return PACKAGE / ROOMS[kind]


def names(kind: str) -> list[str]:
    """Names of the plug-ins of a kind, with `-` for `_`, sorted, without importing any."""
    return sorted(file.stem.replace("_", "-") for file in folder(kind).glob("[!_]*.py"))


def check(kind: str, name: str, extra: Sequence[str] = ()) -> None:
    """Make sure, without importing it, that a plug-in of a kind may be called `name`: known here, or a dotted path.

    `extra` are words that are as good.

    Raises:
        InputError: there is no such plug-in.

    """
    known = [*names(kind), *extra]
    parts = name.removeprefix(OUTSIDE).split(".")
    is_path = (name.startswith(OUTSIDE) or len(parts) > 1) and all(part.isidentifier() for part in parts)
    if name not in known and not (is_path and kind in OPEN):
        raise InputError(
            f"no {kind.rstrip('s')} is called '{name}'{did_you_mean(name, known)}",
            hint=f"choose one of: {', '.join(known)}",
        )


def load(kind: str, name: str) -> ModuleType:
    """Import plug-in `name` of a kind; `py:best`, or a dotted path such as `mylab.best`, loads code from outside.

    Raises:
        InputError: there is no such plug-in, or it cannot be imported.

    """
    check(kind, name)
    if name in names(kind):
        return import_module(f"nayer_cli.{ROOMS[kind].replace('/', '.')}.{name.replace('-', '_')}")
    return import_outside(name.removeprefix(OUTSIDE))


def part(kind: str, name: str, attribute: str) -> Any:
    """Return what plug-in `name` of a kind defines as `attribute`.

    Raises:
        InputError: there is no such plug-in, or it defines no such thing.

    """
    module = load(kind, name)
    if not hasattr(module, attribute):
        raise InputError(f"'{name}' is no {kind.rstrip('s')}: it does not define {attribute}")
    return getattr(module, attribute)


def import_outside(module: str) -> ModuleType:
    """Import code of the user's own: a network, an encoder, a generator or a method, all by this rule.

    Python's own places go first, PYTHONPATH included, and the current folder last: it cannot hide an installed package.

    Raises:
        InputError: it cannot be imported.

    """
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return import_module(module)
    except Exception as error:  # code of the user
        raise InputError(
            f"cannot import {module}: {type(error).__name__}: {error}",
            hint="check the dotted path; it is looked for on PYTHONPATH and in the current folder",
        ) from error
