import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nayer_cli.classifiers.models  # noqa: F401 - registers the networks
import onnx
from nayer_cli.errors import InputError
from nayer_cli.onnx.graph import Unwritable, pack
from nayer_cli.onnx.runner import OnnxNetwork
from nayer_cli.onnx.writer import write_onnx
from nayer_cli.quant.trace import trace
from nayer_cli.types import ImageShape
from onnx_files import SHAPE, both, deployed, images, operations

WIDTH = 6


class Does(nn.Module):
    """A convolution, something, and a linear layer."""

    def __init__(self, something) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.something = something
        with torch.no_grad():
            features = something(self.conv(images())).flatten(1)
        self.head = nn.Linear(features.shape[1], 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.something(self.conv(x)).flatten(1))


class Residual(nn.Module):
    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.conv, self.norm, self.activate = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(self.norm(self.conv(x)) + x)


class OptionA(nn.Module):
    """The shortcut without parameters, and what it is added to."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, WIDTH // 2, WIDTH // 2)))


class Token(nn.Module):
    """Puts the same pixels before those of each image, as vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.rand(1, 1, 12, 12))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.token.expand(x.shape[0], -1, -1, -1), x], 1)


def chain(*layers: nn.Module) -> Does:
    return Does(nn.Sequential(*layers))


def conv(**options: int) -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, 3, padding=1, **options)


def same_but_for_ties(pair) -> bool:
    """Say whether logits agree in class everywhere, and in value but for integers that are off by one."""
    spread = pair.torch.max() - pair.torch.min()
    agree = (pair.torch.argmax(1) == pair.onnx.argmax(1)).all()
    return bool(agree and (pair.torch - pair.onnx).abs().mean() < spread / 100)


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_a_convolution_and_its_relu_are_one_integer_kernel(tmp_path, bits):
    network = deployed(chain(nn.BatchNorm2d(WIDTH), nn.ReLU(), conv(), nn.BatchNorm2d(WIDTH), nn.ReLU()), bits, bits)
    assert same_but_for_ties(both(network, tmp_path / "m.onnx"))
    found = operations(tmp_path / "m.onnx")
    assert found["QLinearConv"] == 2 and found["QGemm"] == 1
    assert found["Clip"] == (0 if bits == 8 else 2)
    assert not {"Conv", "FusedConv", "Relu", "Gemm", "DequantizeLinear"} & found.keys()


@pytest.mark.parametrize(
    ("something", "integers", "what"),
    [
        (nn.Sequential(nn.ReLU6(), conv(), nn.ReLU6()), {"QLinearConv": 2}, "ReLU6"),
        (nn.Sequential(conv(), conv()), {"QLinearConv": 3}, "signed edges"),
        (nn.Sequential(nn.ReLU(), conv(groups=WIDTH), nn.ReLU()), {"QLinearConv": 2}, "depthwise"),
        (nn.Sequential(nn.ReLU(), Residual(nn.ReLU)), {"QLinearConv": 2, "QLinearAdd": 1}, "residual"),
        (nn.Sequential(nn.ReLU(), Residual(nn.Identity), conv()), {"QLinearConv": 3, "QLinearAdd": 1}, "signed sum"),
        (nn.Sequential(nn.ReLU(), OptionA()), {"QLinearConv": 2, "QLinearAdd": 1, "Pad": 1}, "option A"),
        (nn.Sequential(OptionA(), nn.Conv2d(2 * WIDTH, 4, 1)), {"QLinearConv": 3, "QLinearAdd": 1}, "signed"),
        (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), conv()), {"QLinearConv": 2, "NhwcMaxPool": 1}, "max-pool"),
        (nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1)), {"QLinearConv": 1, "QLinearGlobalAveragePool": 1}, "pool"),
        (nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), conv()), {"QLinearConv": 2, "QLinearAveragePool": 1}, "pool"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_runs_as_integers(tmp_path, something, integers, what):
    network = deployed(Does(something), 4, 8)
    assert same_but_for_ties(both(network, tmp_path / "m.onnx"))
    found = operations(tmp_path / "m.onnx")
    assert {name: found[name] for name in integers} == integers
    assert not {"Conv", "FusedConv", "Add", "MaxPool", "DequantizeLinear"} & found.keys()


