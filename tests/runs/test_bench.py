import json
from itertools import count

import pytest

import onnx
from nayer_cli.errors import ConfigError, InputError
from nayer_cli.runs import bench as recipe
from nayer_cli.runs.bench import bench
from nayer_cli.runs.onnx_file import export_onnx

DIGITS = "builtin:digits"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "digits.onnx"
    export_onnx({"model": DIGITS, "out": str(path)})
    return path


def ticking():
    """A clock that is asked before and after each turn, each of which takes a tenth of a second."""
    ticks = count()
    return lambda: next(ticks) / 10


def test_the_document_holds_what_it_promises(file, tmp_path):
    out = tmp_path / "deep" / "bench.json"
    document = bench({"models": [DIGITS, str(file)], "batch": 3, "repeats": 6, "out": str(out)}, now=ticking())
    assert json.loads(out.read_text()) == document
    assert (document["schema"], document["repeats"], document["batch"]) == ("nayer.bench/1", 6, 3)
    ours, of_file = document["results"]
    assert (ours["macs"], ours["input"], ours["numbers"]) == (of_file["macs"], of_file["input"], "float32")
    assert (of_file["bytes"], of_file["name"]) == (file.stat().st_size, ours["name"])
    assert ours["bytes"] > 4 * of_file["parameters"] > 0
    assert (ours["runtime"].split()[0], of_file["runtime"].split()[0]) == ("torch", "ONNX")
    assert ours["latency"]["seconds"]["median"] == pytest.approx(0.1)
    assert ours["throughput"]["images_per_s"] == pytest.approx(30)
    assert of_file["latency"]["faster"]["high"] == pytest.approx(1)


def test_ratios_are_to_the_first_model():
    seconds = [2.0, 4.0, 2.0, 8.0, 2.0, 2.0]
    speed = recipe._speed(4, [1.0] * 6, seconds)
    assert speed["faster"] == {"median": 2, "low": 2, "high": 8}
    assert (speed["images_per_s"], recipe._speed(4, None, seconds)) == (4, None)
    assert recipe._speed(4, [1.0] * 6, None)["faster"] is None


def test_a_file_for_one_image_has_a_latency_alone(file, tmp_path):
    model = onnx.load(file)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "one.onnx")
    found = bench({"models": [str(file), str(tmp_path / "one.onnx")], "batch": 2, "repeats": 6}, now=ticking())
    assert [bool(each["latency"]) for each in found["results"]] == [True, True]
    assert [bool(each["throughput"]) for each in found["results"]] == [True, False]


def test_an_architecture_needs_no_weights():
    small = {"num_classes": 10, "input_size": 32}
    (result,) = bench({"models": ["resnet20_cifar_a"], "batch": 1, "repeats": 6, **small}, now=ticking())["results"]
    assert (result["macs"], result["bytes"] > 4 * result["parameters"]) == (40_551_040, True)
    assert result["throughput"] == result["latency"]


def test_what_is_wrong_is_told():
    with pytest.raises(InputError, match="no model is given"):
        bench({})
    with pytest.raises(ConfigError, match="repeats = 5 is out of range"):
        bench({"models": [DIGITS], "repeats": 5})
    with pytest.raises(InputError, match="cannot"):
        bench({"models": [__file__ + ".onnx"]})
