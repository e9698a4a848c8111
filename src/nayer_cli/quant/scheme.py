"""The scheme of a quantized network, its numbers of bits, without torch."""

import re
from dataclasses import dataclass

from nayer_cli.errors import ConfigError

LEAST, MOST = 2, 8
WEIGHT_RANGES = ("7bit", "u8u8", "full")
"""The ways to treat 8-bit weights if two products could exceed 16 bits: see `Scheme.weight_range`."""


@dataclass(frozen=True)
class Scheme:
    """Bits of weights and activations, 2 to 8 each."""

    weights: int
    activations: int
    """Bits of the outputs of activation functions."""
    first_last: int = 8
    """Bits of the weights of the first and the last layer; 0: the same as `weights`."""
    edges: int = 8
    """Bits of everything else that a layer or an addition reads or returns: the input, residual sums, layers without an
    activation function, pooled features; 0: as `activations`."""
    weight_range: str = WEIGHT_RANGES[0]
    """The range of 8-bit weights if two products could exceed 16 bits, which saturates on x86 without VNNI. `7bit`:
    they stay within ±64. `u8u8`: ONNX files store them unsigned, for kernels that add in 32 bits. `full`: no limit."""

    @property
    def first_last_bits(self) -> int:
        """Bits of the weights of the first and the last layer."""
        return self.first_last or self.weights

    @property
    def edge_bits(self) -> int:
        """Bits of tensors that no activation function returned."""
        return self.edges or self.activations

    def __str__(self) -> str:
        """Return the usual name, such as w4a8."""
        return f"w{self.weights}a{self.activations}"


def parse_bits(text: str) -> tuple[int, int]:
    """Read bits of weights and activations from a name such as `w4a8`.

    Raises:
        ConfigError: it is not of this form, or not of 2 to 8 bits.

    """
    found = re.fullmatch(r"w(\d+)a(\d+)", text.strip().lower())
    bits = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(LEAST <= one <= MOST for one in bits):
        raise ConfigError(
            f"'{text}' is not a number of bits: weights and activations have {LEAST} to {MOST} each",
            hint="for example: --bits w4a8",
        )
    return bits
