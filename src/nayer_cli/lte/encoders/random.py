"""Control: a random vector for each class. Nothing of the names is left; dense, and as wide as CLIP's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nayer_cli.lte.encoder import Encoder, refuse_argument

if TYPE_CHECKING:
    from torch import Tensor

READS_TEXT = False
WIDTH = 512
SEED = 0


class Random:
    """Rows drawn once from N(0, 1)."""

    name = "random"
    revision = "1"

    def encode(self, texts: Sequence[str]) -> "Tensor":
        """Return `[K, 512]` from N(0, 1); seed and width are fixed, so the pool depends on K alone."""
        import torch

        return torch.randn(len(texts), WIDTH, generator=torch.Generator().manual_seed(SEED))


def check(argument: str | None, is_used: bool = True) -> None:
    """Refuse an argument."""
    refuse_argument("random", argument)


def open_encoder(argument: str | None, device: str) -> Encoder:
    """Make the encoder; `device` does not matter."""
    check(argument)
    return Random()
