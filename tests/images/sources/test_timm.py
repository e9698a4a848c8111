import importlib.util

import numpy as np
import pytest
from PIL import Image

from nayer_cli.errors import EnvironmentFault, InputError
from nayer_cli.images.sources import timm


@pytest.fixture
def images(tmp_path):
    for i, name in enumerate(["val/10/1.png", "val/2/1.png", "train/2/1.png"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), i).save(tmp_path / name)
    return tmp_path


def read(source):
    loaded = [sample.load() for sample in source.samples(range(len(source)))]
    return [(int(np.asarray(picture.convert("L"))[0, 0]), label) for picture, label in loaded]


def test_a_torchvision_set_with_its_root(images):
    source = timm.open_source(f"torch/image_folder@{images}", "validation")
    assert source.classes == ["10", "2"]
    assert read(source) == [(0, 0), (1, 1)]


def test_timms_own_reader_has_its_own_order(images):
    source = timm.open_source(f"timm:folder@{images}", "validation")
    assert source.classes == ["2", "10"]
    assert read(source) == [(1, 0), (0, 1)]


def test_a_damaged_image_is_not_hidden_behind_the_next(images):
    (images / "val" / "2" / "1.png").write_bytes(b"nothing")
    damaged, _ = timm.open_source(f"timm:folder@{images}", "validation").samples([0, 1])
    with pytest.raises(OSError, match="not an image in a format that nayer reads"):
        damaged.load()


@pytest.mark.parametrize("spec", ["torch/cifar10@/nowhere", "torch/no_such_set", "timm:folder@/nowhere"])
def test_what_timm_cannot_open_is_an_error_with_a_reason(spec):
    with pytest.raises(InputError, match=r"timm cannot open data .*: \w"):
        timm.open_source(spec, "validation")


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="tensorflow is installed")
def test_a_missing_package_is_a_fault_of_the_machine(capsys):
    with pytest.raises(EnvironmentFault, match="not installed: tensorflow") as caught:
        timm.open_source("tfds/mnist", "validation")
    assert caught.value.hint == "pip install tensorflow"
    assert capsys.readouterr().out == ""  # timm prints; stdout is for results


@pytest.mark.skipif(importlib.util.find_spec("webdataset") is not None, reason="webdataset is installed")
def test_a_missing_stream_package_too(tmp_path):
    with pytest.raises(EnvironmentFault, match="webdataset"):
        timm.open_source(f"wds/x@{tmp_path}", "validation")
