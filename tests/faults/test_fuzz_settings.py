"""Any bytes as settings or as the description of a model are read, or refused by a fault of ours."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given
from hypothesis import strategies as st

import nayer_cli
from fuzzing import edited, refused_or_read
from nayer_cli import config
from nayer_cli.classifiers import architecture, model_facts
from nayer_cli.classifiers.config_json import FACTS
from nayer_cli.config import DistillConfig, EmbedConfig, EvaluateConfig, ModelConfig, TrainConfig
from nayer_cli.errors import NayerError
from nayer_cli.runs.assemble import method_config
from nayer_cli.storage import toml

SCHEMAS = (DistillConfig, TrainConfig, EmbedConfig, EvaluateConfig)


def told_facts(path: Path) -> object:
    """Read a config.json, and use what it tells as loading a classifier does."""
    found = architecture.find(str(path.parent))
    spec, facts = ModelConfig(str(path.parent)), found.facts
    labels = model_facts.class_labels(facts, model_facts.class_count(spec, facts, {}))
    shape = model_facts.image_shape(spec, facts, {})
    return labels, model_facts.normalization(spec, facts, shape.channels)


MODEL_JSON = (Path(nayer_cli.__file__).parent / "assets" / "digits" / "config.json").read_bytes()
FACT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("01a", max_size=2), inner, max_size=3),
)


@given(
    edited(MODEL_JSON)
    | st.dictionaries(st.sampled_from(list(FACTS)), FACT, max_size=4)
    .map(
        lambda facts: {
            **json.loads(MODEL_JSON),
            "pretrained_cfg": {**json.loads(MODEL_JSON)["pretrained_cfg"], **facts},
        }
    )
    .map(json.dumps)
    .map(str.encode)
)
@example(b'{"architecture": "resnet18", "pretrained_cfg": {"mean": [1' + b"0" * 400 + b"]}}")
@example(b'{"architecture": "resnet18", "pretrained_cfg": ' + b"[" * 10**4)
def test_any_bytes_as_the_description_of_a_model(content: bytes) -> None:
    refused_or_read(told_facts, content, "config.json")


SETTINGS = config.keys(DistillConfig)
TOML = config.to_toml(config.to_layer(DistillConfig())).encode()
VALUES = st.sampled_from(
    [
        "1",
        "-1",
        "0.5",
        "1e3",
        "nan",
        "inf",
        "true",
        '"clip"',
        '"a\\u0000b"',
        "[0.5, 0.5]",
        "{a = 1}",
        "2020-01-01",
        "[[1]]",
    ]
)


def build_all(layer: toml.Layer) -> None:
    """Make every command's configuration of `layer`; what is accepted must survive being written down."""
    for schema in SCHEMAS:
        try:
            made = config.build(schema, layer)
            if isinstance(made, DistillConfig):  # a method checks its settings itself
                made = replace(made, method=vars(method_config({"name": "nayer", **made.method})))
        except NayerError:
            continue
        written = config.to_toml(config.to_layer(made))
        with TemporaryDirectory() as folder:
            Path(folder, "x.toml").write_text(written, encoding="utf-8")
            assert config.build(schema, config.read_file(Path(folder, "x.toml"))) == made


@given(
    st.binary(max_size=200)
    | edited(TOML)
    | st.lists(st.builds("{} = {}\n".format, st.sampled_from(SETTINGS), VALUES), max_size=5)
    .map("".join)
    .map(str.encode)
)
@example(b"a = " + b"[" * 10**4)
@example(b"a = " + b"{a=" * 10**4)
@example(b".".join([b"a"] * 10**4) + b" = 1")
@example(b"seed = " + b"9" * 5000)
@example(b"seed = 0x" + b"f" * 5000)
@example(b'output.out = "a\\u0000b"')
@example(b"\xef\xbb\xbfseed = 1")
@example(b"[method]\nx = [{y = 1}]")
def test_any_bytes_as_a_configuration(content: bytes) -> None:
    found = refused_or_read(config.read_file, content)
    if isinstance(found, dict):
        build_all(found)


@given(st.text() | st.builds("{}={}".format, st.sampled_from(SETTINGS), VALUES | st.text()))
@example("seed=1\nx=2")
@example("seed=" + "9" * 5000)
@example("a=" + "[" * 10**4)
@example(".".join(["method.a"] * 1000) + "=1")
@example("output.out=\udcff")
def test_any_text_as_an_assignment(text: str) -> None:
    try:
        layer = dict(toml.flatten(dict([toml.parse_assignment(text)])))
        build_all(layer)
    except NayerError as fault:
        assert str(fault)
