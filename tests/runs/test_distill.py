import json
from pathlib import Path

import pytest
import timm
import torch

import nayer_cli.classifiers.models  # noqa: F401 - registers the networks of the digits preset
import pngs
from nayer_cli import config
from nayer_cli.classifiers.model import load_classifier
from nayer_cli.config import ModelConfig
from nayer_cli.errors import ConfigError, InputError, Interrupted
from nayer_cli.lte.pool import load_pool
from nayer_cli.runs.distill import distill
from nayer_cli.runs.shards import open_bank
from quick import StopError, checkpoint, few_images, metrics, quick, same, stop_at


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was not disturbed: where it is, and what it returned."""
    folder = tmp_path_factory.mktemp("distill")
    return folder / "run", distill(quick(folder, {"output.sample_every": 2, "eval.synthesis": True}))


def test_the_run_directory_is_complete(finished):
    run, _ = finished
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    shards = {name for name in files if name.startswith("checkpoints/bank/")}
    assert files - shards == {
        "config.toml",
        "run.json",
        "metrics.jsonl",
        "result.json",
        "curves.png",
        "lte.safetensors",
        "student/config.json",
        "student/model.safetensors",
        "student/README.md",
        "samples/epoch-0002.png",
        "samples/epoch-0003.png",
        ".lock",
        "checkpoints/epoch-000002.json",
        "checkpoints/epoch-000002.safetensors",
        "checkpoints/epoch-000003.json",
        "checkpoints/epoch-000003.safetensors",
    }
    assert len(shards) == 3
    assert all(pngs.size(run / name) > (100, 100) for name in files if name.endswith(".png"))


def test_the_result_is_what_its_schema_promises(finished):
    run, result = finished
    assert json.loads((run / "result.json").read_text()) == result
    assert (result["schema"], result["run"], result["method"], result["seed"]) == (
        "nayer.result/1",
        str(run),
        "nayer",
        0,
    )
    teacher, student = result["teacher"], result["student"]
    assert (teacher["name"], student["name"]) == ("resnet14_digits", "resnet8_digits")
    assert teacher["parameters"] > student["parameters"] > 0
    for scores in (teacher, student):
        assert scores["n"] == 500 and 0 <= scores["top1"] <= scores["top5"] <= 1
        assert scores["ci95"][0] <= scores["top1"] <= scores["ci95"][1]
    assert teacher["top1"] > 0.97 and student["agreement_on"] == "evaluation data"
    assert result["images"] == {"synthesized": 60, "seen": 96}
    assert {"synthesis", "student", "evaluation", "saving", "total"} == set(result["seconds"])
    assert result["best_oracle"]["epoch"] in (2, 3) and result["gates"] == [] and result["passed"]


def test_how_quick_and_how_different_is_measured_where_it_is_asked_for(finished):
    records, found = metrics(finished[0]), finished[1]["synthesis"]
    assert [record["convergence"]["rounds"] for record in records] == [1, 1, 1]
    assert found["convergence"]["student"]["rounds"] == 2 and found["convergence"]["warm-up"]["bounded"] > 1
    assert found["diversity"] == records[-1]["diversity"] and found["diversity"]["images"] == 60
    assert 0 < found["diversity"]["features_round"] < 1 and "diversity" not in records[0]


def test_metrics_follow_every_epoch(finished):
    records = metrics(finished[0])
    assert [(r["epoch"], r["phase"], r["images"], r["seen"]) for r in records] == [
        (1, "warm-up", 20, 0),
        (2, "student", 40, 48),
        (3, "student", 60, 96),
    ]
    assert set(records[0]["losses"]) == {"ce", "bn"} and set(records[2]["losses"]) == {"ce", "bn", "adv", "student"}
    assert records[2]["student"]["top1"] == finished[1]["student"]["top1"]


def test_timm_rebuilds_the_student_that_was_trained(finished):
    run, _ = finished
    images = torch.rand(4, 1, 16, 16)
    theirs = timm.create_model(f"local-dir:{run}/student", pretrained=True).eval()
    ours = load_classifier(ModelConfig(name=str(run)))
    assert torch.equal(theirs(images), ours.network(images))
    trained = checkpoint(run)["student"]["model"]
    assert all(torch.equal(value, trained[f"network.{key}"]) for key, value in theirs.state_dict().items())
    assert ours.labels == load_pool(run / "lte.safetensors").names


INTERRUPTIONS = {
    "a student step": ("nayer", {}, (3, "student", 2)),
    "a round": ("nayer", {}, (2, "synthesis", 1)),
    "a full bank": ("nayer", {"bank.capacity": 30}, (3, "student", 1)),
    "a reservoir": ("nayer", {"bank.capacity": 30, "bank.policy": "reservoir"}, (3, "synthesis", 1)),
    "a bank on disk": ("nayer", {"bank.place": "disk"}, (3, "student", 1)),
    "images held back": ("nayer", {"eval.data": None, "preset": "cifar10"}, (3, "student", 2)),
    "an older checkpoint": ("nayer", {"output.save_every": 2}, (3, "student", 3)),
    "adam": ("nayer", {"optimizer.name": "adam", "optimizer.lr": 1e-3}, (3, "student", 2)),
    "deepinv": ("deepinv", {}, (3, "student", 2)),
    "zskt": ("zskt", {"bank.capacity": 40}, (3, "student", 4)),
    "a full store": ("spaceship", {"method.capacity": 30}, (3, "student", 2)),
    "dfq": ("dfq", {"method.anneal": True}, (3, "student", 2)),
    "mad": ("mad", {}, (3, "student", 4)),
}


@pytest.mark.parametrize(("method", "changes", "at"), INTERRUPTIONS.values(), ids=INTERRUPTIONS)
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(method, changes, at, tmp_path):
    if "preset" in changes:  # one without evaluation data
        changes = changes | {"teacher.name": "builtin:digits", "student.name": "resnet8_digits", "lte.labels": "digits"}
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    settings = quick(tmp_path, {"eval.data": few_images(tmp_path), **changes}, method)
    expected = distill(settings | {"output.out": str(whole)})
    with pytest.raises(StopError):
        distill(settings | {"output.out": str(halves)}, listen=stop_at(*at))
    assert len(metrics(halves)) < 3
    result = distill({}, resume=str(halves))
    assert same(checkpoint(halves), checkpoint(whole))
    assert same(bank_of(halves), bank_of(whole))
    assert metrics(halves) == metrics(whole)
    assert (result["student"], result["images"]) == (expected["student"], expected["images"])
    assert (halves / "student/model.safetensors").read_bytes() == (whole / "student/model.safetensors").read_bytes()


def bank_of(run: Path) -> dict:
    manifest = checkpoint(run)["processes"][0]["bank"]
    return open_bank(run / "checkpoints/bank", manifest).state_dict()


def test_without_evaluation_data_agreement_is_reported_and_not_as_accuracy(tmp_path):
    settings = {"preset": "cifar10", "student.name": "resnet8_digits", "lte.labels": "digits"}
    result = distill(quick(tmp_path, {**settings, "teacher.name": "builtin:digits"}))
    student = result["student"]
    assert 0 <= student["agreement"] <= 1 and student["agreement_on"] == "held-back synthetic images"
    assert "top1" not in student and "top1" not in result["teacher"] and result["best_oracle"] is None
    card = (tmp_path / "run/student/README.md").read_text()
    assert "not measured" in card and "of held-back synthetic images" in card


def test_gates_are_written_down_whether_met_or_not(tmp_path):
    result = distill(quick(tmp_path, {"eval.min_top1": 0.999, "eval.max_drop": 1.0}))
    assert [(gate["metric"], gate["op"], gate["passed"]) for gate in result["gates"]] == [
        ("top1", ">=", False),
        ("drop", "<=", True),
    ]
    lost = result["teacher"]["top1"] - result["student"]["top1"]
    assert result["gates"][1]["value"] == pytest.approx(lost)
    assert not result["passed"] and json.loads((tmp_path / "run/result.json").read_text()) == result


def test_a_directory_that_holds_something_is_left_alone(finished, tmp_path):
    run, _ = finished
    with pytest.raises(InputError, match="not empty") as caught:
        distill(quick(tmp_path, {"output.out": str(run)}))
    assert f"--resume {run}" in caught.value.hint
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty") as caught:
        distill(quick(tmp_path, {"output.out": str(tmp_path)}))
    assert "--resume" not in caught.value.hint


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("teacher.name", "resnet20_cifar_a", "'builtin:digits'"),
        ("schedule.batch_size", 8, "16"),
        ("bank.capacity", 9, "None"),
        ("method.adv", 0.5, "1.33"),
        ("seed", 1, "0"),
    ],
)
def test_a_run_is_not_resumed_as_another(key, value, words, finished):
    with pytest.raises(InputError) as caught:
        distill({key: value}, resume=str(finished[0]))
    assert f"with {key} = {value!r}: it was started with {words}" in str(caught.value)


def test_what_leaves_the_meaning_alone_may_change_on_resuming(tmp_path):
    distill(quick(tmp_path))
    run = str(tmp_path / "run")
    result = distill({"schedule.epochs": 3, "eval.min_top1": 0.0, "seed": 0}, resume=run)
    assert result["images"]["synthesized"] == 80 and result["gates"][0]["passed"]
    assert [record["epoch"] for record in metrics(tmp_path / "run")] == [1, 2, 3, 4]
    with pytest.raises(InputError, match=r"has done 4 epochs.* cannot end after 2") as caught:
        distill({"schedule.epochs": 1}, resume=run)
    assert "--epochs 3" in caught.value.hint


def test_the_written_configuration_repeats_the_run(finished, tmp_path):
    run, result = finished
    settings = config.read_file(run / "config.toml")
    assert settings["method.g_steps"] == 2 and settings["optimizer.lr"] == 0.2  # given, and of the preset
    again = distill({**settings, "output.out": str(tmp_path / "again")})
    assert again["student"] == result["student"]
    assert same(checkpoint(tmp_path / "again"), checkpoint(run))
    assert (tmp_path / "again/config.toml").read_text() == (run / "config.toml").read_text()


def test_a_dry_run_does_everything_once_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    heard = []
    settings = quick(tmp_path, {"output.out": None, "schedule.epochs": 50, "method.batch": 500})
    result = distill(settings, dry_run=True, listen=heard.append)
    assert result["dry_run"] and result["config"]["schedule.kd_steps"] == 1
    assert result["images"] == {"synthesized": 32, "seen": 16}
    assert {"start", "progress", "epoch", "result"} <= {record["event"] for record in heard}
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_ctrl_c_tells_how_to_go_on_and_a_run_without_an_epoch_leaves_nothing(tmp_path):
    listen = stop_at(1, "synthesis", 1, KeyboardInterrupt())
    with pytest.raises(Interrupted) as caught:
        distill(quick(tmp_path), listen=listen)
    assert caught.value.exit_code == 130 and "nothing was saved" in caught.value.hint
    assert not (tmp_path / "run").exists()
    with pytest.raises(Interrupted) as caught:
        distill(quick(tmp_path), listen=stop_at(2, "student", 1, SystemExit()))
    assert caught.value.exit_code == 143 and f"--resume {tmp_path / 'run'}" in caught.value.hint


def test_a_run_that_cannot_start_leaves_its_name_free(tmp_path):
    with pytest.raises(InputError, match="no data"):
        distill(quick(tmp_path, {"eval.data": "nowhere"}))
    assert not (tmp_path / "run").exists()


def test_shards_of_images_that_are_gone_are_deleted(tmp_path):
    distill(quick(tmp_path, {"bank.capacity": 20, "schedule.epochs": 4, "output.keep": 1}))
    assert len(list((tmp_path / "run/checkpoints/bank").iterdir())) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedule.rounds": 0, "schedule.warmup_rounds": 0}, "makes no images"),
        ({"student.name": "resnet8_digts"}, "resnet8_digits"),
        ({"teacher.num_classes": 7}, "7"),
        ({"preset": "cifar11"}, "did you mean 'cifar10'"),
        ({"eval.data": None, "preset": "cifar10", "eval.min_top1": 0.5, "teacher.name": "builtin:digits"}, "student"),
    ],
)
def test_what_cannot_work_is_told_before_any_work(changes, words, tmp_path):
    with pytest.raises((ConfigError, InputError), match=words):
        distill(quick(tmp_path, changes))
    assert not (tmp_path / "run").exists()
