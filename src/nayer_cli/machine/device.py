"""The device that a word of the user means."""

import re

import torch

from nayer_cli.errors import ConfigError, EnvironmentFault, did_you_mean
from nayer_cli.machine.distributed import local_rank, local_size


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`.

    Each of several processes on one machine gets the CUDA device of its own number, or the only one that it sees.
    Float32 is exact from here on, without TF32.

    Raises:
        ConfigError: `name` is none of these, or one device for several processes.
        EnvironmentFault: this machine has no such device.

    """
    _keep_float32_exact()
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
    if local_size() > 1:
        device = _of_this_process(device)
    if (device.index or 0) >= torch.cuda.device_count():
        hint = "try --device auto" if local_size() == 1 else "with torchrun --nproc-per-node gpu there are enough"
        raise EnvironmentFault(f"there is no device {device}: {_cuda_devices()}", hint=hint)
    return device


def _keep_float32_exact() -> None:
    """Let float32 mean float32: by default torch rounds the products of convolutions to the ten bits of TF32."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def _of_this_process(device: torch.device) -> torch.device:
    """Return the device that this process has for itself, of all the processes on this machine."""
    if device.index is not None:
        raise ConfigError(
            f"{device} is a single device, but {local_size()} processes run on this machine",
            hint="leave out the number: each process takes a device of its own",
        )
    # Some launchers (Slurm's --gpus-per-task, for one) show each process its own device alone.
    return torch.device("cuda", 0 if torch.cuda.device_count() == 1 else local_rank())


def _cuda_devices() -> str:
    """Name the CUDA devices, or say why there are none."""
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if not torch.cuda.device_count():
        return "torch finds no CUDA device here"
    found = (f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count()))
    return f"this machine has {', '.join(found)}"
