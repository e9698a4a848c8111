"""Files for TensorRT, by our own reading of its parser: no hardware here runs them."""

import pytest
import torch
from torch import nn

import onnx
from nayer_cli.onnx.layers import loses_a_bit
from nayer_cli.onnx.runner import OnnxNetwork
from nayer_cli.onnx.tensorrt import complaints
from nayer_cli.onnx.writer import write_onnx
from onnx import TensorProto
from onnx_files import SHAPE, deployed, images
from tiny import network


@pytest.mark.parametrize("activations", [4, 7, 8])
def test_a_symmetric_file_is_read_and_loses_only_the_eighth_bit(tmp_path, activations):
    integers = deployed(network(), activations=activations, edges=activations)
    write_onnx(integers, SHAPE, tmp_path / "m.onnx", symmetric=True, facts={})
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    assert complaints(tmp_path / "m.onnx") == []
    wanted, found = integers(images(20)), OnnxNetwork(tmp_path / "m.onnx")(images(20))
    assert loses_a_bit(integers) == (activations == 8)
    assert (wanted - found).abs().max() < (0.1 if activations == 8 else 0.02) * (wanted.max() - wanted.min())


def test_a_symmetric_file_has_int8_alone_and_biases_in_float(tmp_path):
    write_onnx(deployed(network()), SHAPE, tmp_path / "m.onnx", symmetric=True, facts={})
    model = onnx.load(tmp_path / "m.onnx")
    types = {
        tensor.name.partition("/")[2].rpartition("_")[0] or tensor.name: tensor.data_type
        for tensor in model.graph.initializer
    }
    assert set(types.values()) <= {TensorProto.INT8, TensorProto.FLOAT, TensorProto.INT64}
    assert "Clip" not in {node.op_type for node in model.graph.node}


def test_the_usual_file_is_complained_about(tmp_path):
    write_onnx(deployed(network(), activations=4), SHAPE, tmp_path / "m.onnx", facts={})
    found = " ".join(complaints(tmp_path / "m.onnx"))
    for fault in ("Clip takes no integers", "integers of uint8 are not taken", "int32 cannot be dequantized"):
        assert fault in found


def test_normalization_may_be_the_first_step_of_a_file(tmp_path):
    from nayer_cli.quant.trace import trace
    from nayer_cli.types import Normalization

    normalization = Normalization((0.5, 0.4, 0.3), (0.25, 0.2, 0.1))
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in normalization)
    write_onnx(trace(network(), SHAPE), SHAPE, tmp_path / "m.onnx", normalization=normalization, facts={})
    pixels = torch.rand(5, *SHAPE)
    torch.testing.assert_close(OnnxNetwork(tmp_path / "m.onnx")(pixels), network()((pixels - mean) / std))


def test_what_is_moved_stays_float(tmp_path):
    moved = nn.Sequential(*network()[:3], nn.ZeroPad2d(1), nn.Upsample(scale_factor=2), *network()[3:])
    moved[5] = nn.Conv2d(6, 6, 3, stride=2)
    integers = deployed(moved, activations=7, edges=7)
    write_onnx(integers, SHAPE, tmp_path / "m.onnx", symmetric=True, facts={})
    assert complaints(tmp_path / "m.onnx") == []
    wanted, found = integers(images(20)), OnnxNetwork(tmp_path / "m.onnx")(images(20))
    assert (wanted - found).abs().max() < 0.02 * (wanted.max() - wanted.min())
