"""Four upsamplings from a sixteenth of the side: NAYER's generator for 224 pixels."""

from torch import nn

from nayer_cli.generator import Layered, conv_block, halved, up_to
from nayer_cli.types import ImageShape


class Generator(Layered):
    """Linear → (conv, BN, LReLU) → (↑, conv, BN, LReLU) × 4 → conv → sigmoid; the last half has `width` channels.

    Stages are what the first three LReLUs return.
    """

    stages = (2, 6, 10)

    def __init__(self, code_size: int, shape: ImageShape, width: int = 64) -> None:
        super().__init__(code_size, shape, (2 * width, *halved(shape, 4)))
        widths = [(2 * width, 2 * width), (2 * width, width), (width, width), (width, width)]
        layers: list[nn.Module] = conv_block(2 * width, 2 * width)
        for halvings, (inputs, outputs) in zip((3, 2, 1, 0), widths, strict=True):
            layers += [up_to(shape, halvings), *conv_block(inputs, outputs)]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, shape.channels, 3, padding=1), nn.Sigmoid())
