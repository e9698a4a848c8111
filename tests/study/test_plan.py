import os
import shlex
import subprocess
from itertools import pairwise

import pytest

from nayer_cli.errors import InputError
from nayer_cli.storage.toml import parse_assignment
from nayer_cli.study import plan, work
from nayer_cli.study.plan import read

FILE = """
seeds = [3, 4]
[base]
preset = "digits"
schedule.epochs = 2
[rows.first]
[rows.other]
title = "the other"
method.codes = "onehot"
[rows.real]
command = "train"
data = "digits"
[columns.small]
split = "train"
method.width = 4
schedule.batch_size = 32
[paper.first]
small = 91.5
[scales.quick.base]
schedule.epochs = 1
[scales.long]
seeds = [0]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    return str(path)


def test_a_study_is_its_rows_columns_and_seeds_one_over_the_other(file):
    study = read(file, "quick", None, {})
    cells = {cell.name: cell for cell in study.cells()}
    assert [*cells][:3] == ["first/small/seed-3", "other/small/seed-3", "real/small/seed-3"] and len(cells) == 6
    wanted = {"preset": "digits", "schedule.epochs": 1, "method.width": 4, "schedule.batch_size": 32, "seed": 4}
    assert cells["first/small/seed-4"].settings == wanted
    assert cells["other/small/seed-4"].settings == wanted | {"method.codes": "onehot"}
    of_train = {"schedule.epochs": 1, "schedule.batch_size": 32, "data": "digits", "split": "train", "seed": 4}
    assert (cells["real/small/seed-4"].command, cells["real/small/seed-4"].settings) == ("train", of_train)
    assert study.printed("first", study.columns[0]) == 0.915 and study.label == "mine-quick"


def test_settings_of_all_or_some_runs_are_changed_from_outside(file):
    changes = {"schedule.epochs": 5, "rows.other.method.codes": "lte", "columns.small.method.width": 8}
    study = read(file, "long", [7], changes)
    assert [cell.settings["seed"] for cell in study.cells()] == [7] * 3
    first, other, _ = study.cells()
    assert (first.settings["schedule.epochs"], other.settings["method.codes"]) == (5, "lte")
    assert first.settings["method.width"] == 8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[rows.first]", "[row.first]"), "unknown part 'row'.*did you mean 'rows'"),
        (('"digits"', '"digits"\noutput.out = "x"'), "given by the study"),
        (("schedule.epochs = 2", "schedule.epoch = 2"), "unknown setting 'schedule.epoch'"),
        (("[rows.other]", '["rows"."../up"]'), "cannot name a folder"),
        (("seeds = [3, 4]", "seeds = [0.5]"), "whole numbers"),
        (('command = "train"', 'command = "eval"'), "unknown command 'eval'"),
        (("[paper.first]", "[paper]"), "'paper.small' of .* must be a table"),
        (("small = 91.5", 'small = "x"'), "paper.first.small of .* must be a number"),
        (("[scales.quick.base]\nschedule.epochs = 1", "[scales]\nquick = 1"), "'quick' of .* must be a table"),
        (("seeds = [3, 4]", f"seeds = {list(range(5000))}"), "15,000 runs"),
    ],
)
def test_what_is_wrong_with_a_study_is_told(change, words, tmp_path):
    (tmp_path / "wrong.toml").write_text(FILE.replace(*change))
    with pytest.raises(InputError, match=words):
        read(str(tmp_path / "wrong.toml"), "quick", None, {})


def test_unknown_names_are_told_with_those_there_are(file):
    for name, scale, changes in (("table44", None, {}), (file, "quack", {}), (file, "quick", {"rows.x.seed": 1})):
        with pytest.raises(InputError, match=r"table4|quick|first, other"):
            read(name, scale, None, changes)


def test_lines_are_read_back_by_a_shell_that_xargs_starts(tmp_path, monkeypatch):
    (tmp_path / "odd.toml").write_text("""
[base]
lte.prompt = "it's a \\"photo\\" of $HOME {name}"
augment.flip = false
[rows.one]
[rows.two]
optimizer.lr = 0.5
""")
    study = read(str(tmp_path / "odd.toml"), None, [1, 2], {})
    shim = tmp_path / "bin" / "nayer"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nfor word in "$@"; do echo "$word"; done > "{tmp_path}/$$.told"\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    lines = "\n".join(work.lines(study, tmp_path / "with space"))
    subprocess.run(
        ["xargs", "-d", "\n", "-P", "2", "-I", "LINE", "sh", "-c", "LINE"], input=lines, text=True, check=True
    )
    told = sorted(path.read_text().splitlines() for path in tmp_path.glob("*.told"))
    assert len(told) == 4 and all(words[:4] == ["distill", "--quiet", "--resume", "auto"] for words in told)
    for words in told:
        assignments = (parse_assignment(word) for key, word in pairwise(words) if key == "--set")
        assert dict(assignments) in [cell.settings for cell in study.cells()]


@pytest.mark.parametrize("name", plan.names())
def test_shipped_studies_have_three_scales_whose_settings_are_known(name, tmp_path):
    for scale in ("digits", "laptop", "paper"):
        study = read(name, scale, None, {})
        assert len({cell.name for cell in study.cells()}) == len(study.rows) * len(study.columns) * len(study.seeds)
        assert study.paper.keys() <= {row.name for row in study.rows} or scale != "paper"
    for line in work.lines(read(name, "digits", [0], {}), tmp_path):
        words = shlex.split(line)
        assert words[0] == "nayer" and words[3:5] == ["--resume", "auto"]
