import json
from pathlib import Path

import pytest
import timm

import nayer_cli
from nayer_cli.classifiers.config_json import FACTS, read_model_json
from nayer_cli.errors import InputError

OURS = Path(nayer_cli.__file__).parent / "assets" / "digits" / "config.json"


def test_a_file_of_our_own_is_read() -> None:
    assert read_model_json(OURS) == json.loads(OURS.read_text())


def test_what_timm_says_of_its_models_passes(tmp_path: Path) -> None:
    for name in timm.list_pretrained("resnet18.*"):
        facts = timm.get_pretrained_cfg(name).to_dict()
        (tmp_path / "config.json").write_text(json.dumps({"architecture": name, "pretrained_cfg": facts}))
        assert read_model_json(tmp_path / "config.json")["architecture"] == name


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("architecture", []),
        ("model_args", [1]),
        ("num_classes", 10**12),
        ("num_classes", "ten"),
        ("num_classes", -1),
        ("input_size", 32),
        ("input_size", [3, 32]),
        ("input_size", [3, 0, 32]),
        ("input_size", [3, 10**5, 10**5]),
        ("input_size", ["3", "32", "32"]),
        ("mean", 0.5),
        ("mean", ["a"]),
        ("mean", [float("inf")]),
        ("std", "x"),
        ("label_names", "cat"),
        ("label_names", {"a": "cat"}),
        ("label_names", {"9" * 5000: "cat"}),
        ("quantization", {"weights": 0, "activations": 8, "first_last": 8, "edges": 8}),
        ("quantization", {"weights": 8.0, "activations": 8, "first_last": 8, "edges": 8}),
        ("quantization", {"weights": 8, "activations": 8, "first_last": False, "edges": 8}),
        ("label_names", [["n1", "cat"]]),
        ("label_descriptions", "x"),
        ("first_conv", 5),
        ("classifier", [1]),
        ("fixed_input_size", "yes"),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_facts_of_another_kind_are_refused(fact: str, value: object, inside: bool, tmp_path: Path) -> None:
    assert fact in FACTS
    document = {"architecture": "resnet18", "pretrained_cfg": {fact: value}} if inside else {fact: value}
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=rf"config\.json: {fact} must be .*, not "):
        read_model_json(tmp_path / "config.json")


@pytest.mark.parametrize("content", ["[]", "5", '{"pretrained_cfg": 5}', "[" * 9999, "{", '{"a": 1, "a": 2}'])
def test_what_is_no_object_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json"):
        read_model_json(tmp_path / "config.json")
