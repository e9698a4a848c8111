import hashlib
import json
import os

import numpy as np
import pytest
import torch

import pngs
from nayer_cli.classifiers.model import load_classifier, new_network, save_classifier
from nayer_cli.cli import checks
from nayer_cli.config import ModelConfig, SampleConfig
from nayer_cli.errors import InputError, RunFailed
from nayer_cli.images.labelled import open_images
from nayer_cli.runs.sample import sample
from nayer_cli.storage.checkpoint import digest
from nayer_cli.types import ImageShape, Normalization

FEW = {"method.batch": 4, "method.g_steps": 2, "count": 6}


def make(out, **settings):
    return sample({"model.name": "builtin:digits", "out": str(out), **FEW, **settings})


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_a_set_is_one_array_as_the_network_takes_it_with_all_there_is_to_know(tmp_path):
    result = make(tmp_path / "set")
    about, model = manifest_of(tmp_path / "set"), load_classifier(ModelConfig("builtin:digits"))
    assert result["source"] == "model" and result["images"] == 6
    assert result["manifest"] == str(tmp_path / "set" / "manifest.json")
    with np.load(tmp_path / "set" / "images.npz") as arrays:
        images, labels, names = (arrays[name] for name in ("images", "labels", "class_names"))
    assert list(images.shape) == about["shape"] == [6, *model.shape] and images.dtype == np.float32
    assert (about["layout"], about["dtype"], about["values"]) == ("NCHW", "float32", "normalized")
    assert about["range"][0] <= images.min() == pytest.approx(about["found_range"][0])
    assert about["range"][1] >= images.max() == pytest.approx(about["found_range"][1])
    assert (about["mean"], about["std"]) == tuple(map(list, model.normalization))
    assert about["label_names"] == names.tolist() == list(model.labels) and about["labels"] == labels.tolist()
    assert about["model_sha256"] == digest(model.network.state_dict())
    assert about["method"]["name"] == "zeroq" and about["method"]["g_steps"] == 2 and about["seed"] == 0


