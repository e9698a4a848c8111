"""Every change that a process makes below a folder, numbered; and an end of the process at one of them.

What changes a folder in Python is told to audit hooks, but for what happens to open files; these few functions of `os`
are wrapped. That nothing else writes is checked by what the system counts: see `Tally.bytes`.
"""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
O_TMPFILE = getattr(os, "O_TMPFILE", 0)
"""Opens a file without a name: nothing can be left of it."""


@dataclass(frozen=True)
class Moment:
    """Just before change `number`, or when half of the bytes of that write are written."""

    number: int
    is_half: bool = False


@dataclass(frozen=True)
class Tally:
    """What a process did."""

    changes: list[str]
    """Kind and path of each change, in order."""
    bytes: int
    """Written by `os.write`, to any file."""
    counted: int
    """Written by the process, as the system counts them."""

    def moments(self) -> list[Moment]:
        """All moments at which the process can be ended so that it makes a difference."""
        halves = [Moment(k, is_half=True) for k, name in enumerate(self.changes, 1) if name.startswith(HALVED)]
        return sorted(
            [*(Moment(k) for k in range(1, len(self.changes) + 1)), *halves], key=lambda m: (m.number, m.is_half)
        )


HALVED = ("write ", "map ")


@dataclass(frozen=True)
class AtChange:
    """Ends the process at a moment, if there is one, as `kill -9` does; otherwise `report` says what it changed."""

    folder: Path
    moment: Moment | None = None
    report: Path | None = None

    def watch(self) -> None:
        """Lie in wait in this process."""
        watcher = _Watcher(self)
        watcher.wrap()
        if self.report:
            multiprocessing.util.Finalize(None, watcher.write_report, exitpriority=0)


def read_report(path: Path) -> Tally:
    return Tally(**json.loads(path.read_text()))


class _Watcher:
    def __init__(self, accident: AtChange) -> None:
        self.accident, self.folder = accident, str(accident.folder)
        self.changes: list[str] = []
        self.bytes, self.before = 0, _counted()
        self.maps: set[int] = set()

    def happens(self, kind: str, path: object, halve: Callable[[], object] | None = None) -> None:
        """Count a change that is about to happen to `path`; end here if it is time."""
        name = os.path.abspath(os.fsdecode(path)) if isinstance(path, (str, bytes, os.PathLike)) else ""  # noqa: PTH100 - follows no link
        if name != self.folder and not name.startswith(f"{self.folder}/"):
            return
        self.changes.append(f"{kind} {name[len(self.folder) :]}")
        moment = self.accident.moment
        if moment and moment.number == len(self.changes):
            if moment.is_half and halve:
                halve()
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self) -> None:
        import sys

        import torch

        from nayer_cli.bank import MemoryBank

        sys.addaudithook(self.hear)
        for name in ("fsync", "ftruncate", "posix_fallocate", "fchmod"):
            setattr(os, name, self.counting(name, getattr(os, name)))
        os.write = self.counting_writes(os.write)
        torch.from_file = self.remembering(torch.from_file)
        MemoryBank.write = self.counting_maps(MemoryBank.write)

    def hear(self, event: str, arguments: Sequence[Any]) -> None:
        match event, arguments:
            case "open", (path, _, int(flags)) if flags & WRITING and flags & O_TMPFILE != O_TMPFILE:
                self.happens("open", path)
            case "os.rename", (_, target, *_):
                self.happens("rename", target)
            case "os.mkdir", (path, *_) if not os.path.lexists(path):
                self.happens("mkdir", path)
            case (("os.remove" | "os.rmdir"), (path, *_)) if os.path.lexists(path):
                self.happens("remove", path)
            case (("os.truncate" | "os.chmod" | "os.link" | "os.symlink"), (path, *_)):
                self.happens(event, path)

    def counting(self, name: str, function: Any) -> Any:
        def counted(descriptor: int, *rest: Any) -> Any:
            self.happens(name, _path(descriptor))
            return function(descriptor, *rest)

        return counted

    def counting_writes(self, write: Any) -> Any:
        def counted(descriptor: int, content: Any) -> int:
            self.happens("write", _path(descriptor), lambda: write(descriptor, bytes(content)[: len(content) // 2]))
            written = write(descriptor, content)
            self.bytes += written
            return written

        return counted

    def remembering(self, from_file: Any) -> Any:
        def remembered(*args: Any, **named: Any) -> Any:
            tensor = from_file(*args, **named)
            self.maps.add(tensor.data_ptr())
            return tensor

        return remembered

    def counting_maps(self, write: Any) -> Any:
        def counted(bank: Any, slots: Any, rows: Any) -> None:
            half = len(slots) // 2
            if bank.images.data_ptr() in self.maps:
                some = {name: value[:half] for name, value in rows.items()}
                self.happens("map", f"{self.folder}/bank.mmap", lambda: write(bank, slots[:half], some))
            write(bank, slots, rows)

        return counted

    def write_report(self) -> None:
        assert self.accident.report is not None
        document = {"changes": self.changes, "bytes": self.bytes, "counted": _counted() - self.before}
        self.accident.report.write_text(json.dumps(document))


def _path(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""


def _counted() -> int:
    """Bytes that this process has written since it was started, by whatever code."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("wchar")).split()[1])
