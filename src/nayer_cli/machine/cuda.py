"""Ask the driver whether there is a CUDA device, without torch, which takes seconds to import."""

import ctypes
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from nayer_cli.errors import ConfigError, EnvironmentFault, did_you_mean

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def check(name: str) -> None:
    """Make sure, as far as that goes without torch, that `--device name` can be had.

    Raises:
        ConfigError: `name` is not a device.
        EnvironmentFault: this machine has no such device.

    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ConfigError(
            f"device '{name}' is not known{did_you_mean(name, ('auto', 'cpu', 'cuda'))}",
            hint="choose one of: auto, cpu, cuda, cuda:N",
        )
    # Where torch is there already, it answers for itself.
    if name.startswith("cuda") and "torch" not in sys.modules and (reason := _why_none()):
        raise EnvironmentFault(f"there is no device {name}: {reason}", hint="try --device auto")


def _why_none() -> str | None:
    """Say why torch would find no CUDA device; None where it may find one."""
    built = _built_with()
    if built["cuda"] is None:
        return "this torch is built without CUDA" if built["hip"] is None else None
    return None if _count() else "torch finds no CUDA device here"


def _built_with() -> dict[str, str | None]:
    """Return the versions of CUDA and HIP that torch was built with, from the file where it says so."""
    torch = find_spec("torch")
    file = Path(torch.origin).with_name("version.py") if torch and torch.origin else None
    text = file.read_text(encoding="utf-8") if file and file.is_file() else "cuda = 'unknown'"
    found = {name: re.search(rf"^{name}\b.*= *'([^']+)'", text, re.MULTILINE) for name in ("cuda", "hip")}
    return {name: match and match[1] for name, match in found.items()}


def _count() -> int:
    """Return the number of devices that the driver shows to this process."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return 0
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value
