"""Hand-made models and parts that many tests use."""

import torch
from torch import nn

from nayer_cli.augment import Augment
from nayer_cli.classifiers.model import Normalized
from nayer_cli.critic import Critic
from nayer_cli.machine.distributed import Group
from nayer_cli.machine.interruption import Interruption
from nayer_cli.machine.precision import Precision
from nayer_cli.machine.rng import Streams
from nayer_cli.method import Parts
from nayer_cli.types import ImageShape, Normalization

CLASSES = 4
SHAPE = ImageShape(3, 8, 8)


def network(channels: int = 3, width: int = 6, classes: int = CLASSES, seed: int = 0) -> nn.Sequential:
    """A convolutional classifier with two BatchNorms whose statistics are not the trivial ones."""
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )
    with torch.no_grad():
        for _ in range(3):
            layers(torch.randn(16, channels, 8, 8))
    return layers.eval()


def normalized(**options: int) -> Normalized:
    """`network` behind the usual normalization of images in [0, 1]."""
    channels = options.get("channels", 3)
    return Normalized(network(**options), Normalization((0.5,) * channels, (0.25,) * channels))


def parts(seed: int = 0, shape: ImageShape = SHAPE, classes: int = CLASSES, batch_size: int = 8) -> Parts:
    """What a method is given."""
    return Parts(
        critic=Critic(normalized(channels=shape.channels, classes=classes)),
        pool=torch.randn(classes, 5, generator=torch.Generator().manual_seed(1)),
        shape=shape,
        augment=Augment(pad=1, flip=True),
        rng=Streams(seed),
        precision=Precision(),
        batch_size=batch_size,
        group=Group(),
        interruption=Interruption(Group()),
    )
