import pytest
import torch
from torch import nn

from nayer_cli.quant.integers import Grid, IntegerConv2d, IntegerLayer, IntegerLinear


def grid(low: int, high: int, scale: float = 0.5, signed: bool = True) -> Grid:
    made = Grid(signed)
    made.scale.fill_(scale)
    made.low.fill_(low)
    made.high.fill_(high)
    return made


def filled(layer: IntegerLayer, weight: torch.Tensor) -> IntegerLayer:
    layer.weight.data = weight.to(torch.int8).view_as(layer.weight)
    layer.bias.data = torch.arange(1, len(layer.bias) + 1, dtype=torch.int32)
    layer.weight_scale.copy_(torch.tensor([0.5, 0.25][: len(layer.bias)]))
    layer.input_scale.fill_(0.1)
    return layer


def test_a_grid_rounds_halves_to_even_and_stops_at_its_ends():
    values = torch.tensor([0.25, 0.75, 0.3, 9.0, -9.0])
    assert grid(-3, 4)(values).tolist() == [0.0, 1.0, 0.5, 2.0, -1.5]


def test_a_grid_may_be_given_steps_instead_of_values():
    counted = grid(-3, 4)
    counted.in_steps = True
    assert counted(torch.tensor([2.6, 100.0])).tolist() == [1.5, 2.0]


def test_a_new_grid_is_one_point_of_step_one():
    new = Grid(signed=False)
    assert (new.scale, new.low, new.high, new.in_steps, new.signed) == (1, 0, 0, False, False)
    assert new.low.dtype == new.high.dtype == torch.int32


def test_the_largest_byte_of_a_signed_grid_is_counted_from_128():
    assert grid(-8, 7, signed=True).largest_byte == 135
    assert grid(0, 15, signed=False).largest_byte == 15


def test_a_linear_layer_counts_in_whole_steps_and_scales_each_channel():
    layer = filled(IntegerLinear(nn.Linear(2, 2), bits=4), torch.tensor([[1, 2], [-3, 4]]))
    x = torch.tensor([[0.1, 0.3]])  # 1 and 3 steps
    torch.testing.assert_close(layer(x), torch.tensor([[(1 + 6 + 1) * 0.05, (-3 + 12 + 2) * 0.025]]))
    layer.output_scale.fill_(0.05)
    torch.testing.assert_close(layer(x), torch.tensor([[8.0, 5.5]]))
    assert layer.bits == 4


def test_what_is_a_hair_off_the_grid_is_taken_for_the_step_beside():
    layer = filled(IntegerLinear(nn.Linear(1, 1), bits=8), torch.tensor([[10]]))
    assert torch.equal(layer(torch.tensor([[0.3]])), layer(torch.tensor([[0.3000001]])))


@pytest.mark.parametrize("options", [{"stride": 2}, {"padding": 1}, {"dilation": 2}, {"groups": 2}], ids=str)
def test_a_convolution_does_what_the_float_one_does(options):
    like = nn.Conv2d(2, 2, 2, **options)
    weight = torch.randint(-7, 8, like.weight.shape, generator=torch.Generator().manual_seed(0))
    layer = filled(IntegerConv2d(like, bits=4), weight)
    assert layer.bits == 4
    scale = torch.tensor([0.5, 0.25])
    like.weight.data = weight * scale.view(-1, 1, 1, 1)
    like.bias.data = layer.bias * 0.1 * scale
    x = torch.randint(0, 9, (1, 2, 5, 5), generator=torch.Generator().manual_seed(1)) * 0.1
    torch.testing.assert_close(layer(x), like(x))


def test_integers_are_parameters_that_never_learn():
    layer = IntegerConv2d(nn.Conv2d(2, 3, 1), bits=8)
    assert (layer.weight.dtype, layer.bias.dtype) == (torch.int8, torch.int32)
    assert not layer.weight.any() and not layer.bias.any() and layer.bias.shape == (3,)
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    assert layer.weight_scale.tolist() == [1, 1, 1] and layer.input_scale == layer.output_scale == 1


@pytest.mark.parametrize("method", ["accumulate", "per_channel"])
def test_what_a_kind_of_layer_must_say_is_refused_by_name(method):
    arguments = [torch.zeros(1)] * (3 if method == "accumulate" else 1)
    with pytest.raises(TypeError, match=f"^IntegerLayer must define {method}$"):
        getattr(IntegerLayer((1, 1), 8), method)(*arguments)
