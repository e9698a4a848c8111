"""The device that a word of the user means."""

import re

import torch

from nayer_cli.distributed import local_rank
from nayer_cli.errors import ConfigError, EnvironmentFault, did_you_mean


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`.

    Of several processes on one machine, each gets the CUDA device of its own number.

    Raises:
        ConfigError: `name` is none of these.
        EnvironmentFault: this machine has no such device.

    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device(name)
    if not re.fullmatch(r"cuda(:\d+)?", name):
        raise ConfigError(
            f"device '{name}' is not known{did_you_mean(name, ('auto', 'cpu', 'cuda'))}",
            hint="choose one of: auto, cpu, cuda, cuda:N",
        )
    device = torch.device(name)
    if device.index is None and local_rank():
        device = torch.device("cuda", local_rank())
    if (device.index or 0) >= torch.cuda.device_count():
        raise EnvironmentFault(f"there is no device {name}: {_cuda_devices()}", hint="try --device auto")
    return device


def _cuda_devices() -> str:
    """Say what CUDA devices there are, or why there are none."""
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if not torch.cuda.device_count():
        return "torch finds no CUDA device here"
    found = (f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count()))
    return f"this machine has {', '.join(found)}"
