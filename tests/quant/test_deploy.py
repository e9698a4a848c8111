import pytest
import timm
import torch
from torch import nn

import nayer_cli.classifiers.models  # noqa: F401 - registers the CIFAR networks
from nayer_cli.machine.distributed import Group
from nayer_cli.onnx.runner import OnnxNetwork
from nayer_cli.onnx.writer import write_onnx
from nayer_cli.quant.calibrate import calibrate
from nayer_cli.quant.deploy import _is_absorbed, deploy
from nayer_cli.quant.graph import kept_float, quantize
from nayer_cli.quant.integers import Grid, IntegerConv2d, IntegerLayer
from nayer_cli.quant.scheme import Scheme
from nayer_cli.types import ImageShape
from tiny import SHAPE, network


def calibrated(net: nn.Module, bits: int = 4, shape: ImageShape = SHAPE) -> torch.fx.GraphModule:
    quantized = quantize(net, shape, Scheme(bits, bits))
    x = torch.randn(32, *shape, generator=torch.Generator().manual_seed(0))
    calibrate(quantized, [x], Group())
    return quantized.eval()


def images(seed: int = 1, shape: ImageShape = SHAPE) -> torch.Tensor:
    return torch.randn(64, *shape, generator=torch.Generator().manual_seed(seed))


def test_integers_compute_what_was_learned():
    quantized = calibrated(network())
    before = quantized(images())
    deployed = deploy(quantized)
    torch.testing.assert_close(deployed(images()), before, atol=0.05, rtol=0)
    assert (deployed(images()).argmax(1) == before.argmax(1)).float().mean() > 0.95
    assert torch.equal(quantized(images()), before)  # it is left alone


def test_all_is_integers_and_within_the_bits():
    deployed = deploy(calibrated(network(), 3))
    layers = [module for module in deployed.modules() if isinstance(module, IntegerLayer)]
    assert [layer.weight.dtype for layer in layers] == [torch.int8] * 3
    assert [layer.bias.dtype for layer in layers] == [torch.int32] * 3
    assert [int(layer.weight.abs().max()) for layer in layers][1] <= 3
    assert kept_float(deployed) == []
    assert not [module for module in deployed.modules() if isinstance(module, (nn.BatchNorm2d, nn.ReLU, nn.Conv2d))]


def test_the_learner_and_its_integers_share_nothing():
    learner = calibrated(network())
    deployed = deploy(learner)
    assert not {id(module) for module in learner.modules()} & {id(module) for module in deployed.modules()}


def test_what_travels_lies_on_the_grids():
    deployed = deploy(calibrated(network()))
    seen: list[torch.Tensor] = []
    for grid in [module for module in deployed.modules() if isinstance(module, Grid)]:
        grid.register_forward_hook(lambda g, _, y: seen.append((y / g.scale - (y / g.scale).round()).abs().max()))
    deployed(images())
    assert len(seen) == 4
    assert max(seen) < 1e-4


def test_one_factor_takes_sums_to_steps_as_in_onnx_runtime(tmp_path):
    deployed = deploy(calibrated(network(width=90)))
    layer = next(module for module in deployed.modules() if isinstance(module, IntegerConv2d))
    grid = deployed.get_submodule("integers.grids_1")
    # Where a product of two roundings lies on the other side of a half, a whole channel would differ by a step.
    steps = layer.bias * (layer.input_scale * layer.weight_scale / grid.scale)
    assert torch.equal(layer(torch.zeros(1, *SHAPE))[0, :, 4, 4], steps)
    write_onnx(deployed, SHAPE, tmp_path / "x.onnx", facts={})
    assert torch.equal(OnnxNetwork(tmp_path / "x.onnx")(images()), deployed(images()))


