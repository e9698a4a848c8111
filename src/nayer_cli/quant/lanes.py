"""The integers that every processor multiplies without loss.

x86 processors with AVX2 or AVX-512 and without VNNI multiply unsigned activations by signed weights two at a time, and
add both products in a lane of 16 bits, which saturates (`vpmaddubsw`). Which two weights meet depends on the kernel, so
the bounds here hold for any two of one output channel. VNNI, and the dot products of Arm, add in 32 bits.
"""

from torch import Tensor

LANE = 2**15 - 1
MIDDLE = 128
"""The offset that is added to signed activations to store them as bytes, and so the byte that stands for zero."""


def largest_byte(high: int, signed: bool) -> int:
    """Return the largest byte that holds activations of integers up to `high`."""
    return high + MIDDLE if signed else high


def safe_weight(largest: int) -> int:
    """Return the largest weight of which two may meet, each times `largest`, an activation from 1 to 255."""
    return LANE // (2 * largest)


def worst_pair(weight: Tensor) -> int:
    """Return the largest |a + b| of two weights of one output channel.

    The least activation is 0, so two weights of unlike signs add up to no more than one of them.

    Args:
        weight: `[O, …]`, of any integer type.

    """
    rows = weight.flatten(1).int()
    sides = (rows.clamp(min=0), -rows.clamp(max=0))
    return max(int(side.topk(min(2, side.shape[1]), 1).values.sum(1).amax()) for side in sides)


def can_saturate(weight: Tensor, largest: int) -> bool:
    """Say whether two products of integer weights `[O, …]` and bytes up to `largest` can exceed 16 bits."""
    return worst_pair(weight) * largest > LANE
