import pytest
import timm
import torch
from torch import nn

from nayer_cli.classifiers.model import parameters
from nayer_cli.classifiers.models.wide_resnet import Block

COUNTS = {
    "wrn_40_2": (2_243_546, 2_255_156, 2_268_056),
    "wrn_40_1": (563_930, 569_780, 576_280),
    "wrn_16_2": (691_674, 703_284, 716_184),
    "wrn_16_1": (175_066, 180_916, 187_416),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name: str) -> None:
    assert tuple(parameters(timm.create_model(name, num_classes=k)) for k in (10, 100, 200)) == COUNTS[name]


@pytest.mark.parametrize(("name", "layers", "channels"), [("wrn_40_2", 37, 2704), ("wrn_16_1", 13, 464)])
def test_batch_norms(name: str, layers: int, channels: int) -> None:
    norms = [m.num_features for m in timm.create_model(name).modules() if isinstance(m, nn.BatchNorm2d)]
    assert (len(norms), sum(norms)) == (layers, channels)


def test_strides() -> None:
    assert timm.create_model("wrn_16_1").eval().forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 64, 8, 8)


def test_shortcuts() -> None:
    x = torch.randn(2, 4, 6, 6) - 1
    same, wider = Block(4, 4, stride=1).eval(), Block(4, 8, stride=2).eval()
    for block in (same, wider):
        nn.init.zeros_(block.conv2.weight)
    assert torch.equal(same(x), x)
    activated = x.div((1 + wider.bn1.eps) ** 0.5).relu()
    assert wider.shortcut is not None
    torch.testing.assert_close(wider(x), wider.shortcut(activated))
