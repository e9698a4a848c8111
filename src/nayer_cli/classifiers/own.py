"""Names of networks in the user's own Python code, found without running anything.

There is one form, `py:package.module:Net`, for a class or a function without arguments. The module is looked for where
Python looks, and then in the current folder. What people write instead is turned into it, or answered with it.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from nayer_cli import plugins
from nayer_cli.errors import InputError, did_you_mean

PREFIX = "py:"
MOST_FILES = 200
"""Files of the current folder that are looked through for a class, at most."""


def canonical(name: str) -> str:
    """Return `py:dir/file.py:f` as `py:dir.file:f`, and add the network's name where a file has only one.

    Raises:
        InputError: the file lies where Python does not find it, or the name leaves open which network of it is meant.

    """
    path, _, attribute = name.removeprefix(PREFIX).partition(":")
    if path.endswith(".py") or "/" in path:
        path = _dotted(path, attribute)
    if path and not attribute:
        attribute = _only_network(path)
    if not path or not attribute:
        raise InputError(f"'{name}' is not of the form py:package.module:factory", hint="for example: py:net:Net")
    return f"{PREFIX}{path}:{attribute}"


DYNAMIC = re.compile(r"import \*|__getattr__|globals\(|setattr\(")
"""Signs that a module may define names which its text does not show."""


def check(name: str) -> None:
    """Refuse, without running anything, code that is not there.

    Raises:
        InputError: there is no such module, or nothing in it is called so.

    """
    module, _, attribute = canonical(name).removeprefix(PREFIX).partition(":")
    spec = plugins.find_module(module)
    file = Path(spec.origin) if spec and spec.origin else None
    text = file.read_text(encoding="utf-8", errors="replace") if file and file.suffix == ".py" else ""
    words = set(re.findall(r"\w+", text))
    if words and attribute not in words and not DYNAMIC.search(text):
        raise InputError(f"{module} has no function '{attribute}'{did_you_mean(attribute, words)}", hint=f"see {file}")


SAYS_NOTHING = {"build", "create", "factory", "get", "load", "main", "make", "model", "net", "network"}
"""Usual names of functions that make networks: they say nothing of the network."""


def display(key: str) -> str:
    """Return what the network of `py:package.module:Net` is called.

    It is the name of its class or function, or of its module where that of the function says nothing, as `get_model`.
    """
    module, _, attribute = key.removeprefix(PREFIX).partition(":")
    return module.rpartition(".")[2] if set(attribute.split("_")) <= SAYS_NOTHING else attribute


def offer(name: str) -> str | None:
    """Return the form that works for what somebody wrote instead, such as `net.py`, `net.py:Net` or `Net`."""
    path, _, attribute = name.partition(":")
    if not name or path.startswith(("/", "~")):
        return None
    if attribute or path.endswith(".py"):
        file = Path(path if path.endswith(".py") else path.replace(".", "/") + ".py")
        found = [attribute] if attribute else _networks_in(file)
        return f"{PREFIX}{_module(file)}:{found[0]}" if file.is_file() and found else None
    files = sorted(Path().glob("*.py"))[:MOST_FILES] if name.isidentifier() else []
    return next((f"{PREFIX}{_module(file)}:{name}" for file in files if name in _networks_in(file)), None)


def _dotted(path: str, attribute: str) -> str:
    """Return a file's path as the name of a module."""
    file = Path(path).expanduser()
    if file.is_absolute() and file.is_relative_to(Path.cwd()):
        file = file.relative_to(Path.cwd())
    if file.is_absolute() or not all(part.isidentifier() for part in file.with_suffix("").parts):
        raise InputError(
            f"'{path}' is not in the current folder, where Python would find it",
            hint=f"go there first: cd {file.parent}; then name it {PREFIX}{file.stem}:{attribute or 'Net'}",
        )
    return _module(file)


def _module(file: Path) -> str:
    return ".".join(file.with_suffix("").parts)


def _only_network(module: str) -> str:
    found = list(_networks_in(Path(module.replace(".", "/") + ".py")))
    if len(found) > 1:
        words = ", ".join(f"{PREFIX}{module}:{name}" for name in found)
        raise InputError(f"'{module}' has more than one network", hint=f"choose one of: {words}")
    return found[0] if found else ""


def _networks_in(file: Path) -> list[str]:
    """Return the classes of a file that are built on another one, as networks are on `nn.Module`."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return []
    return list(_subclasses(tree))


def _subclasses(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.bases:
            yield node.name
