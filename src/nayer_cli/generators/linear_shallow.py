"""A linear layer before `shallow`: as many layers as NAYER has, for codes of noise (NAYER, Table 5)."""

from torch import Tensor, nn

from nayer_cli.generator import Upsampler
from nayer_cli.types import ImageShape

BETWEEN = 1000


class Generator(Upsampler):
    """Linear → the layers of `shallow`."""

    def __init__(self, code_size: int, shape: ImageShape, width: int = 64) -> None:
        super().__init__(BETWEEN, shape, (2 * width, 2 * width, width))
        self.code_size, self.first = code_size, nn.Linear(code_size, BETWEEN)

    def _unfold(self, codes: Tensor) -> Tensor:
        return super()._unfold(self.first(codes))
