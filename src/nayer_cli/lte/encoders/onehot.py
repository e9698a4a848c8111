"""Control: a one-hot vector for each class. Nothing of the names is left; all are equally far apart."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nayer_cli.errors import InputError
from nayer_cli.lte.encoder import Encoder, refuse_argument

if TYPE_CHECKING:
    from torch import Tensor

READS_TEXT = False
MOST = 2**14
"""Classes: their table takes 1 GiB, and four times that while it is written."""


class OneHot:
    """The rows of the identity matrix."""

    name = "onehot"
    revision = "1"

    def encode(self, texts: Sequence[str]) -> "Tensor":
        """Return the identity `[K, K]` for any K texts.

        Raises:
            InputError: there are more than `MOST` texts.

        """
        import torch

        count = len(texts)
        if count > MOST:
            raise InputError(
                f"the one-hot table of {count:,} classes would take {4 * count**2 / 1e9:.1f} GB",
                hint="use --encoder random or --encoder index, which have 512 numbers a class",
            )
        return torch.eye(count)


def check(argument: str | None, is_used: bool = True) -> None:
    """Refuse an argument."""
    refuse_argument("onehot", argument)


def open_encoder(argument: str | None, device: str) -> Encoder:
    """Make the encoder; `device` does not matter."""
    check(argument)
    return OneHot()
