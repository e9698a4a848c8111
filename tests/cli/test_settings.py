import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from nayer_cli import cli, config
from nayer_cli.cli import settings
from nayer_cli.errors import ConfigError

COMMANDS = get_command(cli.app).commands


def merged(line):
    """Settings that a command line gives, through the real parser."""
    name, *arguments = shlex.split(line)
    context = COMMANDS[name].make_context(name, arguments)
    return settings.merge(context, cli.COMMANDS[name].SCHEMA, getattr(cli.COMMANDS[name], "OF_THE_MODEL", None))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("distill", {}),
        ("distill -t resnet50 -s resnet18 -e 3", {"teacher.name": "resnet50", "student.name": "resnet18"}),
        ("distill --method zskt --set method.width=32", {"method.name": "zskt", "method.width": 32}),
        ("distill --teacher-weights a/b.pth --out o", {"teacher.weights": "a/b.pth", "output.out": "o"}),
        ("distill --set 'lte.prompt=a {name}' --set schedule.rounds=3", {"lte.prompt": "a {name}"}),
        ("embed --labels digits --out p --encoder onehot", {"labels": "digits", "out": "p", "encoder": "onehot"}),
        ("eval a b --data d --min-top1 0.9 -b 7", {"models": ["a", "b"], "min_top1": 0.9, "batch_size": 7}),
        ("sample runs/one -n 5 --classes a,b", {"run": "runs/one", "count": 5, "classes": "a,b"}),
        ("train -m wrn_16_1 -d x.npz --num-classes 3", {"student.name": "wrn_16_1", "student.num_classes": 3}),
    ],
)
def test_options_become_settings(line, expected):
    assert merged(line).items() >= expected.items()
    config.build(cli.COMMANDS[line.split()[0]].SCHEMA, merged(line))


@pytest.mark.parametrize("line", [line for module in cli.COMMANDS.values() for line, _ in module.EXAMPLES])
def test_examples_of_the_help_pages_parse(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/one").mkdir(parents=True)
    Path("runs/one/config.toml").write_text("seed = 3\n")
    program, name, *arguments = shlex.split(line)
    assert program == "nayer"
    if hasattr(cli.COMMANDS[name], "SCHEMA"):
        merged(shlex.join([name, *arguments]))
    else:
        COMMANDS[name].make_context(name, arguments)


def test_the_command_line_goes_before_the_environment_before_the_file(tmp_path, monkeypatch):
    (tmp_path / "my.toml").write_text("seed = 1\ndevice = 'cpu'\namp = 'off'\n[schedule]\nepochs = 1\nrounds = 1\n")
    monkeypatch.setenv("NAYER_SEED", "2")
    monkeypatch.setenv("NAYER_DEVICE", "cuda")
    monkeypatch.setenv("NAYER_SET", "schedule.epochs=2 'lte.prompt=a {name}'")
    found = merged(f"distill --config {tmp_path / 'my.toml'} --set schedule.epochs=3 --seed 3")
    assert (found["seed"], found["device"], found["amp"]) == (3, "cuda", "off")
    assert (found["schedule.epochs"], found["schedule.rounds"], found["lte.prompt"]) == (3, 1, "a {name}")


def test_the_file_may_come_from_the_environment(tmp_path, monkeypatch):
    (tmp_path / "my.toml").write_text("seed = 1\n")
    monkeypatch.setenv("NAYER_CONFIG", str(tmp_path / "my.toml"))
    assert merged("distill") == {"seed": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("distill --set schedule.epoch=3", r"'schedule.epoch' \(did you mean 'schedule.epochs'\?\) \(from the command"),
        ("distill --set seed=x", "seed = 'x' is not a value of type int"),
        ("distill --min-top1 90", "between 0 and 1"),
        ("distill --dedupe indx", "did you mean 'index'"),
        ("distill --seed 1 --set seed=2", "'seed' is given twice"),
        ("distill --lte a --encoder clip", "'lte.file' and 'lte.encoder' cannot be combined"),
        ("sample runs/one --count 3 --per-class 2", "cannot be combined"),
        ("distill --resume runs/one --config my.toml", "--resume and --config cannot be combined"),
        ("distill --config nowhere.toml", "cannot read configuration nowhere.toml"),
    ],
)
def test_what_cannot_be_meant_is_refused(line, message):
    with pytest.raises(ConfigError, match=message):
        merged(line)


def test_an_unknown_setting_of_a_file_names_the_file(tmp_path):
    (tmp_path / "my.toml").write_text("[student]\nnam = 'resnet18'\n")
    with pytest.raises(ConfigError, match=r"'student.nam' \(did you mean 'student.name'\?\) \(from .*my.toml\)"):
        merged(f"distill -c {tmp_path / 'my.toml'}")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NAYER_EPOHCS", "3", r"unknown variable NAYER_EPOHCS \(did you mean 'NAYER_EPOCHS'\?\)"),
        ("NAYER_SET", "seed='1", "cannot read NAYER_SET=seed='1: No closing quotation"),
        ("NAYER_SET", "sed=1", r"did you mean 'seed'\?\) \(from the environment\)"),
    ],
)
def test_a_variable_that_cannot_be_meant_is_refused(name, value, message, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        merged("distill")


def test_a_setting_replaces_its_alternative_of_a_lower_layer(tmp_path, monkeypatch):
    (tmp_path / "my.toml").write_text("[lte]\nfile = 'pool'\nencoder = 'clip'\nprompt = 'p2'\n")
    assert merged(f"distill -c {tmp_path / 'my.toml'}")["lte.file"] == "pool"
    monkeypatch.setenv("NAYER_ENCODER", "sbert")
    assert "lte.file" not in merged(f"distill -c {tmp_path / 'my.toml'}")
    assert merged(f"distill -c {tmp_path / 'my.toml'} --lte other") == {"lte.file": "other"}


def test_a_resumed_run_takes_settings_from_the_command_line_alone(monkeypatch):
    monkeypatch.setenv("NAYER_SEED", "3")
    monkeypatch.setenv("NAYER_CONFIG", "nowhere.toml")
    assert merged("distill --resume runs/one --device cpu") == {"device": "cpu"}