@pytest.mark.parametrize(
    "name",
    [
        *("resnet20_cifar_a", "wrn_16_1"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("vgg11_cifar", "mobilenetv2_cifar", "resnet18")),
    ],
)
def test_every_convolution_of_our_networks_runs_as_integers(tmp_path, name):
    torch.manual_seed(0)
    network = deployed(timm.create_model(name, num_classes=10), 4, 4)
    both(network, tmp_path / "m.onnx")
    found = operations(tmp_path / "m.onnx")
    convolutions = sum(type(module).__name__ == "IntegerConv2d" for module in network.modules())
    assert found["QLinearConv"] == convolutions > 5 and found["QGemm"] == 1
    assert not {"Conv", "FusedConv"} & found.keys()


def test_four_bits_take_half_the_room_and_run_as_integers_all_the_same(tmp_path):
    wide = nn.Sequential(nn.Conv2d(WIDTH, 65, 3), nn.ReLU(), nn.Conv2d(65, 65, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    network = deployed(Does(wide), 4, 4)
    large, small = (both(network, tmp_path / f"{kind}.onnx", storage=kind).onnx for kind in ("int8", "int4"))
    assert torch.equal(large, small)
    assert (tmp_path / "int4.onnx").stat().st_size < 0.65 * (tmp_path / "int8.onnx").stat().st_size
    assert operations(tmp_path / "int4.onnx") == operations(tmp_path / "int8.onnx")


def test_layers_of_more_bits_are_not_packed(tmp_path):
    network = deployed(chain(nn.ReLU(), conv(), nn.ReLU()), 4, 8)
    write_onnx(network, SHAPE, tmp_path / "m.onnx", storage="int4", facts={})
    stored = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer}
    weights = [stored[name] for name in stored if name.endswith("weight")]
    assert weights == [onnx.TensorProto.INT8, onnx.TensorProto.INT4, onnx.TensorProto.INT8]


def test_integers_are_packed_as_onnx_reads_them():
    integers = torch.arange(-7, 8, dtype=torch.int8).numpy()
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.INT4, integers.shape, pack(integers), raw=True)
    assert (onnx.numpy_helper.to_array(tensor).astype("int8") == integers).all()


FLOAT = {
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU(approximate="tanh"),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "leaky": nn.LeakyReLU(0.2),
    "elu": nn.ELU(0.5),
    "mish": nn.Mish(),
    "hardtanh": nn.Hardtanh(-0.3, 0.4),
    "softmax": nn.Softmax(1),
    "batch norm": nn.BatchNorm2d(WIDTH, affine=False),
    "group norm": nn.GroupNorm(2, WIDTH),
    "layer norm": nn.LayerNorm([12, 12]),
    "max pool": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "dilated max pool": nn.MaxPool2d(3, 3, 1, 2, ceil_mode=True),
    "average pool": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "average pool of 5": nn.AvgPool2d(5, 3, ceil_mode=True),
    "average pool that counts its padding": nn.AvgPool2d(3, 2, 1),
    "average pool that counts its padding and rounds up": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "average pool that does not": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "adaptive pool": nn.AdaptiveAvgPool2d(4),
    "adaptive pool to what does not divide": nn.AdaptiveAvgPool2d((5, 17)),
    "nearest": nn.Upsample(scale_factor=2),
    "bilinear": nn.Upsample(size=(18, 15), mode="bilinear"),
    "same": nn.Conv2d(WIDTH, 4, 4, padding="same", dilation=(1, 2)),
    "zero pad": nn.ZeroPad2d((1, 2, 0, 1)),
    "token": Token(),
}
FUNCTIONS = {
    "mean": lambda x: x.mean((2, 3), keepdim=True) * x,
    "mean of channels": lambda x: x - x.mean(1, keepdim=True),
    "sum": lambda x: x.sum(dim=(2, 3)),
    "cat": lambda x: torch.cat([x, x.sigmoid()], 1),
    "chunk": lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1],
    "split": lambda x: torch.split(x, [1, 2, 3], dim=1)[2],
    "unbind": lambda x: x.unbind(1)[1],
    "index": lambda x: x[:, 0] + x[:, -1],
    "ellipsis": lambda x: x[..., 1:-1, ::3],
    "permute": lambda x: x.permute(0, 2, 3, 1).transpose(1, 2),
    "view": lambda x: x.view(x.shape[0] * 2, -1).view(x.size(0), -1),
    "channel shuffle": lambda x: x.reshape(x.shape[0], 2, 3, 12, 12).transpose(1, 2).flatten(1, 2),
    "constants": lambda x: (2 * x + 1) / 3 - torch.ones(12),
    "in place": lambda x: x.mul_(2).add(1) + x,
    "in place relu": lambda x: F.relu(x, inplace=True) + x,
    "attention": lambda x: F.scaled_dot_product_attention(x, x.relu(), x),
    "relu6": lambda x: F.relu6(x) + x.clamp(max=0.5),
    "reflect": lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"),
}


