from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import nayer_cli.classifiers.models  # noqa: F401 - registers the CIFAR networks
from nayer_cli import config as configuration
from nayer_cli import plugins
from nayer_cli.classifiers.model import load_classifier
from nayer_cli.config import BankConfig, DistillConfig, EvalConfig, LteConfig, ModelConfig, QuantizeConfig
from nayer_cli.errors import ConfigError, InputError
from nayer_cli.machine.distributed import Group
from nayer_cli.machine.precision import Precision
from nayer_cli.machine.rng import Streams
from nayer_cli.runs import assemble
from nayer_cli.runs.distill import distill
from nayer_cli.types import ImageShape
from quick import WITHOUT_DATA, StopError, quick

MACHINE = assemble.Machine(torch.device("cpu"), Precision(), Streams(0))
SHAPE = ImageShape(3, 8, 8)


def resolve(settings):
    return assemble.resolve(settings, DistillConfig, "distill")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "wrn.safetensors"
    save_file(timm.create_model("wrn_16_1", num_classes=7).state_dict(), path)
    return path


OTHERS = [name for name in plugins.own("methods") if name != "nayer"]


@pytest.mark.parametrize("which", [*OTHERS, "nayer noise", "nayer noise-fresh", "nayer onehot", "nayer lte"])
def test_only_a_method_that_reads_names_asks_for_an_encoder(which, tmp_path, monkeypatch):
    name, *codes = which.split()
    asked: list[str] = []

    def end(*_: object) -> None:
        raise StopError

    monkeypatch.setattr("nayer_cli.runs.distill._pool", lambda config, *_: asked.append(config.lte.encoder))
    monkeypatch.setattr("nayer_cli.runs.makers.critic", end)  # what is made next
    changes = {**WITHOUT_DATA, "lte.encoder": "clip"} | ({"method.codes": codes[0]} if codes else {})
    with pytest.raises(StopError):
        distill(quick(tmp_path, changes, name))
    assert asked == (["clip"] if which == "nayer lte" else [])


@pytest.mark.parametrize(
    ("kind", "free", "budget", "place"),
    [
        ("cuda", 20, 9, "device"),
        ("cuda", 19, 10, "host"),
        ("cuda", 19, 9, "disk"),
        ("cpu", 20, 10, "host"),
        ("cpu", 20, 9, "disk"),
    ],
)
def test_a_bank_goes_where_there_is_room(kind, free, budget, place, monkeypatch):
    """Of 10 bytes: half of what the device has free, or else the budget of the host."""
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (free, 100))
    assert assemble._place(10, budget, torch.device(kind)) == place


def test_nothing_given_is_the_demonstration():
    config, teacher = resolve({})
    assert (config.preset, config.eval.data, teacher.name) == ("digits", "digits", "resnet14_digits")


def test_a_preset_chosen_by_size_brings_hyper_parameters_but_no_names_or_data(weights):
    own = {"teacher.name": "wrn_16_1", "teacher.weights": str(weights), "teacher.input_size": 24}
    config, _ = resolve(own)
    assert config.schedule.batch_size == 512 and config.method["g_steps"] == 30
    assert config.lte.labels is None and config.eval.data is None and config.preset == "auto"


@pytest.mark.parametrize(
    ("given", "preset"),
    [
        ({}, "laptop"),
        ({"teacher.input_size": 64}, "laptop"),
        ({"teacher.input_size": 65}, "tiny-imagenet"),
        ({"method.name": "deepinv"}, "cifar10"),
    ],
)
def test_a_processor_has_a_preset_of_its_own(weights, given, preset):
    own = {"teacher.name": "wrn_16_1", "teacher.weights": str(weights)} | given
    config, _ = resolve({"device": "cpu"} | own)
    wanted = configuration.read_preset(preset, config.method["name"])
    assert (config.init, config.schedule.kd_steps) == (wanted.get("init", "own"), wanted["schedule.kd_steps"])


