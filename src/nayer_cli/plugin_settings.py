"""The settings of a plug-in, without importing the plug-in: methods and generators import torch, settings do not."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nayer_cli import config, live_settings, plugins


def config_class(kind: str, name: str) -> type[Any]:
    """Return the dataclass `Config` of plug-in `name`.

    If the class needs nothing but `config.setting` and `live_settings`, it is compiled alone. Otherwise, or if it lies
    outside the package, the plug-in is imported.

    Raises:
        InputError: there is no such plug-in, or it has no `Config`.

    """
    if name in plugins.own(kind):
        return _compiled(plugins.file(kind, name)) or _imported(kind, name)
    return _imported(kind, name)


def literals(kind: str, name: str, part: str) -> dict[str, Any]:
    """Return what class `part` of one of our own plug-ins says of itself as literals, read in its file."""
    tree = ast.parse(plugins.file(kind, name).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == part)
    said = (node for node in body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant))
    return {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in said}


def uses_names(name: str, settings: object) -> str:
    """Return what a method of ours, with these settings, uses of the class names: that is written in its source."""
    if found := getattr(settings, "uses_names", None):
        return str(found)
    written = re.search(r"^    uses_names = method\.(\w+)$", plugins.file("methods", name).read_text("utf-8"), re.M)
    return str(getattr(live_settings, written[1])) if written else live_settings.EMBEDDINGS


def _imported(kind: str, name: str) -> type[Any]:
    found: type[Any] = plugins.part(kind, name, "Config")
    return found


def _compiled(file: Path) -> type[Any] | None:
    """Compile the class `Config` of a source file by itself; None where that does not suffice."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config"]
    # The name of a module that is there lets `typing.get_type_hints` do its work.
    space: dict[str, Any] = {"__name__": config.__name__, "dataclass": dataclass, "setting": config.setting}
    space |= vars(live_settings)
    try:
        exec(compile(ast.Module(found, []), str(file), "exec"), space)
    except NameError:
        return None
    compiled: type[Any] | None = space.get("Config")
    return compiled
