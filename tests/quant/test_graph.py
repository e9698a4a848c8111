import pytest
import timm
import torch
from torch import nn

import nayer_cli.classifiers.models  # noqa: F401 - registers the CIFAR networks
from nayer_cli import plugins
from nayer_cli.errors import InputError
from nayer_cli.machine.distributed import Group
from nayer_cli.quant.calibrate import calibrate
from nayer_cli.quant.graph import (
    ADDITIONS,
    QuantizedLayer,
    grid_of,
    is_calibrated,
    is_kind,
    kept_float,
    quantize,
    quantizers,
)
from nayer_cli.quant.quantizers import ActivationQuantizer
from nayer_cli.quant.scheme import Scheme
from nayer_cli.types import ImageShape
from tiny import SHAPE, network

for family in plugins.names("models"):
    plugins.load("models", family)


def quantized(net: nn.Module, scheme: Scheme = Scheme(4, 3), **options: bool) -> torch.fx.GraphModule:  # noqa: B008
    return quantize(net, SHAPE, scheme, **options)


def grids(net: nn.Module) -> list[tuple[int, bool]]:
    return [(one.bits, one.signed) for one in net.modules() if isinstance(one, ActivationQuantizer)]


def weights(net: nn.Module) -> list[int]:
    return [one.quantizer.bits for one in net.modules() if isinstance(one, QuantizedLayer)]


def test_before_calibration_nothing_changes():
    net, x = network(), torch.rand(4, *SHAPE)
    assert torch.equal(quantized(net)(x), net(x))
    assert not is_calibrated(quantized(net))


def test_bits_go_where_they_belong():
    net = quantized(network())
    assert grids(net) == [(8, True), (3, False), (3, False), (8, False)]  # input, two ReLUs, pooled features
    assert weights(net) == [8, 4, 8]


def test_0_makes_first_last_and_edges_like_the_others():
    net = quantized(network(), Scheme(4, 3, 0, 0))
    assert {bits for bits, _ in grids(net)} == {3}
    assert set(weights(net)) == {4}


def test_a_sum_and_both_that_it_adds_are_rounded():
    net = quantize(timm.create_model("resnet8_digits", num_classes=4), ImageShape(1, 16, 16), Scheme(4, 4))
    sums = [node for node in net.graph.nodes if is_kind(node, ADDITIONS, net)]
    assert len(sums) == 3
    for node in sums:
        assert all(grid_of(term, net) is not None for term in node.args)
    assert kept_float(net) == []


def test_a_preactivation_network_is_rounded_before_each_convolution():
    net = quantize(timm.create_model("wrn_16_1"), ImageShape(3, 32, 32), Scheme(4, 4))
    kept = {(one.what, one.reason) for one in kept_float(net)}
    assert kept == {("BatchNorm2d", "no convolution before it to fold it into")}


def test_a_layer_that_is_called_twice_has_one_weight_and_two_grids():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(torch.relu(self.conv(torch.relu(self.conv(x)))).mean((2, 3)))

    net = quantized(Twice())
    assert len(weights(net)) == 2
    assert len(grids(net)) == 4


def test_curves_stay_float_with_the_reason():
    class Curved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.linear = nn.Conv2d(3, 3, 3), nn.GroupNorm(1, 3), nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(nn.functional.silu(self.norm(self.conv(x))).mean((2, 3)))

    kept = {one.what: one.reason for one in kept_float(quantized(Curved()))}
    assert kept == {
        "GroupNorm": "it divides by what it measures of each image",
        "silu": "a curve, not a line: integers would need a table",
    }


def test_a_layer_whose_weight_something_else_reads_stays_float():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(self.linear(self.conv(x).mean((2, 3))), self.linear.weight)

    kept = {one.name: one.reason for one in kept_float(quantized(Tied()))}
    assert (
        kept["linear"] == kept["linear_1"] == "its kind, its padding or what else reads its weight has no integer form"
    )


def test_dropout_by_a_function_is_left_out():
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(nn.functional.dropout(self.conv(x).mean((2, 3)), 0.5, self.training))

    assert kept_float(quantized(Dropped())) == []


def test_frozen_statistics_stay_in_training():
    net = quantized(network(), frozen=True).train()
    before = net.get_buffer("1.running_mean").clone()
    net(torch.randn(8, *SHAPE))
    assert torch.equal(net.get_buffer("1.running_mean"), before)


def test_a_network_without_layers_is_refused():
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.at = nn.Parameter(torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((1, 2, 3))[:, None] + self.at

    with pytest.raises(InputError, match="no convolution or linear layer"):
        quantized(Mean())


def test_every_quantizer_has_a_name():
    names = [name for name, _ in quantizers(quantized(network()))]
    assert len(names) == len(set(names)) == 7


@pytest.mark.parametrize("layer", [nn.Conv2d(2, 1, 1), nn.Linear(2, 1)])
def test_the_grid_that_is_trained_in_bfloat16_is_the_grid_that_is_deployed(layer):
    """A difference of neighbouring steps: bfloat16 rounds both by up to a step, and counts of steps not at all."""
    head = nn.Identity() if isinstance(layer, nn.Linear) else nn.Flatten()
    network = nn.Sequential(nn.Flatten() if isinstance(layer, nn.Linear) else nn.Identity(), layer, head)
    quantized = quantize(network, ImageShape(2, 1, 1), Scheme(8, 8))
    for _, quantizer in quantizers(quantized):
        quantizer.calibrate(torch.full_like(quantizer.scale, 0.0123))
    (quantized_layer,) = [module for module in quantized.modules() if isinstance(module, QuantizedLayer)]
    with torch.no_grad():
        quantized_layer.layer.weight.copy_(torch.tensor([1.0, -1.0]).view_as(layer.weight) * 127 * 0.0123)
        quantized_layer.layer.bias.fill_(0.5)
    x = torch.stack([torch.arange(-127.0, 128), torch.arange(-128.0, 127)], dim=1)[..., None, None] * 0.0123
    wanted = quantized(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = quantized(x)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


def test_gradients_in_bfloat16_are_those_in_float32():
    torch.manual_seed(0)
    quantized = quantize(network(), SHAPE, Scheme(8, 8))
    x = torch.randn(8, *SHAPE)
    calibrate(quantized, [x], Group())
    gradients = []
    for enabled in (False, True):
        quantized.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            quantized(x).float().square().sum().backward()
        gradients.append(torch.cat([one.grad.flatten() for one in quantized.parameters() if one.grad is not None]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99
