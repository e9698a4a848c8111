"""Completion with the Tab key, without torch and within a fraction of a second."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import typer

from nayer_cli import config, plugin_settings, plugins
from nayer_cli.classifiers import names
from nayer_cli.cli import checks
from nayer_cli.errors import InputError
from nayer_cli.study import plan

Complete = Callable[..., list[str]]


def of(key: str, choices: Iterable[object] | None) -> Complete | None:
    """Return the completions of a setting: its possible values, or names of its kind; None leaves it to the shell."""
    if choices:
        words = list(map(str, choices))
        return lambda: words
    return BY_SETTING.get(key)


def models(incomplete: str) -> list[str]:
    """Offer networks by name; without a letter only those that nayer brings, for timm has more than a thousand."""
    return [*names.builtin(), *(names.networks() if incomplete else names.OURS)]


def encoders() -> list[str]:
    """Offer text encoders."""
    return plugins.names("encoders")


def methods() -> list[str]:
    """Offer ways to make images."""
    return plugins.names("methods")


def presets() -> list[str]:
    """Offer presets."""
    return ["auto", *config.preset_names()]


def studies() -> list[str]:
    """Offer the studies that ship with the package."""
    return plan.names()


def devices() -> list[str]:
    """Offer the usual devices."""
    return ["auto", "cpu", "cuda"]


def label_sets() -> list[str]:
    """Offer the data sets whose classes are known."""
    return plugins.names("datasets")


def bits() -> list[str]:
    """Offer bits of weights and activations."""
    return [f"w{weights}a{activations}" for weights in range(8, 1, -1) for activations in range(8, 1, -1)]


def settings(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the settings of the command and its method, and after `=` the values of one."""
    about = dict(_described(ctx))
    key, found, _ = incomplete.partition("=")
    if found:
        return [f"{key}={choice}" for choice in about.get(key, {}).get("choices") or ()]
    return [f"{key}=" for key in about]


def _described(ctx: typer.Context) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from nayer_cli.cli import COMMANDS  # which imports this module

    schema = getattr(COMMANDS.get(str(ctx.info_name)), "SCHEMA", None)
    if schema is None:
        return
    yield from config.describe(schema)
    if "method" in schema.__dataclass_fields__:
        given = ctx.params.get("method")
        yield from config.describe(_method_config(schema, {"method.name": given} if given else {}), "method.")


def _method_config(schema: type[Any], settings: dict[str, Any]) -> type[Any]:
    try:
        return plugin_settings.config_class("methods", checks.method_of(schema, settings))
    except InputError:  # a typo, which is told when the command runs
        return plugin_settings.config_class("methods", checks.method_of(schema, {}))


BY_SETTING: Mapping[str, Complete] = {
    "teacher.name": models,
    "student.name": models,
    "model.name": models,
    "reference.name": models,
    "method.name": methods,
    "preset": presets,
    "lte.encoder": encoders,
    "lte.labels": label_sets,
    "labels": label_sets,
    "student.labels": label_sets,
    "model.labels": label_sets,
    "teacher.labels": label_sets,
    "reference.labels": label_sets,
    "quantizer.bits": bits,
    "device": devices,
}
"""Completion for settings with more than a few possible values."""
