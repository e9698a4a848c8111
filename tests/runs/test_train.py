import json

import numpy as np
import pytest

from nayer_cli.errors import ConfigError, InputError
from nayer_cli.images.datasets import digits
from nayer_cli.runs.distill import distill
from nayer_cli.runs.train import train
from quick import StopError, checkpoint, metrics, quick, same, stop_at


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The first 160 digits as an .npz file."""
    images, labels = digits.load("train")
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, images=images[:160], labels=labels[:160], class_names=digits.FACTS.class_names)
    return str(path)


def settings(folder, data, **changes):
    return {
        "student.name": "resnet8_digits",
        "data": data,
        "eval.data": "digits",
        "device": "cpu",
        "amp": "off",
        "augment.flip": False,
        "schedule.epochs": 2,
        "schedule.batch_size": 40,
        "output.out": str(folder / "run"),
        **{key.replace("__", "."): value for key, value in changes.items()},
    }


def test_the_run_directory_is_a_teacher_for_distill(data, tmp_path):
    result = train(settings(tmp_path, data))
    run = tmp_path / "run"
    assert json.loads((run / "result.json").read_text()) == result
    assert (result["method"], result["teacher"], result["student"]["n"]) == ("supervised", None, 500)
    assert result["images"] == {"synthesized": 0, "seen": 320}
    assert "from labelled images" in (run / "student/README.md").read_text()
    assert {path.name for path in run.iterdir()} >= {"config.toml", "run.json", "metrics.jsonl", "curves.png"}
    changes = {"teacher.name": str(run), "output.out": str(tmp_path / "copy"), "schedule.epochs": 1}
    copy = distill(quick(tmp_path, changes))
    assert copy["teacher"]["top1"] == result["student"]["top1"]
    assert copy["teacher"]["parameters"] == copy["student"]["parameters"]


def test_more_epochs_classify_better(data, tmp_path):
    result = train(settings(tmp_path, data, schedule__epochs=12))
    assert result["student"]["top1"] > 0.35  # chance is 0.1
    assert metrics(tmp_path / "run")[0]["losses"]["student"] > metrics(tmp_path / "run")[-1]["losses"]["student"]


def test_an_interrupted_run_ends_as_if_it_had_not_been(data, tmp_path):
    given = settings(tmp_path, data, augment__flip=True)
    train(given | {"output.out": str(tmp_path / "whole")})
    with pytest.raises(StopError):
        train(given, listen=stop_at(2, "student", 3))
    train({}, resume=str(tmp_path / "run"))
    assert same(checkpoint(tmp_path / "run"), checkpoint(tmp_path / "whole"))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_a_teacher_teaches_besides_the_labels(data, tmp_path):
    result = train(settings(tmp_path, data, teacher__name="builtin:digits", ce=0.0, eval__max_drop=1.0))
    assert result["teacher"]["top1"] > 0.97 and result["gates"][0]["metric"] == "drop"
    assert 0 <= result["student"]["agreement"] <= 1


def test_a_drop_needs_a_teacher(data, tmp_path):
    with pytest.raises(ConfigError, match="there is none"):
        train(settings(tmp_path, data, eval__max_drop=0.1))


@pytest.mark.parametrize(("missing", "flag"), [("student.name", "--model"), ("data", "--data")])
def test_what_is_missing_is_named(missing, flag, data, tmp_path):
    given = settings(tmp_path, data)
    del given[missing]
    with pytest.raises(InputError, match=f"{flag} is missing"):
        train(given)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_leaves_nothing(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = train(settings(tmp_path, data, output__out=None), dry_run=True)
    assert result["dry_run"] and result["images"]["seen"] == 40
    assert not list(tmp_path.iterdir())


def test_runs_of_the_two_commands_are_not_confused(data, tmp_path):
    train(settings(tmp_path, data, schedule__epochs=1))
    with pytest.raises(InputError, match="a run of another command"):
        distill({}, resume=str(tmp_path / "run"))
