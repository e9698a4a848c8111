"""Four upsamplings from a sixteenth of the side: NAYER's generator for 224 pixels."""

from torch import Tensor, nn

from nayer_cli import generator
from nayer_cli.generator import conv_block, halved, up_to
from nayer_cli.types import ImageShape


class Generator(generator.Generator):
    """Linear → (conv, BN, LReLU) → (↑, conv, BN, LReLU) × 4 → conv → sigmoid; the last half has `width` channels."""

    def __init__(self, code_size: int, shape: ImageShape, width: int = 64) -> None:
        super().__init__(code_size, shape)
        self.start = (2 * width, *halved(shape, 4))
        self.linear = nn.Linear(code_size, self.start[0] * self.start[1] * self.start[2])
        widths = [(2 * width, 2 * width), (2 * width, width), (width, width), (width, width)]
        stages: list[nn.Module] = conv_block(2 * width, 2 * width)
        for halvings, (inputs, outputs) in zip((3, 2, 1, 0), widths, strict=True):
            stages += [up_to(shape, halvings), *conv_block(inputs, outputs)]
        self.body = nn.Sequential(*stages, nn.Conv2d(width, shape.channels, 3, padding=1), nn.Sigmoid())

    def forward(self, codes: Tensor) -> Tensor:
        """Draw images `[B, C, H, W]` in [0, 1] for codes `[B, code_size]`."""
        images: Tensor = self.body(self.linear(codes).unflatten(1, self.start))
        return images
