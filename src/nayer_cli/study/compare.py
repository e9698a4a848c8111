"""Runs side by side: the settings that differ, and the figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from nayer_cli.config import read_file
from nayer_cli.errors import InputError
from nayer_cli.storage.inputs import require_run
from nayer_cli.storage.text import parse_json

COMPARISON_FORMAT = "nayer.comparison/1"
FIGURES = {
    "top-1": ("student", "top1"),
    "agreement": ("student", "agreement"),
    "best epoch, an oracle": ("best_oracle", "top1"),
    "teacher's top-1": ("teacher", "top1"),
    "parameters": ("student", "parameters"),
    "images made": ("images", "synthesized"),
    "images seen": ("images", "seen"),
    "seconds": ("seconds", "total"),
    "processor seconds": ("processor_seconds", "total"),
    "steps to converge": ("synthesis", "convergence", "student", "steps"),
    "diversity": ("synthesis", "diversity", "features"),
}
"""The place of each figure in a result."""


class Comparison(TypedDict):
    """The document that `nayer compare` returns; each list has a value for each run, or null."""

    schema: str
    runs: list[str]
    settings: dict[str, list[Any]]
    figures: dict[str, list[Any]]


def compare(runs: Sequence[str]) -> Comparison:
    """Compare run directories.

    Raises:
        InputError: one is not a run directory, or its result cannot be read.

    """
    for run in runs:
        require_run(run)
    layers = [read_file(Path(run) / "config.toml") for run in runs]
    results = [_result(Path(run) / "result.json") for run in runs]
    keys = sorted({key for layer in layers for key in layer})
    settings = {key: [layer.get(key) for layer in layers] for key in keys}
    figures = {name: [_at(result, path) for result in results] for name, path in FIGURES.items()}
    return {
        "schema": COMPARISON_FORMAT,
        "runs": list(runs),
        "settings": {key: values for key, values in settings.items() if any(one != values[0] for one in values)},
        "figures": {name: values for name, values in figures.items() if any(one is not None for one in values)},
    }


def _result(path: Path) -> Mapping[str, Any]:
    """Return a result; an empty one of a run that has not ended."""
    if not path.is_file():
        return {}
    try:
        return dict(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}", hint="resume the run, which writes it again") from error


def _at(document: object, path: Sequence[str]) -> Any:
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document
