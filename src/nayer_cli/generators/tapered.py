"""Two upsamplings with channels that fall from four times the width: DFQ, ZSKT and MAD at 32 pixels."""

from nayer_cli.generator import Upsampler
from nayer_cli.types import ImageShape


class Generator(Upsampler):
    """Four times, twice and once `width` channels."""

    def __init__(self, code_size: int, shape: ImageShape, width: int = 64) -> None:
        super().__init__(code_size, shape, (4 * width, 2 * width, width))
