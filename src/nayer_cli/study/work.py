"""Run the missing part of a study: one run after another, or as command lines for a scheduler."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from nayer_cli.errors import InputError, Interrupted, NayerError, RunBusy
from nayer_cli.storage.files import make_folder, write_json
from nayer_cli.storage.runlog import Listener
from nayer_cli.storage.text import parse_json
from nayer_cli.storage.toml import parse_assignment
from nayer_cli.study.plan import Cell, Study

STUDY_FORMAT = "nayer.study/1"


@dataclass
class Outcome:
    """The outcome of a study."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """The error of each failed run, by its name."""
    busy: list[str] = field(default_factory=list)
    """Runs that another process is at."""


def finished(folder: Path, cell: Cell) -> bool:
    """Say whether a run has ended."""
    return (folder / cell.name / "result.json").is_file()


def enter(study: Study, folder: Path) -> None:
    """Write down in `folder` what its runs are, and make sure that those that are there are the same.

    Raises:
        InputError: a run of that name has other settings.

    """
    path = folder / "study.json"
    known = _read(path)
    cells = {cell.name: {"command": cell.command, "settings": cell.settings} for cell in study.cells()}
    for name, cell in cells.items():
        if name in known and known[name] != cell:
            raise InputError(
                f"{folder} holds other runs: {_difference(name, known[name], cell)}",
                hint="use the settings it was started with, or choose another --out",
            )
    make_folder(folder)
    if not cells.keys() <= known.keys():
        write_json(path, {"schema": STUDY_FORMAT, "study": study.name, "scale": study.scale, "runs": known | cells})


def run(study: Study, folder: Path, listen: Listener, *, debug: bool = False) -> Outcome:
    """Run what is missing, and go on after a run that fails.

    Args:
        study: what is compared.
        folder: where its runs are.
        listen: receives the records of the runs, and one of the event `run` before each.
        debug: let a bug end everything, with its traceback.

    Raises:
        Interrupted: a signal asked for it; the run at hand has saved what it had.

    """
    enter(study, folder)
    outcome, cells = Outcome(), list(study.cells())
    for number, cell in enumerate(cells, 1):
        if finished(folder, cell):
            outcome.done.append(cell.name)
            continue
        listen({"event": "run", "name": cell.name, "done": number, "of": len(cells), "failed": len(outcome.failed)})
        _run_one(cell, folder, listen, outcome, debug=debug)
    return outcome


def _run_one(cell: Cell, folder: Path, listen: Listener, outcome: Outcome, *, debug: bool) -> None:
    try:
        _check_contained(folder, cell)
        recipe(cell.command)(settings(cell, folder), listen=listen, resume="auto")
        outcome.done.append(cell.name)
    except Interrupted as stop:
        raise Interrupted(stop.exit_code - 128, hint="run the same command again to continue") from stop
    except RunBusy:
        outcome.busy.append(cell.name)
    except Exception as error:
        if debug and not isinstance(error, NayerError):
            raise
        outcome.failed[cell.name] = str(error) or type(error).__name__
        listen({"event": "note", "level": "warning", "message": f"{cell.name} failed: {outcome.failed[cell.name]}"})


def _check_contained(folder: Path, cell: Cell) -> None:
    """Raise InputError if the folder of a run is reached through a symbolic link below that of the study."""
    places = (folder / cell.name, *(folder / cell.name).parents)[: len(Path(cell.name).parts)]
    if link := next((path for path in places if path.is_symlink()), None):
        raise InputError(
            f"{link} is a symbolic link to {link.readlink()}: nayer does not write through links",
            hint="replace the link with the folder it points to",
        )


def recipe(command: str) -> Callable[..., Mapping[str, Any]]:
    """Return the Python API of a command."""
    found: Callable[..., Mapping[str, Any]] = getattr(import_module(f"nayer_cli.runs.{command}"), command)
    return found


def settings(cell: Cell, folder: Path) -> dict[str, Any]:
    """Return all settings of a run."""
    return {**cell.settings, "output.out": str(folder / cell.name)}


def lines(study: Study, folder: Path) -> list[str]:
    """Return a command line for each run that has not ended; each can be repeated, and goes on where it stopped."""
    return [shlex.join(words(cell, folder)) for cell in study.cells() if not finished(folder, cell)]


def words(cell: Cell, folder: Path) -> Sequence[str]:
    """Return the command line of a run."""
    given = [word for key, value in cell.settings.items() for word in ("--set", f"{key}={_typed(value)}")]
    return ["nayer", cell.command, "--quiet", "--resume", "auto", "--out", str(folder / cell.name), *given]


def _typed(value: object) -> str:
    """Write a value so that `--set` reads it back."""
    plain = json.dumps(value) if not isinstance(value, str) else value
    return plain if parse_assignment(f"x={plain}")[1] == value else json.dumps(value)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(parse_json(path.read_text(encoding="utf-8"))["runs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged: {error}", hint="delete it: it only remembers the settings of runs"
        ) from error


def _difference(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    was, wanted = ({"command": one["command"], **one["settings"]} for one in (old, new))
    key = next(key for key in {**was, **wanted} if was.get(key) != wanted.get(key))
    return f"{name} has {key} = {was.get(key)!r}, but {wanted.get(key)!r} is asked for"