@pytest.mark.parametrize("seed", range(3))
def test_no_runtime_rounds_otherwise_because_it_multiplies_in_another_order(seed):
    deployed, seen = deploy(calibrated(network(width=30, seed=seed), bits=8)), []

    def in_another_order(layer: IntegerLayer, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        scale = layer.input_scale * layer.weight_scale
        steps = (inputs[0] / layer.input_scale).round()
        values = layer.accumulate(steps, layer.weight.float(), torch.zeros(len(scale))) * layer.per_channel(scale)
        seen.append(torch.equal((values + layer.per_channel(layer.bias * scale)) / layer.output_scale, output))

    for layer in (module for module in deployed.modules() if isinstance(module, IntegerLayer)):
        layer.register_forward_hook(in_another_order)
    deployed(images(seed))
    assert seen == [True] * 3


def test_a_negative_slope_of_batchnorm_turns_the_integers():
    net = network()
    with torch.no_grad():
        net[1].weight[0] = -1.5
    quantized = calibrated(net, 8)
    torch.testing.assert_close(deploy(quantized)(images()), quantized(images()), atol=0.03, rtol=0)


def test_a_slope_of_0_and_a_huge_bias_stay_finite():
    net = network()
    with torch.no_grad():
        net[1].weight[0] = 0.0
        net[1].weight[1] = 1e-12
        net[1].bias[:2] = 3.0
    quantized = calibrated(net, 8)
    torch.testing.assert_close(deploy(quantized)(images()), quantized(images()), atol=0.05, rtol=0)


def test_a_channel_without_variance_is_divided_by_epsilon():
    net = network()
    with torch.no_grad():
        net[1].running_var[0] = 0.0
        net[1].weight[0] = net[1].eps ** 0.5  # so that the slope is 1
    quantized = calibrated(net, 8)
    torch.testing.assert_close(deploy(quantized)(images()), quantized(images()), atol=0.05, rtol=0)


def test_relu6_becomes_a_limit_of_the_range():
    net = network()
    net[2] = nn.ReLU6()
    quantized = calibrated(net, 8)
    with torch.no_grad():
        quantized.get_submodule("grids.1").scale.fill_(0.125)  # 255 steps reach 31.9
    deployed = deploy(quantized)
    limits = [int(module.high) for module in deployed.modules() if isinstance(module, Grid)]
    assert limits[1] == 48


def test_relu_has_no_limit_but_that_of_its_bits():
    quantized = calibrated(network(), 8)
    with torch.no_grad():
        quantized.get_submodule("grids.1").scale.fill_(0.125)
    limits = [int(module.high) for module in deploy(quantized).modules() if isinstance(module, Grid)]
    assert limits[1] == 255


def test_a_batchnorm_without_parameters_has_slope_1_and_offset_0():
    net = network()
    net[1] = nn.BatchNorm2d(net[1].num_features, affine=False).eval()
    net[1].running_mean.fill_(0.5)
    net[1].running_var.fill_(4.0)
    quantized = calibrated(net, 8)
    torch.testing.assert_close(deploy(quantized)(images()), quantized(images()), atol=0.05, rtol=0)


def test_a_bias_without_room_makes_steps_longer_and_weights_smaller():
    quantized = calibrated(network(), 8)
    before = next(module for module in deploy(quantized).modules() if isinstance(module, IntegerConv2d))
    with torch.no_grad():
        quantized.get_submodule("1").bias[0] = 2.5 * 2**30 * before.input_scale * before.weight_scale[0]
    after = next(module for module in deploy(quantized).modules() if isinstance(module, IntegerConv2d))
    assert float(after.weight_scale[0] / before.weight_scale[0]) == pytest.approx(2.5, rel=0.01)
    assert (after.weight[0] - before.weight[0] / 2.5).abs().max() <= 0.51
    assert torch.equal(after.weight[1:], before.weight[1:])


def test_layers_know_how_many_bits_their_weights_have():
    layers = [module for module in deploy(calibrated(network(), 3)).modules() if isinstance(module, IntegerLayer)]
    assert [layer.bits for layer in layers] == [8, 3, 8]


@pytest.mark.parametrize(
    ("signed", "has_other", "is_left_out"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_a_relu_is_left_out_where_all_that_reads_it_begins_at_0(signed, has_other, is_left_out):
    graph = torch.fx.Graph()
    relu = graph.call_module("relu", (graph.placeholder("x"),))
    grid = graph.call_module("grid", (relu,))
    graph.output((grid, relu) if has_other else grid)
    parts = torch.fx.GraphModule({"relu": nn.ReLU(), "grid": Grid(signed)}, graph)
    assert _is_absorbed(relu, parts) == is_left_out


def test_a_saved_network_is_the_same_to_the_bit():
    deployed = deploy(calibrated(network()))
    other = deploy(quantize(network(seed=5), SHAPE, Scheme(4, 4)))
    other.load_state_dict(deployed.state_dict())
    assert torch.equal(other(images()), deployed(images()))


def test_residual_networks_and_shortcuts_deploy():
    shape = ImageShape(1, 16, 16)
    quantized = calibrated(timm.create_model("resnet8_digits", num_classes=4).eval(), 8, shape)
    deployed = deploy(quantized)
    assert sum(isinstance(module, IntegerConv2d) for module in deployed.modules()) == 7
    torch.testing.assert_close(deployed(images(shape=shape)), quantized(images(shape=shape)), atol=0.05, rtol=0)
