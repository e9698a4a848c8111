"""Every fault that we foresee: one class per exit code, each with a hint that says what to type next."""

from collections.abc import Iterable
from difflib import get_close_matches


class NayerError(Exception):
    """A fault with a message for people. `hint` is the next thing to try; `exit_code` is the process's."""

    exit_code = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class GateMissed(NayerError):
    """A threshold that the user set was not met; results are written all the same."""

    exit_code = 1


class InputError(NayerError):
    """Usage, configuration or input is wrong: an option, a file, a model name, a label list."""

    exit_code = 2


class ConfigError(InputError):
    """A setting is unknown, of the wrong type or out of range."""


class RunBusy(InputError):
    """Another process is at work in the run directory."""


class EnvironmentFault(NayerError):
    """The machine lacks something: an extra, a cached model, a device, memory."""

    exit_code = 3


class RunFailed(NayerError):
    """The run itself failed: a loss that is not finite, no valid checkpoint."""

    exit_code = 4


class Interrupted(NayerError):
    """A signal ended the run; exit code 128 + signal number."""

    def __init__(self, signal_number: int, *, hint: str | None = None) -> None:
        super().__init__("interrupted" if signal_number == 2 else "terminated", hint=hint)
        self.exit_code = 128 + signal_number


class Terminated(SystemExit):
    """SIGTERM has come. No fault of ours, so that nothing on the way takes it for one."""


_OUT_OF_MEMORY = (
    "can't allocate memory",
    "Cannot allocate memory",
    "out of memory",
    "bad_alloc",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "cudaErrorMemoryAllocation",
    # What cuBLAS and cuDNN say when there is no room for their own workspace.
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_NOT_INITIALIZED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Recognize Python's and torch's errors, without importing torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the closest of `known`, or an empty string."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
