import json
from pathlib import Path

import numpy as np
import pytest

from nayer_cli.errors import InputError
from nayer_cli.storage import runlog
from nayer_cli.storage.runlog import RunLog, read_metrics


def record(epoch: int) -> dict:
    return {"event": "epoch", "epoch": epoch, "losses": {"ce": 0.5}, "student": {"top1": 0.25, "agreement_on": "x"}}


def test_epochs_are_written_and_passed_on_other_records_only_passed_on(tmp_path: Path):
    heard: list[dict] = []
    log = RunLog(tmp_path / "m.jsonl", heard.append)
    log.note("hello")
    log.epoch(record(1))
    assert [r["event"] for r in heard] == ["note", "epoch"]
    assert read_metrics(tmp_path / "m.jsonl") == [record(1)]


def test_rewinding_drops_later_epochs_and_a_line_that_was_cut_off(tmp_path: Path):
    log = RunLog(tmp_path / "m.jsonl")
    for epoch in (1, 2, 3):
        log.epoch(record(epoch))
    with log.path.open("a") as file:
        file.write('{"event": "epo')
    log.rewind(2)
    assert [r["epoch"] for r in read_metrics(log.path)] == [1, 2]


ODD = ["[" * 99_999, "[1]", "null", "{}", '{"epoch": "1"}', '{"epoch": 1, "student": 3}', "\xff"]


@pytest.mark.parametrize("line", ODD)
def test_another_line_that_is_no_record_is_named(tmp_path: Path, line: str):
    whole = json.dumps(record(1))
    (tmp_path / "m.jsonl").write_bytes("\n".join([whole, line, whole, ""]).encode("latin-1"))
    with pytest.raises(InputError, match=r"line 2 of .*m\.jsonl is"):
        read_metrics(tmp_path / "m.jsonl")


def test_tensorboard_gets_the_numbers(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(None, tensorboard=tmp_path)
    log.epoch(record(4) | {"lr": 0.1})
    log.level("teacher/top1", 0.75, 4)
    log.picture("samples", np.zeros((4, 5, 3), np.uint8), 4)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"losses/ce", "student/top1", "learning_rate", "teacher/top1"}
    assert events.Scalars("losses/ce")[0].step == 4
    assert [point.step for point in events.Scalars("teacher/top1")] == [1, 4]
    assert events.Tags()["images"] == ["samples"]


def test_one_name_is_one_thing(tmp_path: Path):
    numbers = dict(runlog._numbers({"losses": {"student": 1.0}, "student": {"loss": 2.0, "agreement_on": "x"}}))
    assert numbers == {"losses/student": 1.0, "student/cross_entropy": 2.0}
