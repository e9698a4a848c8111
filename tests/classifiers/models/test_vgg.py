import pytest
import timm
import torch
from torch import nn

from nayer_cli.classifiers.model import parameters

COUNTS = {
    "vgg11_cifar": (9_231_114, 9_277_284, 9_328_584),
    "vgg19_cifar": (20_040_522, 20_086_692, 20_137_992),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name: str) -> None:
    assert tuple(parameters(timm.create_model(name, num_classes=k)) for k in (10, 100, 200)) == COUNTS[name]


def test_batch_norms() -> None:
    norms = [m.num_features for m in timm.create_model("vgg11_cifar").modules() if isinstance(m, nn.BatchNorm2d)]
    assert (len(norms), sum(norms)) == (8, 2752)


@pytest.mark.parametrize("side", [32, 64])
def test_the_last_map_is_4_by_4_at_both_sizes(side: int) -> None:
    network = timm.create_model("vgg11_cifar", img_size=(side, side)).eval()
    assert network.forward_features(torch.zeros(1, 3, side, side)).shape == (1, 512, 4, 4)
