import pytest
import torch
from torch import nn

from mobile import NORMALIZATION, SHAPE, agreement, fit_head, images, measure, mobile_network
from nayer_cli.gates import LEAST_AFTER_ROUNDING
from nayer_cli.quant.analytic import broken, calibrate
from nayer_cli.quant.graph import is_calibrated, quantize
from nayer_cli.quant.scheme import Scheme


def six(network: nn.Sequential) -> nn.Sequential:
    """Let every activation function end at 6, and channels reach far beyond."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.ReLU6())
            if isinstance(child, nn.BatchNorm2d):
                child.weight.data.mul_(3)
    measure(network)
    fit_head(network)
    return network


@pytest.mark.parametrize("change", [nn.Identity(), six])
def test_eight_bits_keep_what_a_network_says(change):
    network = change(mobile_network())
    quantized = quantize(network, SHAPE, Scheme(8, 8)).eval()
    noises = calibrate(quantized, NORMALIZATION)
    assert is_calibrated(quantized)
    assert agreement(quantized, network) > LEAST_AFTER_ROUNDING
    assert broken(noises) is None


def test_two_bits_are_told_to_break_it():
    quantized = quantize(mobile_network(), SHAPE, Scheme(2, 2)).eval()
    assert broken(calibrate(quantized, NORMALIZATION)) is not None


def test_a_grid_ends_where_the_activation_function_does():
    quantized = quantize(six(mobile_network()), SHAPE, Scheme(8, 8)).eval()
    calibrate(quantized, NORMALIZATION)
    first = quantized.get_submodule("grids.1")
    assert 6 <= (first.step() * first.high).item() < 12  # the next power of two is less than twice as long


def test_means_that_rounding_moves_are_put_back():
    network = mobile_network()
    quantized = quantize(network, SHAPE, Scheme(3, 8)).eval()
    before = {name: buffer.clone() for name, buffer in quantized.named_buffers() if name.endswith("running_mean")}
    calibrate(quantized, NORMALIZATION)
    corrected = _mean_error(quantized, network)
    quantized.load_state_dict(before, strict=False)
    assert corrected < 0.9 * _mean_error(quantized, network)


@torch.no_grad()
def _mean_error(quantized: nn.Module, network: nn.Module) -> float:
    return float((quantized(images()) - network(images())).mean(0).square().sum())
