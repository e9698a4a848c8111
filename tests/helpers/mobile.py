"""A small network of inverted residuals, and images for it."""

import torch
from torch import Tensor, nn

from nayer_cli.types import ImageShape, Normalization

SHAPE, NORMALIZATION = ImageShape(3, 12, 12), Normalization((0.5,) * 3, (0.25,) * 3)


def unit(inputs: int, outputs: int, kernel: int = 1, groups: int = 1, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def images(count: int = 256, seed: int = 0) -> Tensor:
    """Normalized images whose pixels are not independent."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return (nn.functional.interpolate(coarse, SHAPE[1:], mode="bilinear") - 0.5) / 0.25


def mobile_network(spread: float = 1.0) -> nn.Sequential:
    """Inverted residuals; channels between two layers differ in scale by up to `spread`, which changes no function."""
    torch.manual_seed(0)
    first, second = (nn.Sequential(*unit(8, 24), *unit(24, 24, 3, groups=24), *unit(24, 8)[:2]) for _ in range(2))
    head = [*unit(8, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    network = nn.Sequential(*unit(3, 8, 3, stride=2), first, Residual(*second), *head)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.5)
    for module in network.modules():
        module.momentum = None
    network.train()(images(seed=1))
    for block in (first, second):
        rescale(block[1], block[3], spread)
        rescale(block[4], block[6], spread)
    return network.eval()


@torch.no_grad()
def rescale(norm: nn.BatchNorm2d, after: nn.Conv2d, spread: float) -> None:
    factors = spread ** torch.rand(norm.num_features)
    norm.weight *= factors
    norm.bias *= factors
    after.weight /= factors.view((-1, 1, 1, 1) if after.groups > 1 else (1, -1, 1, 1))


@torch.no_grad()
def agreement(a: nn.Module, b: nn.Module) -> float:
    return float((a(images()).argmax(1) == b(images()).argmax(1)).float().mean())
