"""Find caches without the packages that fill them."""

import os
from pathlib import Path

from nayer_cli.storage.text import user_path


def cache_folder(cache_dir: str | None = None) -> Path:
    """Return the folder of cached pools: `lte` in `cache_dir`, $XDG_CACHE_HOME/nayer or ~/.cache/nayer."""
    return (user_path(cache_dir) if cache_dir else _user_cache() / "nayer") / "lte"


def torch_hub() -> Path:
    """Return the folder where torch.hub keeps what it downloads."""
    return Path(os.environ.get("TORCH_HOME") or _user_cache() / "torch").expanduser() / "hub"


def _user_cache() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification tells us to ignore a relative path.
    return base if base.is_absolute() else Path.home() / ".cache"
