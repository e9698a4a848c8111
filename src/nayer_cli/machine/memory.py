"""The most memory that this process has used."""

import sys

import torch


def peak_memory() -> dict[str, int]:
    """Return bytes of `host` memory since the process began, and of the `device` where it is a GPU."""
    found = {"host": _of_host()}
    if torch.cuda.is_available():
        found["device"] = torch.cuda.max_memory_allocated()
    return found


def _of_host() -> int:
    try:
        import resource
    except ModuleNotFoundError:  # Windows does not count
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
