"""A disk without room: for bytes or for files, wherever something is opened or written."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from disks import mounted
from nayer_cli.cli.faults import explain
from nayer_cli.errors import EnvironmentFault, InputError
from nayer_cli.machine.distributed import Group
from nayer_cli.runs.folder import run_folder
from nayer_cli.storage import files
from nayer_cli.storage.checkpoint import save_state
from nayer_cli.storage.disk import cannot_write
from nayer_cli.storage.runlog import RunLog

LARGE = 2**20


def log(folder: Path) -> None:
    """Write TensorBoard events, more of them than fit."""
    events = RunLog(None, tensorboard=folder / "tensorboard")
    for epoch in range(40):
        events.epoch({"epoch": epoch, "losses": {str(k): 1.0 for k in range(1000)}})


def begin_a_run(folder: Path) -> None:
    with run_folder(str(folder / "run"), "", Group()) as run:
        files.write_bytes(run.pool, bytes(LARGE))


WRITERS: dict[str, Callable[[Path], object]] = {
    "a file": lambda folder: files.write_bytes(folder / "some", bytes(LARGE)),
    "a line": lambda folder: files.append_line(folder / "some", "x" * LARGE),
    "a map": lambda folder: files.reserve(folder / "some", LARGE),
    "a state": lambda folder: save_state(folder / "deep/some", {"x": torch.zeros(LARGE)}),
    "events": log,
    "a run": begin_a_run,
}


@pytest.fixture(params=["bytes", "inodes"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A disk that lacks something, and how that is said."""
    if request.param == "bytes":
        with mounted(tmp_path / "disk", "size=256k") as folder:
            yield folder, "are free"
    else:
        with mounted(tmp_path / "disk", "size=50m,nr_inodes=2") as folder:
            (folder / "only").touch()
            yield folder, r"0 of 2 files \(inodes\) are free"


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_what_is_short_is_said(
    write: Callable[[Path], object], disk: tuple[Path, str], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, words = disk
    before = {path for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(EnvironmentFault, match=words) as fault:
        write(folder)
    assert "No space left on device" in str(fault.value) and "free some space" in str(fault.value.hint)
    left = {path for path in folder.rglob("*") if path.is_file()} - before
    assert all("tensorboard" in str(path) or (path.name == "some" and path.stat().st_size == 0) for path in left)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE])
def test_the_machine_is_at_fault_and_not_the_command(number: int, tmp_path: Path) -> None:
    error = OSError(number, os.strerror(number), str(tmp_path / "some"))
    for fault in (cannot_write(tmp_path / "some", error, 5), explain(error)):
        assert fault.exit_code == 3 and os.strerror(number) in str(fault)


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "line").symlink_to("mine")
    for write in (lambda path: files.append_line(path, "x"), lambda path: files.reserve(path, 9)):
        with pytest.raises(InputError, match="symbolic link"):
            write(tmp_path / "line")
    assert (tmp_path / "mine").read_text() == "mine"
