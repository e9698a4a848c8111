"""Where a run may go, and whose the files there are: refused before any work, one run a directory, nothing deleted."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from children import KILL, AtWrite, Child, run
from disks import mounted
from nayer_cli.errors import InputError
from nayer_cli.machine.distributed import Group
from nayer_cli.runs.distill import distill
from nayer_cli.runs.folder import RunFolder, run_folder
from quick import command, differences, few_images, outcome, quick


def settings_in(folder: Path, **changes: Any) -> dict[str, Any]:
    return quick(folder, {"eval.data": few_images(folder), **changes})


@pytest.fixture
def no_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a teacher is loaded: that would be work."""
    monkeypatch.setattr("nayer_cli.runs.models.load_classifier", lambda config: pytest.fail("work has begun"))


IMPOSSIBLE = {
    "a file": ("file", "is not a folder"),
    "below a file": ("file/a/run", "is not a folder"),
    "a dangling link": ("link", "is not a folder"),
    "a system folder": ("/proc/run", "/proc is not writable"),
    "someone's folder": ("full", "is not empty"),
}


@pytest.mark.usefixtures("no_teacher")
@pytest.mark.parametrize(("out", "words"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
@pytest.mark.parametrize("resume", [None, "auto"])
def test_an_impossible_place_is_refused_before_any_work(
    out: str, words: str, resume: str | None, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=words) as caught:
        distill(settings_in(tmp_path) | {"output.out": str(tmp_path / out)}, resume=resume)
    assert caught.value.exit_code == 2 and "--out" in str(caught.value.hint)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "few.npz"])


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    if not os.access(folder, os.W_OK):
        yield folder
    else:  # permissions do not bind this user
        with mounted(folder, "ro"):
            yield folder


@pytest.mark.usefixtures("no_teacher")
@pytest.mark.parametrize("out", [".", "run", "a/b/run"])
def test_a_read_only_place_is_refused_before_any_work(out: str, read_only: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not writable"):
        distill(settings_in(tmp_path) | {"output.out": str(read_only / out)})


@pytest.mark.usefixtures("no_teacher")
def test_the_place_that_nobody_named_is_looked_at_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_in(tmp_path) | {"output.out": None}
    monkeypatch.chdir(tmp_path)
    Path("runs").touch()
    with pytest.raises(InputError, match="runs is not a folder"):
        distill(settings)


def test_parents_are_made(tmp_path: Path) -> None:
    with run_folder(str(tmp_path / "a/b/run"), "", Group()) as folder:
        assert folder.path.is_dir()


def test_a_second_run_is_refused_and_told_whose_the_directory_is(tmp_path: Path) -> None:
    first = Child(command(settings_in(tmp_path, **{"schedule.epochs": 10**4})))
    first.until(lambda: RunFolder(tmp_path / "run").checkpoints.all())
    for options in (("--resume", "auto"), ("--resume", str(tmp_path / "run"))):
        second = run(command({} if options[1] != "auto" else settings_in(tmp_path), *options))
        assert second.code == 2
        owner = f"process {first.process.pid} on {platform.node()}, since "
        assert f"error: another run is in {tmp_path / 'run'}: {owner}" in second.err
    first.send(9)
    assert first.wait().code == -9
    assert (tmp_path / "run/.owner.json").exists()
    third = Child(command({"schedule.epochs": 10**4}, "--resume", str(tmp_path / "run")))
    third.until(lambda: "· nayer ·" in third.err.text())  # the lock of the dead is free
    third.send(15)
    assert third.wait().code == 143


MINE = (
    "notes.txt",
    "checkpoints/epoch-000001 (copy).json",
    "checkpoints/epoch-best.safetensors",
    "checkpoints/epoch-000001.json.bak",
    "checkpoints/bank/shard-mine.safetensors",
    "checkpoints/.epoch-000001.json.tmp",
    "student/notes.txt",
    "samples/epoch-1.png",
    ".notes.1.tmp",
)


def test_files_of_the_user_stay(tmp_path: Path) -> None:
    words = command(settings_in(tmp_path, **{"output.keep": 1}), "--resume", "auto")
    run(words, AtWrite("/epoch-000001.json", KILL))  # not one checkpoint yet
    for name in MINE:
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_text("mine")
    run(words, AtWrite("/epoch-000003.json", KILL))
    assert run(words).code == 0
    assert [name for name in MINE if (tmp_path / "run" / name).read_text() != "mine"] == []


def test_what_a_run_left_that_saved_nothing_does_not_join_the_next(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, **{"bank.place": "disk", "output.sample_every": 1})
    other = settings | {"seed": 1, "lte.encoder": "index", "method.batch": 12}
    run(command(settings), AtWrite("/epoch-000001.json", KILL))
    left = {path.name for path in (tmp_path / "run").rglob("*")}
    assert {"bank.mmap", "lte.safetensors", "epoch-000001.safetensors", "metrics.jsonl", "epoch-0001.png"} <= left
    assert run(command(other, "--resume", "auto")).code == 0
    assert run(command(other | {"output.out": str(tmp_path / "fresh")})).code == 0
    assert list(differences(outcome(tmp_path / "run"), outcome(tmp_path / "fresh"))) == []
