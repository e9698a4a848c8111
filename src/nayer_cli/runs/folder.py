"""The run directory: what is where, the checkpoints in it, and how a run gets one."""

import os
import platform
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from nayer_cli import __version__, config
from nayer_cli.checkpoint import load_outline, load_state, save_state
from nayer_cli.config import OutputConfig
from nayer_cli.errors import InputError, Interrupted, RunFailed
from nayer_cli.files import write_json, write_text
from nayer_cli.runlog import Listener, RunLog

FREE_TO_CHANGE = ("output.", "eval.", "schedule.epochs")
"""Settings that a resumed run may change, since what was learned so far keeps its meaning."""


class RunFolder:
    """Paths of a run directory, and its checkpoints."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.about = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.result = path / "result.json"
        self.pool = path / "lte.safetensors"
        self.student = path / "student"
        self.samples = path / "samples"
        self.curves = path / "curves.png"
        self.checkpoints = path / "checkpoints"
        self.bank = path / "checkpoints" / "bank"

    def log(self, listen: Listener | None, output: OutputConfig) -> RunLog:
        """Open the log of this run."""
        tensorboard = self.path / "tensorboard" if output.tensorboard else None
        return RunLog(self.metrics, listen, tensorboard=tensorboard)

    def start(self, settings: Any) -> None:
        """Write down the resolved settings, readable by `--config`, and the circumstances."""
        layer = config.to_layer(settings)
        layer.pop("output.out", None)  # a run varied from this file is another run, and belongs elsewhere
        write_text(self.config, config.to_toml(layer))
        write_json(self.about, _circumstances())

    def abandon(self) -> None:
        """Take back what a run wrote before its first epoch, so that its name is free again."""
        written = {self.config, self.about, self.pool}
        if written.issuperset(self.path.iterdir()):
            for path in written:
                path.unlink(missing_ok=True)
            self.path.rmdir()

    def save_checkpoint(self, epoch: int, state: Any, keep: int) -> Path:
        """Write the state after `epoch` epochs, then delete all but the `keep` newest."""
        path = self.checkpoints / f"epoch-{epoch:06d}.safetensors"
        save_state(path, state)
        for old in self.saved()[:-keep]:
            old.unlink()
        return path

    def load_checkpoint(self) -> Any:
        """Load the newest checkpoint.

        Raises:
            RunFailed: there is none, or it is damaged.

        """
        found = self.saved()
        if not found:
            raise RunFailed(f"{self.path} has no checkpoint", hint="start again with another --out")
        return load_state(found[-1])

    def shards(self) -> set[str]:
        """Names of the shards of the bank that the kept checkpoints list."""
        return {name for path in self.saved() for name in load_outline(path)["bank"]["shards"]}

    def saved(self) -> list[Path]:
        """Return the files of all checkpoints, oldest first."""
        return sorted(self.checkpoints.glob("epoch-*.safetensors"))


def check_vacant(out: str | None) -> None:
    """Refuse a run directory that holds something, before any work is done.

    Raises:
        InputError: `out` is a file or a folder that is not empty.

    """
    if out is None or not Path(out).exists():
        return
    if not Path(out).is_dir():
        raise InputError(f"{out} is a file, not a run directory", hint="choose another --out")
    if any(Path(out).iterdir()):
        way = f"continue that run with --resume {out}" if RunFolder(Path(out)).saved() else "delete it"
        raise InputError(f"run directory {out} is not empty", hint=f"{way}, or choose another --out")


def to_resume(path: str | None, dry_run: bool) -> RunFolder | None:
    """Open the run directory to continue, if one is named.

    Raises:
        InputError: it is not a run directory, or nothing may be written.

    """
    if path and dry_run:
        raise InputError("a resumed run writes into its directory, and a dry run writes nothing", hint="leave one out")
    return find(path) if path else None


def find(path: str) -> RunFolder:
    """Open the run directory at `path`.

    Raises:
        InputError: it is not a run directory.

    """
    folder = RunFolder(Path(path))
    if not folder.config.is_file():
        raise InputError(f"{path} is not a run directory: it has no config.toml", hint="name a folder such as runs/…")
    return folder


def resumed_settings(folder: RunFolder, settings: Mapping[str, Any], schema: type) -> dict[str, Any]:
    """Return the settings of the run in `folder`, overlaid with those of `settings` that are free to change.

    Args:
        folder: the run.
        settings: dotted keys.
        schema: the configuration class of the command that resumes.

    Raises:
        InputError: the run is another command's, or a setting differs that would make it another run.

    """
    old = config.read_file(folder.config)
    known = config.keys(schema)
    foreign = [key for key in old if key not in known and not key.startswith("method.")]
    if foreign:
        raise InputError(
            f"{folder.path} is a run of another command: it has a setting '{foreign[0]}'",
            hint="resume it with the command that started it",
        )
    new = {key: value for key, value in settings.items() if value is not None and key != "output.out"}
    for key, value in new.items():
        value = list(value) if isinstance(value, tuple) else value
        if not key.startswith(FREE_TO_CHANGE) and old.get(key) != value:
            raise InputError(
                f"cannot resume {folder.path} with {key} = {value!r}: it was started with {old.get(key)!r}",
                hint="leave that option out to continue the run, or start a new one with another --out",
            )
    return {**old, **new}


@contextmanager
def run_folder(
    out: str | None, name: str, *, existing: RunFolder | None = None, temporary: bool = False
) -> Iterator[RunFolder]:
    """Give a run its directory: an existing one, a temporary one, `out`, or `runs/TIME-name`.

    Raises:
        Interrupted: the block was interrupted; the hint says how to go on.

    """
    if temporary:
        with TemporaryDirectory(prefix="nayer-") as path:
            yield RunFolder(Path(path))
        return
    folder = existing or RunFolder(Path(out) if out else _unused(Path("runs"), name))
    _make(folder.path)
    try:
        yield folder
    except BaseException as error:
        if existing is None:
            folder.abandon()
        if not isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM
        hint = f"continue with --resume {folder.path}" if folder.saved() else "nothing was saved yet"
        raise Interrupted(number, hint=hint) from None


def _unused(parent: Path, name: str) -> Path:
    """Return a path named by the time, different from those of runs that started in the same second."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    paths = (parent / (f"{stem}-{number}" if number > 1 else stem) for number in count(1))
    return next(path for path in paths if not path.exists())


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {path}: {error.strerror}", hint="choose another --out") from error
    if not os.access(path, os.W_OK):
        raise InputError(f"run directory {path} is not writable", hint="choose another --out")


def slug(name: str) -> str:
    """Turn any name into one that is safe as a part of a file name on every system."""
    words = re.sub(r"[^A-Za-z0-9_.]+", "-", re.split(r"[:/\\]", name)[-1]).strip("-.")
    return words[:60] or "model"


def _circumstances() -> dict[str, Any]:
    return {
        "argv": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "nayer": __version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "platform": platform.platform(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }
