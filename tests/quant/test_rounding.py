import pytest
import torch
from torch import nn

from mobile import NORMALIZATION, SHAPE, images, mobile_network
from nayer_cli.machine.distributed import Group
from nayer_cli.quant.calibrate import calibrate
from nayer_cli.quant.compensate import compensate, round_in_turn
from nayer_cli.quant.deploy import deploy
from nayer_cli.quant.graph import QuantizedLayer, limit_weights, quantize
from nayer_cli.quant.lanes import can_saturate
from nayer_cli.quant.moments import follow
from nayer_cli.quant.rounding import round_kernels, round_weights
from nayer_cli.quant.scheme import Scheme


def calibrated(network: nn.Module, bits: int = 4, **scheme):
    quantized = (
        quantize(network, SHAPE, Scheme(bits, 8, **scheme), frozen=True).eval().to(memory_format=torch.channels_last)
    )
    calibrate(quantized, [images(64)], Group(), limit=True)
    return quantized


def test_sums_of_kernels_are_kept_by_the_least_change():
    steps = torch.tensor([[[0.4, 0.45, 0.1], [1.5, 2.5, -0.6]]])
    assert round_kernels(steps).tolist() == [[[0, 1, 0], [2, 2, -1]]]
    many = torch.randn(5, 4, 9) * 3
    assert (round_kernels(many).sum(2) - many.sum(2)).abs().max() <= 0.5 + 1e-5
    assert (round_kernels(many) - many).abs().max() < 1


def test_weights_in_turn_are_nearest_for_independent_inputs_and_better_for_others():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1, 6, 12, generator=generator, dtype=torch.double)
    step = torch.full((1, 6, 1), 0.5, dtype=torch.double)
    apart = torch.eye(12, dtype=torch.double)[None]
    nearest = (weight / step).round()
    assert torch.equal(round_in_turn(weight, step, 127, apart), nearest)
    x = torch.randn(1, 12, 3, generator=generator, dtype=torch.double)
    together = x @ x.transpose(1, 2) + 0.05 * apart

    def error(steps: torch.Tensor) -> float:
        off = steps * step - weight
        return float((off @ together * off).sum())

    assert error(round_in_turn(weight, step, 127, together)) < 0.5 * error(nearest)
    assert round_in_turn(weight, step, 2, together).abs().max() == 2


@torch.no_grad()
def _error(quantized: nn.Module, network: nn.Module) -> float:
    x = images(seed=2)
    return float((quantized(x) - network(x)).square().mean())


@pytest.mark.parametrize("bits", [3, 5])
def test_a_network_is_nearer_to_itself_after_compensation(bits):
    network = mobile_network()
    quantized = calibrated(network, bits)
    before = _error(quantized, network)
    compensate(quantized, [images(64)], Group(), follow(quantized, {}, NORMALIZATION))
    assert _error(quantized, network) < 0.7 * before
    for module in quantized.modules():
        if isinstance(module, QuantizedLayer):
            torch.testing.assert_close(module.quantizer(module.layer.weight), module.layer.weight)


def test_images_teach_batchnorm_nothing():
    quantized = quantize(mobile_network(), SHAPE, Scheme(4, 8)).train()
    calibrate(quantized, [images(64)], Group())
    norms = [module for module in quantized.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_var.clone() for norm in norms]
    compensate(quantized, [images(64)], Group(), follow(quantized, {}, NORMALIZATION))
    assert norms and all(torch.equal(norm.running_var, old) for norm, old in zip(norms, before, strict=True))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 4, 3, padding="same", groups=1),
        nn.Conv2d(3, 6, 2, stride=2, padding="valid", groups=3),
        nn.Conv2d(3, 4, 3, dilation=2, padding=(0, 1)),
    ],
)
def test_every_form_of_convolution_is_put_on_its_grid(conv):
    network = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(conv.out_channels, 3))
    quantized = calibrated(network.eval(), 3, first_last=3)
    before = quantized.get_submodule("0").layer.weight.clone()
    known = follow(quantized, {}, NORMALIZATION)
    compensate(quantized, [images(16), images(16, seed=1)], Group(), known)
    layer = quantized.get_submodule("0")
    torch.testing.assert_close(layer.quantizer(layer.layer.weight), layer.layer.weight)
    clipped = before.clamp(layer.quantizer.low * layer.quantizer.step(), layer.quantizer.high * layer.quantizer.step())
    assert ((layer.layer.weight - clipped).abs() < layer.quantizer.step()).all()


def test_more_weights_are_possible_behind_six_and_none_saturates():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.LazyLinear(3)).eval()
    nn.init.constant_(network[0].bias, 5.0)
    network(images(2))
    quantized = quantize(network, SHAPE, Scheme(8, 8)).eval()
    assert quantized.get_submodule("2").quantizer.high == 64
    calibrate(quantized, [images(64)], Group(), limit=True)
    assert quantized.get_submodule("2").quantizer.high == 85
    limit_weights(quantized)
    integers = deploy(quantized)
    second, grid = integers.get_submodule("integers._2"), integers.get_submodule("integers.grids_1")
    assert second.weight.abs().max() > 64 and not can_saturate(second.weight, grid.largest_byte)


def test_rounding_says_what_it_added():
    quantized = calibrated(mobile_network())
    before = {name: weight.clone() for name, weight in quantized.named_parameters() if name.endswith("layer.weight")}
    added = round_weights(quantized)
    for name, module in quantized.named_modules():
        if isinstance(module, QuantizedLayer):
            torch.testing.assert_close(before[f"{name}.layer.weight"] + added[module], module.layer.weight)
