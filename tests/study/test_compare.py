import json

import pytest

from nayer_cli.__main__ import main
from nayer_cli.errors import InputError
from nayer_cli.study.compare import compare


def run(folder, lr: float, top1: float | None):
    folder.mkdir()
    (folder / "config.toml").write_text(f"seed = 0\n[optimizer]\nlr = {lr}\n")
    if top1 is not None:
        (folder / "result.json").write_text(json.dumps({"student": {"top1": top1}, "teacher": None}))
    return str(folder)


def test_runs_are_compared_by_what_differs_and_what_came_of_it(tmp_path, capsys):
    runs = [run(tmp_path / "a", 0.1, 0.91), run(tmp_path / "b", 0.2, None)]
    assert compare(runs)["settings"] == {"optimizer.lr": [0.1, 0.2]}
    assert compare(runs)["figures"] == {"top-1": [0.91, None]}
    assert main(["compare", *runs]) == 0
    assert "0.91" in capsys.readouterr().out
    for content in ("[" * 100_000, "[1]", "3"):
        (tmp_path / "b" / "result.json").write_text(content)
        with pytest.raises(InputError, match="is damaged"):
            compare(runs)
    with pytest.raises(InputError, match="not a run directory"):
        compare([*runs, str(tmp_path)])
