import pytest
import timm
import torch
from torch import nn

from nayer_cli.classifiers.model import parameters
from nayer_cli.classifiers.models.resnet import Block, PaddedShortcut

COUNTS = {
    "resnet18_cifar": (11_173_962, 11_220_132, 11_271_432),
    "resnet34_cifar": (21_282_122, 21_328_292, 21_379_592),
    "resnet20_cifar_b": (272_474, 278_324, 284_824),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name: str) -> None:
    assert tuple(parameters(timm.create_model(name, num_classes=k)) for k in (10, 100, 200)) == COUNTS[name]


@pytest.mark.parametrize(
    ("depth", "count"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_option_a_has_as_many_parameters_as_a_network_without_shortcuts(depth: int, count: int) -> None:
    assert parameters(timm.create_model(f"resnet{depth}_cifar_a")) == count


@pytest.mark.parametrize(
    ("name", "layers", "channels"),
    [("resnet18_cifar", 20, 4800), ("resnet34_cifar", 36, 8512), ("resnet20_cifar_b", 21, 784)],
)
def test_batch_norms(name: str, layers: int, channels: int) -> None:
    norms = [m.num_features for m in timm.create_model(name).modules() if isinstance(m, nn.BatchNorm2d)]
    assert (len(norms), sum(norms)) == (layers, channels)


@pytest.mark.parametrize(("name", "shape"), [("resnet18_cifar", (512, 4, 4)), ("resnet20_cifar_a", (64, 8, 8))])
def test_strides(name: str, shape: tuple[int, ...]) -> None:
    assert timm.create_model(name).eval().forward_features(torch.zeros(1, 3, 32, 32)).shape[1:] == shape


def test_padded_shortcut_subsamples_and_pads_both_ends() -> None:
    x = torch.arange(1.0, 33).view(1, 2, 4, 4)
    y = PaddedShortcut(2, 5, stride=2)(x)
    assert y.shape == (1, 5, 2, 2)
    assert not y[:, [0, 3, 4]].any()
    assert y[0, 1].tolist() == [[1, 3], [9, 11]]


def test_a_block_adds_its_shortcut_before_the_last_relu() -> None:
    block, x = Block(4, 4, stride=1, projection=False).eval(), torch.randn(2, 4, 6, 6)
    nn.init.zeros_(block.bn2.weight)
    assert torch.equal(block(x), x.relu())


def test_digits_networks_take_a_width() -> None:
    teacher, student = timm.create_model("resnet14_digits"), timm.create_model("resnet8_digits")
    assert teacher(torch.zeros(2, 1, 16, 16)).shape == (2, 10)
    assert parameters(student) < 0.3 * parameters(teacher)
    assert timm.create_model("resnet8_digits", width=16).num_features == 64
