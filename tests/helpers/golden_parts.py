"""One setting in which NAYER and its released code are run side by side, and our half of it.

`benchmarks/parity_upstream.py` runs the other half. Nothing here is random: weights, inputs and the "random" draws are
given, so that numbers which the released code once produced can be checked without having it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nayer_cli.augment import Augment, shift_flip
from nayer_cli.critic import Critic
from nayer_cli.method import Batch, LoopState, Parts
from nayer_cli.methods.nayer import Config, Method
from nayer_cli.model import Normalized
from nayer_cli.precision import Precision
from nayer_cli.rng import Streams
from nayer_cli.types import ImageShape, Normalization

Outcome = dict[str, Tensor]
TEMPERATURE = 20.0


@dataclass(frozen=True)
class Case:
    """What both implementations are given. Networks take normalized images; state carries our names."""

    pool: Tensor
    teacher: nn.Module
    student: nn.Module
    normalization: Normalization
    shape: ImageShape
    batch: int
    code_size: int
    width: int
    start: dict[str, Tensor]
    """Noisy layer (with its BatchNorm) and generator at the start."""
    draws: tuple[Tensor, ...]
    """Noisy weights `[groups, E, r]` that each round draws."""

    def to(self, dtype: torch.dtype) -> "Case":
        """The same numbers in another precision."""
        return replace(
            self,
            pool=self.pool.to(dtype),
            teacher=deepcopy(self.teacher).to(dtype),
            student=deepcopy(self.student).to(dtype),
            start={name: cast(value, dtype) for name, value in self.start.items()},
            draws=tuple(draw.to(dtype) for draw in self.draws),
        )


@dataclass(frozen=True)
class Check:
    """Rounds to run, and with which weights of the loss."""

    rounds: int = 1
    steps: int = 1
    ce: float = 0.0
    bn: float = 0.0
    adv: float = 0.0
    faithful: bool = False
    """All rounds in one epoch, where the released code leaves the student in training mode after the first."""


PAPER = {"ce": 0.5, "bn": 10.0, "adv": 1.33}
CHECKS = {
    "ce": Check(ce=1.0),
    "bn": Check(bn=1.0),
    "bn with momentum": Check(rounds=3, bn=1.0),
    "adv": Check(adv=1.0),
    "ten steps": Check(steps=10, **PAPER),
    "ten steps, round 3": Check(rounds=3, steps=10, **PAPER),
    "faithful": Check(rounds=2, steps=3, faithful=True, **PAPER),
}


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """Within the block everything computes in `dtype`, also where our code asks for float32 at least."""
    float32, default = torch.Tensor.float, torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.Tensor.float = lambda self: self.to(dtype)
    try:
        yield
    finally:
        torch.Tensor.float = float32
        torch.set_default_dtype(default)


def cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Counters stay integers."""
    return value.to(dtype) if value.is_floating_point() else value


def wave(shape: tuple[int, ...] | torch.Size, phase: float) -> Tensor:
    """Numbers with mean 0 and variance about 1 that need no random generator; the square keeps matrices at full rank."""
    k = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (2**0.5 * torch.sin(phase + k + k.square() / 7)).float().view(shape)


@torch.no_grad()
def fill(state: dict[str, Tensor], phase: float) -> dict[str, Tensor]:
    """The same names with waves: weights as small as their fan-in asks, variances and BatchNorm scales near 1."""
    filled = {}
    for number, (name, value) in enumerate(state.items()):
        pattern = wave(value.shape, phase + number)
        if not value.is_floating_point():
            filled[name] = value
        elif value.ndim > 1:
            filled[name] = pattern / value[0].numel() ** 0.5
        else:
            filled[name] = 0.1 * pattern + (name.endswith("var") or (name + "s" in state and False))
    return filled


def network(phase: float, classes: int = 4) -> nn.Module:
    """A tiny convolutional classifier with two BatchNorms, in evaluation mode."""
    layers = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )
    layers.load_state_dict(fill(layers.state_dict(), phase))
    return layers.eval()