@pytest.mark.parametrize("format", ["npz", "npy", "png"])
def test_the_manifest_has_the_checksum_of_every_file_and_the_seed_decides(format, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make(tmp_path / name, format=format, seed=seed)
    files = manifest_of(tmp_path / "a")["files"]
    there = {path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert set(files) == there - {"manifest.json"} and len(files) == (6 if format == "png" else 1)
    for name, about in files.items():
        content = (tmp_path / "a" / name).read_bytes()
        assert about == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert files == manifest_of(tmp_path / "b")["files"] != manifest_of(tmp_path / "c")["files"]


def test_rounds_follow_the_memory_unless_their_size_is_given(tmp_path):
    heard = []
    tight = {"memory_gb": 0.807, "method.g_steps": 1, "count": 3}
    sample({"model.name": "builtin:digits", "out": str(tmp_path / "a"), **tight}, listen=heard.append)
    assert any("to stay within 0.807 GB of memory: method.batch" in str(record) for record in heard)
    make(tmp_path / "b", **tight)
    fitted, given = (manifest_of(tmp_path / name)["method"]["batch"] for name in "ab")
    assert given == FEW["method.batch"] != fitted


def test_forms_hold_the_same_images(tmp_path):
    make(tmp_path / "pixels", format="npy", values="pixels")
    make(tmp_path / "unit", format="npy", values="unit", layout="nhwc")
    make(tmp_path / "normalized", format="npy")
    make(tmp_path / "png", format="png")
    pixels, unit, normalized = (np.load(tmp_path / name / "images.npy") for name in ("pixels", "unit", "normalized"))
    mean, std = (np.float32(manifest_of(tmp_path / "unit")[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    assert pixels.dtype == np.uint8 and unit.shape == (6, 16, 16, 1)
    assert np.array_equal((unit * 255).round().transpose(0, 3, 1, 2), pixels)
    np.testing.assert_allclose((pixels / np.float32(255) - mean) / std, normalized, rtol=1e-5, atol=1e-6)
    for path in (tmp_path / "png").rglob("*.png"):
        assert np.array_equal(pngs.pixels(path)[..., 0], pixels[int(path.stem), 0])


def test_pixels_are_data_that_nayer_reads(tmp_path):
    make(tmp_path / "set", values="pixels")
    ((images, labels),) = open_images(str(tmp_path / "set" / "images.npz"), shape=ImageShape(1, 16, 16)).batches(9)
    assert images.shape == (6, 1, 16, 16) and labels.tolist() == manifest_of(tmp_path / "set")["labels"]


def test_a_file_may_be_named_and_the_manifest_lies_beside_it(tmp_path):
    make(tmp_path / "calibration.npy")
    assert {path.name for path in tmp_path.iterdir()} == {"calibration.npy", "manifest.json"}
    assert list(manifest_of(tmp_path)["files"]) == ["calibration.npy"]
    with pytest.raises(InputError, match="exists"):
        make(tmp_path / "other.npy")


def test_nothing_is_left_of_what_could_not_be_written(tmp_path, monkeypatch):
    stale = tmp_path / ".set.999999999.nayer-tmp"
    stale.mkdir()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for out, format in (("set", "png"), ("set", "npz"), ("set.npy", "npy")):
        with pytest.raises(Exception, match="No space left"):
            make(tmp_path / out, format=format)
        assert not [path for path in tmp_path.rglob("*") if path != stale]


def test_without_batchnorm_pixels_descend_on_classes_and_no_student_is_asked(tmp_path):
    torch.manual_seed(0)
    model = new_network(ModelConfig("vit_tiny_patch16_224"), 4, shape=ImageShape(3, 32, 32), normalization=HALF)
    save_classifier(tmp_path / "model", model, card="", extra={})
    sample({"model.name": str(tmp_path / "model"), "out": str(tmp_path / "set"), **FEW, "method.batch": 2})
    assert manifest_of(tmp_path / "set")["method"]["name"] == "deepinv"
    make(tmp_path / "cmi", **{"method.name": "cmi", "method.width": 2, "method.queue": 16, "method.negatives": 4})


HALF = Normalization((0.5,) * 3, (0.5,) * 3)


def test_classes_are_chosen_where_they_are_asked_for(tmp_path):
    result = make(tmp_path / "set", classes=["three", 5], per_class=2, **{"method.name": "deepinv", "method.batch": 20})
    assert result["classes"] == {"three": 2, "five": 2}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.name": ""}, "neither RUN nor --model"),
        ({"run": "runs/one"}, "both RUN and --model"),
        ({"model.name": "", "run": "runs/one", "method.name": "zeroq"}, "are for --model"),
        ({"model.name": "", "run": "runs/one", "model.mean": "0.5"}, "are for --model"),
        ({"method.name": "nayer"}, "for a student"),
        ({"method.name": "zerq"}, "did you mean 'zeroq'"),
        ({"method.adv": 1}, "no setting 'method.adv'"),
        ({"source": "generator"}, "is for runs"),
        ({"out": None}, "--out is missing"),
        ({"out": "here"}, "not an empty folder"),
        ({"out": "x.npz", "format": "png"}, "cannot hold png"),
        ({"format": "png", "values": "unit"}, "PNG files hold plain pixels"),
        ({"format": "png", "layout": "nhwc"}, "PNG files hold plain pixels"),
        ({"upscale": 2}, "--upscale is for PNG files and grids"),
        ({"grid": "x.png", "format": "npz"}, "only one picture"),
        ({"format": "tar"}, "format = 'tar' is not possible"),
    ],
)
def test_what_cannot_be_meant_is_told_before_torch_is_needed(changes, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine").touch()
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "config.toml").touch()
    asked = {"model.name": "builtin:digits", "out": "o", **changes}
    with pytest.raises(InputError, match=words):
        checks.check(SampleConfig, {key: value for key, value in asked.items() if value})


def test_losses_that_are_never_finite_end_it(tmp_path, monkeypatch):
    monkeypatch.setattr("nayer_cli.methods.zeroq.sample_distance", lambda x, mean, std: x.sum() * torch.nan)
    with pytest.raises(RunFailed, match="no image could be made"):
        make(tmp_path / "set")
    assert not list(tmp_path.iterdir())
