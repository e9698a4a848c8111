import operator

import pytest
import torch
from torch import Tensor, nn

from nayer_cli.errors import InputError
from nayer_cli.quant.moments import Gaussian, Moments, _product, follow, sum_of_products
from nayer_cli.quant.trace import trace
from nayer_cli.types import ImageShape, Normalization

SHAPE, NORMALIZATION = ImageShape(2, 6, 6), Normalization((0.5, 0.2), (0.25, 0.1))
OUTPUT = Gaussian(torch.tensor([0.5, -1.0, 3.0]), torch.tensor([1.0, 0.5, 2.0]))


def after(*layers: nn.Module) -> Moments:
    """Moments of what layers return, the first of which returns OUTPUT."""
    network = nn.Sequential(nn.Conv2d(2, 3, 1), *layers)
    return list(follow(trace(network, SHAPE), {"0": OUTPUT}, NORMALIZATION).values())[-1]


def sampled(count: int = 400_000) -> Tensor:
    return OUTPUT.mean + OUTPUT.std * torch.randn(count, 3, generator=torch.Generator().manual_seed(0))


def test_the_input_has_the_limits_of_pixels():
    network = trace(nn.Sequential(nn.Conv2d(2, 3, 1)), SHAPE)
    first = next(iter(follow(network, {}, NORMALIZATION).values()))
    torch.testing.assert_close(first.low, torch.tensor([-2.0, -2.0]))
    torch.testing.assert_close(first.high, torch.tensor([2.0, 8.0]))


def test_what_is_known_of_a_layer_has_limits_six_deviations_away():
    low, high = after().limits()
    assert (low.item(), high.item()) == (-9.0, 15.0)


@pytest.mark.parametrize("curve", [nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.Hardswish(), nn.Sigmoid(), nn.PReLU(3)])
def test_activation_functions_give_the_moments_of_what_they_return(curve):
    found, y = after(curve), curve(sampled()).detach()
    torch.testing.assert_close(found.mean, y.mean(0), rtol=0.02, atol=0.01)
    torch.testing.assert_close(found.var, y.var(0), rtol=0.02, atol=0.01)
    assert (found.low <= y.amin(0) + 1e-3).all() and (found.high >= y.amax(0) - 1e-3).all()


def test_a_rectified_gaussian_has_the_mean_of_the_formula():
    mean, std = OUTPUT
    normal = torch.distributions.Normal(0.0, 1.0)
    expected = std * normal.log_prob(mean / std).exp() + mean * normal.cdf(mean / std)
    torch.testing.assert_close(after(nn.ReLU()).mean, expected, rtol=1e-3, atol=1e-4)


def test_inputs_of_a_layer_count_as_independent():
    layer = nn.Conv2d(3, 6, 3, groups=3)
    found, patches = after(layer), OUTPUT.mean[:, None, None] + OUTPUT.std[:, None, None] * torch.randn(50_000, 3, 3, 3)
    with torch.no_grad():
        y = layer(patches).flatten(1)
    torch.testing.assert_close(found.mean, y.mean(0), rtol=0.05, atol=0.05)
    torch.testing.assert_close(found.var, y.var(0), rtol=0.05, atol=0.05)


def test_a_batch_norm_promises_its_bias_and_weight():
    norm = nn.BatchNorm2d(3)
    nn.init.constant_(norm.bias, 2.0)
    nn.init.constant_(norm.weight, -0.5)
    found = after(norm)
    assert found.mean.tolist() == [2.0] * 3 and found.var.tolist() == [0.25] * 3


def test_flattening_repeats_the_moments_of_a_channel():
    found = after(nn.AvgPool2d(3), nn.Flatten())
    torch.testing.assert_close(found.mean, OUTPUT.mean.repeat_interleave(4))


class Both(nn.Module):
    """Joins what two convolutions return."""

    def __init__(self, join: object) -> None:
        super().__init__()
        self.a, self.b, self.join = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1), join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.a(x), self.b(x))


def joined(join: object) -> Moments:
    return list(follow(trace(Both(join), SHAPE), {"a": OUTPUT, "b": OUTPUT}, NORMALIZATION).values())[-1]


@pytest.mark.parametrize("join", [operator.add, torch.add, operator.mul])
def test_operands_count_as_independent(join):
    found, y = joined(join), join(sampled(), sampled().flip(0))
    torch.testing.assert_close(found.mean, y.mean(0), rtol=0.02, atol=0.02)
    torch.testing.assert_close(found.var, y.var(0), rtol=0.02, atol=0.02)
    assert (found.low <= y.amin(0)).all() and (found.high >= y.amax(0)).all()


def test_parts_and_zeros_become_channels():
    assert len(joined(lambda a, b: torch.cat([a, b], 1)).mean) == 6
    padded = joined(lambda a, b: nn.functional.pad(a, (0, 0, 0, 0, 1, 2)))
    assert padded.mean.tolist() == [0.0, *OUTPUT.mean.tolist(), 0.0, 0.0]


@pytest.mark.parametrize("join", [torch.maximum, lambda a, b: a + nn.functional.pixel_shuffle(a, 1)])
def test_what_cannot_be_followed_is_named(join):
    with pytest.raises(InputError, match=r"maximum|pixel_shuffle"):
        joined(join)


def test_sum_of_products_is_what_a_layer_makes_of_constant_input():
    layer, x = nn.Conv2d(4, 6, 3, groups=2, bias=False), torch.rand(4)
    expected = layer(x.view(1, 4, 1, 1).expand(1, 4, 3, 3)).flatten()
    torch.testing.assert_close(sum_of_products(layer, layer.weight, x), expected)


def test_the_variance_of_a_product_keeps_its_digits_beside_large_means():
    one = Moments(torch.tensor([1e4]), torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([2e4]))
    two = Moments(torch.tensor([1.0]), torch.tensor([1e-9]), torch.tensor([0.0]), torch.tensor([2.0]))
    assert float(_product(one, two).var) == pytest.approx(1 + 1e-9 + 0.1, rel=1e-6)
