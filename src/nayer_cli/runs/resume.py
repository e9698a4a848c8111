"""Decide whether a run may start or continue in a folder, before any work is done."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nayer_cli import config
from nayer_cli.budget import parse_budget
from nayer_cli.errors import InputError, RunFailed
from nayer_cli.machine.distributed import Group
from nayer_cli.runs import paths
from nayer_cli.runs.folder import RUNS, RunFolder
from nayer_cli.runs.ownership import RUN_FILE, check_contained, is_run, is_vacant
from nayer_cli.runs.words import trusted
from nayer_cli.storage.files import check_writable
from nayer_cli.storage.inputs import require_run
from nayer_cli.storage.toml import Layer
from nayer_cli.types import Settings

FREE_TO_CHANGE = (
    "output.",
    "eval.",
    "export.",
    "schedule.epochs",
    "schedule.budget",
    "schedule.max_skipped",
    "bank.place",
    "bank.budget_gb",
)
"""Settings that a resumed run may change, since what was learned so far keeps its meaning."""

AUTO = "auto"
"""The value of `--resume` that continues the run in `--out` if there is one."""


def decide(
    settings: Settings, schema: type, group: Group, *, resume: str | None, dry_run: bool
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
    """Refuse a run directory that cannot be made or holds something, before any work is done; parents are made.

    Raises:
        InputError: `out` is a file, is below one, is a folder that is not empty, or nothing can be written there.

    """
    path = Path(out) if out else RUNS
    existing = next(Path(p) for p in (path, *path.absolute().parents) if os.path.lexists(p))
    if not existing.is_dir():
        raise InputError(f"cannot make run directory {path}: {existing} is not a folder", hint="choose another --out")
    if out and existing == path and not is_vacant(path):
        raise InputError(f"run directory {out} is not empty", hint=f"{_way_on(path)}choose another --out")
    check_writable(existing)


def _way_on(path: Path) -> str:
    """Say what can be done with a directory that is not empty. Nobody should delete what nayer did not make."""
    if not is_run(path):
        return "nayer did not make what is in it, and will not touch it: "
    return f"continue that run with --resume {path}, or " if RunFolder(path).checkpoints.all() else "delete it, or "


def to_resume(resume: str | None, out: str | None = None, dry_run: bool = False) -> RunFolder | None:
    """Open the run directory to continue, if there is one; refuse an `out` that a new run could not have.

    Args:
        resume: a run directory, or `auto`: the one at `out`, if a run has saved something there.
        out: where a new run would go.
        dry_run: nothing will be written.

    Raises:
        InputError: there is no such run, or nothing may be written.
        RunFailed: a run has ended there, and its checkpoints are gone.

    """
    if resume and dry_run:
        raise InputError("a resumed run writes into its directory, and a dry run writes nothing", hint="leave one out")
    folder = find(resume) if resume and resume != AUTO else None
    if resume == AUTO:
        folder = _saved(out)
    elif resume is None and (out or not dry_run):
        check_vacant(out)
    if folder:
        check_writable(folder.path)
        check_contained(folder.path)
    return folder


def _saved(out: str | None) -> RunFolder | None:
    """Open the run at `out` if it has saved something; None if one is to start there, for the first time or again."""
    if out is None:
        raise InputError("--resume auto needs to know where the run is", hint="add --out DIR")
    folder = RunFolder(Path(out))
    if not is_run(folder.path):
        check_vacant(out)
        return None
    if folder.checkpoints.all():
        return find(out)
    if folder.result.is_file():
        raise RunFailed(f"the run in {out} has ended, and its checkpoints are gone", hint="choose another --out")
    check_contained(folder.path)  # one was begun there, and ended before there was anything to go on from
    return None


def find(path: str) -> RunFolder:
    """Open the run directory at `path`.

    Raises:
        InputError: it is not a run directory.

    """
    require_run(path)
    folder = RunFolder(Path(path))
    if not is_run(folder.path):
        raise InputError(
            f"{path} is not a run directory: neither {RUN_FILE} nor a checkpoint in it says that nayer made it",
            hint="name a folder such as runs/…; nothing in this one was changed",
        )
    return folder


def resumed_settings(folder: RunFolder, settings: Settings, schema: type) -> dict[str, Any]:
    """Return the settings of the run in `folder`, overlaid with those of `settings` that are free to change.

    Args:
        folder: the run.
        settings: dotted keys. The path of a file that was moved may differ: its content is compared later.
        schema: the configuration class of the command that resumes.

    Raises:
        InputError: the run is another command's, a setting differs that would make it another run, or a file is
            no longer there.

    """
    old, there = config.read_file(folder.config), folder.paths()
    known = config.keys(schema)
    foreign = [key for key in old if key not in known and not key.startswith("method.")]
    lacking = sorted(_sections(known) - _sections(old))
    if foreign or lacking:
        which = f"it has a setting '{foreign[0]}'" if foreign else f"it has no settings '{lacking[0]}'"
        raise InputError(
            f"{folder.path} is a run of another command: {which}",
            hint="resume it with the command that started it",
        )
    new = {key: value for key, value in settings.items() if value is not None and key != "output.out"}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in new.items()}
    moved = {key for key, value in plain.items() if paths.is_moved(key, old.get(key), value, schema)}
    differ = [
        key
        for key, value in plain.items()
        if not key.startswith(FREE_TO_CHANGE) and key not in moved and old.get(key) != value
    ]
    if differ:
        words = "; ".join(f"with {key} = {plain[key]!r}: it was started with {old.get(key)!r}" for key in differ)
        raise InputError(
            f"cannot resume {folder.path} {words}",
            hint="leave that out to continue the run, or start a new run with another --out",
        )
    _check_length(folder.path, old, old | new)
    kept = {key: path for key, path in there.items() if plain.get(key, old.get(key)) == old.get(key)}
    settings = paths.located({**trusted(old, plain, folder.config), **new}, kept)
    paths.check_there(folder.path, settings, kept, schema)
    return settings


def _check_length(run: Path, old: Layer, new: Layer) -> None:
    """Refuse to end a run by something else than what it was started with, or earlier than a budget would."""
    epochs, before, after = "schedule.epochs", old.get("schedule.budget"), new.get("schedule.budget")
    if not before and not after:
        return
    if not before or not after or new.get(epochs) != old.get(epochs):
        way = f"a budget of {before}" if before else f"{old.get(epochs)} epochs"
        raise InputError(
            f"cannot resume {run} so: it was started with {way}",
            hint=f"give it more with --{'budget' if before else 'epochs'}, or start a new run with another --out",
        )
    was, wanted = parse_budget(str(before)), parse_budget(str(after))
    if wanted.counts != was.counts or wanted.amount < was.amount:
        raise InputError(
            f"cannot resume {run} with a budget of {wanted.text}: it was started with {was.text}",
            hint="give it more of the same kind of budget, or start a new run with another --out",
        )


def _sections(keys: Iterable[str]) -> set[str]:
    """Return the first words of dotted keys."""
    return {key.partition(".")[0] for key in keys if "." in key}
