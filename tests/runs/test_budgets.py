"""Runs that end where a budget does."""

import json
from pathlib import Path

import pytest

from nayer_cli.config import DistillConfig, build
from nayer_cli.errors import ConfigError, InputError
from nayer_cli.runs.assemble import budget
from nayer_cli.runs.distill import distill
from nayer_cli.runs.quantize import quantize
from nayer_cli.runs.train import train
from quick import StopError, differences, few_images, outcome, quick, stop_at


@pytest.mark.parametrize("text", ["70images", "6e9flop"])
def test_a_run_with_a_counted_budget_that_is_interrupted_goes_on_exactly(text, tmp_path):
    data = few_images(tmp_path)
    settings = quick(tmp_path, {"schedule.budget": text, "eval.data": data, "output.save_minutes": 0})
    result = distill(settings | {"output.out": str(tmp_path / "whole")})
    about = result["budget"]
    assert about["text"] == text and about["amount"] <= about["used"] < 1.3 * about["amount"]
    with pytest.raises(StopError):
        distill(settings, listen=stop_at(2, "student", 2))
    distill(settings, resume="auto")
    assert not list(differences(outcome(tmp_path / "whole"), outcome(tmp_path / "run")))


def test_a_finished_run_can_be_given_more_of_the_same_and_nothing_else(tmp_path):
    settings = quick(tmp_path, {"schedule.budget": "40images", "eval.data": few_images(tmp_path)})
    distill(settings)
    for other in ({"schedule.budget": "39images"}, {"schedule.budget": "9m"}, {"schedule.epochs": 9}):
        with pytest.raises(InputError, match="cannot resume"):
            distill(other, resume=settings["output.out"])
    result = distill({"schedule.budget": "90images"}, resume=settings["output.out"])
    assert result["images"]["seen"] == 96


def test_training_ends_where_its_budget_does_and_what_does_not_learn_has_none(tmp_path):
    of_train = {"student.name": "resnet8_digits", "data": "digits", "schedule.batch_size": 64, "device": "cpu"}
    out = {"output.out": str(tmp_path / "train"), "optimizer.lr": 0.01}
    assert train(of_train | out | {"schedule.budget": "2000images"})["images"]["seen"] == 2048
    records = [json.loads(line) for line in Path(out["output.out"], "metrics.jsonl").read_text().splitlines()]
    assert [record["epochs"] for record in records] == [None] * len(records) and records[-1]["lr"] < 1e-3
    changes = {"teacher.name": "builtin:digits", "schedule.budget": "32images", "export.onnx": "off"}
    settings = quick(tmp_path, changes | {"eval.data": few_images(tmp_path)})
    with pytest.raises(InputError, match="nothing learns"):
        quantize(settings | {"quantizer.mode": "ptq", "output.out": str(tmp_path / "other")})


def test_operations_of_compiled_networks_are_not_counted():
    settings = {"schedule.budget": "1e9flop", "compile": "on"}
    with pytest.raises(ConfigError, match="compiled"):
        budget(build(DistillConfig, settings))
