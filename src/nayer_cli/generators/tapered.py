"""Two upsamplings with channels that fall from four times the width: the generator of DFQ, ZSKT and MAD at 32 pixels."""

from torch import Tensor, nn

from nayer_cli import generator
from nayer_cli.generator import conv_block, halved, up_to
from nayer_cli.types import ImageShape


class Generator(generator.Generator):
    """Linear → BN → (↑, conv, BN, LReLU) × 2 → conv → sigmoid, with 4, 2 and 1 times `width` channels."""

    def __init__(self, code_size: int, shape: ImageShape, width: int = 64) -> None:
        super().__init__(code_size, shape)
        self.start = (4 * width, *halved(shape, 2))
        self.linear = nn.Linear(code_size, self.start[0] * self.start[1] * self.start[2])
        self.body = nn.Sequential(
            nn.BatchNorm2d(4 * width),
            up_to(shape, 1),
            *conv_block(4 * width, 2 * width),
            up_to(shape, 0),
            *conv_block(2 * width, width),
            nn.Conv2d(width, shape.channels, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, codes: Tensor) -> Tensor:
        """Draw images `[B, C, H, W]` in [0, 1] for codes `[B, code_size]`."""
        images: Tensor = self.body(self.linear(codes).unflatten(1, self.start))
        return images
