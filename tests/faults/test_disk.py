"""A full disk: said with path and bytes, nothing half-written, and the checkpoint before can be gone on from."""

from pathlib import Path

import pytest

from children import AtWrite, Limit, run
from quick import command, differences, few_images, leftovers, outcome, quick

FILES = {
    "state": "/epoch-000002.safetensors",
    "shard": "000040.safetensors",
    "log": "metrics.jsonl",
    "result": "result.json",
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_does_not_fit(kind: str, tmp_path: Path) -> None:
    data = few_images(tmp_path)
    whole = quick(tmp_path, {"eval.data": data, "output.out": str(tmp_path / "whole")})
    assert run(command(whole), tmp_path).code == 0
    settings = quick(tmp_path, {"eval.data": data})
    nth = 2 if kind == "log" else 1
    done = run(command(settings, "--quiet"), tmp_path, AtWrite(FILES[kind], Limit(600), nth))
    error = " ".join(done.err.split())
    assert done.code == 3, error
    assert f"cannot write {tmp_path / 'run'}" in error and "bytes are needed" in error and "are free" in error
    assert leftovers(tmp_path / "run") == [] and "Traceback" not in error
    again = run(["distill", "--resume", str(tmp_path / "run"), "--quiet"], tmp_path)
    assert again.code == 0, again.err
    assert list(differences(outcome(tmp_path / "run"), outcome(tmp_path / "whole"))) == []


def test_a_bank_on_a_disk_without_room_is_refused_before_it_is_used(tmp_path: Path) -> None:
    settings = quick(tmp_path, {"eval.data": few_images(tmp_path), "bank.place": "disk"})
    done = run(command(settings, "--quiet"), tmp_path, AtWrite("bank.mmap", Limit(600)))
    error = " ".join(done.err.split())
    assert done.code == 3 and "bank.mmap" in error and "15,360 bytes are needed" in error
