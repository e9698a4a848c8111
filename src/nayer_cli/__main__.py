"""`nayer` and `python -m nayer_cli`: the only place that catches everything, and the exit codes."""

import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from nayer_cli.cli import app
from nayer_cli.errors import EnvironmentFault, Terminated


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (by default the process's own), and return the exit code.

    Codes: 0 done; 1 a gate was not met; 2 usage, configuration or input; 3 the machine lacks something; 4 the run
    failed; 70 a bug of ours; 130 Ctrl-C; 141 closed pipe; 143 SIGTERM.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _prepare_process()
        code: int = app(arguments, prog_name="nayer", standalone_mode=False) or 0
        if code == 130:  # what Typer makes of Ctrl-C
            raise KeyboardInterrupt
        sys.stdout.flush()
    except BaseException as error:
        from nayer_cli.cli.faults import report  # only now: help pages must come at once

        return report(error, debug="--debug" in arguments or "NAYER_DEBUG" in os.environ)
    return code


def _prepare_process() -> None:
    _open_standard_files()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without "→" must not end a run
    signal.signal(signal.SIGTERM, _terminate)


def _open_standard_files() -> None:
    """Fill the places of closed files: the next file that is opened would take them, and what is printed.

    Raises:
        EnvironmentFault: there is nowhere to write the result.

    """
    had_output = sys.stdout is not None
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - a number
    if not had_output:
        raise EnvironmentFault("standard output is closed", hint="send it somewhere, such as > result.json")


def _terminate(number: int, frame: FrameType | None) -> None:
    """End as if by `sys.exit`, so that open files and the display are closed, and nothing mistakes it for a fault."""
    raise Terminated(128 + number)


if __name__ == "__main__":
    sys.exit(main())
