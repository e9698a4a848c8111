import timm
import torch
from torch import nn

from nayer_cli.classifiers.model import parameters
from nayer_cli.classifiers.models.mobilenet import Block


def test_parameter_counts() -> None:
    counts = [parameters(timm.create_model("mobilenetv2_cifar", num_classes=k)) for k in (10, 100, 200)]
    assert counts == [2_296_922, 2_412_212, 2_540_312]


def test_batch_norms_and_strides() -> None:
    network = timm.create_model("mobilenetv2_cifar").eval()
    norms = [m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert (len(norms), sum(norms)) == (57, 17544)
    assert network.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 1280, 4, 4)


def test_only_blocks_without_stride_have_a_shortcut() -> None:
    x = torch.randn(2, 4, 6, 6)
    blocks = {stride: Block(4, 4, expansion=2, stride=stride).eval() for stride in (1, 2)}
    for block in blocks.values():
        nn.init.zeros_(block.bn3.weight)
    assert torch.equal(blocks[1](x), x)
    assert not blocks[2](x).any()
