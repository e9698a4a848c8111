"""PRE-DFKD against the released code, which ran on tiny stand-ins of its networks in float64."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from golden_parts import NORMALIZATION, computing_in
from nayer_cli import variational
from nayer_cli.bank import MemoryBank
from nayer_cli.generator import Generator
from nayer_cli.method import LoopState
from nayer_cli.methods.pre_dfkd import Config, Method
from nayer_cli.standard import StandardMaker
from nayer_cli.types import ImageShape
from released import Tensors, assert_as_released, below, classifier, golden, load, released_parts

SHAPE = ImageShape(3, 8, 8)
MEAN, STD = (torch.tensor(value, dtype=torch.float64).view(3, 1, 1) for value in NORMALIZATION)


class StandIn(Generator):
    """A small `standard`, under the names of the file."""

    def __init__(self, code_size: int, shape: ImageShape, width: int) -> None:
        super().__init__(code_size, shape)
        self.l1 = nn.Linear(code_size, 16)
        layers: list[tuple[str, nn.Module]] = [
            ("b0", nn.BatchNorm2d(4)),
            ("up0", nn.Upsample(scale_factor=2)),
            ("c1", nn.Conv2d(4, 4, 3, padding=1)),
            ("b1", nn.BatchNorm2d(4, eps=0.8)),
            ("relu", nn.LeakyReLU(0.2)),
            ("up1", nn.Upsample(scale_factor=2)),
            ("c2", nn.Conv2d(4, 3, 3, padding=1)),
            ("tanh", nn.Tanh()),
            ("b2", nn.BatchNorm2d(3, affine=False)),
        ]
        for name, layer in layers:
            setattr(self, name, layer)
        self.order = [layer for _, layer in layers]

    def forward(self, codes: Tensor) -> Tensor:
        x = self.l1(codes).unflatten(1, (4, 2, 2))
        for layer in self.order:
            x = layer(x)
        return x * STD + MEAN


class StandInEncoder(nn.Module):
    """Two linear layers."""

    def __init__(self, shape: ImageShape, code_size: int) -> None:
        super().__init__()
        self.m, self.v = nn.Linear(192, code_size), nn.Linear(192, code_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.m(images.flatten(1)), self.v(images.flatten(1))


@pytest.fixture
def in_float64() -> Iterator[None]:
    with computing_in(torch.float64):
        yield


@pytest.fixture
def tensors(shared: Path, in_float64: None) -> Tensors:
    return golden(shared, "pre_dfkd")


@pytest.fixture
def method(tensors: Tensors, monkeypatch: pytest.MonkeyPatch) -> Method:
    """Return the method with the networks of the file, and what it would draw given."""
    monkeypatch.setattr(StandardMaker, "__call__", lambda self, name, *arguments: StandIn(*arguments))
    monkeypatch.setattr(variational, "Encoder", StandInEncoder)
    made = Method(Config(code_size=6, js_reduction="released", tune_decoder=True, replay=0.4), released_parts(tensors))
    load(made.generator.network, below(tensors, "generator.0"))
    load(made.memory.decoder, below(tensors, "memory.0"))
    load(made.memory.encoder, below(tensors, "encoder.0"))
    made.generator.codes = lambda count: tensors["codes.novel"]
    made.memory.noise = lambda like: torch.full_like(like, 0.5)
    return made


def test_a_generator_step_is_that_of_the_released_code(method, tensors):
    student = classifier(tensors, "student.0").train()
    made = method.synthesize(student, LoopState())
    total = sum(getattr(method.config, name) * value for name, value in made.losses.items() if name != "vae")
    torch.testing.assert_close(total, tensors["novel.loss"], rtol=0, atol=1e-10)
    torch.testing.assert_close(made.losses["js"], tensors["novel.js_term"], rtol=0, atol=1e-10)
    gradients = {name: value.grad for name, value in method.generator.network.named_parameters()}
    assert_as_released(gradients, below(tensors, "novel.gradient"))
    assert_as_released(method.generator.network.state_dict(), below(tensors, "generator.1"))
    assert_as_released(student.network.state_dict(), below(tensors, "student.after_novel"))


def test_a_student_step_and_two_of_the_vae_are_those_of_the_released_code(method, tensors):
    # The file's student and VAE see these images, which its generator did not draw.
    method.generator.fresh = lambda count: tensors["novel.images.normalized"] * STD + MEAN
    student = classifier(tensors, "student.0")
    load(student.network, below(tensors, "student.after_novel"))
    student.train().requires_grad_(True)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    codes = iter(tensors[f"codes.memory.{name}"] for name in ("student", "student", "vae"))
    method.memory.codes = lambda: next(codes)

    (batch,) = method.replay(MemoryBank(1, SHAPE), 1)
    loss = method.student_loss(student, batch)
    loss.backward()
    optimizer.step()
    torch.testing.assert_close(loss.detach(), tensors["student.loss"], rtol=0, atol=1e-10)
    assert_as_released(student.network.state_dict(), below(tensors, "student.1"))
    assert_vae(method, tensors, "first", 1)

    method.memory.start_cycle()
    list(method.replay(MemoryBank(1, SHAPE), 1))
    assert_vae(method, tensors, "later", 2)


def assert_vae(method: Method, tensors: Tensors, name: str, number: int) -> None:
    torch.testing.assert_close(method.memory.loss, tensors[f"vae.{name}.loss"], rtol=0, atol=1e-10)
    assert_as_released(method.memory.decoder.state_dict(), below(tensors, f"memory.{number}"))
    if number == 2:
        assert_as_released(method.memory.encoder.state_dict(), below(tensors, "encoder.2"))
