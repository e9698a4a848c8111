"""Decide whether a folder is a run's. The content of a file proves that nayer made it; its name proves nothing."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from nayer_cli.errors import InputError, RunFailed
from nayer_cli.storage.checkpoint import read_manifest
from nayer_cli.storage.files import PROBE, leftovers

RUN_FORMAT = "nayer.run/1"
"""Stands in run.json, the first file of every run."""
RUN_FILE = "run.json"


def is_run(folder: Path) -> bool:
    """Say whether nayer began a run in `folder`: run.json, a manifest of a checkpoint, or the result says so."""
    manifests = sorted((folder / "checkpoints").glob("epoch-*.json"), reverse=True)
    return (
        _is_about_a_run(_document(folder / RUN_FILE))
        or str(_document(folder / "result.json").get("schema")).startswith("nayer.result/")
        or any(map(_is_manifest, manifests))
    )


def is_vacant(folder: Path) -> bool:
    """Say whether nothing is in `folder`, or only what a run left that was killed before its first file was there."""
    begun = {path for path in leftovers(folder) if path.name.startswith((f".{RUN_FILE}.", f".{PROBE}."))}
    return all(path in begun for path in folder.iterdir())


def check_contained(folder: Path) -> None:
    """Make sure that everything a run writes below `folder` stays there.

    Raises:
        InputError: something below it is a symbolic link, or neither a file nor a folder.

    """
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in sorted([*folders, *files])):
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise InputError(
                    f"{path} is a symbolic link to {path.readlink()}: nayer does not write through links",
                    hint="replace the link with the file it points to, or start a new run with another --out",
                )
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise InputError(f"{path} is neither a file nor a folder", hint="remove it, or choose another --out")


def _is_about_a_run(document: dict[str, Any]) -> bool:
    starts = document.get("starts")
    if document.get("schema") == RUN_FORMAT or not isinstance(starts, list):
        return document.get("schema") == RUN_FORMAT
    # Runs of version 0.1 have no schema, but say which nayer started them.
    return any(isinstance(start, dict) and "nayer" in start for start in starts)


def _is_manifest(path: Path) -> bool:
    try:
        return path.is_file() and bool(read_manifest(path))
    except RunFailed:
        return False


def _document(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one if there is none."""
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
