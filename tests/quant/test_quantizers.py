import pytest
import torch
from torch import nn

from nayer_cli.quant.quantizers import ActivationQuantizer, LearnedStep, WeightQuantizer, shortened


def test_values_go_to_the_nearest_step_and_stay_in_range():
    x = torch.tensor([-9.0, -0.6, -0.2, 0.3, 0.7, 9.0])
    found = LearnedStep.apply(x, torch.tensor(0.5), -2, 1)
    assert found.tolist() == [-1.0, -0.5, 0.0, 0.5, 0.5, 0.5]


def test_gradients_are_those_of_the_paper():
    x = torch.tensor([-9.0, 0.3, 9.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    LearnedStep.apply(x, scale, -2, 1).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 0.0]
    slope = -2 + (round(0.3 / 0.5) - 0.3 / 0.5) + 1  # below: low, inside: q − x/s, above: high
    torch.testing.assert_close(scale.grad, torch.tensor(slope / (3 * 1) ** 0.5))


def test_each_channel_has_a_gradient_of_its_own():
    scale = torch.full((2, 1), 0.5, requires_grad=True)
    x = torch.tensor([[0.1, 0.2], [9.0, 9.0]])
    LearnedStep.apply(x, scale, -3, 3).sum().backward()
    torch.testing.assert_close(scale.grad, torch.tensor([[-0.6], [6.0]]) / (2 * 3) ** 0.5)


def test_nothing_changes_before_calibration_and_a_reload_remembers_it():
    quantizer, x = ActivationQuantizer(4, signed=False), torch.rand(5)
    assert quantizer(x) is x
    quantizer.calibrate(torch.tensor(0.25))
    other = ActivationQuantizer(4, signed=False)
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other(x), (x / 0.25).round() * 0.25)


def test_ranges_are_symmetric_for_weights_and_unsigned_after_a_relu():
    weights, activations = WeightQuantizer(4, torch.zeros(3, 2, 1, 1)), ActivationQuantizer(4, signed=False)
    assert (weights.low, weights.high, weights.scale.shape) == (-7, 7, (3, 1, 1, 1))
    assert (activations.low, activations.high) == (0, 15)
    assert ActivationQuantizer(8, signed=True).low == -128


def test_a_scale_that_crossed_0_still_rounds():
    quantizer = ActivationQuantizer(8, signed=True)
    quantizer.calibrate(torch.tensor(-0.5))
    assert quantizer(torch.tensor([0.6])).item() == 0.5


def test_rounding_is_in_float32_under_autocast():
    quantizer = ActivationQuantizer(8, signed=False)
    quantizer.calibrate(torch.tensor(1.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert quantizer(torch.tensor([201.0], dtype=torch.bfloat16)).dtype == torch.float32


def test_a_scale_that_is_held_fixed_gets_no_gradient():
    x = torch.tensor([0.3], requires_grad=True)
    scale = torch.tensor(0.5)
    LearnedStep.apply(x, scale, -2, 1).sum().backward()
    assert x.grad.tolist() == [1.0] and scale.grad is None


def test_gradients_scale_with_what_comes_from_above():
    x, scale = torch.tensor([0.3, 9.0], requires_grad=True), torch.tensor(0.5, requires_grad=True)
    LearnedStep.apply(x, scale, -2, 1).backward(torch.tensor([2.0, 3.0]))
    assert x.grad.tolist() == [2.0, 0.0]
    slope = 2 * (1 - 0.3 / 0.5) + 3 * 1
    torch.testing.assert_close(scale.grad, torch.tensor(slope / 2**0.5))


def test_values_at_the_ends_of_the_range_learn():
    x = torch.tensor([-1.0, 0.5], requires_grad=True)
    LearnedStep.apply(x, torch.tensor(0.5), -2, 1).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_an_uncalibrated_scale_is_0_and_a_calibrated_one_is_a_step():
    quantizer = WeightQuantizer(4, torch.zeros(2, 3))
    assert not quantizer.scale.any() and not quantizer.is_calibrated
    quantizer.calibrate(torch.tensor([[0.5], [0.0]]))
    assert quantizer.is_calibrated
    assert quantizer.step().flatten().tolist() == pytest.approx([0.5, 1e-8])


def test_quantizers_know_their_bits():
    assert WeightQuantizer(3, torch.zeros(2, 3)).bits == 3
    activations = ActivationQuantizer(2, signed=True)
    assert (activations.bits, activations.signed, activations.low, activations.high) == (2, True, -2, 1)
    assert not ActivationQuantizer(2, signed=False).signed
    assert repr(activations) == "ActivationQuantizer(-2…1)"


def test_a_state_of_a_network_that_was_not_calibrated_leaves_it_so():
    fresh, used = ActivationQuantizer(4, signed=False), ActivationQuantizer(4, signed=False)
    used.calibrate(torch.tensor(0.25))
    nn.Sequential(used).load_state_dict(nn.Sequential(fresh).state_dict())
    assert not used.is_calibrated


def test_a_limit_never_widens_the_range_beyond_the_bits():
    weights = WeightQuantizer(8, torch.zeros(2, 3))
    for most, high in ((63, 63), (100, 100), (200, 127)):
        weights.limit(most)
        assert (weights.low, weights.high) == (-high, high)


def test_values_beyond_the_range_become_its_ends():
    unsigned, signed = ActivationQuantizer(4, signed=False), ActivationQuantizer(8, signed=True)
    for quantizer in (unsigned, signed):
        quantizer.calibrate(torch.tensor(0.25))
    assert unsigned(torch.tensor([-99.0, 99.0])).tolist() == [0, 15 / 4]
    assert signed(torch.tensor([-99.0, 99.0])).tolist() == [-128 / 4, 127 / 4]


def test_short_numbers_are_the_nearest_or_the_next_ones():
    x = torch.tensor([1.0, 1.4, 1.5, 1.9, 3e-8, 0.7])
    assert shortened(x, 0).tolist() == [1, 1, 2, 2, 2**-25, 0.5]
    assert shortened(x, 0, up=True).tolist() == [1, 2, 2, 2, 2**-24, 1]
    x = torch.rand(1000, generator=torch.Generator().manual_seed(0)) + 1
    assert torch.equal(shortened(x, 7), (x * 128).add(0.5).floor() / 128)
    assert torch.equal(shortened(x, 7, up=True), (x * 128).ceil() / 128)


def test_fine_steps_are_powers_of_two_and_learn_in_between():
    quantizer = ActivationQuantizer(8, signed=False)
    quantizer.calibrate(torch.tensor(0.3))
    assert quantizer.scale == 0.5  # reaches as far as was asked
    quantizer.scale.data.fill_(0.7)
    assert quantizer.step() == 0.5
    quantizer(torch.tensor([0.3])).sum().backward()
    torch.testing.assert_close(quantizer.scale.grad, torch.tensor(1 - 0.3 / 0.5) / 255**0.5)
    quantizer.scale.data.fill_(0.8)
    assert quantizer.step() == 1


@pytest.mark.parametrize(("bits", "step"), [(6, 0.3), (7, 0.5)])
def test_steps_of_few_bits_are_what_they_are(bits, step):
    quantizer = ActivationQuantizer(bits, signed=True)
    quantizer.calibrate(torch.tensor(0.3))
    assert quantizer.step().item() == pytest.approx(step)
