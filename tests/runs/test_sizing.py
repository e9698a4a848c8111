from dataclasses import replace

import pytest
import torch
from torch import nn

from nayer_cli.classifiers.model import Classifier
from nayer_cli.config import DistillConfig, EvalConfig, TrainConfig
from nayer_cli.generator import new_generator
from nayer_cli.machine.distributed import Group
from nayer_cli.runs import sizing
from nayer_cli.runs.distill import distill
from nayer_cli.runs.footprint import BATCH, CODES, EVALUATION, STUDENT, WIDTH
from nayer_cli.runs.sizing import count, follow_memory, limit_gb, numbers, part
from nayer_cli.storage.toml import read_file
from nayer_cli.types import ImageShape, Normalization
from quick import quick
from tiny import network

SHAPE = ImageShape(3, 112, 112)
NORMALIZATION = Normalization((0.5,) * 3, (0.25,) * 3)
CLASSIFIER = Classifier(network(), "tiny", SHAPE, NORMALIZATION, 4, None)
CONFIG = DistillConfig(device="cpu", method={"name": "nayer", "batch": 400, "width": 64, "code_size": 1000})
FOLLOW = (BATCH, STUDENT, EVALUATION, WIDTH, CODES, "bank.budget_gb", "memory_gb")
TIGHT = replace(CONFIG, memory_gb=2.0)


def follow(config, given=(), group=None, student=CLASSIFIER):
    return follow_memory(config, dict.fromkeys(given, 1), CLASSIFIER, student, group or Group())


def test_what_a_pass_keeps_is_counted_without_its_weights():
    layers = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 100, 2)).train()
    counted = part(layers, ImageShape(3, 10, 10))
    weights = 4 * (12 + 800 + 2)
    assert counted == (weights, 4 * (300 + 400), 4 * 400)  # images, and what ReLU returns, which is flattened in place
    assert layers.training


def test_what_is_counted_does_not_depend_on_what_was_computed():
    before = [value.clone() for value in CLASSIFIER.network.state_dict().values()]
    assert part(CLASSIFIER.network, SHAPE) == part(network(seed=3), SHAPE)
    after = CLASSIFIER.network.state_dict().values()
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_a_generator_is_counted_as_it_is_when_it_exists():
    generator = new_generator("deep", 10, SHAPE, 8)
    real = sizing._part(generator, lambda: generator(torch.randn(2, 10)))
    counted = count(CONFIG, CLASSIFIER, CLASSIFIER).generator(2, 8, 10)
    assert counted.saved == real.saved
    noisy = 4 * (512 * 10 + 10 + 4 * 512 + 4 * 512) + 8  # one layer, the classes, BatchNorm and its counter
    assert counted.weights == real.weights + noisy


def test_small_images_and_gpus_are_left_alone():
    assert limit_gb(CONFIG, ImageShape(3, 96, 96)) is None
    assert limit_gb(CONFIG, SHAPE) == 4
    assert limit_gb(TIGHT, ImageShape(3, 32, 32)) == 2
    small = replace(CLASSIFIER, shape=ImageShape(3, 32, 32))
    assert follow(CONFIG, student=small) == (CONFIG, "", "")


def test_what_was_chosen_is_said_in_one_line():
    config, chosen, much = follow(TIGHT)
    assert much == ""
    assert numbers(config)[BATCH] < 400
    assert f"method.batch {numbers(config)[BATCH]} instead of 400" in chosen
    assert chosen.startswith("to stay within 2 GB of memory: ")
    assert config.bank.budget_gb == 0.5


@pytest.mark.parametrize("key", [BATCH, WIDTH, CODES, STUDENT, EVALUATION, "bank.budget_gb"])
def test_an_explicit_setting_is_not_overridden(key):
    tiny = replace(CONFIG, memory_gb=0.9)
    config, chosen, much = follow(tiny, given=[key])
    assert key not in chosen
    assert {**numbers(tiny), "bank.budget_gb": 8.0}[key] == {
        **numbers(config),
        "bank.budget_gb": config.bank.budget_gb,
    }[key]
    assert "bank" in key or f"{key} stay as given" in much or not much


def test_an_explicit_batch_that_is_too_large_is_warned_about():
    config, _, much = follow(replace(CONFIG, memory_gb=1.5), given=[BATCH])
    assert config.method["batch"] == 400
    assert "memory_gb allows 1.5; method.batch stay as given" in much


def test_processes_share_a_batch():
    alone, shared = follow(TIGHT).config, follow(TIGHT, group=Group(size=4)).config
    assert numbers(shared)[BATCH] == min(4 * numbers(alone)[BATCH], 400)


def test_training_follows_with_its_batch_alone():
    config = TrainConfig(device="cpu", memory_gb=1.0, eval=EvalConfig(batch_size=10_000))
    followed = follow_memory(config, {}, None, CLASSIFIER, Group(), images=10).config
    assert numbers(followed).keys() == {STUDENT, EVALUATION}
    assert numbers(followed)[EVALUATION] < 10_000


def test_pixels_that_learn_have_no_width():
    config = replace(TIGHT, method={"name": "zeroq"})
    assert numbers(config).keys() == {BATCH, STUDENT, EVALUATION}
    assert count(config, CLASSIFIER, CLASSIFIER).generator is None


def test_a_resumed_run_keeps_what_it_began_with(tmp_path):
    heard = []
    distill(quick(tmp_path, {"memory_gb": 0.803}), listen=heard.append)
    begun = read_file(tmp_path / "run" / "config.toml")
    assert begun["method.batch"] == 20  # given
    assert begun["eval.batch_size"] < 250
    assert sum("to stay within" in record.get("message", "") for record in heard) == 1
    heard.clear()
    distill({"schedule.epochs": 3}, resume=str(tmp_path / "run"), listen=heard.append)
    now = read_file(tmp_path / "run" / "config.toml")
    assert [now[key] for key in FOLLOW] == [begun[key] for key in FOLLOW]
    assert not any("to stay within" in record.get("message", "") for record in heard)
