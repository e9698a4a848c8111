"""Commands of nayer in processes of their own, and accidents that befall them at a chosen moment.

The processes are forked from one that has torch loaded and has computed nothing: starting one takes no time.
"""

import contextlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "nayer_cli.__main__",
        "nayer_cli.cli.output",
        "nayer_cli.runs.distill",
        "nayer_cli.runs.train",
        "rich.live",
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "nayer_cli.models",
        "sklearn.datasets",
    ]
)


@dataclass(frozen=True)
class AtLine:
    """Does something when the `count`-th line of the package's modules that match `where` is about to be executed."""

    count: int
    do: Callable[[], object]
    where: str = ""

    def watch(self) -> None:
        """Lie in wait in this process."""
        left = self.count

        def on_line(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal left
            left -= event == "line"
            if left == 0:
                sys.settrace(None)
                self.do()
            return on_line

        sys.settrace(lambda frame, event, arg: on_line if self.where in _module(frame) else None)


@dataclass(frozen=True)
class AtWrite:
    """Does something when the `nth` file whose path contains `part` is about to be written."""

    part: str
    do: Callable[[], object]
    nth: int = 1

    def watch(self) -> None:
        """Lie in wait in this process."""
        left = self.nth

        def on_call(frame: FrameType, event: str, arg: Any) -> None:
            nonlocal left
            writers = ("write_atomically", "append_line", "reserve")
            if _module(frame) == "files" and frame.f_code.co_name in writers:
                left -= self.part in str(frame.f_locals["path"])
                if left == 0:
                    sys.settrace(None)
                    self.do()

        sys.settrace(on_call)


@dataclass(frozen=True)
class CountLines:
    """Writes down, by module, how many lines the process has executed."""

    file: Path

    def watch(self) -> None:
        """Count in this process."""
        counts: Counter[str] = Counter()

        def on_line(frame: FrameType, event: str, arg: Any) -> Any:
            counts[_module(frame)] += event == "line"
            return on_line

        sys.settrace(lambda frame, event, arg: on_line if _module(frame) else None)
        multiprocessing.util.Finalize(None, lambda: self.file.write_text(json.dumps(counts)), exitpriority=0)


@dataclass(frozen=True)
class Send:
    """Sends signals to the own process."""

    numbers: tuple[signal.Signals, ...]

    def __call__(self) -> None:
        """Send them, one after the other."""
        for number in self.numbers:
            os.kill(os.getpid(), number)


@dataclass(frozen=True)
class Limit:
    """Lets no file grow beyond so many bytes, as if the disk were full; or no more memory than so many above today's.

    With `deadly` the process is killed where it writes over the limit, in the middle of the write.
    """

    size: int
    what: int = resource.RLIMIT_FSIZE
    deadly: bool = False

    def __call__(self) -> None:
        """Set the limit."""
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        size = self.size + (used if self.what == resource.RLIMIT_AS else 0)
        resource.setrlimit(self.what, (size, resource.getrlimit(self.what)[1]))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if self.deadly else signal.SIG_IGN)

    def watch(self) -> None:
        """Set it from the start."""
        self()


KILL = Send((signal.SIGKILL,))


@dataclass(frozen=True)
class Done:
    """How a process ended."""

    code: int
    """Exit code; that of a process that was killed is minus the signal's number."""
    out: str
    err: str
    seconds: float
    """From the last signal that was sent to it, or else from its start."""
    orphans: list[int]
    """Processes of its own that outlived it."""


class Child:
    """A running command.

    Args:
        arguments: of the command line.
        folder: for what it prints.
        accidents: what will happen to it.

    """

    def __init__(self, arguments: Sequence[str], folder: Path, *accidents: Any) -> None:
        self.out, self.err = (folder / f"{time.monotonic_ns()}.{name}" for name in ("out", "err"))
        self.process = _context.Process(target=_live, args=(list(arguments), self.out, self.err, accidents))
        self.process.start()
        self.since = time.monotonic()

    def send(self, number: int) -> None:
        """Send a signal."""
        assert self.process.pid is not None
        self.since = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        """Wait for `condition`, while the command runs."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.is_alive(), f"ended too early: {self.err.read_text()}"
            assert time.monotonic() < end, "nothing happened"
            time.sleep(0.01)

    def wait(self, seconds: float = 120) -> Done:
        """Wait for its end."""
        self.process.join(seconds)
        took = time.monotonic() - self.since
        assert self.process.exitcode is not None, f"still running: {self.err.read_text()}"
        assert self.process.pid is not None
        orphans = _of_session(self.process.pid)
        return Done(self.process.exitcode, self.out.read_text(), self.err.read_text(), took, orphans)


def run(arguments: Sequence[str], folder: Path, *accidents: Any) -> Done:
    """Run a command to its end, whatever that is."""
    return Child(arguments, folder, *accidents).wait()


def _live(arguments: list[str], out: Path, err: Path, accidents: Sequence[Any]) -> None:
    os.setsid()
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["nayer", *arguments]
    sys.addaudithook(_refuse_leftovers)
    for accident in accidents:
        accident.watch()
    from nayer_cli.__main__ import main

    sys.exit(main(arguments))


def _refuse_leftovers(event: str, arguments: Sequence[Any]) -> None:
    """End the process if it opens a temporary file that another one has left."""
    if event == "open" and str(arguments[0]).endswith(".nayer-tmp") and f".{os.getpid()}." not in str(arguments[0]):
        os.write(2, f"opened {arguments[0]}".encode())
        os._exit(99)


def _module(frame: FrameType) -> str:
    """Return the module that executes, without the package's name; empty for those of others."""
    package, _, module = str(frame.f_globals.get("__name__", "")).partition(".")
    return module if package == "nayer_cli" else ""


def _of_session(leader: int) -> list[int]:
    """Return the processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found
