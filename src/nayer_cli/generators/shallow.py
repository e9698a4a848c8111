"""Two upsamplings from a quarter of the side: the generator of CMI, FM and NAYER for 32 and 64 pixels."""

from nayer_cli.generator import Upsampler
from nayer_cli.types import ImageShape


class Generator(Upsampler):
    """Twice `width` channels, and `width` at full size."""

    def __init__(self, code_size: int, shape: ImageShape, width: int = 64) -> None:
        super().__init__(code_size, shape, (2 * width, 2 * width, width))
