import pytest
import torch
from torch import nn

from nayer_cli.errors import RunFailed
from nayer_cli.machine.distributed import Group
from nayer_cli.quant.calibrate import _spread, calibrate, calibrate_weights, recalibrate_statistics
from nayer_cli.quant.graph import QuantizedLayer, is_calibrated, quantize
from nayer_cli.quant.scheme import Scheme
from tiny import SHAPE, network


def quantized(bits: int) -> torch.fx.GraphModule:
    return quantize(network(), SHAPE, Scheme(bits, bits, 0, 0))


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(32, *SHAPE, generator=torch.Generator().manual_seed(seed))


def test_eight_bits_are_nearly_the_float_network():
    net = quantized(8)
    calibrate(net, [images()], Group())
    assert is_calibrated(net)
    difference = (net.eval()(images(1)) - network()(images(1))).abs().mean()
    assert 0 < difference < 0.02


@torch.no_grad()
def test_fewer_bits_are_worse_and_clipping_is_better_than_not():
    def error(bits: int, clip: bool) -> float:
        net = quantized(bits)
        calibrate(net, [images()], Group(), clip=clip)
        return float((net.eval()(images(1)) - network()(images(1))).square().mean())

    assert error(8, True) < error(4, True) < error(2, True)
    assert error(3, True) < error(3, False)


def test_weights_get_the_scale_of_least_error():
    net = quantized(3)
    calibrate_weights(net)
    layer = next(one for one in net.modules() if isinstance(one, QuantizedLayer))
    error = (layer.quantizer(layer.layer.weight) - layer.layer.weight).square().sum()
    for ratio in (0.8, 1.25):
        layer.quantizer.scale.data *= ratio
        assert (layer.quantizer(layer.layer.weight) - layer.layer.weight).square().sum() > error
        layer.quantizer.scale.data /= ratio


def test_a_range_reaches_the_weight_that_is_farthest_from_zero():
    net = quantized(8)
    layer = net.get_submodule("0")
    nn.init.constant_(layer.layer.weight[1, 0, 0, :1], -50.0)
    calibrate_weights(net, clip=False)
    assert layer.quantizer.scale[1].item() == pytest.approx(50 / layer.quantizer.high)
    assert layer.quantizer.scale[0].item() < 1 / layer.quantizer.high


def test_a_range_reaches_the_input_that_is_farthest_from_zero_in_all_batches():
    nets, first = [quantized(4), quantized(8)], images()
    first[0, 0, 0, 0] = -30.0
    for net in nets:
        calibrate(net, [first, images(1)], Group(), clip=False)
    scales = [net.get_submodule("grids.0").scale.item() for net in nets]
    assert scales == [pytest.approx(30 / 7), 0.25]  # 30 / 127 is 0.236: the next power of two reaches farther


def test_modes_and_statistics_stay_as_they_were():
    net = quantized(4).train()
    before = {key: value.clone() for key, value in net.named_buffers()}
    calibrate(net, [images()], Group())
    assert all(torch.equal(value, before[key]) for key, value in net.named_buffers())
    assert net.training


def test_evaluation_changes_nothing():
    net = quantized(4)
    calibrate(net, [images()], Group())
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net.eval()(images(1) * 100)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_large_tensors_are_looked_at_all_over():
    x = torch.zeros(16, 3, 32, 32)
    x[..., 7] = 1.0  # one column of 32: a stride could meet none but it, or never
    indices = _spread(x.numel(), 2**12, x.device)
    assert float(x.flatten()[indices].mean()) == pytest.approx(1 / 32, rel=0.3)


def test_a_dead_channel_does_no_harm():
    net = quantized(4)
    nn.init.zeros_(net.get_submodule("3").layer.weight[0])
    calibrate(net, [images()], Group())
    assert net.eval()(images()).isfinite().all()


def test_without_images_and_with_nan_it_fails_with_a_sentence():
    with pytest.raises(RunFailed, match=r"^there are no images to calibrate with$") as caught:
        calibrate(quantized(4), [], Group())
    assert caught.value.hint == "make some first: --set schedule.warmup_epochs=1"
    with pytest.raises(RunFailed, match=r"^what the network computes from the calibration images is not finite$"):
        calibrate(quantized(4), [images() * torch.nan], Group())


def test_statistics_are_measured_anew_as_a_plain_mean():
    net, x = quantized(8), images()
    recalibrate_statistics(net, [x[:16], x[16:]], Group())
    first = net.get_submodule("0")(x)
    torch.testing.assert_close(net.get_buffer("1.running_mean"), first.mean((0, 2, 3)))
    assert net.get_submodule("1").momentum == 0.1


