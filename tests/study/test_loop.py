"""The order of runs and what comes of them, with recipes that only pretend."""

import json
from pathlib import Path

import pytest

from nayer_cli.__main__ import main
from nayer_cli.errors import Interrupted, RunBusy, RunFailed
from nayer_cli.study import work
from nayer_cli.study.plan import Study, read
from nayer_cli.study.table import collect

FILE = """
title = "Pretended"
seeds = [0, 1]
[base]
preset = "digits"
[rows.one]
[rows.two]
optimizer.lr = 0.5
[columns.a]
[columns.b]
schedule.epochs = 1
"""


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    """Four runs a seed; what happens to them is in `fates` of the recipe."""
    (tmp_path / "pretended.toml").write_text(FILE)
    monkeypatch.setattr(work, "recipe", lambda command: pretend)
    pretend.fates, pretend.begun = {}, []
    return read(str(tmp_path / "pretended.toml"), None, None, {})


def pretend(settings, *, listen, resume):
    """Write a result, or do what fate wants."""
    assert resume == "auto"
    out = Path(settings["output.out"])
    name = "/".join(out.parts[-3:])
    pretend.begun.append(name)
    if error := pretend.fates.pop(name, None):
        raise error
    out.mkdir(parents=True)
    top1 = 0.9 - settings.get("optimizer.lr", 0) / 10 + settings["seed"] / 100
    seconds = {"total": 60.0}
    student = {"name": "s", "parameters": 1, "top1": top1}
    images = {"synthesized": 10, "seen": 20}
    (out / "result.json").write_text(json.dumps({"student": student, "seconds": seconds, "images": images}))


def test_a_seed_is_done_before_the_next_and_nothing_twice(study, tmp_path):
    told = []
    first = work.run(study, tmp_path / "out", told.append)
    assert pretend.begun[:4] == ["one/a/seed-0", "two/a/seed-0", "one/b/seed-0", "two/b/seed-0"]
    assert first.done == pretend.begun and [record["done"] for record in told] == [*range(1, 9)]
    assert work.run(study, tmp_path / "out", told.append).done == first.done and len(pretend.begun) == 8
    a = collect(study, tmp_path / "out")["columns"][0]["rows"]
    assert (a[0]["mean"], a[1]["mean"]) == (pytest.approx(0.905), pytest.approx(0.855))
    assert a[1]["difference"]["mean"] == pytest.approx(-0.05) and a[0]["sd"] == pytest.approx(0.01 / 2**0.5)


def test_failed_and_busy_runs_are_told_and_tried_again(study, tmp_path):
    pretend.fates = {"one/a/seed-0": RunFailed("no"), "two/a/seed-0": RunBusy("b"), "one/b/seed-0": ValueError("bug")}
    outcome = work.run(study, tmp_path / "out", lambda record: None)
    assert outcome.failed == {"one/a/seed-0": "no", "one/b/seed-0": "bug"} and outcome.busy == ["two/a/seed-0"]
    assert len(outcome.done) == 5 and len(work.run(study, tmp_path / "out", lambda record: None).done) == 8


def test_an_interruption_ends_the_study_and_says_how_to_go_on(study, tmp_path):
    pretend.fates = {"two/a/seed-0": Interrupted(15)}
    with pytest.raises(Interrupted) as stopped:
        work.run(study, tmp_path / "out", lambda record: None)
    assert stopped.value.exit_code == 143 and "same command again" in stopped.value.hint
    assert len(pretend.begun) == 2


def test_processes_of_one_job_do_not_share_a_study(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["study", str(tmp_path / "pretended.toml"), "--out", str(tmp_path / "out")]) == 2
    assert "--print" in capsys.readouterr().err and not pretend.begun


def test_the_command_names_what_failed_and_shows_the_rest(study, tmp_path, capsys):
    pretend.fates = {"one/b/seed-1": RunFailed("it is not finite")}
    words = ["study", str(tmp_path / "pretended.toml"), "--out", str(tmp_path / "out"), "--columns", "b", "--quiet"]
    assert main(words) == 4
    shown = capsys.readouterr()
    assert "1 of 4 runs failed: one/b/seed-1 (it is not finite)" in shown.err and "1 of 2" in shown.out
    assert main(words) == 0 and (tmp_path / "out" / "table.html").is_file()
    assert main([*words, "--print"]) == 0 and capsys.readouterr().out.count("nayer ") == 0
