"""Networks that change tensors while others still read them: their graphs compute the same."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli.errors import InputError
from nayer_cli.machine.distributed import Group
from nayer_cli.quant.calibrate import calibrate
from nayer_cli.quant.deploy import deploy
from nayer_cli.quant.graph import quantize
from nayer_cli.quant.scheme import Scheme
from nayer_cli.quant.trace import trace
from tiny import SHAPE


class Base(nn.Module):
    """A stem and a head; `middle` does what a case is about to the features `[B, 8, 8, 8]` between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv, self.act = nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True)
        self.drop, self.head = nn.Dropout(0.5, inplace=True), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.norm(self.stem(x))).mean((2, 3)))

    def middle(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Skip(Base):
    def middle(self, x):
        return self.conv(self.act(x)) + x


class SkipBefore(Base):
    def middle(self, x):
        y = self.act(x)
        return self.conv(x) - y * 0.5 + x


class Twice(Base):
    def middle(self, x):
        y = self.conv(self.act(x))
        y += x
        z = self.act(y)
        return z * y + self.drop(x)


class Flat(Base):
    def middle(self, x):
        x.view(x.shape[0], -1).relu_()
        return self.conv(x) + x.flatten(1).mul_(2).reshape(-1, 8, 8, 8)


class BaseOfView(Base):
    def middle(self, x):
        v = x.flatten(2)
        x.add_(1)
        F.relu(x, inplace=True)
        return v.view_as(x) + self.conv(x)


class Chunks(Base):
    def middle(self, x):
        a, b = x.chunk(2, 1)
        a.relu_()
        b += a
        return self.conv(x) + torch.cat([b, a], 1)


class Splits(Base):
    def middle(self, x):
        parts = torch.split(x, [2, 5, 1], dim=1)
        parts[1].mul_(-1)
        parts[-1].zero_()
        return self.conv(x) + x


class Turned(Base):
    def middle(self, x):
        t = x.transpose(1, 3)
        t.relu_()
        p = x.permute(0, 2, 3, 1)
        p.add_(0.25)
        return self.conv(x) + t.transpose(3, 1)


class Slices(Base):
    def middle(self, x):
        x[:, :2] += 1
        x[:, 2:4, 1:-1] *= 0.5
        x[:, 4].relu_()
        x[..., 0] = 0
        x[:, 5] = x[:, 6]
        return self.conv(x) + x


class SlicesOfViews(Base):
    def middle(self, x):
        y = x.flatten(2)[:, 1:3]
        y.add_(x.flatten(2)[:, 3:5])
        x[:, :, ::1].sub_(0.1)
        return self.conv(x) + x * y.mean()


class Augmented(Base):
    def middle(self, x):
        skip = x
        x += self.conv(x)
        x *= 0.5
        x -= skip.relu()
        x /= 2
        return skip


class Functions(Base):
    def middle(self, x):
        y = self.conv(x)
        torch.add(x, 1, out=x)
        F.leaky_relu(x, 0.2, True)
        F.relu_(y)
        torch.relu_(x)
        F.dropout(x, 0.5, False, True)
        return x + y.clamp_(max=1) + F.elu(y, 0.5, inplace=True) + y


class Input(Base):
    def forward(self, x):
        y = x
        y.sub_(0.5).div_(2)
        return super().forward(x + F.relu(x[:, :], inplace=True))

    def middle(self, x):
        return x


class Nested(Base):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Sequential(nn.ReLU6(inplace=True), nn.Hardswish(inplace=True)), self.conv)

    def middle(self, x):
        return x + self.block(x) + x


class Overwritten(Base):
    def middle(self, x):
        y = self.conv(x)
        x[:, :4].copy_(y[:, 4:])
        y.detach().relu_()
        y.data.mul_(2)
        x[:, 6:8] = y.mean(1, keepdim=True)
        return x + y


class Pair(Base):
    def forward(self, x):
        f = self.act(self.norm(self.stem(x)))
        f += 1
        return self.head(f.mean((2, 3))), f


class Named(Pair):
    def forward(self, x):
        logits, f = super().forward(x)
        return {"features": f, "logits": logits[:, :, None, None]}


CASES = [Skip, SkipBefore, Twice, Flat, BaseOfView, Chunks, Splits, Turned, Slices, SlicesOfViews, Augmented, Functions]
CASES += [Input, Nested, Overwritten, Pair, Named]


def images(count):
    """Noise in colours that differ from image to image, so that logits do."""
    rng = torch.Generator().manual_seed(1)
    return torch.randn(count, *SHAPE, generator=rng) + 2 * torch.randn(count, 3, 1, 1, generator=rng)


def logits(output):
    found = output["logits"].flatten(1) if isinstance(output, dict) else output
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("kind", CASES)
@torch.no_grad()
def test_the_graph_and_the_integers_compute_what_the_network_does(kind: type[Base]):
    network, x = kind().eval(), images(64)
    wanted = logits(network(x.clone()))
    torch.testing.assert_close(trace(network, SHAPE)(x.clone()), wanted, rtol=1e-6, atol=1e-6)
    quantized = quantize(network, SHAPE, Scheme(8, 8))
    calibrate(quantized, [x.clone()], Group())
    rounded = quantized.eval()(x.clone())
    assert (rounded - wanted).abs().amax() < 0.1 * (wanted - wanted.mean(0)).abs().amax()
    integers = deploy(quantized)(x.clone())
    assert (integers - rounded).abs().amax() < 0.05 * (wanted - wanted.mean(0)).abs().amax()


def file_of(network, path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from nayer_cli.onnx.writer import write_onnx

    write_onnx(network, SHAPE, path, facts={})
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("kind", CASES)
@torch.no_grad()
def test_the_float_file_computes_what_the_network_does(kind: type[Base], tmp_path: Path):
    network, x = kind().eval(), images(3)
    session = file_of(trace(network, SHAPE), tmp_path / "m.onnx")
    (found,) = session.run(None, {"images": x.numpy().copy()})
    torch.testing.assert_close(torch.from_numpy(found), logits(network(x)), rtol=1e-4, atol=1e-5)


class EverySecond(Base):
    def middle(self, x):
        x[:, ::2] += 1
        return x


class OneImage(Base):
    def middle(self, x):
        x[0] += 1
        return x


class ByMask(Base):
    def middle(self, x):
        x[x > 0] = 1
        return x


class Counter(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def middle(self, x):
        self.calls += 1
        return x + self.calls


class Chance(Base):
    def middle(self, x):
        return x + torch.rand(1)


@pytest.mark.parametrize("kind", [EverySecond, OneImage, ByMask, Counter, Chance])
def test_what_cannot_be_told_apart_is_refused_in_a_sentence(kind: type[Base]):
    with pytest.raises(InputError, match="cannot be quantized") as caught:
        trace(kind(), SHAPE)
    assert "\n" not in str(caught.value)
