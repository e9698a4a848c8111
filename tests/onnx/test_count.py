import pytest
import torch
from torch import nn

import onnx
from nayer_cli.classifiers.model import parameters
from nayer_cli.machine.operations import OperationCounter
from nayer_cli.onnx.count import count
from nayer_cli.onnx.runner import read_model
from nayer_cli.onnx.writer import write_onnx
from nayer_cli.quant.trace import trace
from onnx_files import SHAPE, deployed
from tiny import network


def operations(module: nn.Module) -> int:
    with OperationCounter() as counter, torch.no_grad():
        module(torch.zeros(1, *SHAPE))
    return counter.take() // 2


class Grouped(nn.Module):
    """Convolutions of all kinds, and a product of matrices that are no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.grouped = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=4, stride=2)
        self.up, self.linear = nn.ConvTranspose2d(8, 2, 2, stride=2), nn.Linear(2 * 8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.up(self.grouped(self.wide(images))).flatten(2)
        return self.linear((maps @ maps.transpose(1, 2) @ maps)[..., :8].flatten(1))


@pytest.mark.parametrize("module", [network(), Grouped()], ids=["network", "grouped"])
def test_a_file_counts_as_its_network_does(tmp_path, module):
    write_onnx(trace(module.eval(), SHAPE), SHAPE, tmp_path / "m.onnx", facts={})
    found = count(read_model(tmp_path / "m.onnx"))
    assert (found.macs, found.is_quantized) == (operations(module), False)
    assert found.parameters == parameters(module)


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_integers_count_as_their_network_does(tmp_path, storage):
    integers = deployed(network(), weights=4)
    write_onnx(integers, SHAPE, tmp_path / "m.onnx", storage=storage, facts={})
    found = count(read_model(tmp_path / "m.onnx"))
    assert found == (parameters(integers), operations(network()), True)


def test_unknown_shapes_are_not_guessed(tmp_path):
    write_onnx(trace(network(), SHAPE), SHAPE, tmp_path / "m.onnx", facts={})
    model = read_model(tmp_path / "m.onnx")
    first = model.graph.node[0]
    model.opset_import.add(domain="nowhere", version=1)
    model.graph.node.insert(0, onnx.helper.make_node("Unheard", [first.input[0]], ["out"], domain="nowhere"))
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    first.input[0] = "out"
    assert count(model).macs is None
    del model.opset_import[:]  # nothing can be inferred then
    assert count(model).macs is None
