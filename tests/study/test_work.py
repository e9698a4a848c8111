"""Studies of tiny runs: interrupted, shared by workers, changed, failing."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from nayer_cli.__main__ import main
from nayer_cli.errors import InputError, Interrupted
from nayer_cli.machine.distributed import Group
from nayer_cli.runs.folder import run_folder
from nayer_cli.study import work
from nayer_cli.study.plan import Study, read
from nayer_cli.study.table import Table, collect
from quick import OF_METHOD, QUICK, few_images


def study(folder: Path, more: str = "", seeds: str = "[0, 1]") -> Study:
    """Two rows by two seeds, of a second each."""
    own = QUICK | OF_METHOD["deepinv"] | {"method.name": "deepinv", "schedule.epochs": 1, "eval.every": 1}
    own |= {"eval.data": few_images(folder), "output.save_minutes": 0, "method.g_steps": 1, "output.sample_every": 1}
    settings = "\n".join(f"{key} = {json.dumps(value)}" for key, value in own.items())
    path = folder / "tiny.toml"
    path.write_text(f"seeds = {seeds}\n[base]\n{settings}\n[rows.one]\n[rows.two]\noptimizer.lr = 0.05\n{more}")
    return read(str(path), None, None, {})


def timeless(table: Table) -> Any:
    """A table without what differs between two runs of the same."""
    document = json.loads(json.dumps(table))
    for column in document["columns"]:
        for row in column["rows"]:
            for run in (row, *row["runs"]):
                run.pop("minutes"), run.pop("processor_minutes")
            for run in row["runs"]:
                run["curve"] = [value for _, value in run["curve"]]
    return document


class Interrupting:
    """A listener that ends the process's work at the n-th record, as a signal would."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, record: dict[str, Any]) -> None:
        self.left -= record["event"] == "progress"
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study that ran in one go."""
    folder = tmp_path_factory.mktemp("whole")
    made = study(folder)
    outcome = work.run(made, folder / "out", lambda record: None)
    assert len(outcome.done) == 4 and not outcome.failed and not outcome.busy
    return made, folder / "out"


def test_a_study_that_is_interrupted_five_times_and_shared_by_two_gives_the_same_table(whole, tmp_path):
    made, out = study(tmp_path), tmp_path / "out"
    for at in (1, 4, 3, 7, 2):
        with pytest.raises(Interrupted):
            work.run(made, out, Interrupting(at))
    left = next(cell for cell in made.cells() if not work.finished(out, cell))
    path = out / left.name
    with run_folder(str(path), "", Group()) if not path.exists() else _locked(path):  # the other worker is at it
        outcome = work.run(made, out, lambda record: None)
    assert outcome.busy == [left.name] and len(outcome.done) == 3  # and is killed
    assert work.run(made, out, lambda record: None).done == [cell.name for cell in made.cells()]
    assert timeless(collect(made, out)) == timeless(collect(*whole))


def test_no_run_is_written_through_a_link_below_the_study(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/one").symlink_to(tmp_path / "mine")
    (tmp_path / "tiny.toml").write_text("[rows.one]\n")
    outcome = work.run(read(str(tmp_path / "tiny.toml"), None, None, {}), tmp_path / "out", lambda record: None)
    assert "one is a symbolic link to" in outcome.failed["one/seed-0"] and not list((tmp_path / "mine").iterdir())


def _locked(path: Path) -> Any:
    from filelock import FileLock

    return FileLock(path / ".lock")


def test_a_run_that_fails_is_named_and_the_others_are_done(tmp_path, capsys):
    made = study(tmp_path, '[rows.broken]\nteacher.weights = "nowhere.pth"\n', seeds="[0]")
    outcome = work.run(made, tmp_path / "out", lambda record: None)
    assert len(outcome.done) == 2 and "nowhere.pth" in outcome.failed["broken/seed-0"]


def test_a_folder_holds_the_runs_of_one_study(whole, tmp_path):
    _, out = whole
    with pytest.raises(InputError, match=r"one/seed-0 has optimizer\.lr = None, but 0.3 is asked for"):
        work.enter(read(str(out.parent / "tiny.toml"), None, None, {"rows.one.optimizer.lr": 0.3}), out)
    more = read(str(out.parent / "tiny.toml"), None, [0, 5], {})
    work.enter(more, out)  # other seeds are welcome
    assert len(work.lines(more, out)) == 2


def test_the_command_shows_a_table_and_writes_it_in_every_form(whole, capsys, tmp_path):
    _, out = whole
    words = ["study", str(out.parent / "tiny.toml"), "--out", str(out), "--table"]
    assert main([*words, "--record", str(tmp_path / "ledger")]) == 0
    shown = capsys.readouterr().out
    assert "±" in shown and "two" in shown
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((out / "table.json").read_text())
    lines = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    assert [(line["row"], line["seed"]) for line in lines] == [("one", "0"), ("one", "1"), ("two", "0"), ("two", "1")]
    assert (out / "table.md").read_text().count("\n| ") == 4
    records = [json.loads(path.read_text()) for path in (tmp_path / "ledger").glob("*.json")]
    assert len(records) == 4 and {record["seed"] for record in records} == {0, 1}
    assert all(len(record["sha256"]["eval.data"]) == 64 and record["peak_memory"] for record in records)
    assert str(tmp_path) not in json.dumps(records) and str(out.parent) not in json.dumps(records)


def test_the_command_says_what_failed(tmp_path, capsys):
    study(tmp_path, "[rows.broken]\nschedule.budget = '0.000001s'\nschedule.warmup_epochs = 1\n", seeds="[0]")
    words = ["study", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "out"), "--rows", "broken", "--quiet"]
    assert main(words) == 4
    assert "1 of 1 runs failed: broken/seed-0" in capsys.readouterr().err
