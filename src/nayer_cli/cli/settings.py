"""From a parsed command line to settings: layers, their precedence, and contradictions."""

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from nayer_cli import config, trust
from nayer_cli.cli import checks
from nayer_cli.cli.options import SETTING_OF, VARIABLES, setting_in
from nayer_cli.errors import ConfigError, did_you_mean
from nayer_cli.runs import words
from nayer_cli.storage import toml
from nayer_cli.storage.toml import Layer

ALTERNATIVES = (
    ("lte.file", "lte.encoder"),
    ("lte.file", "lte.prompt"),
    ("per_class", "count"),
    ("schedule.budget", "schedule.epochs"),
)
"""Pairs of settings that replace each other."""

OWN = ("the environment", "the command line")
"""Sources of settings that are the user's own word; a file may be somebody else's."""
COMMAND_LINE, ENVIRONMENT = "COMMANDLINE", "ENVIRONMENT"


def read(ctx: typer.Context, schema: type[Any], renamed: Mapping[str, str] | None = None) -> Layer:
    """Merge the settings of a command as `merge` does, and check what is possible before torch is imported.

    Raises:
        InputError: a name, a file or a value is wrong.
        EnvironmentFault: there is no such device.

    """
    merged, resume = merge(ctx, schema, renamed), ctx.params.get("resume")
    checks.check(schema, merged | ({"resume": str(resume)} if resume else {}))
    return merged


def merge(ctx: typer.Context, schema: type[Any], renamed: Mapping[str, str] | None = None) -> Layer:
    """Merge configuration file, `NAYER_*` variables and command line, lowest first, after checking each.

    With `--resume RUN` the command line alone counts: the rest is written down in the run directory.

    Args:
        ctx: context of the command.
        schema: the configuration class that the settings belong to.
        renamed: settings of parameters that mean something else in this command.

    Raises:
        ConfigError: a setting or variable is unknown, impossible, or contradicts another one of its layer.

    """
    _check_variables(os.environ)
    ctx.with_resource(trust.trusting_code(bool(ctx.params.get("trust_code"))))
    layers = list(_layers(ctx, schema, {**SETTING_OF, **(renamed or {})}))
    own = {key: value for source, layer in layers if source in OWN for key, value in layer.items()}
    merged: Layer = {}
    for source, layer in layers:
        words.check({} if source in OWN else layer, own, source)
        also = checks.method_keys(checks.method_of(schema, merged | layer))
        config.check(schema, layer, source, also)
        merged = {key: value for key, value in merged.items() if key not in _replaced_by(layer)} | layer
    return merged


def _layers(ctx: typer.Context, schema: type[Any], setting_of: Mapping[str, str]) -> Iterator[tuple[str, Layer]]:
    """Yield each source of settings and what it gives."""
    path, resume = ctx.params.get("config"), ctx.params.get("resume")
    if str(resume) == "auto":  # a new run, perhaps: what continues an old one is compared with it
        resume = None
    key_of = {name: setting_in(schema, key) for name, key in setting_of.items()}
    if resume and _source(ctx, "config") == COMMAND_LINE:
        raise ConfigError("--resume and --config cannot be combined", hint=f"{resume} has its own config.toml")
    if path and not resume:
        yield str(path), toml.read_file(Path(path))
    if not resume:
        yield OWN[0], _given(ctx, ENVIRONMENT, key_of, _words(os.environ.get("NAYER_SET", "")))
    yield OWN[1], _given(ctx, COMMAND_LINE, key_of, ctx.params.get("set") or [])


def _given(ctx: typer.Context, source: str, key_of: Mapping[str, str], assignments: Iterable[str]) -> Layer:
    """Return options and assignments that came from one source, as a layer."""
    options = {
        key_of[name]: _plain(value)
        for name, value in ctx.params.items()
        if name in key_of and _source(ctx, name) == source
    }
    assigned = dict(toml.flatten(dict(map(toml.parse_assignment, assignments))))
    for key in options.keys() & assigned.keys():
        raise ConfigError(f"'{key}' is given twice: as an option and with --set", hint="leave out one of them")
    layer = options | assigned
    for a, b in ALTERNATIVES:
        if a in layer and b in layer:
            raise ConfigError(f"'{a}' and '{b}' cannot be combined", hint="leave out one of them")
    return layer


def _plain(value: object) -> Any:
    """Return a parameter as TOML would have it; how paths and lists arrive depends on the version of Typer."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _words(text: str) -> list[str]:
    """Split at blanks that are not quoted, as a shell does."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"cannot read NAYER_SET={text}: {error}", hint="quote as in a shell") from error


def _source(ctx: typer.Context, name: str) -> str:
    """Return where a parameter's value comes from, by name: the enumeration is public in no version of Typer."""
    source = ctx.get_parameter_source(name)
    return source.name if source else ""


def _replaced_by(layer: Layer) -> set[str]:
    """Return the settings that those of `layer` make meaningless."""
    pairs = (pair for a, b in ALTERNATIVES for pair in ((a, b), (b, a)))
    return {lost for lost, given in pairs if given in layer}


def _check_variables(environment: Mapping[str, str]) -> None:
    for name in environment:
        if name.startswith("NAYER_") and name not in VARIABLES:
            raise ConfigError(
                f"unknown variable {name}{did_you_mean(name, VARIABLES)}",
                hint="unset it; nayer COMMAND --help lists the variables, and NAYER_SET='KEY=VALUE ...' sets anything",
            )
