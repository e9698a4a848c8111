"""The run directory: its files, and how a run gets one for itself alone."""

import os
import platform
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from filelock import FileLock, Timeout

from nayer_cli import __version__, config
from nayer_cli.config import OutputConfig
from nayer_cli.errors import EnvironmentFault, InputError, Interrupted, RunBusy, is_out_of_memory
from nayer_cli.machine.distributed import Group
from nayer_cli.runs import paths
from nayer_cli.runs.checkpoints import Checkpoints
from nayer_cli.runs.ownership import RUN_FILE, RUN_FORMAT, is_run, is_vacant
from nayer_cli.storage.disk import cannot_write, is_full
from nayer_cli.storage.files import check_writable, delete, leftovers, make_folder, write_json, write_text
from nayer_cli.storage.inputs import RUNS as RUNS
from nayer_cli.storage.runlog import Listener, RunLog
from nayer_cli.storage.text import parse_json


class RunFolder:
    """Paths of a run directory. Processes other than the main one read it and write nothing."""

    def __init__(self, path: Path, is_main: bool = True) -> None:
        self.path = path
        self.is_main = is_main
        self.config = path / "config.toml"
        self.about = path / RUN_FILE
        self.metrics = path / "metrics.jsonl"
        self.result = path / "result.json"
        self.pool = path / "lte.safetensors"
        self.student = path / "student"
        self.onnx = path / "model.onnx"
        self.samples = path / "samples"
        self.curves = path / "curves.png"
        self.lock = path / ".lock"
        self.owner = path / ".owner.json"
        self.checkpoints = Checkpoints(path / "checkpoints")

    @property
    def kind(self) -> str:
        """The command that made the run; empty where it never started."""
        return str(self._about().get("kind", ""))

    @property
    def has_images(self) -> bool:
        """Whether the run makes synthetic images, and keeps them."""
        return self.pool.is_file() or self.checkpoints.bank.is_dir()

    def log(self, listen: Listener | None, output: OutputConfig) -> RunLog:
        """Open the log of this run."""
        if not self.is_main:
            return RunLog(None)
        tensorboard = self.path / "tensorboard" if output.tensorboard else None
        return RunLog(self.metrics, listen, tensorboard=tensorboard)

    def note_start(self, settings: Any) -> None:
        """Write down the resolved settings, readable by `--config`, and the circumstances of every start."""
        if not self.is_main:
            return
        layer = config.to_layer(settings)
        layer.pop("output.out", None)  # a run varied from this file is another run, and belongs elsewhere
        old = config.read_file(self.config) if self.config.is_file() else layer
        changed = {key: [old.get(key), value] for key, value in layer.items() if old.get(key) != value}
        about = self._about()
        starts = [*about.get("starts", ()), {**_circumstances(), "changed": changed}]
        known = self.paths() | paths.absolute(layer)
        write_text(self.config, config.to_toml(layer))
        write_json(self.about, {"schema": RUN_FORMAT, "kind": settings.kind, "paths": known, "starts": starts})

    def settings(self) -> dict[str, Any]:
        """Return the settings of the run; paths lead from here to where they led when it was started."""
        return paths.located(config.read_file(self.config), self.paths())

    def paths(self) -> dict[str, str]:
        """Return, by setting, the absolute paths of the files that the run was started with."""
        known = self._about().get("paths", {})
        return {key: str(path) for key, path in known.items()} if isinstance(known, dict) else {}

    def _about(self) -> dict[str, Any]:
        if not self.about.is_file():
            return {}
        try:
            found = parse_json(self.about.read_text(encoding="utf-8"))
            return {**found, "starts": list(found["starts"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.about} is damaged: {error}",
                hint="delete it: it only records when runs started and where files were",
            ) from error

    def mark(self) -> None:
        """Write into the directory whose it is, before anything else.

        Raises:
            InputError: somebody has put something there since we looked.

        """
        if is_run(self.path):
            return
        if not is_vacant(self.path):
            raise InputError(f"run directory {self.path} is not empty", hint="choose another --out")
        write_json(self.about, {"schema": RUN_FORMAT, "starts": []})

    def claim(self) -> None:
        """Prepare the directory for a new run: leftovers of an earlier one that saved nothing do not join it.

        Raises:
            InputError: a run has saved something here since we looked.

        """
        if self.checkpoints.all():
            raise InputError(f"there is already a run in {self.path}", hint=f"continue it with --resume {self.path}")
        write_json(self.about, {"schema": RUN_FORMAT, "starts": []})
        delete([self.config, self.pool, self.metrics])
        self.checkpoints.clear()

    def sweep(self) -> None:
        """Delete temporary files of a process that was killed in this directory; it must be locked."""
        folders = (self.path, self.checkpoints.path, self.checkpoints.bank, self.student, self.samples)
        delete([path for folder in folders for path in leftovers(folder)])

    def abandon(self, made: Iterable[Path]) -> None:
        """Take back what a run wrote before its first checkpoint, and the folders above that it `made`."""
        written = [self.config, self.pool, self.owner, self.lock, self.about]  # what says whose it is goes last
        if set(written).issuperset(self.path.iterdir()):
            delete(written)
            self.path.rmdir()
            with suppress(OSError):  # another run has put something there
                for parent in made:
                    parent.rmdir()


@contextmanager
def run_folder(
    out: str | None, name: str, group: Group, *, existing: RunFolder | None = None, temporary: bool = False
) -> Iterator[RunFolder]:
    """Give a run its directory: an existing one, a temporary one, `out`, or `runs/TIME-name`.

    Raises:
        InputError: it cannot be written, or another run is in it.
        EnvironmentFault: memory ran out.
        Interrupted: the block was interrupted; the hint says how to go on.

    """
    if temporary:
        with TemporaryDirectory(prefix="nayer-") as path:
            yield RunFolder(Path(path), group.is_main)
        return
    planned = existing.path if existing else Path(out) if out else _unused(RUNS, name)
    folder = RunFolder(group.from_main(planned), group.is_main)
    made = [parent for parent in folder.path.parents if not parent.exists()]
    with _owned(folder, is_new=existing is None):
        try:
            if existing is None and folder.is_main:
                folder.claim()
            yield folder
        except BaseException as error:
            if existing is None and folder.is_main:
                folder.abandon(made)
            raise _told(error, folder) from error


@contextmanager
def _owned(folder: RunFolder, *, is_new: bool) -> Iterator[None]:
    """Let no other run into the directory; the system takes the lock away from a process that dies."""
    if not folder.is_main:
        yield
        return
    make_folder(folder.path)
    check_writable(folder.path)
    if is_new:
        folder.mark()
    lock = FileLock(folder.lock, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunBusy(
            f"another run is in {folder.path}{_owner(folder.owner)}", hint="wait until it ends, or choose another --out"
        ) from None
    except (OSError, NotImplementedError) as error:  # some network file systems have no locks
        if isinstance(error, OSError) and is_full(error):
            raise cannot_write(folder.lock, error, 0) from error
        raise InputError(f"cannot lock {folder.lock}: {error}", hint="choose another --out") from error
    try:
        folder.sweep()
        write_json(folder.owner, {"host": platform.node(), "pid": os.getpid(), "since": _now()})
        yield
    finally:
        delete([folder.owner])
        lock.release()  # the file stays: removed, it could be locked twice


def _owner(path: Path) -> str:
    """Name the process that is said to be at work in a directory."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        return f": process {found['pid']} on {found['host']}, since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it is just being written, or removed
        return ""


def _told(error: BaseException, folder: RunFolder) -> BaseException:
    """Say how to go on after `error`."""
    way = f"continue with --resume {folder.path}" if folder.checkpoints.all() else "nothing was saved yet"
    match error:
        case Interrupted():
            return Interrupted(error.exit_code - 128, hint=way)
        case KeyboardInterrupt():
            return Interrupted(signal.SIGINT, hint=way)
        case SystemExit():
            return Interrupted(signal.SIGTERM, hint=way)
        case EnvironmentFault():
            error.hint = f"{error.hint}; {way}"
    if is_out_of_memory(error):
        return EnvironmentFault(
            f"out of memory: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            hint=f"{way} when there is more, or start anew with a smaller --batch-size, --set method.batch or "
            "--bank-size, or with --set bank.place=disk",
        )
    return error


def _unused(parent: Path, name: str) -> Path:
    """Return a path named by the time, different from those of runs that started in the same second."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    paths = (parent / (f"{stem}-{number}" if number > 1 else stem) for number in count(1))
    return next(path for path in paths if not path.exists())


def slug(name: str) -> str:
    """Turn any name into one that is safe as a part of a file name on every system."""
    words = re.sub(r"[^A-Za-z0-9_.]+", "-", re.split(r"[:/\\]", name)[-1]).strip("-.")
    return words[:60] or "model"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _circumstances() -> dict[str, Any]:
    return {
        "argv": sys.argv,
        "started": _now(),
        "host": platform.node(),
        "pid": os.getpid(),
        "nayer": __version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "platform": platform.platform(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }
