"""Whether a run may start or go on where it is asked to, decided before any work is done."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nayer_cli import config
from nayer_cli.distributed import Group
from nayer_cli.errors import InputError
from nayer_cli.runs.folder import RunFolder

FREE_TO_CHANGE = ("output.", "eval.", "schedule.epochs", "schedule.max_skipped", "bank.place", "bank.budget_gb")
"""Settings that a resumed run may change, since what was learned so far keeps its meaning."""

AUTO = "auto"
"""What `--resume` says to go on with the run in `--out` if there is one."""


def begin(
    settings: Mapping[str, Any], schema: type, group: Group, *, resume: str | None, dry_run: bool
) -> tuple[RunFolder | None, Mapping[str, Any]]:
    """Return the run directory to continue, if any, and the settings to run with; the main process decides.

    Raises:
        InputError: the run cannot be continued so, or a new one cannot be where it is asked to.

    """
    if group.is_main:
        folder = to_resume(resume, settings.get("output.out"), dry_run)
        if folder:
            settings = resumed_settings(folder, settings, schema)
        path = folder.path if folder else None
    else:
        path = None
    path, settings = group.from_main((path, settings))
    return (RunFolder(path, group.is_main) if path else None), settings


def check_vacant(out: str | None) -> None:
    """Refuse a run directory that holds something, before any work is done.

    Raises:
        InputError: `out` is a file or a folder that is not empty, or its parent cannot be written.

    """
    if out is None:
        return
    if not Path(out).exists():
        _check_parent(Path(out))
        return
    if not Path(out).is_dir():
        raise InputError(f"{out} is a file, not a run directory", hint="choose another --out")
    if any(Path(out).iterdir()):
        way = f"continue that run with --resume {out}" if RunFolder(Path(out)).checkpoints.all() else "delete it"
        raise InputError(f"run directory {out} is not empty", hint=f"{way}, or choose another --out")
    _check_writable(Path(out))


def _check_parent(path: Path) -> None:
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise InputError(f"cannot make run directory {path}: {parent} is a file", hint="choose another --out")
    _check_writable(parent)


def _check_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder} is not writable", hint="choose another --out")


def to_resume(resume: str | None, out: str | None = None, dry_run: bool = False) -> RunFolder | None:
    """Open the run directory to continue, if there is one; refuse an `out` that a new run could not have.

    Args:
        resume: a run directory, or `auto`: the one at `out`, if a run has saved something there.
        out: where a new run would go.
        dry_run: nothing is to be written.

    Raises:
        InputError: there is no such run, or nothing may be written.

    """
    if resume and dry_run:
        raise InputError("a resumed run writes into its directory, and a dry run writes nothing", hint="leave one out")
    if resume == AUTO:
        if out is None:
            raise InputError("--resume auto needs to know where the run is", hint="add --out DIR")
        if RunFolder(Path(out)).checkpoints.all():
            return find(out)
        if RunFolder(Path(out)).config.is_file():
            return None  # begun, and ended before there was anything to go on from
    elif resume:
        return find(resume)
    check_vacant(out)
    return None


def find(path: str) -> RunFolder:
    """Open the run directory at `path`.

    Raises:
        InputError: it is not a run directory.

    """
    folder = RunFolder(Path(path))
    if not folder.config.is_file():
        raise InputError(f"{path} is not a run directory: it has no config.toml", hint="name a folder such as runs/…")
    return folder


def resumed_settings(folder: RunFolder, settings: Mapping[str, Any], schema: type) -> dict[str, Any]:
    """Return the settings of the run in `folder`, overlaid with those of `settings` that are free to change.

    Args:
        folder: the run.
        settings: dotted keys.
        schema: the configuration class of the command that resumes.

    Raises:
        InputError: the run is another command's, or a setting differs that would make it another run.

    """
    old = config.read_file(folder.config)
    known = config.keys(schema)
    foreign = [key for key in old if key not in known and not key.startswith("method.")]
    if foreign:
        raise InputError(
            f"{folder.path} is a run of another command: it has a setting '{foreign[0]}'",
            hint="resume it with the command that started it",
        )
    new = {key: value for key, value in settings.items() if value is not None and key != "output.out"}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in new.items()}
    differ = [k for k, value in plain.items() if not k.startswith(FREE_TO_CHANGE) and old.get(k) != value]
    if differ:
        words = "; ".join(f"with {key} = {plain[key]!r}: it was started with {old.get(key)!r}" for key in differ)
        raise InputError(
            f"cannot resume {folder.path} {words}",
            hint="leave that out to continue the run, or start a new one with another --out",
        )
    return {**old, **new}
