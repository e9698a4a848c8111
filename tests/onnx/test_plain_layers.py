"""Layers of other classes that compute plain ones run as integers, in the file as well."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, ScaledStdConv2dSame, StdConv2d
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from nayer_cli.onnx.runner import integer_share
from nayer_cli.quant.graph import kept_float
from onnx_files import both, deployed

LAYERS = {
    "same": lambda: Conv2dSame(6, 8, 3, stride=2),
    "same, grouped": lambda: Conv2dSame(6, 6, 5, stride=2, groups=6, bias=False),
    "standardized": lambda: StdConv2d(6, 8, 3),
    "scaled": lambda: ScaledStdConv2dSame(6, 8, 3, stride=2),
    "weight norm": lambda: weight_norm(nn.Conv2d(6, 8, 3)),
    "same maximum": lambda: MaxPool2dSame(3, 2),
    "same mean": lambda: AvgPool2dSame(3, 2),
    "reflected": lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"),
    "repeated": lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="replicate"),
    "around": lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="circular"),
    "by name": lambda: nn.Conv2d(6, 8, 5, padding="same"),
}


def network(layer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5)
    )


@pytest.mark.parametrize("name", LAYERS)
def test_they_run_as_integers(name, tmp_path):
    integers = deployed(network(LAYERS[name]()))
    assert kept_float(integers) == []
    pair = both(integers, tmp_path / "m.onnx")
    torch.testing.assert_close(pair.onnx, pair.torch, rtol=1e-5, atol=1e-5)
    share = integer_share(tmp_path / "m.onnx")
    assert share.convolutions.floats == share.products.floats == []


class Brighter(nn.Conv2d):
    """Its weight follows its input, so no plain layer does the same."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * x.amax(), self.bias)


class Twice(nn.Module):
    """Calls one layer with images of two sizes, which it pads differently."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Conv2d(3, 3, 3), Conv2dSame(3, 3, 3, stride=2), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(self.layer(self.first(x))).mean((2, 3)))


@pytest.mark.parametrize("net", [network(Brighter(6, 8, 3)), Twice()], ids=["weight", "sizes"])
def test_others_stay_what_they_are(net):
    kept = {one.what: one.reason for one in kept_float(deployed(net))}
    assert set(kept) == {type(net[2] if isinstance(net, nn.Sequential) else net.layer).__name__}


def test_padding_by_a_number_is_not_on_the_grid(tmp_path):
    class Padded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.pad(x, (1, 1, 1, 1), value=0.3)

    integers = deployed(network(nn.Sequential(Padded(), nn.Conv2d(6, 6, 3))))
    pair = both(integers, tmp_path / "m.onnx")
    torch.testing.assert_close(pair.onnx, pair.torch, rtol=1e-5, atol=1e-5)
