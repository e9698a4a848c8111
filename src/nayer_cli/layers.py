"""Layers of settings: flat mappings of dotted keys, such as `{"schedule.epochs": 100}`, from and to TOML."""

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, get_args, get_origin

from nayer_cli.errors import ConfigError, InputError

Layer = dict[str, Any]


def parse_assignment(text: str) -> tuple[str, Any]:
    """Read `key=value` with a TOML value; a value that is not TOML, or is a date, is taken as a string.

    Raises:
        ConfigError: there is no `=`.

    """
    key, found, value = text.partition("=")
    if not found or not key.strip():
        raise ConfigError(f"cannot read '{text}' as KEY=VALUE", hint="for example: --set method.adv=1.33")
    try:
        parsed = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
    return key.strip(), value.strip() if isinstance(parsed, (date, time)) else parsed


def read_file(path: Path) -> Layer:
    """Read a TOML file into a layer.

    Raises:
        ConfigError: the file is missing or not TOML.

    """
    try:
        with path.open("rb") as file:
            return dict(flatten(tomllib.load(file)))
    except OSError as error:
        raise ConfigError(f"cannot read configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def coerce(key: str, value: Any, wanted: Any) -> Any:
    """Return `value` as a `wanted`, where that loses nothing."""
    if get_origin(wanted) is tuple:
        value = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(coerce(key, item, get_args(wanted)[0]) for item in items)
    if isinstance(value, str) and wanted in (int, float, bool):
        value = _read_number(value, wanted)
    elif not isinstance(value, bool) and isinstance(value, (int, float)):
        value = _convert_number(value, wanted)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise ConfigError(f"{key} = {value!r} is not a value of type {getattr(wanted, '__name__', wanted)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key} = {value!r} is not a finite number")
    return value


def _read_number(text: str, wanted: Any) -> Any:
    """Read the text of a number or truth value; other text stays text."""
    _, value = parse_assignment(f"x={text.lower()}")
    return value if isinstance(value, (str, bool)) else _convert_number(value, wanted)


def _convert_number(value: Any, wanted: Any) -> Any:
    """Turn 1 into 1.0 where a float is wanted, 1e5 into 100000 where an int is, and any number into text."""
    exact = wanted in (float, str) or (wanted is int and isinstance(value, float) and value.is_integer())
    return wanted(value) if exact and isinstance(value, (int, float)) else value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values of nested tables."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def unflatten(layer: Layer) -> dict[str, Any]:
    """Turn dotted keys into nested tables."""
    tree: dict[str, Any] = {}
    for key, value in layer.items():
        *tables, last = key.split(".")
        node = tree
        for table in tables:
            node = node.setdefault(table, {})
            if not isinstance(node, dict):
                raise ConfigError(f"setting '{table}' is not a table, so '{key}' cannot be set")
        node[last] = value
    return tree


def to_toml(layer: Layer) -> str:
    """Write a layer as TOML with one table per section, readable by `read_file`."""
    return "\n".join(_toml_table(unflatten(layer), "")).lstrip("\n") + "\n"


def _toml_table(tree: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in tree.items():
        if not isinstance(value, dict):
            yield _toml_line(_toml_key(key), value)
    for key, value in tree.items():
        if isinstance(value, dict):
            table = f"{path}{_toml_key(key)}"
            yield f"\n[{table}]"
            yield from _toml_table(value, f"{table}.")


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)


def _toml_line(key: str, value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"setting {key} = {value!r} is not a finite number")
    return f"{key} = {_toml_value(value)}"


def _toml_value(value: Any) -> str:
    """JSON's strings, numbers, booleans and arrays of them are TOML's too, but for one control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
