import pytest
import timm
import torch
from torch import nn

from nayer_cli.errors import InputError
from nayer_cli.quant.trace import module_of, shape_of, trace
from nayer_cli.types import ImageShape
from tiny import SHAPE, network


def test_a_graph_computes_the_same_and_leaves_the_network_alone():
    net, x = network(), torch.rand(3, *SHAPE)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    traced = trace(net, SHAPE)
    assert torch.equal(traced(x), net(x))
    nn.init.zeros_(traced.get_parameter("0.weight"))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_nodes_know_shapes():
    traced = trace(network(), SHAPE)
    assert [shape_of(node) for node in traced.graph.nodes][:2] == [(2, *SHAPE), (2, 6, 8, 8)]


def test_norms_with_an_activation_become_two_layers():
    net = timm.create_model("mobilenetv2_035", num_classes=5).eval()
    traced = trace(net, ImageShape(3, 32, 32))
    kinds = {type(module_of(node, traced)).__name__ for node in traced.graph.nodes}
    assert {"BatchNorm2d", "ReLU6"} <= kinds and "BatchNormAct2d" not in kinds
    torch.testing.assert_close(traced(torch.ones(1, 3, 32, 32)), net(torch.ones(1, 3, 32, 32)))


def test_dropout_and_identity_go():
    traced = trace(nn.Sequential(network(), nn.Dropout(0.5), nn.Identity()), SHAPE)
    assert not [node for node in traced.graph.nodes if isinstance(module_of(node, traced), (nn.Dropout, nn.Identity))]


class BySize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] < 8 or x.mean(1).ndim != 3:
            x = x * 0
        return self.net(x)


def test_branches_on_sizes_are_decided():
    net, x = BySize().eval(), torch.rand(2, *SHAPE)
    assert torch.equal(trace(net, SHAPE)(x), net(x))


class ByValue(BySize):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x if x.mean() > 0 else -x)


def test_branches_on_values_are_refused():
    with pytest.raises(InputError, match="cannot be quantized: it has no graph") as caught:
        trace(ByValue(), SHAPE)
    assert "must not branch" in str(caught.value.hint)
