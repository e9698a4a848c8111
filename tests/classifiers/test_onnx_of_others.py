"""Classifiers in ONNX files that others wrote."""

import numpy as np
import pytest
import torch
from PIL import Image

from nayer_cli.classifiers.model import Normalized
from nayer_cli.classifiers.model_facts import UntoldFacts
from nayer_cli.classifiers.onnx_file import FORMAT, load_onnx
from nayer_cli.config import ModelConfig
from nayer_cli.errors import InputError
from nayer_cli.runs.evaluate import evaluate_models
from onnx import TensorProto, external_data_helper, helper, load, numpy_helper, save

K, SIDE = 5, 8
WEIGHT = np.random.default_rng(0).normal(size=(3, K)).astype(np.float32)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
KINDS = {"float": TensorProto.FLOAT, "half": TensorProto.FLOAT16, "bytes": TensorProto.UINT8}


def write(path, *, kind="float", last=False, batch="n", side=SIDE, softmax=False, pixels=False, second=False):
    """A network that multiplies the mean colour by a matrix."""
    nodes, given = [], "input"
    if kind != "float":
        nodes.append(helper.make_node("Cast", [given], ["as_float"], to=TensorProto.FLOAT))
        given = "as_float"
    if kind == "bytes" or pixels:
        nodes.append(helper.make_node("Div", [given, "most"], ["unit"]))
        given = "unit"
    axes = "positions_last" if last else "positions"
    nodes.append(helper.make_node("ReduceMean", [given, axes], ["colour"], keepdims=0))
    nodes.append(helper.make_node("MatMul", ["colour", "weight"], ["scores"]))
    nodes.append(helper.make_node("Softmax" if softmax else "Identity", ["scores"], ["answer"]))
    constants = {"most": np.float32(255), "weight": WEIGHT}
    constants |= {"positions": np.array([2, 3]), "positions_last": np.array([1, 2])}
    shape = [batch, side, side, 3] if last else [batch, 3, side, side]
    outputs = [("colour", 3), ("answer", K)] if second else [("answer", K)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", KINDS[kind], shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, size]) for name, size in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    save(model, path)
    return path


def said(path, **more):
    return ModelConfig(str(path), **{"mean": MEAN, "std": STD, **more})


def images(count=5):
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"last": True},
        {"batch": 1},
        {"batch": 4, "last": True},
        {"side": "s"},
        {"kind": "half"},
        {"kind": "bytes"},
        {"kind": "bytes", "last": True, "batch": 2},
        {"softmax": True},
        {"pixels": True},
    ],
    ids=str,
)
def test_every_form_gives_the_same_answers(tmp_path, form):
    normalizes = form.get("kind") == "bytes"
    facts = {"mean": None, "std": None} if normalizes else {"mean": (0,), "std": (1 / 255,)} if "pixels" in form else {}
    size = {"input_size": SIDE} if "side" in form else {}
    model = load_onnx(write(tmp_path / "m.onnx", **form), said(tmp_path / "m.onnx", **facts, **size))
    assert (tuple(model.shape), model.num_classes, model.labels) == ((3, SIDE, SIDE), K, None)
    answers = Normalized(model.network, model.normalization)(images())
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (((0.0,), (1.0,)) if facts else (MEAN, STD)))
    wanted = ((images() - mean) / std).mean((2, 3)) @ torch.from_numpy(WEIGHT)
    if "softmax" in form:
        answers, wanted = answers.log_softmax(1), wanted.log_softmax(1)
    torch.testing.assert_close(answers, wanted, atol=2e-3, rtol=2e-3)


def test_what_nobody_tells_is_asked_for_at_once(tmp_path):
    path = write(tmp_path / "m.onnx", side="s")
    with pytest.raises(UntoldFacts) as fault:
        load_onnx(path, ModelConfig(str(path)))
    assert fault.value.facts == ("input_size", "mean", "std")


def test_the_output_called_logits_or_the_first_is_taken(tmp_path):
    path = write(tmp_path / "m.onnx", second=True)
    assert load_onnx(path, said(path)).num_classes == 3
    model = load(path)
    model.graph.node[-1].output[0] = model.graph.output[1].name = "logits"
    save(model, path)
    assert load_onnx(path, said(path)).num_classes == K


def test_what_is_no_classifier_is_refused(tmp_path):
    path = write(tmp_path / "m.onnx")
    model = load(path)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    model.graph.node[-1].CopyFrom(helper.make_node("Cast", ["scores"], ["answer"], to=TensorProto.INT64))
    save(model, path)
    with pytest.raises(InputError, match="does not return logits"):
        load_onnx(path, said(path))


def test_weights_beside_the_file_are_read_and_no_others(tmp_path):
    path = write(tmp_path / "m.onnx")
    model = load(path)
    external_data_helper.convert_model_to_external_data(model, location="m.onnx.data", size_threshold=0)
    save(model, path)
    assert load_onnx(path, said(path)).num_classes == K
    (tmp_path / "elsewhere").write_bytes((tmp_path / "m.onnx.data").read_bytes())
    (tmp_path / "m.onnx.data").unlink()
    for break_it in (lambda: None, lambda: (tmp_path / "m.onnx.data").symlink_to(tmp_path / "elsewhere")):
        break_it()
        with pytest.raises(InputError, match="refers to other files"):
            load_onnx(path, said(path))


def test_a_file_of_others_is_measured_beside_a_reference(tmp_path):
    for number in range(10):
        picture = np.full((12, 9, 3), 20 * number, np.uint8)
        place = tmp_path / "images" / str(number % K) / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place)
    one, two = write(tmp_path / "one.onnx", batch=1), write(tmp_path / "two.onnx", last=True)
    facts = {"mean": MEAN, "std": STD, "crop_pct": 0.8, "crop_mode": "squash", "device": "cpu"}
    reference = {f"reference.{name}": value for name, value in {"name": str(two), "mean": MEAN, "std": STD}.items()}
    document = evaluate_models({"models": [str(one)], "data": str(tmp_path / "images"), **facts, **reference})
    (result,) = document["results"]
    assert result["preparation"] == {"interpolation": "bicubic", "crop_pct": 0.8, "crop_mode": "squash"}
    assert result["input_size"] == [3, SIDE, SIDE] and result["agreement"] == 1.0
    assert any("sees pictures as 8×8, bicubic, crop 0.8, squash" in warning for warning in document["warnings"])


NONSENSE = [
    *(("crop_pct", "7"), ("crop_mode", "none"), ("interpolation", "cubic"), ("label_names", "5"), ("mean", "[" * 9999)),
    *(("quantization", '{"weights": 0}'), ("input_size", "[3, 100000, 100000]")),
]


@pytest.mark.parametrize(("fact", "value"), NONSENSE)
def test_a_file_of_ours_that_tells_nonsense_is_refused(tmp_path, fact, value):
    path = write(tmp_path / "m.onnx")
    model = load(path)
    own = {"label_names": "null", "quantization": "null", "mean": "[0, 0, 0]", "std": "[1, 1, 1]", "name": "m"}
    own |= {"format": FORMAT, "input_size": f"[3, {SIDE}, {SIDE}]", "num_classes": str(K)}
    helper.set_model_props(model, own)
    save(model, path)
    assert load_onnx(path).preparation[:3] == ("bicubic", 1.0, "center")
    helper.set_model_props(model, {**own, fact: value})
    save(model, path)
    with pytest.raises(InputError, match=f"{fact} must be|is damaged"):
        load_onnx(path)
