"""A checkpoint that is not as it was written is found out, and the one before is taken."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from children import KILL, AtWrite, run
from nayer_cli.runs.folder import RunFolder
from quick import command, differences, few_images, outcome, quick

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "bit-flipped": lambda content: content[:-9] + bytes([content[-9] ^ 4]) + content[-8:],
    "zero-filled": lambda content: bytes(len(content)),
    "empty": lambda content: b"",
    "longer": lambda content: content + b"\0",
}
OLD, NEW, END = "epoch-000002", "epoch-000003", "epoch-000004"
PARTS = {
    "state": f"{NEW}.safetensors",
    "manifest": f"{NEW}.json",
    "shard": "bank/shard-0000-of-0001-000000000060.safetensors",
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the run, but for where."""
    folder = tmp_path_factory.mktemp("corruption")
    settings = {"eval.data": few_images(folder), "output.out": None, "schedule.epochs": 3}
    return command(quick(folder, settings), "--resume", "auto")


@pytest.fixture(scope="module")
def stopped(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in its last epoch and has two checkpoints."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    run([*words, "--out", str(folder)], AtWrite(END, KILL))
    assert [path.stem for path in RunFolder(folder).checkpoints.all()] == [OLD, NEW]
    return folder


@pytest.fixture(scope="module")
def whole(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run([*words, "--out", str(folder)]).code == 0
    return outcome(folder)


def damage(path: Path, how: str) -> None:
    path.write_bytes(DAMAGES[how](path.read_bytes()))


def contents(folder: Path) -> dict[Path, bytes]:
    """All files but those that say who is at work."""
    return {path: path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("part", PARTS)
def test_what_is_damaged_is_passed_over(part: str, how: str, stopped: Path, tmp_path: Path) -> None:
    copy = RunFolder(Path(shutil.copytree(stopped, tmp_path / "run")))
    damage(copy.checkpoints.path / PARTS[part], how)
    warnings: list[str] = []
    assert copy.checkpoints.newest_valid(warnings.append).stem == OLD
    assert len(warnings) == 1 and PARTS[part] in warnings[0] and warnings[0].endswith(f"going on from {OLD}")


@pytest.mark.parametrize(
    ("part", "how"), [("state", "bit-flipped"), ("manifest", "zero-filled"), ("shard", "truncated")]
)
def test_the_run_goes_on_from_the_one_before(
    part: str, how: str, words: list[str], stopped: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    damage(folder / "checkpoints" / PARTS[part], how)
    done = run([*words, "--out", str(folder)])
    assert done.code == 0 and done.err.count("warning: ") == 1 and f"going on from {OLD}" in done.err
    assert list(differences(outcome(folder), whole)) == []
    assert [path.stem for path in RunFolder(folder).checkpoints.all()] == [NEW, END]


def test_killed_while_it_makes_up_for_the_damaged_one(
    words: list[str], stopped: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    damage(folder / "checkpoints" / PARTS["state"], "empty")
    often = ["--set", "output.keep=1", "--set", "output.save_minutes=0"]
    run([*words, "--out", str(folder), *often], AtWrite(".jsonl", KILL, nth=2))
    done = run([*words, "--out", str(folder), *often[:2]])
    assert done.code == 0 and "warning" not in done.err
    assert list(differences(outcome(folder) | {"config": 0}, whole | {"config": 0})) == []


@pytest.mark.parametrize("damaged", ["all", "those of all"])
def test_none_is_left(damaged: str, words: list[str], stopped: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    first = "bank/shard-0000-of-0001-000000000020.safetensors"
    for part in [f"{OLD}.safetensors", PARTS["manifest"]] if damaged == "all" else [first]:
        damage(folder / "checkpoints" / part, "bit-flipped")
    before = contents(folder)
    done = run([*words, "--out", str(folder)])
    assert done.code == 4 and "Traceback" not in done.err
    assert f"no checkpoint of {folder} is intact: " in done.err and "checksum" in done.err
    assert contents(folder) == before
