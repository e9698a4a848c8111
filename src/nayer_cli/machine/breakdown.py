"""Explain errors of CUDA, cuBLAS, cuDNN, NCCL and torch.compile, which torch raises as `RuntimeError`: only texts tell.

Nothing here imports torch.
"""

import re

from nayer_cli.errors import EnvironmentFault, NayerError, RunFailed, is_out_of_memory

SMALLER = "try a smaller --batch-size or --bank-size, --set bank.place=disk, or another --device"
RESUME = (
    "its own output or torchrun's summary says why; to continue from the last save, add --resume auto to the command"
)
UNCOMPILED = "--compile off runs without it; on a processor it needs a C++ compiler that works, on a GPU Triton"
_LACKS = (
    (
        "no kernel image is available|invalid device function|ARCH_MISMATCH|not compatible with the current PyTorch",
        "this build of torch has no kernels for this GPU",
        "install a build of torch for it (nayer info names both), or try --device cpu",
    ),
    (
        "driver version is insufficient|driver on your system is too old|Found no NVIDIA driver|unsupported toolchain|"
        "driver initialization failed|CUDA driver error|unsupported display driver|no CUDA-capable device|"
        "CUDA error: (initialization error|unknown error|system not yet initialized)",
        "the driver of the GPU does not work with this build of torch",
        "update the driver, or install a build of torch for an older CUDA; --device cpu needs neither",
    ),
    (
        "Duplicate GPU detected",
        "several processes of this job have the same GPU",
        "start one process for each GPU: torchrun --nproc-per-node gpu",
    ),
    (
        "uncorrectable ECC|unspecified launch failure|hardware stack error|device.{0,20} unavailable|"
        "CUDNN_STATUS_|CUBLAS_STATUS_|CUSOLVER_STATUS_|CUDA error: launch timed out",
        "the GPU stopped working",
        "often memory is short (try a smaller --batch-size) or another program uses the GPU (see nvidia-smi)",
    ),
)
"""Errors because the machine lacks something: their text, what it means, and what to do."""
_COMPILER = ("torch._dynamo", "torch._inductor")
"""Modules of the exceptions that torch.compile raises, whatever stage of it fails."""
_OF_PEERS = "NCCL|Connection (reset|closed) by peer|Broken pipe|Socket Timeout|timed out waiting|watchdog"


def explain(error: BaseException) -> NayerError | None:
    """Return the fault of the machine, or of another process, that an error means; None if it is neither."""
    line = str(error).partition("\n")[0][:200]
    if is_out_of_memory(error):
        return EnvironmentFault(f"out of memory: {line or type(error).__name__}", hint=SMALLER)
    if _is_of_compiler(error):
        return EnvironmentFault(f"torch.compile does not work on this machine: {_reason(error)}", hint=UNCOMPILED)
    if not isinstance(error, RuntimeError):
        return None
    for pattern, meaning, hint in _LACKS:
        if re.search(pattern, str(error)):
            return EnvironmentFault(f"{meaning}: {line}", hint=hint)
    if type(error).__name__.startswith("Dist") or re.search(_OF_PEERS, str(error)):
        return lost_peer(error)
    return None


def _is_of_compiler(error: BaseException) -> bool:
    return any(kind.__module__.startswith(_COMPILER) for kind in type(error).__mro__)


def _reason(error: BaseException) -> str:
    """Return what a compiler complains of: its first error, or else what torch says first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = next((line for line in lines if re.search(r"\berror: ", line)), lines[0] if lines else type(error).__name__)
    return found[:200]


def lost_peer(error: BaseException) -> RunFailed:
    """Return the fault that a broken connection means."""
    return RunFailed(f"another process of this job has ended ({str(error).partition(chr(10))[0][:120]})", hint=RESUME)
