"""One setting in which NAYER and its released code run side by side, and our half of it.

`benchmarks/parity_upstream.py` runs the other half. Nothing here is random: weights, inputs and what a round would draw
are given, so that numbers which the released code once produced can be checked without having it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nayer_cli.augment import Augment, shift_flip
from nayer_cli.classifiers.model import Normalized
from nayer_cli.critic import Critic
from nayer_cli.machine.distributed import Group
from nayer_cli.machine.interruption import Interruption
from nayer_cli.machine.precision import Precision
from nayer_cli.machine.rng import Streams
from nayer_cli.method import Batch, LoopState, Parts
from nayer_cli.methods.nayer import Config, Method
from nayer_cli.types import ImageShape, Normalization

Tensors = dict[str, Tensor]
NORMALIZATION = Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


@dataclass(frozen=True)
class Check:
    """Rounds to run, one an epoch, and the weights of the losses."""

    rounds: int = 1
    steps: int = 1
    ce: float = 0.0
    bn: float = 0.0
    adv: float = 0.0
    lr: float = 4e-3
    """With a huge one the best step is not the last."""
    faithful: bool = False
    """All rounds in one epoch, as the released code does with the student in training mode after the first."""


PAPER = {"ce": 0.5, "bn": 10.0, "adv": 1.33}
CHECKS = {
    "ce": Check(ce=1.0),
    "bn": Check(bn=1.0),
    "bn, momentum": Check(rounds=3, bn=1.0),
    "adv": Check(adv=1.0),
    "ten steps": Check(steps=10, **PAPER),
    "overshooting": Check(steps=4, ce=1.0, lr=1.0),
    "faithful": Check(rounds=2, steps=5, faithful=True, **PAPER),
}


@dataclass(frozen=True)
class Case:
    """What both are given. The networks take normalized images; the state carries our names."""

    pool: Tensor
    teacher: nn.Module
    student: nn.Module
    shape: ImageShape
    batch: int
    code_size: int
    width: int
    start: Tensors
    """Generator and the noisy layer's BatchNorm at the start."""
    draws: tuple[Tensor, ...]
    """Noisy weights `[groups, E, r]` that each round draws."""
    generator: str = "shallow"

    @property
    def labels(self) -> Tensor:
        return torch.arange(len(self.pool)).repeat(self.batch // len(self.pool))

    @property
    def images(self) -> Tensor:
        """Images in [0, 1] for a student step."""
        return (0.5 + 0.3 * wave((self.batch, *self.shape), 0.5)).to(self.pool.dtype)

    def to(self, dtype: torch.dtype) -> "Case":
        """The same numbers in another precision."""
        return replace(
            self,
            pool=self.pool.to(dtype),
            teacher=deepcopy(self.teacher).to(dtype),
            student=deepcopy(self.student).to(dtype),
            start={name: value.to(dtype) if value.is_floating_point() else value for name, value in self.start.items()},
            draws=tuple(draw.to(dtype) for draw in self.draws),
        )


class FixedAugment(Augment):
    """Every image is shifted by up to four pixels and every other one flipped, always in the same way."""

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return shift_flip(images, *fixed_shifts(len(images)), fixed_flips(len(images)))


def fixed_shifts(count: int) -> tuple[Tensor, Tensor]:
    """Rows and columns to shift by, `[B]` each, in −4 … 4."""
    index = torch.arange(count)
    return 2 * index % 9 - 4, 5 * index % 9 - 4


def fixed_flips(count: int) -> Tensor:
    return torch.arange(count) % 2 == 1


@contextmanager
def computing_in(dtype: torch.dtype) -> Iterator[None]:
    """Within the block everything computes in `dtype`, also where our code asks for float32."""
    original, default = torch.Tensor.float, torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.Tensor.float = lambda self: self.to(dtype)
    try:
        yield
    finally:
        torch.Tensor.float = original
        torch.set_default_dtype(default)


def run_check(case: Case, check: Check) -> Tensors:
    """Our half of a check: what `synthesize` leaves behind."""
    method, draws = _method(case, check), iter(case.draws)
    method.codes.renew = lambda generator: _renew(method.codes, next(draws))
    network = deepcopy(case.student).requires_grad_(False).eval()
    student = Normalized(network, NORMALIZATION)
    for number in range(check.rounds):
        epoch, in_epoch = (1, number) if check.faithful else (1 + number, 0)
        batch = method.synthesize(student, LoopState(epoch=epoch, round=in_epoch))
    loss = sum(getattr(check, name) * value for name, value in batch.losses.items())
    gradients = {name: parameter.grad for name, parameter in method.named_parameters()}
    return outcome(check, loss, batch.images, state_of(method), gradients, network)


def run_student(case: Case) -> Tensors:
    """Loss of a student step at temperature 20, and the gradients in the student."""
    method = _method(case, Check())
    network = deepcopy(case.student).train()
    loss = method.student_loss(Normalized(network, NORMALIZATION), Batch(case.images, case.labels))
    loss.backward()
    return {"loss": loss.detach(), **{f"gradient.{name}": p.grad for name, p in network.named_parameters()}}


def outcome(
    check: Check, loss: Tensor, images: Tensor, state: Tensors, gradients: Tensors, student: nn.Module
) -> Tensors:
    """What is compared: after one step its loss, images and gradients, after more of them the complete state."""
    result = {"loss": loss.detach(), "images": images}
    if check.steps == 1:
        return result | {f"gradient.{name}": value for name, value in gradients.items()}
    buffers = {f"student.{name}": value for name, value in student.named_buffers()} if check.faithful else {}
    return result | {f"state.{name}": value for name, value in state.items()} | buffers


def _method(case: Case, check: Check) -> Method:
    config = Config(
        batch=case.batch,
        g_steps=check.steps,
        g_life=1000,
        ce=check.ce,
        bn=check.bn,
        adv=check.adv,
        lr_g=check.lr,
        code_size=case.code_size,
        width=case.width,
        generator=case.generator,
        temperature=20.0,
        faithful=check.faithful,
    )
    critic = Critic(Normalized(deepcopy(case.teacher), NORMALIZATION))
    group = Group()
    parts = Parts(
        critic,
        case.pool,
        case.shape,
        FixedAugment(4, True),
        Streams(0),
        Precision(),
        case.batch,
        group,
        Interruption(group),
    )
    method = Method(config, parts)
    method.load_state_dict(case.start, strict=False)
    return method


@torch.no_grad()
def _renew(noisy: nn.Module, weight: Tensor) -> None:
    """Give a noisy layer the weights of a round instead of random ones."""
    noisy.weight.copy_(weight)
    noisy.bias.zero_()


def wave(shape: tuple[int, ...], phase: float) -> Tensor:
    """Numbers of mean 0 and variance about 1 without a random generator; the square keeps matrices at full rank."""
    k = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (2**0.5 * torch.sin(phase + k + k.square() / 7)).to(torch.float32).view(shape)


def fill(state: Tensors, phase: float) -> Tensors:
    """The same names with waves: weights as small as their fan-in asks, scales and variances near 1."""
    return {name: _typical(name, value, phase + number) for number, (name, value) in enumerate(state.items())}


def _typical(name: str, value: Tensor, phase: float) -> Tensor:
    if not value.is_floating_point():
        return value
    pattern = wave(tuple(value.shape), phase)
    if value.ndim > 1:
        return pattern / value[0].numel() ** 0.5
    return float(name.endswith(("weight", "var"))) + 0.2 * pattern


def network(phase: float, classes: int) -> nn.Module:
    """A tiny convolutional classifier with two BatchNorms, in evaluation mode."""
    layers = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, classes),
    )
    layers.load_state_dict(fill(layers.state_dict(), phase))
    return layers.eval()


def golden_case() -> Case:
    """The smallest case that has everything: two groups of four classes, 8 × 8 pixels."""
    classes, embedding, code_size, width, shape = 4, 8, 16, 2, ImageShape(3, 8, 8)
    groups = 2
    blank = Case(
        pool=wave((classes, embedding), 0.1),
        teacher=network(3.0, classes),
        student=network(3.4, classes),
        shape=shape,
        batch=groups * classes,
        code_size=code_size,
        width=width,
        start={},
        draws=tuple(wave((groups, embedding, code_size), 5.0 + number) for number in range(3)),
    )
    return replace(blank, start=fill(start_of(blank), 4.0))


def state_of(method: Method) -> Tensors:
    """Return the state with the noisy layer's weights, which checkpoints leave out."""
    drawn = {"codes.weight": method.codes.weight, "codes.bias": method.codes.bias}
    return {name: value.detach() for name, value in drawn.items()} | dict(method.state_dict())


def start_of(case: Case) -> Tensors:
    """State of a fresh noisy layer and generator; what earlier rounds left is not in it."""
    state = state_of(_method(case, Check()))
    return {name: value for name, value in state.items() if not name.startswith("past.")}
