"""Dataclasses as schemas: fields are declared with their limits, and layers of dotted keys become instances.

A layer is a flat mapping such as `{"schedule.epochs": 100, "method.adv": 1.33}`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from nayer_cli import plugins
from nayer_cli.errors import ConfigError, did_you_mean
from nayer_cli.storage.toml import Layer, coerce, flatten, unflatten

C = TypeVar("C")

DEFAULT = "choose a number in this range, or leave the setting out"


def setting(
    default: object,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str | int, ...] | None = None,
    plugin: str | None = None,
    words: tuple[str, ...] = (),
) -> Any:
    """Declare a dataclass field: its default, its sentence (with the unit), and the values it admits.

    Numbers are at least `low`, at most `high`, and greater than `above`; so is each of several. A text names a plug-in
    of the kind `plugin`, or is one of `words`.
    """
    limits = {"low": low, "high": high, "above": above, "choices": choices, "plugin": plugin, "words": words}
    return field(default=default, metadata={"help": help, **limits})


def build(config_class: type[C], layer: Layer, prefix: str = "", also: Iterable[str] = ()) -> C:
    """Check `layer` against the dataclass and make it; keys are named with `prefix` in messages.

    `also` are keys of elsewhere that an unknown one may have meant.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type or is out of range.

    """
    base = config_class()
    return _build(base, unflatten(_with_names(base, layer)), prefix, [*keys(config_class, prefix), *also])


def _with_names(base: Any, layer: Layer) -> Layer:
    """Let a text stand for a table with that name, if the table has a name."""
    sections = {item.name for item in fields(base) if getattr(getattr(base, item.name), "has_name", False)}
    return {f"{key}.name" if key in sections and isinstance(value, str) else key: value for key, value in layer.items()}


def check(config_class: type, layer: Layer, source: str, also: Iterable[str] = ()) -> None:
    """Check one layer by itself, so that a fault names the `source` that the layer came from.

    Raises:
        ConfigError: as `build` does.

    """
    try:
        build(config_class, layer, also=also)
    except ConfigError as error:
        raise ConfigError(f"{error} (from {source})", hint=error.hint) from error


def keys(config_class: type, prefix: str = "") -> list[str]:
    """All dotted keys of a configuration class, in order."""
    return [key for key, _ in describe(config_class, prefix)]


def describe(config: Any, prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each dotted key with its `help`, `low`, `high`, `above`, `choices`, `default` and `type`.

    Args:
        config: a configuration class, or an instance whose values are the defaults.
        prefix: what every key begins with.

    """
    base = config() if isinstance(config, type) else config
    hints = get_type_hints(type(base))
    for item in fields(base):
        key, default = f"{prefix}{item.name}", getattr(base, item.name)
        if is_dataclass(default):
            yield from describe(default, f"{key}.")
        else:
            yield key, {**item.metadata, "default": default, "type": hints[item.name]}


def _build(base: C, tree: Mapping[str, Any], prefix: str, known: list[str]) -> C:
    """Return `base` with the settings of `tree` instead of its own."""
    hints, own = get_type_hints(type(base)), {item.name: item.metadata for item in fields(base)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if name not in own:
            raise ConfigError(
                f"unknown setting '{key}'{_meant(key, known)}",
                hint="docs/reference/settings.md lists every setting",
            )
        default = getattr(base, name)
        is_table = is_dataclass(default) or isinstance(default, dict)
        if is_table and not isinstance(value, Mapping):
            raise ConfigError(f"'{key}' is a table of settings, not a value", hint=f"set {key}.NAME=VALUE")
        if is_dataclass(default):
            values[name] = _build(default, value, f"{key}.", known)
        elif is_table:
            values[name] = {**default, **value}
        else:
            values[name] = _check(key, value, hints[name], own[name])
    return replace(base, **values)  # type: ignore[type-var]


def _meant(key: str, known: list[str]) -> str:
    """Say which setting `key` may mean: one with the same last word before one that is spelled alike."""
    last = key.rpartition(".")[2]
    same = [one for one in known if one.rpartition(".")[2] == last]
    return did_you_mean(key, same) or did_you_mean(last, same) or did_you_mean(key, known)


def _check(key: str, value: object, hint: object, limits: Mapping[str, Any]) -> Any:
    """Return `value` as the annotated type, or say what is wrong with it."""
    wanted = _strip_optional(hint)
    if value is None and wanted is not hint:
        return None
    value = coerce(key, value, wanted)
    choices = limits.get("choices")
    if choices and value not in choices:
        raise ConfigError(
            f"{key} = {value!r} is not possible{did_you_mean(str(value), map(str, choices))}",
            hint=f"choose one of: {', '.join(map(str, choices))}",
        )
    if limits.get("plugin"):
        plugins.check(limits["plugin"], str(value), extra=limits["words"])
    for number in value if isinstance(value, tuple) else (value,):
        _check_range(key, number, limits)
    return value


def _check_range(key: str, number: object, limits: Mapping[str, Any]) -> None:
    low, high, above = limits.get("low"), limits.get("high"), limits.get("above")
    if (low is not None and not number >= low) or (high is not None and not number <= high):
        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
        hint = "this is a fraction: 0.9 means 90 %" if high == 1 else DEFAULT
        raise ConfigError(f"{key} = {number!r} is out of range: it must be {bounds}", hint=hint)
    if above is not None and not number > above:
        raise ConfigError(f"{key} = {number!r} is out of range: it must be greater than {above}", hint=DEFAULT)


def _strip_optional(hint: object) -> Any:
    if get_origin(hint) is UnionType:
        return next(part for part in get_args(hint) if part is not NoneType)
    return hint


def to_layer(config: object, prefix: str = "") -> Layer:
    """Flatten a built configuration back to dotted keys; unset (None) settings are left out."""
    layer: Layer = {}
    for name, value in vars(config).items():
        if is_dataclass(value):
            layer |= to_layer(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            layer |= dict(flatten(value, f"{prefix}{name}."))
        elif value is not None:
            layer[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return layer
