import re
from dataclasses import dataclass, field

import pytest

from nayer_cli import config, plugins
from nayer_cli.config import DistillConfig, SampleConfig, TrainConfig, setting
from nayer_cli.errors import ConfigError

SCHEMAS = (DistillConfig, TrainConfig, SampleConfig, config.EmbedConfig, config.EvaluateConfig)


@dataclass(frozen=True)
class Inner:
    rate: float = setting(0.1, "a rate", low=0, high=1)
    kind: str = setting("a", "a kind", choices=("a", "beta"))


@dataclass(frozen=True)
class Outer:
    steps: int = setting(10, "steps", low=1)
    flag: bool = setting(False, "a flag")
    limit: int | None = setting(None, "a limit")
    name: str = setting("", "a name")
    mean: tuple[float, ...] | None = setting(None, "one a channel")
    classes: tuple[int | str, ...] = setting((), "names or indices")
    warmth: float = setting(4.0, "a temperature", above=0)
    spread: tuple[float, ...] | None = setting(None, "one a channel", above=0)
    inner: Inner = field(default_factory=lambda: Inner(rate=0.5))
    free: dict[str, object] = field(default_factory=lambda: {"name": "x"})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("steps", "7", 7),
        ("steps", 1e5, 100000),
        ("flag", "False", False),
        ("inner.rate", 1, 1.0),
        ("inner.rate", "1e-2", 0.01),
        ("limit", None, None),
        ("name", 2026, "2026"),
        ("mean", "0.5, 0.25", (0.5, 0.25)),
        ("mean", [0, 1], (0.0, 1.0)),
        ("mean", 0.5, (0.5,)),
        ("classes", "cat,3", ("cat", "3")),
        ("classes", [3, "cat"], (3, "cat")),
    ],
)
def test_values_become_the_type_that_is_wanted(key, value, expected):
    built = config.build(Outer, {key: value})
    found = getattr(built.inner if "." in key else built, key.rpartition(".")[2])
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("steps", 1.5, "'?steps.* is not a value of type int"),
        ("steps", True, "not a value of type int"),
        ("steps", "many", "not a value of type int"),
        ("steps", 0, "at least 1"),
        ("flag", 1, "not a value of type bool"),
        ("name", True, "not a value of type str"),
        ("mean", "0.5,x", "not a value of type float"),
        ("mean", {"a": 1}, "not a value of type float"),
        ("classes", [0.5], "not a value of type int | str"),
        ("inner.rate", 90, "between 0 and 1"),
        ("inner.rate", float("nan"), "finite"),
        ("mean", [float("inf")], "finite"),
        ("warmth", 0, "greater than 0"),
        ("spread", "0.5,0", "spread = 0.0 is out of range: it must be greater than 0"),
        ("inner.kind", "bta", r"did you mean 'beta'\?"),
        ("inner.rat", 1, r"unknown setting 'inner.rat' \(did you mean 'inner.rate'\?\)"),
        ("inner", 3, "'inner' is a table"),
        ("free", "zskt", "'free' is a table"),
        ("steps.deep", 1, "not a value of type int"),
    ],
)
def test_impossible_values_are_refused_by_name(key, value, message):
    with pytest.raises(ConfigError, match=message):
        config.build(Outer, {key: value})


def test_a_percentage_gets_the_hint_that_a_fraction_is_meant():
    with pytest.raises(ConfigError) as caught:
        config.build(DistillConfig, {"eval.min_top1": 90})
    assert caught.value.hint == "this is a fraction: 0.9 means 90 %"


def test_a_setting_and_a_table_of_the_same_name_are_refused():
    with pytest.raises(ConfigError, match="'steps' is not a table"):
        config.build(Outer, {"steps": 1, "steps.deep": 2})


def test_a_fault_names_the_source_of_its_layer():
    with pytest.raises(ConfigError, match=r"unknown setting 'stepz'.*\(from my.toml\)") as caught:
        config.check(Outer, {"stepz": 1}, "my.toml")
    assert caught.value.hint


def test_defaults_of_an_outer_class_go_before_those_of_the_inner():
    assert config.build(Outer, {"inner.kind": "beta"}).inner == Inner(rate=0.5, kind="beta")
    assert config.build(TrainConfig, {"optimizer.momentum": 0.5}).optimizer.lr == 0.1
    assert dict(config.describe(Outer))["inner.rate"]["default"] == 0.5


def test_a_free_table_keeps_its_defaults_and_takes_any_key():
    assert config.build(Outer, {"free.adv": 1.33}).free == {"name": "x", "adv": 1.33}


def test_messages_name_keys_with_their_prefix():
    with pytest.raises(ConfigError, match=r"unknown setting 'method.rat' \(did you mean 'method.rate'\?\)"):
        config.build(Inner, {"rat": 1}, "method.")


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_setting_has_a_sentence_and_a_default_that_it_admits(schema):
    for key, about in config.describe(schema):
        if key != "method":
            assert about["help"], key
            config.build(schema, {key: about["default"]})


METHODS = [plugins.load("methods", name).Config for name in plugins.names("methods")]
ANY = ("mean", "classes")
"""Numbers that may be any: a channel's mean, and indices that are checked against the classes."""


@pytest.mark.parametrize("schema", [*SCHEMAS, config.QuantizeConfig, *METHODS])
def test_every_number_has_a_range_and_a_temperature_is_above_zero(schema):
    for key, about in config.describe(schema):
        if re.search(r"\b(int|float)\b", str(about["type"])) and not key.endswith(ANY):
            assert about["choices"] or about["low"] is not None or about["above"] is not None, key
        if key.endswith("temperature"):
            with pytest.raises(ConfigError, match="greater than 0"):
                config.build(schema, {key: 0})


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_written_configuration_reads_back_the_same(schema, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml(config.to_layer(schema())))
    assert config.build(schema, config.read_file(path)) == schema()


@pytest.mark.parametrize("preset", config.preset_names())
@pytest.mark.parametrize("method", plugins.names("methods"))
def test_every_preset_is_valid_for_every_method(preset, method):
    layer = config.read_preset(preset, method)
    built = config.build(DistillConfig, layer | {"method.name": method})
    schema = plugins.load("methods", method).Config
    of_method = config.build(schema, dict(built.method), "method.")
    assert of_method.name == method
    assert all(getattr(built.schedule, name) == layer[f"schedule.{name}"] for name in ("epochs", "batch_size"))


def test_a_preset_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'cifar10'"):
        config.read_preset("cifar-10", "nayer")


def test_a_method_from_outside_starts_from_a_plain_schedule():
    for preset in config.preset_names():
        schedule = config.build(config.DistillConfig, config.read_preset(preset, "mylab.noise")).schedule
        assert (schedule.warmup_epochs, schedule.cycles, schedule.rounds) == (0, 1, 1), preset
