"""A small network of inverted residuals, and images for it."""

import torch
from torch import Tensor, nn

from nayer_cli.types import ImageShape, Normalization

CLASSES, RIDGE = 10, 1.0
SHAPE, NORMALIZATION = ImageShape(3, 12, 12), Normalization((0.5,) * 3, (0.25,) * 3)


def unit(inputs: int, outputs: int, kernel: int = 1, groups: int = 1, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def images(count: int = 256, seed: int = 0) -> Tensor:
    """Normalized images of ten classes in turn, whose pixels are not independent."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.rand(CLASSES, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    coarse = classes[torch.arange(count) % CLASSES] + 0.2 * torch.rand(count, 3, 4, 4, generator=generator)
    return (nn.functional.interpolate(coarse / 1.2, SHAPE[1:], mode="bilinear") - 0.5) / 0.25


def mobile_network(spread: float = 1.0) -> nn.Sequential:
    """Inverted residuals that tell the classes of `images` apart.

    Channels between two layers differ in scale by up to `spread`, which changes no function.
    """
    torch.manual_seed(0)
    first, second = (nn.Sequential(*unit(8, 24), *unit(24, 24, 3, groups=24), *unit(24, 8)[:2]) for _ in range(2))
    head = [*unit(8, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES)]
    network = nn.Sequential(*unit(3, 8, 3, stride=2), first, Residual(*second), *head)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.5)
    measure(network)
    for block in (first, second):
        rescale(block[1], block[3], spread)
        rescale(block[4], block[6], spread)
    fit_head(network)
    return network


@torch.no_grad()
def measure(network: nn.Sequential) -> None:
    """Let running statistics be those of some images."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    network.train()(images(seed=1))
    network.eval()


@torch.no_grad()
def fit_head(network: nn.Sequential) -> None:
    """Let the last layer tell classes apart by wide margins: least squares, with a ridge that keeps weights small."""
    x = network[:-1](images(seed=1))
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    wanted = nn.functional.one_hot(torch.arange(len(x)) % CLASSES, CLASSES).float()
    solution = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1]), x.T @ wanted)
    network[-1].weight.copy_(solution[:-1].T)
    network[-1].bias.copy_(solution[-1])


@torch.no_grad()
def rescale(norm: nn.BatchNorm2d, after: nn.Conv2d, spread: float) -> None:
    factors = spread ** torch.rand(norm.num_features)
    norm.weight *= factors
    norm.bias *= factors
    after.weight /= factors.view((-1, 1, 1, 1) if after.groups > 1 else (1, -1, 1, 1))


@torch.no_grad()
def agreement(a: nn.Module, b: nn.Module) -> float:
    return float((a(images()).argmax(1) == b(images()).argmax(1)).float().mean())
