import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import onnx
from fuzzing import edited, refused_or_read
from nayer_cli.errors import EnvironmentFault, InputError
from nayer_cli.onnx.runner import OnnxNetwork, Share, integer_share, read_facts
from nayer_cli.onnx.writer import write_onnx
from nayer_cli.quant.integers import Grid
from nayer_cli.quant.trace import trace
from nayer_cli.types import ImageShape
from onnx import TensorProto, helper, numpy_helper
from onnx_files import SHAPE, deployed, images
from tiny import network

FACTS = {"nayer.bits": "w4a4", "classes": "cat\nhorse, \u00e9"}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "m.onnx"
    write_onnx(deployed(network()), SHAPE, path, facts=FACTS)
    return path


def test_metadata_comes_back(file):
    assert read_facts(file) == FACTS == OnnxNetwork(file).facts


def test_a_file_says_what_it_takes_and_returns(file):
    loaded = OnnxNetwork(file)
    assert (loaded.image_shape, loaded.classes) == (SHAPE, 4)
    assert loaded(images(2)).shape == (2, 4)


def test_threads_and_repetition_change_nothing(file):
    one, all_of_them = OnnxNetwork(file, threads=1), OnnxNetwork(file)
    assert torch.equal(one(images()), all_of_them(images()))
    assert torch.equal(one(images()), one(images()))


def test_images_may_have_any_layout_and_type(file):
    loaded = OnnxNetwork(file)
    assert torch.equal(loaded(images().to(memory_format=torch.channels_last).double()), loaded(images()))


def test_images_of_another_size_are_an_error_with_the_files_name(file):
    with pytest.raises(InputError, match=r"cannot run .*m\.onnx"):
        OnnxNetwork(file)(torch.zeros(1, 3, 5, 5))


def test_the_layers_that_run_as_integers_are_counted(file):
    share = integer_share(file)
    assert share.convolutions == Share(2, []) and share.products == Share(1, [])
    assert share.convolutions.integers == 2


def test_the_layers_that_stay_float_are_named(tmp_path):
    write_onnx(trace(network(), SHAPE), SHAPE, tmp_path / "float.onnx", facts={})
    assert integer_share(tmp_path / "float.onnx").convolutions == Share(2, ["_0", "_3"])
    mixed = deployed(network())
    images_grid = next(name for name, module in mixed.named_modules() if isinstance(module, Grid))
    mixed.set_submodule(images_grid, nn.Identity())
    write_onnx(mixed, SHAPE, tmp_path / "mixed.onnx", facts={})
    assert integer_share(tmp_path / "mixed.onnx").convolutions == Share(2, ["_0"])


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_what_installs_it(file, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvironmentFault, match=f"'{package}' is not installed") as caught:
        OnnxNetwork(file)
    assert caught.value.hint == "pip install 'nayer-cli[onnx]'"


def test_without_the_package_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EnvironmentFault, match="'onnx' is not installed"):
        write_onnx(trace(network(), SHAPE), SHAPE, tmp_path / "m.onnx", facts={})
    assert not list(tmp_path.iterdir())


def written(path, nodes, constants=(), output=("batch", 2), inputs=("images",), **more):
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, 1, 2]) for name in inputs]
    found = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, output)]
    graph = helper.make_graph(nodes, "network", given, found, list(constants))
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)], **more)
    path.write_bytes(model.SerializeToString())
    return path


def external(name, folder):
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(folder / "secret"))
    return tensor


@pytest.mark.parametrize("where", ["initializer", "attribute", "branch"])
def test_weights_in_other_files_are_refused_wherever_they_are_named(tmp_path, where):
    (tmp_path / "secret").write_bytes(bytes(8))
    tensor = external("w", tmp_path)
    flat = helper.make_node("Flatten", ["images"], ["flat"])
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    add = helper.make_node("Add", ["flat", "w"], ["logits"])
    if where == "branch":
        branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, [2])])
        truth = helper.make_node("Constant", [], ["t"], value=numpy_helper.from_array(np.array(True)))
        constant = helper.make_node("If", ["t"], ["w"], then_branch=branch, else_branch=branch)
        path = written(tmp_path / "m.onnx", [flat, truth, constant, add])
    else:
        nodes = [flat, add] if where == "initializer" else [flat, constant, add]
        path = written(tmp_path / "m.onnx", nodes, [tensor] if where == "initializer" else [])
    for read in (OnnxNetwork, read_facts, integer_share):
        with pytest.raises(InputError, match="refers to other files"):
            read(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it has no operations"),
        (b"PK\x03\x04", "not an ONNX file, or damaged"),
        (b"\x08\x0a", "it has no operations"),
        (b"\xff" * 100, "not an ONNX file, or damaged"),
    ],
)
def test_what_is_no_onnx_file_is_an_error(tmp_path, content, reason):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    for read in (OnnxNetwork, read_facts, integer_share):
        with pytest.raises(InputError, match=reason):
            read(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*No such file"):
        OnnxNetwork(tmp_path / "m.onnx")


def test_a_file_of_something_else_is_an_error(tmp_path):
    node = helper.make_node("Flatten", ["images"], ["logits"])
    assert OnnxNetwork(written(tmp_path / "good.onnx", [node])).image_shape == ImageShape(1, 1, 2)
    twice = helper.make_node("Add", ["images", "more"], ["logits"])
    odd = [
        written(tmp_path / "two.onnx", [twice], inputs=("images", "more"), output=("batch", 1, 1, 2)),
        written(tmp_path / "four.onnx", [helper.make_node("Relu", ["images"], ["logits"])], output=("batch", 1, 1, 2)),
    ]
    for path in odd:
        with pytest.raises(InputError, match=r"does not (take images|return logits)"):
            OnnxNetwork(path)


def test_an_operation_that_the_runtime_does_not_know_is_an_error_of_one_line(tmp_path):
    path = written(tmp_path / "m.onnx", [helper.make_node("Nonsense", ["images"], ["logits"])])
    for read in (OnnxNetwork, integer_share):
        with pytest.raises(InputError, match="Nonsense") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def small_file():
    nodes = [helper.make_node("Flatten", ["images"], ["flat"]), helper.make_node("Add", ["flat", "w"], ["logits"])]
    constants = [numpy_helper.from_array(np.ones(2, np.float32), "w")]
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 1, 2])
    found = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "network", [given], [found], constants)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString()


@given(data=st.data())
def test_damaged_files_are_refused_or_read(small_file, data):
    content = data.draw(edited(small_file))
    refused_or_read(lambda path: (OnnxNetwork(path), integer_share(path)), content, "m.onnx")


def test_nothing_is_said(file, capfd):
    OnnxNetwork(file)(images())
    integer_share(file)
    assert capfd.readouterr() == ("", "")
    assert onnx.load(file).producer_name == "nayer"
