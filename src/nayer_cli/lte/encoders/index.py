"""Control: a code of the class index. What is left when the names are ignored and their order is kept."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nayer_cli.lte.encoder import Encoder, refuse_argument

if TYPE_CHECKING:
    from torch import Tensor

READS_TEXT = False
WIDTH = 512
LONGEST_WAVE = 10_000


class Index:
    """Sinusoidal position code (Vaswani et al. 2017, section 3.5) of the class index."""

    name = "index"
    revision = "1"

    def encode(self, texts: Sequence[str]) -> "Tensor":
        """Return `[K, 512]`: the sines, then the cosines, of index k times 256 falling frequencies."""
        import torch

        frequencies = LONGEST_WAVE ** -torch.linspace(0, 1, WIDTH // 2 + 1, dtype=torch.float64)[:-1]
        angles = torch.arange(len(texts), dtype=torch.float64)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def check(argument: str | None, is_used: bool = True) -> None:
    """Refuse an argument."""
    refuse_argument("index", argument)


def open_encoder(argument: str | None, device: str) -> Encoder:
    """Make the encoder; `device` does not matter."""
    check(argument)
    return Index()
