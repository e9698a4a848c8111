"""From any exception to a sentence for people and an exit code."""

import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import typer

from nayer_cli import __version__
from nayer_cli.errors import EnvironmentFault, InputError, Interrupted, NayerError, Terminated
from nayer_cli.machine import breakdown
from nayer_cli.runs.info import MEND_MISMATCH, MISMATCH
from nayer_cli.storage.disk import LACKING, cannot_write, is_full

# The parent of all usage errors; its own name is public in no version of Typer.
UsageError: type[BaseException] = typer.BadParameter.__mro__[1]

CLOSED_PIPE = 141  # 128 + SIGPIPE; 1 would say that a gate was missed


def report(error: BaseException, *, debug: bool) -> int:
    """Print what `error` means to the user, and return the exit code.

    Args:
        error: whatever ended the command.
        debug: print the traceback too; without it that of a bug goes to a file.

    """
    if _is_closed_pipe(error):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that Python's last flush finds no closed pipe
        return CLOSED_PIPE
    if isinstance(error, SystemExit) and not isinstance(error, Terminated):  # completion ends so, with its own code
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    fault = explain(error)
    if not _is_first():
        return fault.exit_code
    if debug:
        traceback.print_exception(error)
    elif fault.exit_code == NayerError.exit_code:
        fault.hint = f"this is a bug of nayer: please report it with the file {_save_traceback(error)}"
    if str(fault):  # empty where Typer has shown the help instead
        from nayer_cli.cli.output import show_fault

        show_fault(fault)
    return fault.exit_code


def _is_first() -> bool:
    """Say whether this is the first fault of the job: a later one is only its consequence."""
    if "RANK" not in os.environ:
        return True
    from nayer_cli.machine.distributed import is_first_fault

    return is_first_fault()


def explain(error: BaseException) -> NayerError:
    """Return the fault that `error` means to the user; one with exit code 70 if it is a bug of ours."""
    match error:
        case NayerError():
            return error
        case typer.Abort(__cause__=BaseException() as cause):
            return explain(cause)  # Typer takes an EOFError for the end of a dialogue, and we have none
        case KeyboardInterrupt():
            return Interrupted(signal.SIGINT)
        case Terminated():
            return Interrupted(signal.SIGTERM)
        case ModuleNotFoundError(name=str(name)) if not name.startswith("nayer_cli"):
            return EnvironmentFault(f"the package '{name}' is not installed", hint="nayer info lists what is missing")
        case OSError(filename=str() as file) if is_full(error):
            return cannot_write(Path(file), error, 0)
        case OSError(errno=number, filename=file) if number in LACKING:
            return EnvironmentFault(
                f"{error.strerror}{f': {file}' if file else ''}", hint="free some space, or write elsewhere with --out"
            )
    if isinstance(error, UsageError):
        return _explain_usage(error)
    if MISMATCH in str(error):
        return EnvironmentFault("torch and torchvision come from different builds", hint=MEND_MISMATCH)
    if fault := breakdown.explain(error):
        return fault
    return NayerError(f"{type(error).__name__}: {_first_line(error)}")


def _explain_usage(error: BaseException) -> NayerError:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "nayer"
    message: str = error.format_message()  # type: ignore[attr-defined]
    if variable := _variable(error, context):
        reason = message.partition(": ")[2] or message  # Typer's sentence begins with the option
        return InputError(f"{variable}={os.environ[variable]}: {reason}", hint=f"correct it, or: unset {variable}")
    return InputError(message, hint=f"{command} --help")


def _variable(error: BaseException, context: Any) -> str | None:
    """Return the environment variable that a wrong value came from, if it came from one."""
    parameter = getattr(error, "param", None)
    source = context.get_parameter_source(parameter.name) if context and parameter else None
    return str(parameter.envvar) if parameter and source and source.name == "ENVIRONMENT" else None


def _is_closed_pipe(error: BaseException) -> bool:
    """Typer and rich turn a closed pipe into exit code 1, while they handle what the pipe said."""
    cause = error.__context__ if isinstance(error, SystemExit) else error
    return isinstance(cause, BrokenPipeError)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _save_traceback(error: BaseException) -> str:
    lines = [f"nayer {__version__}, Python {sys.version}\n", f"{sys.argv}\n", *traceback.format_exception(error)]
    with tempfile.NamedTemporaryFile("w", prefix="nayer-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.writelines(lines)
    return file.name
