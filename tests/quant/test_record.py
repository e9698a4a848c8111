"""Graphs of networks whose code reads sizes, makes constants and unpacks results."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli.errors import InputError
from nayer_cli.quant.trace import trace
from onnx_files import SHAPE, both, images


class Named(NamedTuple):
    logits: Tensor
    features: Tensor


@dataclass
class Answer:
    features: Tensor
    logits: Tensor


class Does(nn.Module):
    """Lets a function decide what becomes of features `[B, 4, 10, 10]` and of logits."""

    def __init__(self, function, answer=lambda logits, x: logits) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.LazyLinear(5)
        self.token = nn.Parameter(torch.randn(1, 1, 100))
        self.function, self.answer = function, answer
        self.eval()(images(2))

    def forward(self, x: Tensor):
        x = self.function(self, self.conv(x))
        return self.answer(self.linear(x.flatten(1)), x)


def windows(self, x):
    batch, channels, height, _ = x.shape
    count = int(height / 5)
    parts = x.view(batch, channels, count, 5, count, 5).permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, 25)
    return parts.softmax(-1).view(int(parts.shape[0] / count**2), count**2, channels, 25)


def with_token(self, x):
    tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), x.flatten(2)], dim=1)
    q, k = tokens.unsqueeze(0).repeat(2, 1, 1, 1)
    return q @ k.mT


def ramp(self, x):
    return x + torch.arange(x.shape[-1], device=x.device) / x.shape[-1] + torch.zeros(len(x), 1, 1, 1)


def changed(self, x):
    x[:, 0].mul_(2)
    x[:, 1] = 0.5
    x += 1
    return x**2 - 2 / (x**2 + 1)


BODIES = {one.__name__: one for one in (windows, with_token, ramp, changed)}
BODIES["rows"] = lambda self, x: torch.stack([row * (i + 1) for i, row in enumerate(x.unbind(1))], 1)


@pytest.mark.parametrize("name", BODIES)
def test_the_graph_and_its_file_do_the_same_for_any_number_of_images(name, tmp_path):
    net = Does(BODIES[name])
    traced = trace(net, SHAPE)
    torch.testing.assert_close(traced(images(7)), net(images(7)))
    pair = both(traced, tmp_path / "m.onnx")
    torch.testing.assert_close(pair.onnx, pair.torch, rtol=1e-4, atol=1e-5)


ANSWERS = {
    "tuple": lambda logits, x: (logits, x),
    "nested": lambda logits, x: ([logits, logits], x),
    "dict": lambda logits, x: {"features": x, "logits": logits},
    "named": Named,
    "object": lambda logits, x: Answer(x, logits),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_of_several_outputs_the_logits_go_into_the_file(name, tmp_path):
    pair = both(trace(Does(lambda self, x: x, ANSWERS[name]), SHAPE), tmp_path / "m.onnx")
    assert pair.onnx.shape == (5, 5)
    torch.testing.assert_close(pair.onnx, pair.torch, rtol=1e-4, atol=1e-5)


class Script(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.inner = nn.Conv2d(3, 4, 3), Does(lambda self, x: x if x.sum() > 0 else -x)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_a_refusal_names_the_module():
    with pytest.raises(InputError, match="in 'inner': its forward depends on the values of tensors"):
        trace(Script(), SHAPE)


class Hidden(torch.autograd.Function):
    """torch does not show what it computes."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() * 2)


@pytest.mark.parametrize("function", [lambda self, x: Hidden.apply(x), lambda self, x: F.dropout(x, 0.5, True)])
def test_what_cannot_be_seen_or_is_chance_is_refused(function):
    with pytest.raises(InputError, match="cannot be quantized"):
        trace(Does(function), SHAPE)
