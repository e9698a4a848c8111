"""The generator of DAFL and of the PRE-DFKD family: its output is normalized over the batch, as real images are."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from nayer_cli.classifiers.model import Normalized
from nayer_cli.generator import Generator, Layered, halved, new_generator, up_to
from nayer_cli.types import ImageShape

EPS = 0.8
"""ε of the BatchNorm layers after convolutions, as in the released code."""
SMALL = 0.08
"""Weights start uniform between minus this and this."""


class BatchNormalized(Layered):
    """Linear → layers → conv → tanh → BN without weights, then back from normalized pixels.

    The last BatchNorm gives every channel of a batch mean 0 and variance 1. A few pixels are outside of [0, 1].

    Args:
        code_size, shape, start: as of every `Layered`.
        layers: from what the linear layer gives to `width` channels at full size.
        width: channels before the last convolution.
        teacher: whose normalization is undone.

    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        code_size: int,
        shape: ImageShape,
        start: tuple[int, int, int],
        layers: Iterable[nn.Module],
        width: int,
        teacher: Normalized,
    ) -> None:
        super().__init__(code_size, shape, start)
        last = nn.Conv2d(width, shape.channels, 3, padding=1)
        self.body = nn.Sequential(*layers, last, nn.Tanh(), nn.BatchNorm2d(shape.channels, affine=False))
        self.register_buffer("mean", teacher.mean.clone(), persistent=False)
        self.register_buffer("std", teacher.std.clone(), persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Draw images `[B, C, H, W]`, nearly all of whose pixels are in [0, 1], for codes `[B, code_size]`."""
        return super().forward(codes).float() * self.std + self.mean


class Standard(BatchNormalized):
    """Linear → BN → (↑, conv, BN, LReLU) × n → conv → tanh → BN without weights.

    The last BatchNorm is the prior on which methods depend that do not match the teacher's statistics.

    Args:
        code_size, shape: as every generator's.
        width: channels at full size; before, there are twice as many.
        teacher: whose normalization is undone.
        spectral: whether convolutions are normalized by their largest singular value.

    """

    def __init__(self, code_size: int, shape: ImageShape, width: int, teacher: Normalized, *, spectral: bool) -> None:
        times = 2 if max(shape.height, shape.width) <= 32 else 3
        widths = [2 * width, 2 * width, *[width] * (times - 1)]
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0])]
        for number in range(times):
            layers += [up_to(shape, times - 1 - number), *wide_block(widths[number], widths[number + 1])]
        super().__init__(code_size, shape, (widths[0], *halved(shape, times)), layers, width, teacher)
        start_small(self)
        for layer in self.body if spectral else ():
            if isinstance(layer, nn.Conv2d):
                spectral_norm(layer)


class StandardMaker:
    """Makes generators by name: `standard` for this teacher, and others as `new_generator` does."""

    def __init__(self, teacher: Normalized, *, spectral: bool) -> None:
        self.teacher, self.spectral = teacher, spectral

    def __call__(self, name: str, code_size: int, shape: ImageShape, width: int) -> Generator:
        """Make a freshly initialized generator."""
        if name == "standard":
            return Standard(code_size, shape, width, self.teacher, spectral=self.spectral)
        return new_generator(name, code_size, shape, width)


@torch.no_grad()
def start_small(network: nn.Module) -> None:
    """Let the weights of linear and convolutional layers start uniform in ±0.08, and biases at 0."""
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.weight.uniform_(-SMALL, SMALL)
            if layer.bias is not None:
                layer.bias.zero_()


def wide_block(inputs: int, outputs: int) -> list[nn.Module]:
    """3×3 convolution, BatchNorm with a wide ε, LeakyReLU(0.2)."""
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs, eps=EPS),
        nn.LeakyReLU(0.2, inplace=True),
    ]