def test_only_a_processor_has_it_and_no_other_command(weights):
    teacher = load_classifier(ModelConfig(name="wrn_16_1", weights=str(weights)))
    chosen = [
        assemble.automatic_preset(teacher, "nayer", command, torch.device(device))
        for command, device in (("distill", "cpu"), ("distill", "cuda"), ("quantize", "cpu"))
    ]
    assert chosen == ["laptop", "cifar10", "cifar10"]


def test_what_is_given_goes_before_the_preset_and_a_method_brings_its_own_table():
    config, _ = resolve({"method.name": "zskt", "schedule.kd_steps": 3})
    assert config.schedule.kd_steps == 3 and config.schedule.cycles == 30
    assert config.method["width"] == 16 and "g_steps" not in config.method


def test_an_unknown_setting_of_a_method_is_corrected():
    with pytest.raises(ConfigError, match=r"method.g_stps.*did you mean 'method.g_steps'"):
        resolve({"method.g_stps": 3})


@pytest.mark.parametrize(
    ("classes", "side", "preset"),
    [(10, 32, "cifar10"), (100, 32, "cifar100"), (200, 64, "tiny-imagenet"), (1000, 224, "imagenet")],
)
def test_the_nearest_preset(classes, side, preset):
    assert assemble.preset_for(classes, ImageShape(3, side, side)) == preset


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ("ptq", "zeroq")),
        ({"quantizer.bits": "w4a8", "quantizer.mode": "ptq"}, ("ptq", "zeroq")),
        ({"quantizer.mode": "ptq", "method.name": "deepinv"}, ("ptq", "deepinv")),
        ({"quantizer.bits": "w4a4"}, ("qat", "nayer")),
        ({"schedule.epochs": 3}, ("qat", "nayer")),
    ],
)
def test_large_images_are_made_in_minutes_where_nothing_learns(monkeypatch, asked, expected):
    teacher = assemble.resolve({"teacher.name": "builtin:digits"}, DistillConfig, "distill")[1]
    large = replace(teacher, shape=ImageShape(1, 224, 224))
    monkeypatch.setattr(assemble, "_teacher", lambda *_: large)
    config, _ = assemble.resolve({"teacher.name": "large"} | asked, QuantizeConfig, "quantize")
    assert (config.quantizer.mode, config.method["name"]) == expected


def test_too_few_class_names_are_counted_and_the_first_missing_one_is_named(tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\n")
    teacher = replace(load_classifier(resolve({})[0].teacher), labels=None)
    with pytest.raises(InputError, match=r"has 10 outputs, but 2 class names.*no name for class 2"):
        assemble.class_names(LteConfig(labels=str(tmp_path / "names.txt")), teacher)
    with pytest.raises(InputError, match="does not carry class names"):
        assemble.class_names(LteConfig(), teacher)


def test_a_bank_above_the_budget_goes_to_a_file(tmp_path):
    small = assemble.bank(BankConfig(), 10, SHAPE, MACHINE, tmp_path)
    assert not list(tmp_path.iterdir()) and small.capacity == 10
    assemble.bank(BankConfig(budget_gb=1e-7), 10, SHAPE, MACHINE, tmp_path)
    assert (tmp_path / "bank.mmap").stat().st_size == 10 * 3 * 8 * 8


def test_gates_need_data():
    teacher = load_classifier(resolve({})[0].teacher)
    with pytest.raises(ConfigError, match="need evaluation data"):
        assemble.evaluation_data(EvalConfig(min_top1=0.9), teacher, None, Group())


def test_a_setting_of_the_method_is_refused_before_a_teacher_is_looked_for():
    with pytest.raises(ConfigError, match=r"method.temperature = 0.0 is out of range: it must be greater than 0"):
        assemble.resolve({"teacher.name": "no-such-network", "method.temperature": "0"}, DistillConfig, "distill")