@pytest.mark.parametrize("name", FLOAT)
def test_float_layers_compute_what_torch_does(tmp_path, name):
    pair = both(trace(Does(FLOAT[name]), SHAPE), tmp_path / "m.onnx")
    assert torch.allclose(pair.torch, pair.onnx, atol=1e-5)


@pytest.mark.parametrize("name", ["max pool", "dilated max pool", "average pool of 5", "average pool that does not"])
def test_runtimes_infer_the_sizes_of_pools_that_round_up(tmp_path, capfd, name):
    both(trace(Does(FLOAT[name]), SHAPE), tmp_path / "m.onnx")
    assert "ceil_mode" not in str(onnx.load(tmp_path / "m.onnx").graph.node)
    assert "shape" not in capfd.readouterr().err


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_compute_what_torch_does(tmp_path, name):
    pair = both(trace(Does(FUNCTIONS[name]), SHAPE), tmp_path / "m.onnx")
    assert torch.allclose(pair.torch, pair.onnx, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "mobilenetv3_small_050"])
def test_float_networks_compute_what_torch_does(tmp_path, name):
    shape = ImageShape(3, 32, 32)
    pair = both(trace(timm.create_model(name, num_classes=10), shape), tmp_path / "m.onnx", shape=shape)
    assert torch.allclose(pair.torch, pair.onnx, atol=1e-4)


def test_a_vision_transformer_computes_what_torch_does(tmp_path):
    network = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=12, patch_size=4, depth=2)
    pair = both(trace(network, SHAPE), tmp_path / "m.onnx")
    assert torch.allclose(pair.torch, pair.onnx, atol=1e-5)


def test_an_operation_without_a_rule_is_named_and_nothing_is_written(tmp_path):
    network = trace(Does(lambda x: torch.cumsum(x, 1)), SHAPE)
    with pytest.raises(Unwritable, match="'cumsum' is cumsum, which has no rule"):
        write_onnx(network, SHAPE, tmp_path / "m.onnx", facts={})
    assert issubclass(Unwritable, InputError) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("something", "reason"),
    [
        (nn.AdaptiveMaxPool2d(5), "pools to more than one pixel"),
        (lambda x: x[:, torch.tensor([0, 2]), torch.tensor([1, 0])], "tensor of indices"),
        (lambda x: x.mean(dim=1, keepdim=True, dtype=torch.float32), "called in a way that has no rule"),
    ],
)
def test_arguments_that_cannot_be_written_are_named(tmp_path, something, reason):
    with pytest.raises(Unwritable, match=reason):
        write_onnx(trace(Does(something), SHAPE), SHAPE, tmp_path / "m.onnx", facts={})


def test_a_network_that_returns_features_is_refused(tmp_path):
    with pytest.raises(Unwritable, match="does not return one row of logits"):
        write_onnx(trace(nn.Sequential(nn.Conv2d(3, 4, 1)), SHAPE), SHAPE, tmp_path / "m.onnx", facts={})


def test_batches_of_any_size_can_be_run(tmp_path):
    write_onnx(deployed(chain(nn.ReLU(), conv(), nn.ReLU())), SHAPE, tmp_path / "m.onnx", facts={})
    network = OnnxNetwork(tmp_path / "m.onnx")
    assert torch.equal(network(images(9))[:1], network(images(9)[:1]))


def test_the_same_network_gives_the_same_bytes(tmp_path):
    network = deployed(chain(nn.ReLU(), conv()))
    for name in ("a", "b"):
        write_onnx(network, SHAPE, tmp_path / name, facts={"z": "1", "a": "2"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
