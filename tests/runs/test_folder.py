import json
import re
from pathlib import Path

import pytest
import torch

from nayer_cli import config
from nayer_cli.config import DistillConfig, OutputConfig
from nayer_cli.errors import InputError, RunFailed
from nayer_cli.machine.distributed import Group
from nayer_cli.runs import folder as folders
from nayer_cli.runs import resume
from nayer_cli.runs.folder import RunFolder, run_folder


def started(path: Path, **settings: object) -> RunFolder:
    folder = RunFolder(path)
    path.mkdir(exist_ok=True)
    folder.note_start(config.build(DistillConfig, settings))
    return folder


def shard_name(images: int) -> str:
    return f"shard-0000-of-0001-{images:012d}.safetensors"


def test_settings_and_circumstances_are_written_down(tmp_path: Path) -> None:
    folder = started(tmp_path, seed=3, **{"output.out": "elsewhere", "teacher.mean": (0.5, 0.25, 0.125)})
    layer = config.read_file(folder.config)
    assert layer["seed"] == 3 and layer["teacher.mean"] == [0.5, 0.25, 0.125] and "output.out" not in layer
    assert {"argv", "started", "nayer", "python", "torch", "gpu"} <= set(
        json.loads(folder.about.read_text())["starts"][0]
    )


@pytest.mark.parametrize("content", ["[" * 99_999, "[1]", "null", "{}", '{"starts": 3}'])
def test_a_run_json_of_other_content_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        RunFolder(tmp_path).paths()


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for epoch in (9, 10, 100):
        shard = {shard_name(epoch): {"images": torch.zeros(1)}}
        folder.checkpoints.save(f"epoch-{epoch:06d}", {"epoch": epoch}, 2, shard, list(shard))
    assert [path.name for path in folder.checkpoints.all()] == ["epoch-000010.json", "epoch-000100.json"]
    assert folder.checkpoints.load()["epoch"] == 100
    shards = {path.name for path in folder.checkpoints.bank.iterdir()}
    assert shards == {shard_name(10), shard_name(100)}


def test_a_run_without_a_checkpoint_cannot_go_on(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="has no checkpoint"):
        RunFolder(tmp_path).checkpoints.load()


BANK = {"added": 1, "capacity": 1, "shards": [shard_name(1)], "shapes": {"images": [1, 8, 8]}}
RUN = {"loop": {}, "student": {}, "method": {}, "fingerprints": {}, "names": ["a", "b"], "processes": [{"bank": BANK}]}
FORGED = [
    *([1], {}, {**RUN, "student": 3}, {**RUN, "names": "ab"}, {**RUN, "names": [1]}, {**RUN, "processes": []}),
    *({**RUN, "processes": 3}, {**RUN, "processes": [3]}, {**RUN, "processes": [{}]}),
    *({**RUN, "processes": [{"bank": BANK | {key: value}}]} for key, value in {
        "added": -1, "capacity": "1", "shards": ["../../elsewhere.safetensors"], "shapes": {"images": [1, 8]},
    }.items()),
]  # fmt: skip


@pytest.mark.parametrize("state", FORGED)
def test_a_state_that_is_none_of_a_run_is_refused(tmp_path: Path, state: object) -> None:
    kept = RunFolder(tmp_path).checkpoints
    kept.save("epoch-000001", RUN, 2)
    assert kept.load_run(with_bank=True) == RUN
    kept.save("epoch-000002", state, 2)
    with pytest.raises(RunFailed, match="does not hold the state of a run"):
        kept.load_run(with_bank=True)


def test_a_tuple_is_the_list_that_was_written(tmp_path: Path) -> None:
    folder = started(tmp_path, **{"teacher.mean": (0.5, 0.5, 0.5)})
    assert resume.resumed_settings(folder, {"teacher.mean": (0.5, 0.5, 0.5)}, DistillConfig)["seed"] == 0
    with pytest.raises(InputError, match=r"teacher\.mean = "):
        resume.resumed_settings(folder, {"teacher.mean": (0.5, 0.5, 0.4)}, DistillConfig)


def test_a_run_is_named_by_time_and_networks_and_never_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda _: "20240617-101112")
    names = []
    for _ in range(3):
        with run_folder(None, "a-b", Group()) as folder:
            names.append(str(folder.path))
    stem = str(Path("runs") / "20240617-101112-a-b")
    assert names == [stem, f"{stem}-2", f"{stem}-3"]


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_file_is_no_place_for_a_run(out: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        resume.check_vacant(str(tmp_path / out))
        with run_folder(str(tmp_path / out), "", Group()):
            pass


def test_a_failed_run_keeps_what_it_learned(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), run_folder(str(tmp_path / "run"), "", Group()) as folder:
        started(folder.path).log(None, OutputConfig()).epoch({"epoch": 1})
        raise RuntimeError
    assert folder.metrics.exists()
    with pytest.raises(InputError) as caught:
        resume.check_vacant(str(folder.path))
    assert caught.value.hint is not None and "delete it" in caught.value.hint


def test_a_dry_run_does_not_resume(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dry run"):
        resume.to_resume(str(tmp_path), dry_run=True)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "hf-hub:a/b", "C:\\x", "..", "", "\0", "é" * 90, "a" * 300, "-x", "con."]
)
def test_a_slug_is_one_plain_part_of_a_path(name: str) -> None:
    slug = folders.slug(name)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", slug) and len(slug) <= 60 and not slug.endswith(".")


def test_state_goes_through_a_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.save("epoch-000001", {"weight": torch.ones(2)}, keep=1)
    assert torch.equal(folder.checkpoints.load()["weight"], torch.ones(2))
