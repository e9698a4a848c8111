"""The paths of the files that a run was started with: kept absolute, so found from any folder, or named again."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm

from nayer_cli import plugins
from nayer_cli.config import QuantizeConfig, TrainConfig
from nayer_cli.errors import InputError
from nayer_cli.types import Settings

FOLDER = "local-dir:"
OPTIONS = {
    "teacher.name": "--teacher",
    "teacher.weights": "--teacher-weights",
    "student.name": "--student",
    "student.weights": "--student-weights",
    "lte.labels": "--labels",
    "eval.data": "--eval-data",
}
"""The settings that may be paths and are read again when a run goes on, and the option that names each."""
OPTIONS_OF: dict[type, dict[str, str]] = {
    TrainConfig: {"student.name": "--model", "data": "--data"},
    QuantizeConfig: {"teacher.name": "--model", "teacher.weights": "--weights"},
}
"""Options that have another name, or exist only, in a command with these settings."""
COMMANDS: dict[type, str] = {TrainConfig: "train", QuantizeConfig: "quantize"}
KEPT = ("lte.file", "lte.cache_dir", "reuse")
"""Settings that may be paths and are not read again: the run has kept what it needs."""


def absolute(settings: Settings) -> dict[str, str]:
    """Return the absolute path of every setting that names something which is there."""
    return {key: str(Path.cwd() / path) for key, path in _paths(settings) if path.exists()}


def located(settings: Settings, known: Mapping[str, str]) -> dict[str, Any]:
    """Return `settings` with each path that means something else from here replaced by the absolute one in `known`.

    What is there no longer stays as it was typed: it may be there seen from here.
    """
    moved = {}
    for key, path in _paths(settings):
        was = Path(known.get(key, ""))
        if key in known and Path.cwd() / path != was and was.exists():
            moved[key] = f"{_scheme(settings[key])}{was}"
    return {**settings, **moved}


def check_there(run: Path, settings: Settings, known: Mapping[str, str], schema: type) -> None:
    """Make sure that what a run needs to go on is there.

    Args:
        run: its directory.
        settings: dotted keys, already `located`.
        known: absolute paths when it was started.
        schema: the configuration class of the command.

    Raises:
        InputError: something is not; the hint names the option that says where it is now.

    """
    options = OPTIONS | OPTIONS_OF.get(schema, {})
    for key, path in _paths({key: value for key, value in settings.items() if key in options}):
        if key in known and not path.exists():
            raise InputError(
                f"{run} was started with {key} = '{settings[key]}', and {known[key]} is no longer there",
                hint=f"say where it is now: nayer {COMMANDS.get(schema, 'distill')} --resume {run} {options[key]} PATH",
            )


def is_moved(key: str, old: object, new: object, schema: type) -> bool:
    """Say whether the file `old` may have been moved to `new`; its content decides whether it was."""
    if key not in (OPTIONS | OPTIONS_OF.get(schema, {})) or not isinstance(old, str) or not isinstance(new, str):
        return False
    return all(dict(_paths({key: value})) for value in (old, new)) and dict(_paths({key: new}))[key].exists()


def _paths(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield the settings that are paths, not names of something known."""
    for key in (*OPTIONS, "data", *KEPT):
        value = settings.get(key)
        if isinstance(value, str) and value and not _is_name(key, value):
            yield key, Path(value.removeprefix(FOLDER)).expanduser()


def _is_name(key: str, value: str) -> bool:
    """Say whether `value` names something that is not a file: a network, or a data set."""
    if key.endswith(".name"):
        scheme = value.partition(":")[0]
        return scheme in ("builtin", "hf-hub", "py") or (scheme == value and timm.is_model(value))
    return value.partition(":")[0] in plugins.names("datasets")


def _scheme(value: str) -> str:
    return FOLDER if value.startswith(FOLDER) else ""
