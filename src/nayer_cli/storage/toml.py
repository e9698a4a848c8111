"""Layers of settings: flat mappings of dotted keys, such as `{"schedule.epochs": 100}`, from and to TOML."""

import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, get_args, get_origin

import tomli_w

from nayer_cli.errors import ConfigError, InputError
from nayer_cli.storage.text import printable, read_text

Layer = dict[str, Any]

LONGEST_FILE = 2**20
"""Bytes of a configuration file."""
DEEPEST = 20
"""Levels of tables and arrays; no setting needs more than four."""
MOST_DOTS = 4000
"""In a configuration; tomllib takes memory that grows with their square."""
EXAMPLES = {int: "give a whole number, such as 8", float: "give a number, such as 0.5", bool: "give true or false"}
FORM = "settings are named SECTION.NAME, such as schedule.epochs"
INTEGERS = range(-(2**63), 2**63)
"""Limits of TOML's integers. tomllib reads larger ones, which Python then refuses to write."""


def parse_assignment(text: str) -> tuple[str, Any]:
    """Read `key=value` with a TOML value; a value that is not TOML, or is a date, is taken as a string.

    Raises:
        ConfigError: there is no `=`.

    """
    key, found, value = text.partition("=")
    if not found or not key.strip():
        raise ConfigError(f"cannot read '{printable(text)}' as KEY=VALUE", hint="for example: --set method.adv=1.33")
    try:
        document = _parse(f"x = {value}")
    except ValueError:
        return key.strip(), value.strip()
    is_text = len(document) > 1 or isinstance(document["x"], (date, time))
    return key.strip(), value.strip() if is_text else document["x"]


def read_file(path: Path) -> Layer:
    """Read a TOML file into a layer.

    Raises:
        ConfigError: the file is missing or not TOML.

    """
    return dict(flatten(read_tables(path)))


def read_tables(path: Path) -> dict[str, Any]:
    """Read a TOML file as it is nested, empty tables included; raises as `read_file` does."""
    try:
        return _parse(read_text(path, "configuration", LONGEST_FILE))
    except InputError as error:
        raise ConfigError(str(error), hint=error.hint) from error
    except ValueError as error:
        raise ConfigError(
            f"{path} is not valid TOML: {error}", hint="correct that line; a run's config.toml is an example"
        ) from error


def _parse(text: str) -> dict[str, Any]:
    """Parse TOML of settings.

    Raises:
        ValueError: it is not TOML, or holds what no setting does.

    """
    if text.count(".") > MOST_DOTS:
        raise ValueError(f"it has more than {MOST_DOTS:,} dots")
    try:
        document = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _check_values(document, DEEPEST)
    return document


def _check_values(node: object, levels: int) -> None:
    if levels == 0:
        raise ValueError("it is nested too deeply")
    if isinstance(node, int) and node not in INTEGERS:
        raise ValueError("it has a number that takes more than 64 bits")
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        _check_values(child, levels - 1)


def coerce(key: str, value: Any, wanted: Any) -> Any:
    """Return `value` as a `wanted`, where that loses nothing.

    Raises:
        ConfigError: it is of another type, not finite, or a text that cannot be a path or be written down.

    """
    if get_origin(wanted) is tuple:
        value = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(coerce(key, item, get_args(wanted)[0]) for item in items)
    if isinstance(value, str) and wanted in (int, float, bool):
        value = _read_number(value, wanted)
    elif not isinstance(value, bool) and isinstance(value, (int, float)):
        value = _convert_number(value, wanted)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        shown = printable(repr(value))
        kind, hint = getattr(wanted, "__name__", str(wanted)), EXAMPLES.get(wanted, "put it in quotes")
        raise ConfigError(f"{key} = {shown} is not a value of type {kind}", hint=hint)
    if isinstance(value, str) and re.search(r"[\0\ud800-\udfff]", value):
        raise ConfigError(f"{key} = {printable(value)!r} has a NUL, or bytes that are not UTF-8", hint="type it again")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key} = {value!r} is not a finite number", hint=EXAMPLES[float])
    return value


def _read_number(text: str, wanted: object) -> Any:
    """Read the text of a number or truth value; other text stays text."""
    if re.fullmatch(r"[+-]?(\.\d+|\d+\.)(e[+-]?\d+)?", text.lower()):  # TOML wants digits on both sides
        return _convert_number(float(text), wanted)
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
    """Turn dotted keys into nested tables.

    Raises:
        ConfigError: a key goes through a value, or too deep.

    """
    tree: dict[str, Any] = {}
    for key, value in layer.items():
        *tables, last = key.split(".")
        if len(tables) > DEEPEST:
            raise ConfigError(f"setting '{printable(key)}' is nested too deeply", hint=FORM)
        node = tree
        for table in tables:
            node = node.setdefault(table, {})
            if not isinstance(node, dict):
                raise ConfigError(f"setting '{table}' is not a table, so '{key}' cannot be set", hint=FORM)
        node[last] = value
    return tree


def to_toml(layer: Layer) -> str:
    """Write a layer as TOML with one table per section, readable by `read_file`.

    Raises:
        InputError: a number is not finite.

    """
    for key, value in layer.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"setting {key} = {value!r} is not a finite number", hint=EXAMPLES[float])
    return tomli_w.dumps(unflatten(layer))
