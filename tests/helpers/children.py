"""Commands of nayer in forked processes, and accidents that befall them at a chosen moment."""

import contextlib
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from forks import FORKS


def nothing() -> None:
    """Leave the process alone."""


@dataclass(frozen=True)
class AtLine:
    """Does something when the `count`-th line of the package's modules that match `where` is about to be executed.

    With `function` only the lines of functions of that name count.
    """

    count: int
    do: Callable[[], object] = nothing
    where: str = ""
    function: str = ""

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

        sys.settrace(lambda frame, event, arg: on_line if self._is_place(frame) else None)

    def _is_place(self, frame: FrameType) -> bool:
        module = _module(frame)
        return module != "" and self.where in module and self.function in ("", frame.f_code.co_name)


@dataclass(frozen=True)
class AtWrite:
    """Does something when the `nth` file whose path contains `part` is about to be written."""

    part: str
    do: Callable[[], object] = nothing
    nth: int = 1

    def watch(self) -> None:
        """Lie in wait in this process."""
        left = self.nth

        def on_call(frame: FrameType, event: str, arg: Any) -> None:
            nonlocal left
            writers = ("write_atomically", "append_line", "reserve")
            if _module(frame) == "storage.files" and frame.f_code.co_name in writers:
                left -= self.part in str(frame.f_locals["path"])
                if left == 0:
                    sys.settrace(None)
                    self.do()

        sys.settrace(on_call)


@dataclass(frozen=True)
class Send:
    """Sends a signal to the own process; then another accident may lie in wait."""

    number: signal.Signals
    then: Any = None

    def __call__(self) -> None:
        """Send it."""
        if self.then:
            self.then.watch()
        os.kill(os.getpid(), self.number)


@dataclass(frozen=True)
class Limit:
    """Lets no file grow beyond so many bytes, as if the disk were full; or memory beyond so many more than today."""

    size: int
    what: int = resource.RLIMIT_FSIZE

    def __call__(self) -> None:
        """Set the limit."""
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        size = self.size + (used if self.what == resource.RLIMIT_AS else 0)
        resource.setrlimit(self.what, (size, resource.getrlimit(self.what)[1]))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def watch(self) -> None:
        """Set it from the start."""
        self()


KILL = Send(signal.SIGKILL)


@dataclass(frozen=True)
class Done:
    """How a process ended."""

    code: int
    """Exit code; that of a process that was killed is minus the signal's number."""
    out: str
    err: str
    orphans: list[int]
    """Processes of its own that outlived it."""


class Stream:
    """What a process writes into a pipe; files would share its limits."""

    def __init__(self) -> None:
        self._source, self.sink = FORKS.Pipe(duplex=False)
        self._parts: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        """Read, once the process has its end of the pipe."""
        self.sink.close()
        self._reader.start()

    def _read(self) -> None:
        while part := os.read(self._source.fileno(), 65536):
            self._parts.append(part)

    def text(self, whole: bool = False) -> str:
        """Return what came so far, or all of it once nobody is left who could write."""
        if whole:
            self._reader.join(10)
        return b"".join(self._parts).decode()


class Child:
    """A running command.

    Args:
        arguments: of the command line.
        accidents: what will happen to it.

    """

    def __init__(self, arguments: Sequence[str], *accidents: Any) -> None:
        self.out, self.err = Stream(), Stream()
        words = (list(arguments), self.out.sink, self.err.sink, accidents)
        self.process = FORKS.Process(target=_live, args=words, daemon=True)
        self.process.start()
        self.out.start()
        self.err.start()

    def send(self, number: int) -> None:
        """Send a signal."""
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for `condition`, while the command runs."""
        while not condition():
            if not self.process.is_alive():
                self._fail("it did not come to it")
            time.sleep(0.01)

    def wait(self) -> Done:
        """Wait for its end."""
        self.process.join()
        assert self.process.exitcode is not None and self.process.pid is not None
        orphans = _of_session(self.process.pid)
        return Done(self.process.exitcode, self.out.text(whole=True), self.err.text(whole=True), orphans)

    def _fail(self, why: str) -> NoReturn:
        self.process.kill()
        raise AssertionError(f"{why}: {self.err.text()}")


def run(arguments: Sequence[str], *accidents: Any) -> Done:
    """Run a command to its end, whatever that is."""
    return Child(arguments, *accidents).wait()


def _live(arguments: list[str], out: Connection, err: Connection, accidents: Sequence[Any]) -> None:
    os.setsid()
    for number, pipe in ((1, out), (2, err)):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
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
