import torch
from torch import Tensor, fx, nn

from nayer_cli.quant.dfq_nagel import calibrate, equalize
from nayer_cli.quant.graph import quantize, quantizers
from nayer_cli.quant.moments import Gaussian
from nayer_cli.quant.scheme import Scheme
from nayer_cli.types import ImageShape, Normalization

SHAPE, NORMALIZATION = ImageShape(3, 12, 12), Normalization((0.5,) * 3, (0.25,) * 3)


def unit(inputs: int, outputs: int, kernel: int = 1, groups: int = 1, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def images(count: int = 256, seed: int = 0) -> Tensor:
    """Normalized images whose pixels are not independent."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return (nn.functional.interpolate(coarse, SHAPE[1:], mode="bilinear") - 0.5) / 0.25


def mobile_network(spread: float = 1.0) -> nn.Sequential:
    """Inverted residuals; channels between two layers differ in scale by up to `spread`, which changes no function."""
    torch.manual_seed(0)
    first, second = (nn.Sequential(*unit(8, 24), *unit(24, 24, 3, groups=24), *unit(24, 8)[:2]) for _ in range(2))
    head = [*unit(8, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    network = nn.Sequential(*unit(3, 8, 3, stride=2), first, Residual(*second), *head)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.5)
    for module in network.modules():
        module.momentum = None
    network.train()(images(seed=1))
    for block in (first, second):
        rescale(block[1], block[3], spread)
        rescale(block[4], block[6], spread)
    return network.eval()


@torch.no_grad()
def rescale(norm: nn.BatchNorm2d, after: nn.Conv2d, spread: float) -> None:
    factors = spread ** torch.rand(norm.num_features)
    norm.weight *= factors
    norm.bias *= factors
    after.weight /= factors.view((-1, 1, 1, 1) if after.groups > 1 else (1, -1, 1, 1))


def quantized(network: nn.Module, outputs: dict[str, Gaussian], bits: int = 8) -> fx.GraphModule:
    result = quantize(network, SHAPE, Scheme(bits, bits))
    calibrate(result, outputs, NORMALIZATION)
    return result.eval()


@torch.no_grad()
def agreement(a: nn.Module, b: nn.Module) -> float:
    return float((a(images()).argmax(1) == b(images()).argmax(1)).float().mean())


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
