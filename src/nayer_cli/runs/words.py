"""Check what a run directory, perhaps somebody else's, may name without the user's consent."""

from typing import Any

from nayer_cli import trust
from nayer_cli.classifiers.architecture import HUB
from nayer_cli.runs.folder import RunFolder
from nayer_cli.storage import hub
from nayer_cli.types import Settings

FETCHED = ("timm:", "hfds/", "hfids/", "tfds/", "wds/")
"""Prefixes of data sets that are fetched, or opened by code that the name chooses."""
NOT_FOLLOWED = ("output.out", "lte.cache_dir", "teacher.max_parameters", "student.max_parameters")
"""Settings that name where to write, and how much may be built: those of a run are never followed."""


def trusted(settings: Settings, own: Settings, folder: RunFolder) -> dict[str, Any]:
    """Return the settings of a run that may be followed: `NOT_FOLLOWED` are left out.

    Args:
        settings: dotted keys, as the run has them.
        own: what the user has given himself.
        folder: the run.

    Raises:
        InputError: they name code, or something to fetch, and the user neither gives the same nor trusts the run.

    """
    trust.check_settings(settings, own, folder.config)
    for key, value in settings.items():
        if own.get(key) is None and isinstance(value, str) and _is_fetched(key, value):
            trust.require_word(value, f"{key} of {folder.config}", "something to fetch")
    return {key: value for key, value in settings.items() if key not in NOT_FOLLOWED}


def _is_fetched(key: str, value: str) -> bool:
    """Tell whether a setting names something on a hub or a server that this machine has not fetched before."""
    if key in trust.DATA:
        return value.lower().startswith(FETCHED)
    if key in ("teacher.name", "student.name") and value.startswith(HUB):
        return not hub.repo_folder(value.removeprefix(HUB).partition("@")[0]).is_dir()
    return False
