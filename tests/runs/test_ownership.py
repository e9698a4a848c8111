"""Whose a folder is, and that nothing is written through it to elsewhere: decided before any work."""

import os
from pathlib import Path

import pytest

from nayer_cli.config import DistillConfig
from nayer_cli.errors import InputError
from nayer_cli.machine.distributed import Group
from nayer_cli.runs.checkpoints import Checkpoints
from nayer_cli.runs.folder import RunFolder, run_folder
from nayer_cli.runs.ownership import is_run
from nayer_cli.runs.resume import decide, to_resume


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def a_run(path: Path) -> RunFolder:
    """A run that has saved one checkpoint."""
    with run_folder(str(path), "", Group()) as folder:
        folder.note_start(DistillConfig())
        folder.checkpoints.save("epoch-000001", {"loop": {}}, keep=2)
    return folder


OF_THE_USER = {
    "a lock": {".lock": "mine"},
    "settings": {".lock": "", "config.toml": "seed = 1", "metrics.jsonl": "{}"},
    "a run.json": {"run.json": '{"starts": [], "name": "my run"}', "config.toml": ""},
    "checkpoints": {"config.toml": "", "checkpoints/epoch-000001.json": "{}"},
    "a result": {"config.toml": "", "result.json": '{"schema": "mine"}'},
    "a temporary file": {".notes.1.nayer-tmp": "mine"},
}


@pytest.mark.parametrize("files", OF_THE_USER.values(), ids=OF_THE_USER)
def test_a_folder_of_the_user_is_not_a_run_whatever_its_files_are_called(files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = contents(tmp_path)
    for resume, out in (("auto", str(tmp_path)), (None, str(tmp_path)), (str(tmp_path), None)):
        with pytest.raises(InputError) as refused:
            to_resume(resume, out)
        assert str(tmp_path) in str(refused.value) and "delete" not in str(refused.value.hint)
    with pytest.raises(InputError, match="is not empty"), run_folder(str(tmp_path), "", Group()):
        pass
    assert contents(tmp_path) == before


@pytest.mark.parametrize("left", ["run.json", "result.json", "checkpoints/epoch-000001.json"])
def test_a_run_is_known_by_any_of_what_it_wrote(left: str, tmp_path: Path) -> None:
    folder = a_run(tmp_path / "run")
    folder.result.write_text('{"schema": "nayer.result/1"}')
    for path in (folder.about, folder.result, *folder.checkpoints.all()):
        if path != folder.path / left:
            path.unlink()
    assert is_run(folder.path)


LINKS = ("bank.mmap", "config.toml", "run.json", "metrics.jsonl", "result.json", "model.onnx", "curves.png", ".lock",
         "student", "samples", "tensorboard", "student/model.safetensors", "samples/epoch-0001.png",
         "checkpoints/bank", "checkpoints/bank/shard-0000-of-0001-000000000001.safetensors")  # fmt: skip


@pytest.mark.parametrize("name", LINKS)
def test_no_link_in_a_run_is_written_through(name: str, tmp_path: Path) -> None:
    a_run(tmp_path / "run")
    (tmp_path / "mine").mkdir()
    inside, outside = tmp_path / "run" / name, tmp_path / "mine" / Path(name).name
    inside.parent.mkdir(exist_ok=True)
    if inside.exists():
        inside.rename(outside)
    inside.symlink_to(outside)
    before = contents(tmp_path)
    for resume in (str(tmp_path / "run"), "auto"):
        with pytest.raises(InputError, match=f"{name} is a symbolic link to {outside}"):
            decide({"output.out": str(tmp_path / "run")}, DistillConfig, Group(), resume=resume, dry_run=False)
    assert contents(tmp_path) == before


def test_a_pipe_in_a_run_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(a_run(tmp_path / "run").path / "bank.mmap")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        to_resume(str(tmp_path / "run"))


def test_a_link_to_a_run_is_the_user_s_own_word(tmp_path: Path) -> None:
    a_run(tmp_path / "run")
    (tmp_path / "latest").symlink_to("run")
    assert to_resume(str(tmp_path / "latest")) is not None


def test_what_a_kill_left_of_a_save_goes_with_the_next_and_at_a_resumption(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    for epoch in (1, 2, 3):
        kept.save(f"epoch-00000{epoch}", {}, keep=3, shards={f"shard-0000-of-0001-{epoch:012d}.safetensors": {}})
    (tmp_path / "epoch-000002.json").unlink()  # as if killed before the manifest
    again = Checkpoints(tmp_path)
    again.load()
    again.sweep(keep=1)
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["epoch-000003.json", "epoch-000003.safetensors"]
    for epoch in (4, 5):
        again.save(f"epoch-00000{epoch}", {}, keep=3)  # as if killed between the manifest and what follows it
    last = Checkpoints(tmp_path)
    last.load()
    last.save("epoch-000005", {}, keep=2)  # nothing is new, and there is one too many
    assert [path.stem for path in last.all()] == ["epoch-000004", "epoch-000005"]