def test_all_processes_get_the_mean_of_their_scales():
    class Peers(Group):  # who found twice what this process found
        def average(self, tensors: list[torch.Tensor]) -> None:
            for tensor in tensors:
                tensor.mul_(1.5)

    alone, together = quantized(4), quantized(4)
    calibrate(alone, [images()], Group(), clip=False)
    calibrate(together, [images()], Peers(0, 2), clip=False)
    scales = [net.get_submodule("grids.0").scale for net in (alone, together)]
    torch.testing.assert_close(scales[1], 1.5 * scales[0])


def test_clipping_is_the_default():
    nets = [quantized(2) for _ in range(3)]
    calibrate(nets[0], [images()], Group())
    calibrate(nets[1], [images()], Group(), clip=True)
    calibrate(nets[2], [images()], Group(), clip=False)
    for place in ("grids.0", "0.quantizer"):
        default, clipped, whole = (net.get_submodule(place).scale for net in nets)
        assert torch.equal(default, clipped) and (default <= whole).all() and (default < whole).any()


def test_each_channel_has_a_scale_that_follows_its_own_weights():
    alone, beside_a_large_one = quantized(3), quantized(3)
    with torch.no_grad():
        beside_a_large_one.get_submodule("0").layer.weight[1] *= 100
    for net in (alone, beside_a_large_one):
        calibrate_weights(net)
    scales = [net.get_submodule("0.quantizer").scale.flatten() for net in (alone, beside_a_large_one)]
    torch.testing.assert_close(scales[1], scales[0] * torch.tensor([1.0, 100, 1, 1, 1, 1]))


def test_activations_get_the_scale_of_least_error():
    net, x = quantized(3), images()
    calibrate(net, [x], Group())
    grid = net.get_submodule("grids.0")

    def error(scale: float) -> float:
        return float(((x / scale).round().clamp(grid.low, grid.high) * scale - x).square().mean())

    best = min(error(float(x.abs().max()) / grid.high * ratio / 400) for ratio in range(40, 401))
    assert error(grid.scale.item()) < 1.01 * best


def test_of_powers_of_two_that_of_least_error_is_taken():
    net, x = quantized(8), images() ** 3  # with tails that are better clipped
    calibrate(net, [x], Group())
    grid = net.get_submodule("grids.0")

    def error(scale: float) -> float:
        return float(((x / scale).round().clamp(grid.low, grid.high) * scale - x).square().mean())

    assert grid.scale.item() == min((2.0**n for n in range(-9, 3)), key=error)


def test_modes_come_back_module_by_module():
    net = quantized(4).train()
    net.get_submodule("1").eval()
    modes = [module.training for module in net.modules()]
    calibrate(net, [images()], Group())
    recalibrate_statistics(net, [images()], Group())
    assert [module.training for module in net.modules()] == modes


def test_a_network_is_calibrated_anew_as_if_it_were_fresh():
    once, twice = quantized(3), quantized(3)
    calibrate(once, [images()], Group())
    for batch in (images(1) * 5, images()):
        calibrate(twice, [batch], Group())
    assert torch.equal(once.get_submodule("grids.1").scale, twice.get_submodule("grids.1").scale)
    assert all(not module._forward_pre_hooks for module in twice.modules())


def test_few_values_are_all_looked_at_and_many_at_random_places_of_their_own():
    assert _spread(5, 5, torch.device("cpu")).tolist() == [0, 1, 2, 3, 4]
    some = _spread(10**6, 1000, torch.device("cpu"))
    assert len(some) == 1000 and some.max() < 10**6 and len(some.unique()) > 990
    assert torch.equal(some, _spread(10**6, 1000, torch.device("cpu")))


def test_rare_values_count_among_many():
    net, x = quantized(4), torch.zeros(64, *SHAPE)
    x[63, 2, 7, 7] = 30.0
    calibrate(net, [x.repeat(8, 1, 1, 1)], Group(), clip=False)
    assert net.get_submodule("grids.0").scale.item() == pytest.approx(30 / 7)


def test_statistics_are_the_same_in_all_processes():
    class Peers(Group):
        averaged = 0

        def average(self, tensors: list[torch.Tensor]) -> None:
            self.averaged += len(tensors)

    group = Peers(0, 2)
    recalibrate_statistics(quantized(8), [images()], group)
    assert group.averaged == 4
