"""Where a run may write: refused before any work, and what is not the run's own is left alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from nayer_cli.__main__ import main
from nayer_cli.errors import InputError
from nayer_cli.runs.distill import distill
from quick import quick

LIKE_OURS = (
    "config.toml", "run.json", "metrics.jsonl", "result.json", "lte.safetensors", "curves.png",
    "samples/epoch-0001.png", "student/model.safetensors", "checkpoints/epoch-000001.safetensors",
)  # fmt: skip
MINE = ("notes.txt", "samples/mine.png", "student/notes.md", "checkpoints/mine.safetensors", "checkpoints/mine.txt")
NOBODY = 65534


def write(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine: {name}")


def intact(folder: Path, names: tuple[str, ...]) -> bool:
    return all((folder / name).read_text() == f"mine: {name}" for name in names)


def refused(out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `nayer distill` says to a directory that it does not take, before it loads the teacher."""
    assert main(["distill", "--teacher", "builtin:digits", "--out", str(out)]) == 2
    stdout, err = capsys.readouterr()
    assert stdout == "" and "Traceback" not in err and "--out" in err
    return err


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for the block: permissions do not bind root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("below", ["", "run", "deep/er/run"])
def test_a_file_is_no_directory(below: str, tmp_path: Path, capsys) -> None:
    write(tmp_path, ("file",))
    assert f"{tmp_path / 'file'} is not a folder" in refused(tmp_path / "file" / below, capsys)
    assert intact(tmp_path, ("file",))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
@pytest.mark.parametrize("below", ["", "run", "deep/er/run"])
def test_a_directory_that_cannot_be_written(below: str, capsys) -> None:
    with TemporaryDirectory() as name:  # unlike pytest's, below a folder that everybody may enter
        folder = Path(name)
        folder.chmod(0o555)
        with unprivileged():
            assert f"{folder} is not writable" in refused(folder / below, capsys)
        assert not list(folder.iterdir())


def test_a_directory_with_files_of_the_user_is_refused_and_kept(tmp_path: Path, capsys) -> None:
    write(tmp_path, LIKE_OURS + MINE)
    assert "is not empty" in refused(tmp_path, capsys)
    assert intact(tmp_path, LIKE_OURS + MINE)


def test_files_of_the_user_survive_in_a_run_and_its_resumption(tmp_path: Path) -> None:
    settings = quick(tmp_path, {"output.keep": 1, "output.sample_every": 1})
    distill(settings)
    write(tmp_path / "run", MINE)
    result = distill({"schedule.epochs": 4}, resume=str(tmp_path / "run"))
    assert result["student"]["name"]
    assert intact(tmp_path / "run", MINE)


def test_parents_are_made(tmp_path: Path) -> None:
    distill(quick(tmp_path, {"output.out": str(tmp_path / "deep" / "er" / "run")}))
    assert (tmp_path / "deep" / "er" / "run" / "result.json").is_file()


def test_a_run_that_fails_at_its_start_leaves_no_folder_that_it_made(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for out in (None, "deep/er/run", "mine/run"):
        with pytest.raises(InputError, match="takes no argument"):
            distill(quick(tmp_path, {"lte.encoder": "onehot:3", "output.out": out, "lte.cache_dir": None}))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
