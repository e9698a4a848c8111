"""Plug-ins by name: one file each in a folder of ours, or what installed packages declare.

The name of one of ours is the file's. A package declares its plug-ins as entry points, in groups such as
`nayer.methods`. Both are listed without importing them.
"""

import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nayer_cli.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from importlib.metadata import EntryPoint

PACKAGE = Path(__file__).parent
OUTSIDE = "py:"
"""Prefix of the names of code from outside."""
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
"""Kinds that may be named by a dotted path."""
WHERE = "check the dotted path; it is looked for on PYTHONPATH and in the current folder"
DECLARED = (*OPEN, "models", "sources")
"""Kinds that installed packages may bring, each as entry points of the group `nayer.KIND`."""


def folder(kind: str) -> Path:
    """Return the folder that holds the plug-ins of a kind, such as `methods`."""
    return PACKAGE / ROOMS[kind]


def own(kind: str) -> list[str]:
    """Return the names of our own plug-ins of a kind, with `-` for `_`, sorted."""
    return sorted(file.stem.replace("_", "-") for file in folder(kind).glob("[!_]*.py"))


def file(kind: str, name: str) -> Path:
    """Return the file of one of our own plug-ins."""
    return folder(kind) / f"{name.replace('-', '_')}.py"


def installed(kind: str) -> dict[str, "EntryPoint"]:
    """Return what installed packages bring of a kind, by name; a name of our own is never theirs."""
    ours = own(kind)
    return {name: entry for name, entry in _declared(kind, tuple(sys.path)).items() if name not in ours}


def shadowed(kind: str) -> dict[str, "EntryPoint"]:
    """Return what installed packages bring of a kind under a name of our own: it is not used."""
    return {name: entry for name, entry in _declared(kind, tuple(sys.path)).items() if name in own(kind)}


@cache
def _declared(kind: str, path: tuple[str, ...]) -> dict[str, "EntryPoint"]:
    """Return all entry points of a kind, sorted; of two with one name the first on `path`, which is `sys.path`."""
    from importlib.metadata import entry_points  # takes a moment, and most commands need no list

    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=f"nayer.{kind}") if kind in DECLARED else ():
        found.setdefault(entry.name, entry)
    return dict(sorted(found.items()))


def package(entry: "EntryPoint") -> str:
    """Return name and version of the package that brings a plug-in."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.module


def names(kind: str) -> list[str]:
    """Return the names of all plug-ins of a kind, sorted, without importing any."""
    return sorted([*own(kind), *installed(kind)])


def check(kind: str, name: str, extra: Sequence[str] = ()) -> None:
    """Make sure, without importing it, that a plug-in of a kind may be called `name`: known here, or a dotted path.

    `extra` are other words that are allowed.

    Raises:
        InputError: there is no such plug-in, or no module at that path.

    """
    known = [*names(kind), *extra]
    parts = name.removeprefix(OUTSIDE).split(".")
    is_path = (name.startswith(OUTSIDE) or len(parts) > 1) and all(part.isidentifier() for part in parts)
    if name not in known and is_path and kind in OPEN:
        find_module(".".join(parts))
    elif name not in known:
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
    if name in own(kind):
        return import_module(f"nayer_cli.{ROOMS[kind].replace('/', '.')}.{name.replace('-', '_')}")
    if entry := installed(kind).get(name):
        return _import(entry.load, entry.value, f"{package(entry)} provides it: update that package, or remove it")
    return import_outside(name.removeprefix(OUTSIDE))


def part(kind: str, name: str, attribute: str) -> Any:
    """Return what plug-in `name` of a kind defines as `attribute`.

    Raises:
        InputError: there is no such plug-in, or it defines no such thing.

    """
    module = load(kind, name)
    if not hasattr(module, attribute):
        raise InputError(
            f"'{name}' is not a {kind.rstrip('s')}: it does not define {attribute}",
            hint=f"define {attribute} in that module, or name another",
        )
    return getattr(module, attribute)


def import_outside(module: str) -> ModuleType:
    """Import code of the user's own: a network, an encoder, a generator or a method, all by this rule.

    Python's own places go first, PYTHONPATH included, and the current folder last: it cannot hide an installed package.

    Raises:
        InputError: it cannot be imported.

    """
    find_module(module)
    return _import(partial(import_module, module), module, WHERE)


def find_module(module: str) -> "ModuleSpec | None":
    """Find a module of the user's own without running any of it; None for one that was made in this process.

    Raises:
        InputError: there is no such module.

    """
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    if module in sys.modules:
        return sys.modules[module].__spec__
    if not all(part.isidentifier() for part in module.split(".")):
        raise InputError(f"cannot import {module}: that is no name of a module", hint=WHERE)
    spec, places = None, None
    for name in accumulate(module.split("."), "{}.{}".format):
        spec = next(filter(None, (finder.find_spec(name, places) for finder in sys.meta_path)), None)
        if spec is None:
            raise InputError(f"cannot import {module}: there is no module '{name}'", hint=WHERE)
        places = spec.submodule_search_locations or []
    return spec


def _import(load: Callable[[], ModuleType], what: str, hint: str) -> ModuleType:
    try:
        return load()
    except Exception as error:  # code of the user
        raise InputError(f"cannot import {what}: {type(error).__name__}: {error}", hint=hint) from error
