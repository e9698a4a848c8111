import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

import nayer_cli.classifiers.models
from nayer_cli import plugins
from nayer_cli.classifiers.models import _network

NAMES = sorted(_network.default_cfgs)


def test_families_are_registered_on_import() -> None:
    assert nayer_cli.classifiers.models.__doc__
    assert timm.list_models("wrn*") == ["wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2"]
    assert set(NAMES) <= set(timm.list_models())
    assert {"mobilenet", "resnet", "vgg", "wide-resnet"} <= set(plugins.names("models"))


def test_no_name_of_timm_is_taken() -> None:
    assert hasattr(timm.models, "resnet18")  # timm has each of its networks there
    assert not [name for name in NAMES if hasattr(timm.models, name)]


def test_the_package_itself_is_free_of_torch() -> None:
    code = "import sys, nayer_cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_timm_surface(name: str) -> None:
    network = timm.create_model(name, num_classes=7, in_chans=2).eval()
    features = network.forward_features(torch.zeros(2, 2, 20, 28))
    assert features.shape[:2] == (2, network.num_features)
    assert network.forward_head(features, pre_logits=True).shape == (2, network.num_features)
    assert network(torch.zeros(2, 2, 20, 28)).shape == (2, 7)
    assert network.get_classifier() is network.get_submodule(network.pretrained_cfg["classifier"])
    assert network.get_submodule(network.pretrained_cfg["first_conv"]).in_channels == 2
    network.reset_classifier(3)
    assert network.num_classes == 3 and network(torch.zeros(1, 2, 16, 16)).shape == (1, 3)


@pytest.mark.parametrize("name", NAMES)
def test_every_relu_is_used_once(name: str) -> None:
    network = timm.create_model(name).eval()
    calls = dict.fromkeys((module for module in network.modules() if isinstance(module, nn.ReLU)), 0)
    for relu in calls:
        relu.register_forward_hook(lambda module, *_: calls.update({module: calls[module] + 1}))
    network(torch.zeros(1, *network.pretrained_cfg["input_size"]))
    assert set(calls.values()) == {1}
    assert not any(
        "relu" in str(node.target)
        for node in torch.fx.symbolic_trace(network).graph.nodes
        if node.op == "call_function"
    )


def test_facts_of_a_colour_and_of_a_grey_network() -> None:
    colour = timm.get_pretrained_cfg("wrn_40_2")
    assert (colour.input_size, colour.mean, colour.std) == ((3, 32, 32), _network.CIFAR_MEAN, _network.CIFAR_STD)
    assert timm.create_model("resnet8_digits").conv1.in_channels == 1


def test_convolutions_are_drawn_by_fan_out() -> None:
    torch.manual_seed(0)
    conv, depthwise = nn.Conv2d(64, 128, 3), nn.Conv2d(256, 256, 3, groups=256)
    _network.initialize(nn.Sequential(conv, depthwise))
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert depthwise.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert conv.bias is not None and not conv.bias.any()


def test_no_classes_leave_pooled_features() -> None:
    network = timm.create_model("wrn_16_1", num_classes=0).eval()
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 64)
