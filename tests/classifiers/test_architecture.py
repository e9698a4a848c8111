import json
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from nayer_cli.classifiers import names
from nayer_cli.classifiers.architecture import Architecture, build, find, timm_arguments
from nayer_cli.errors import InputError
from nayer_cli.types import ImageShape

CONFIG = {"architecture": "wrn_16_1", "num_classes": 7, "label_names": ["a"] * 7, "pretrained_cfg": {"mean": [0.5]}}
FACTORIES = """
from torch import nn

def tiny(): return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
def broken(): raise KeyError("no such thing")
def number(): return 5
"""


@pytest.fixture
def nearlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the current folder, which is not on the import path."""
    (tmp_path / "nearlab.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "nearlab", raising=False)


def write_config(folder: Path, document: object = CONFIG) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(document))
    return folder


def test_a_timm_name_with_and_without_pretrained_weights() -> None:
    tagged, ours = find("resnet50.a1_in1k"), find("wrn_40_2")
    assert (tagged.key, tagged.source, tagged.facts["num_classes"]) == ("resnet50", "resnet50.a1_in1k", 1000)
    assert (ours.key, ours.source, ours.facts["input_size"]) == ("wrn_40_2", "", (3, 32, 32))


@pytest.mark.parametrize("form", ["local-dir:{}", "{}", "local-dir:{}/run", "{}/run"])
def test_folders_and_run_directories(tmp_path: Path, form: str) -> None:
    write_config(tmp_path)
    write_config(tmp_path / "run" / "student")
    found = find(form.format(tmp_path))
    assert found.folder == (tmp_path / "run" / "student" if "run" in form else tmp_path)
    assert (found.key, found.facts["num_classes"], found.facts["mean"]) == ("wrn_16_1", 7, [0.5])
    assert found.facts["first_conv"] == "conv1"  # what config.json leaves open, timm knows


def test_built_in_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ASSETS", tmp_path)
    write_config(tmp_path / "digits")
    assert find("builtin:digits").folder == tmp_path / "digits"
    with pytest.raises(InputError, match="did you mean 'builtin:digits'"):
        find("builtin:digit")


@pytest.mark.parametrize("document", [[], {}, {"model_type": "bert"}, {"pretrained_cfg": 3}])
def test_a_config_of_another_library(tmp_path: Path, document: object) -> None:
    with pytest.raises(InputError, match="does not describe a timm model"):
        find(str(write_config(tmp_path, document)))


def test_a_config_that_is_not_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        find(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("", "no model is named", "resnet50"),
        ("wrn_40_3", "did you mean 'wrn_40_2'", "nayer info"),
        ("resnet50.a1_in2k", "did you mean 'resnet50.a1_in1k'", "resnet50.a2_in1k"),
        ("wrn_16_1.best", "no weights 'wrn_16_1.best'", "no pretrained weights at all"),
        ("timm/resnet50", "no folder", "hf-hub:timm/resnet50"),
        ("best.pth", "does not say which architecture", "--teacher-weights best.pth"),
        ("hub:timm/resnet50", "unknown prefix", "hf-hub:"),
        ("local-dir:/nowhere/at/all", "neither config.json nor student/config.json", "weight file"),
        ("py:tiny", "py:package.module:factory", ""),
        ("r" * 5000, "cannot look for 'rrr", ""),
        ("py:no_such_lab:tiny", "cannot import no_such_lab", "PYTHONPATH"),
        ("py:torch.nn:Linea", "did you mean 'Linear'", ""),
    ],
)
def test_names_that_mean_nothing(name: str, message: str, hint: str) -> None:
    with pytest.raises(InputError) as fault:
        find(name)
    assert message in str(fault.value)
    assert hint in (fault.value.hint or "")


def test_arguments_give_an_image_size_where_the_network_needs_one() -> None:
    assert timm_arguments(find("wrn_16_1"), 5, ImageShape(1, 48, 48)) == {"num_classes": 5, "in_chans": 1}
    vit = find("vit_tiny_patch16_224")
    assert timm_arguments(vit, 5, ImageShape(3, 32, 32))["img_size"] == 32
    assert timm_arguments(vit, 5, ImageShape(3, 32, 64))["img_size"] == [32, 64]


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s32_224", "vgg11_cifar"]
)
def test_networks_of_fixed_size_are_built_for_other_sizes(name: str) -> None:
    network = build(find(name), 5, ImageShape(1, 64, 64)).eval()
    assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 5)


def test_a_size_that_cannot_be_built() -> None:
    with pytest.raises(InputError, match="'xcit_nano_12_p16_224' cannot be built for 3×8×8 images"):
        build(find("xcit_nano_12_p16_224"), 5, ImageShape(3, 8, 8))


@pytest.mark.usefixtures("nearlab")
def test_factories_lie_in_the_current_folder() -> None:
    found = find("py:nearlab:tiny")
    assert (found.name, found.is_factory) == ("tiny", True)
    assert isinstance(build(found, None, ImageShape(3, 2, 2)), nn.Sequential)


@pytest.mark.usefixtures("nearlab")
@pytest.mark.parametrize(("name", "message"), [("broken", "KeyError: 'no such thing'"), ("number", "returned a int")])
def test_factories_that_fail(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(find(f"py:nearlab:{name}"), None, ImageShape(3, 2, 2))


def test_timm_reads_folders_by_the_same_rules(tmp_path: Path) -> None:
    network = timm.create_model(f"local-dir:{write_config(tmp_path)}")
    assert network.num_classes == find(str(tmp_path)).facts["num_classes"]


@pytest.mark.parametrize(("arguments", "classes"), [({"layers": [3000] * 4}, 10), ({}, 900_000)])
def test_a_network_that_is_too_large_is_never_built(arguments: dict[str, object], classes: int) -> None:
    state = torch.random.get_rng_state()
    with pytest.raises(InputError, match="would have more than"):
        build(Architecture("big", "resnet50", arguments=arguments), classes, ImageShape(3, 32, 32))
    assert torch.equal(state, torch.random.get_rng_state())
    assert build(find("resnet18"), 21_843, ImageShape(3, 32, 32)).fc.out_features == 21_843
