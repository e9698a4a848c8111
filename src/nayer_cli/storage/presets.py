"""Presets: files of settings that ship with the package."""

import tomllib
from pathlib import Path
from typing import Any

from nayer_cli import plugins
from nayer_cli.errors import ConfigError, did_you_mean
from nayer_cli.storage.toml import Layer, flatten

PRESETS = Path(__file__).parents[1] / "presets"


def preset_names() -> list[str]:
    """Names of the presets that ship with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def read_preset(name: str, method: str, command: str = "distill") -> Layer:
    """Read a preset: its general settings, overlaid with its tables for `method` and for `command`.

    All of them lie over those of the preset that it names as its `base`.

    Raises:
        ConfigError: no such preset.

    """
    if name not in preset_names():
        raise ConfigError(
            f"no preset is called '{name}'{did_you_mean(name, preset_names())}",
            hint=f"choose one of: auto, {', '.join(preset_names())}",
        )
    with (PRESETS / f"{name}.toml").open("rb") as file:
        document = tomllib.load(file)
    base = read_preset(document.pop("base"), method, command) if "base" in document else {}
    of_command = {key: document.pop(key, {}) for key in ("quantize",)}.get(command, {})
    layers = [document, _of(method, document), of_command, _of(method, of_command)]
    return base | {key: value for layer in layers for key, value in flatten(layer)}


def has_table(name: str, method: str) -> bool:
    """Say whether a preset has settings for a method."""
    return method in tomllib.loads((PRESETS / f"{name}.toml").read_text(encoding="utf-8"))


def _of(method: str, table: dict[str, Any]) -> dict[str, Any]:
    """Take the tables of all methods out of `table`, and return that of `method`."""
    found: dict[str, Any] = {key: table.pop(key) for key in plugins.own("methods") if key in table}.get(method, {})
    return found
