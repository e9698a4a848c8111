import torch
from torch import Tensor, fx, nn

from mobile import NORMALIZATION, SHAPE, agreement, images, mobile_network
from nayer_cli.quant.dfq_nagel import calibrate, equalize
from nayer_cli.quant.graph import quantize, quantizers
from nayer_cli.quant.moments import Gaussian
from nayer_cli.quant.scheme import Scheme


def quantized(network: nn.Module, outputs: dict[str, Gaussian], bits: int = 8) -> fx.GraphModule:
    result = quantize(network, SHAPE, Scheme(bits, bits))
    calibrate(result, outputs, NORMALIZATION)
    return result.eval()


def test_equalizing_does_not_change_the_function():
    network = mobile_network(spread=100.0)
    equal, _ = equalize(network, SHAPE)
    torch.testing.assert_close(equal(images()), network(images()), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in equal.modules())
    again, _ = equalize(network, SHAPE)
    assert all(torch.equal(a, b) for a, b in zip(equal.parameters(), again.parameters(), strict=True))


def test_ranges_on_both_sides_of_a_pair_are_equal():
    equal, _ = equalize(mobile_network(spread=100.0), SHAPE)
    expand, depthwise, project = (equal.get_submodule(f"3.{index}").weight.abs() for index in (0, 3, 6))
    torch.testing.assert_close(expand.amax((1, 2, 3)), depthwise.amax((1, 2, 3)), rtol=0.01, atol=0)
    torch.testing.assert_close(depthwise.amax((1, 2, 3)), project.amax((0, 2, 3)), rtol=0.01, atol=0)


def test_one_scale_for_all_channels_fails_without_equalization_and_works_with_it(monkeypatch):
    network = mobile_network(spread=100.0)
    assert agreement(quantized(*equalize(network, SHAPE)), network) > 0.95
    monkeypatch.setattr("nayer_cli.quant.dfq_nagel.SWEEPS", 0)
    assert agreement(quantized(*equalize(network, SHAPE)), network) < 0.6


def test_six_no_longer_limits_and_shared_layers_stay_as_they_are():
    conv = nn.Conv2d(3, 3, 3, padding=1)
    network = nn.Sequential(conv, nn.ReLU6(), conv, nn.ReLU6(), nn.Flatten(), nn.LazyLinear(4)).eval()
    network(images(2))
    equal, outputs = equalize(network, SHAPE)
    assert outputs == {} and not any(isinstance(module, nn.ReLU6) for module in equal.modules())
    assert torch.equal(equal.get_submodule("0").weight, conv.weight)


def test_a_bias_that_no_relu_clips_moves_to_the_next_layer():
    first, norm, second = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1)
    nn.init.constant_(norm.bias, 10.0)
    network = nn.Sequential(first, norm, nn.ReLU(), second, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    equal, outputs = equalize(network, SHAPE)
    mean, std = outputs["0"]
    torch.testing.assert_close(mean, 3 * std)
    values = images().clamp(-1, 1)
    torch.testing.assert_close(equal(values), network(values), rtol=1e-4, atol=1e-4)


def test_correction_keeps_the_mean_output(monkeypatch):
    network = mobile_network()

    @torch.no_grad()
    def shift() -> Tensor:
        return (quantized(*equalize(network, SHAPE), bits=5)(images()) - network(images())).mean(0).norm()

    corrected = shift()
    monkeypatch.setattr("nayer_cli.quant.dfq_nagel._bias", lambda layer: layer.bias.clone())
    assert corrected < 0.7 * shift()


def test_every_quantizer_gets_a_scale_and_weights_one_for_all_channels():
    result = quantized(*equalize(mobile_network(), SHAPE))
    for _, quantizer in quantizers(result):
        assert quantizer.is_calibrated and quantizer.scale.unique().numel() == 1
