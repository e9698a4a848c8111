import pytest
import torch
from torch import Tensor, nn

from mobile import SHAPE, agreement, images, mobile_network
from nayer_cli.gates import LEAST_AFTER_ROUNDING
from nayer_cli.machine.distributed import Group
from nayer_cli.quant.blocks import blocks
from nayer_cli.quant.calibrate import calibrate
from nayer_cli.quant.deploy import deploy
from nayer_cli.quant.graph import QuantizedLayer, quantize
from nayer_cli.quant.quantizers import WeightQuantizer
from nayer_cli.quant.reconstruct import Recipe, SoftRounding, reconstruct
from nayer_cli.quant.scheme import Scheme

RECIPE = Recipe(steps=60, batch=32)


def calibrated(bits: int = 3):
    network = mobile_network()
    quantized = quantize(network, SHAPE, Scheme(bits, 8), frozen=True).eval()
    calibrate(quantized, [images(64)], Group())
    return network, quantized


def fitted(quantized, recipe: Recipe = RECIPE):
    return reconstruct(quantized, images(64), torch.Generator().manual_seed(0), recipe)


def test_blocks_one_after_another_are_the_network():
    _, quantized = calibrated()
    x = images(4)
    parts = list(blocks(quantized))
    assert len(parts) > 2
    for part in parts:
        x = part(x)
    torch.testing.assert_close(x, quantized(images(4)))


def test_a_residual_unit_is_not_divided():
    _, quantized = calibrated()
    adds = [part for part in blocks(quantized) if any("add" in node.name for node in part.graph.nodes)]
    (unit,) = adds
    assert sum(isinstance(module, QuantizedLayer) for module in unit.modules()) >= 3


def test_errors_of_blocks_fall_and_so_does_that_of_the_network():
    network, quantized = calibrated()
    before = _error(quantized, network)
    errors = fitted(quantized)
    assert sum(after for _, after in errors) < sum(before for before, _ in errors)
    assert _error(quantized, network) < 0.8 * before


@torch.no_grad()
def _error(quantized: nn.Module, network: nn.Module) -> float:
    x = images(seed=2)
    return float((quantized(x) - network(x)).square().mean())


def test_weights_lie_on_their_grids_and_integers_agree():
    _, quantized = calibrated(bits=4)
    without = _error(deploy(quantized), quantized)
    fitted(quantized, Recipe(steps=5, batch=8))
    for module in quantized.modules():
        if isinstance(module, QuantizedLayer):
            assert isinstance(module.quantizer, WeightQuantizer)
            torch.testing.assert_close(module.quantizer(module.layer.weight), module.layer.weight)
    assert agreement(deploy(quantized), quantized) > LEAST_AFTER_ROUNDING
    assert _error(deploy(quantized), quantized) < 1.5 * without


def test_roundings_begin_where_the_weights_are_and_are_decided_at_the_end():
    weight = torch.linspace(-1, 1, 40).view(4, 10)
    quantizer = WeightQuantizer(8, weight)
    quantizer.calibrate(torch.full_like(quantizer.scale, 1 / 127))
    soft = SoftRounding(quantizer, weight)
    torch.testing.assert_close(soft(weight), weight)
    steps = soft.hard() * 127
    torch.testing.assert_close(steps, steps.round())
    assert (steps - weight * 127).abs().max() <= 0.5 + 1e-4


def test_a_failure_inside_leaves_quantizers_where_they_were(monkeypatch):
    _, quantized = calibrated()
    monkeypatch.setattr("nayer_cli.quant.reconstruct._undecided", _fails)
    with pytest.raises(KeyboardInterrupt):
        fitted(quantized)
    assert not any(isinstance(module, SoftRounding) for module in quantized.modules())
    assert not any(module._forward_hooks for module in quantized.modules())


def _fails(soft: list[SoftRounding], done: float) -> Tensor:
    raise KeyboardInterrupt


def test_the_same_seed_gives_the_same_network():
    first, second = calibrated()[1], calibrated()[1]
    for one in (first, second):
        fitted(one, Recipe(steps=3, batch=8))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
