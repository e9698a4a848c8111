"""Check what settings of a file, perhaps somebody else's, may name without the user's consent; without torch."""

import re
from pathlib import Path
from typing import Any

from nayer_cli import trust
from nayer_cli.classifiers.names import HUB
from nayer_cli.lte import encoder
from nayer_cli.storage import hub
from nayer_cli.types import Settings

FETCHED = ("timm:", "hfds/", "hfids/", "tfds/", "wds/")
"""Prefixes of data sets that are fetched, or opened by code that the name chooses."""
MODELS = ("teacher.name", "student.name", "reference.name", "model.name", "model")
ENCODERS = ("lte.encoder", "encoder")
PLACES = ("output.out", "out", "grid", "lte.cache_dir", "cache_dir")
"""Settings that name where to write."""
OUTSIDE = re.compile(r"(~|[/\\]|[A-Za-z]:).*|(.*[/\\])?\.\.([/\\].*)?")
"""Paths that may lead out of the current folder."""
NOT_FOLLOWED = (*PLACES, "teacher.max_parameters", "student.max_parameters")
"""Settings that name where to write, and how much may be built: those of a run are never followed."""


def trusted(settings: Settings, own: Settings, where: Path) -> dict[str, Any]:
    """Return the settings of a run that may be followed: `NOT_FOLLOWED` are left out.

    Args:
        settings: dotted keys, as the run has them.
        own: what the user has given.
        where: the run's config.toml.

    Raises:
        InputError: they name code, or something to fetch, and the user neither gives the same nor trusts the run.

    """
    kept = {key: value for key, value in settings.items() if key not in NOT_FOLLOWED}
    check(kept, own, where)
    return kept


def check(settings: Settings, own: Settings, where: object) -> None:
    """Make sure that settings of a file name nothing that only the user may name.

    Args:
        settings: dotted keys, as the file has them.
        own: what the user has given; these settings go before those of the file.
        where: the file.

    Raises:
        InputError: they name code, something to fetch, or a place to write outside the current folder.

    """
    trust.check_settings(settings, own, where)
    for key, value in settings.items():
        if own.get(key) is None and isinstance(value, str) and (what := _what(key, value)):
            trust.require_word(value, f"{key} of {where}", what)


def _what(key: str, value: str) -> str:
    """Return what needs the user's consent in a setting; empty if nothing does."""
    if key in PLACES and OUTSIDE.fullmatch(value):
        return "a place to write"
    if (key in trust.DATA and value.lower().startswith(FETCHED)) or _is_new(_repository(key, value)):
        return "something to fetch"
    return ""


def _repository(key: str, value: str) -> str:
    """Return the repository of the hub that a setting names; empty if it names none."""
    if key in MODELS and value.startswith(HUB):
        return value.removeprefix(HUB).partition("@")[0]
    return encoder.on_hub(value) if key in ENCODERS else ""


def _is_new(repo: str) -> bool:
    """Say whether this machine has nothing of a repository in its cache."""
    return bool(repo) and not hub.repo_folder(repo).is_dir()
