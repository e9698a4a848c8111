"""Quantizers that learn their step size (LSQ: Esser et al., ICLR 2020, arXiv 1902.08153)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

SMALLEST_SCALE = 1e-8
FINE_BITS = 7
"""Activations with this many bits or more have powers of two as steps: see `shortened`."""
MANTISSA = 23
"""Stored bits of a float32's mantissa."""


class LearnedStep(torch.autograd.Function):
    """x̂ = s · clamp(round(x / s), low, high); rounding passes gradients through (LSQ, eq. 1–3 and 5).

    Division, not multiplication by 1/s: it is what ONNX's QuantizeLinear does, and the two differ where x / s is half
    a step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        """Return x̂ of the shape of `x`; `scale` is positive and broadcasts against it."""
        ctx.save_for_backward(x, scale)
        ctx.low, ctx.high = low, high
        return (x / scale).round_().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """Return the gradients to `x` and to `scale`, the latter divided by √(values a scale × high)."""
        x, scale = ctx.saved_tensors
        steps = x / scale
        integers = steps.clamp(ctx.low, ctx.high)
        inside = integers == steps
        to_scale = None
        if ctx.needs_input_grad[1]:
            slope = integers.round_().sub_(steps.mul_(inside)).mul_(gradient)
            # LSQ, section 2.2: steps and weights then move at like rates.
            per_scale = x.numel() / scale.numel()
            to_scale = slope.sum_to_size(scale.shape) / (per_scale * ctx.high) ** 0.5
        return gradient * inside, to_scale, None, None


def shortened(x: Tensor, bits: int, *, up: bool = False) -> Tensor:
    """Round positive float32 numbers to that many stored bits of mantissa; 0 bits make powers of two.

    Runtimes multiply sums by scales in orders of their own, and a value halfway between two steps then goes either way.
    Where scales are short, products are exact in any order: up to whole numbers of 23 − `bits` bits.

    Args:
        x: of any shape.
        bits: 0 to 22.
        up: to the next such number; otherwise to the nearest.

    """
    dropped = MANTISSA - bits
    added = 2**dropped - 1 if up else 2 ** (dropped - 1)
    whole: Tensor = (x.view(torch.int32) + added) >> dropped << dropped
    return whole.view(torch.float32)


@contextmanager
def unrounded(network: nn.Module, kind: type["Quantizer"] | None = None) -> Iterator[None]:
    """Within the block the network's quantizers, or those of a kind, change nothing; afterwards they are as before."""
    before = [(one, one.is_calibrated) for one in network.modules() if isinstance(one, kind or Quantizer)]
    for quantizer, _ in before:
        quantizer.is_calibrated = False
    try:
        yield
    finally:
        for quantizer, value in before:
            quantizer.is_calibrated = value


class Quantizer(nn.Module):
    """Rounds to `high − low + 1` multiples of a learned scale. Until it is calibrated it changes nothing.

    Args:
        low, high: the least and the greatest integer.
        shape: of the scale, such that it broadcasts against what is quantized.

    Attributes:
        scale: the step size, float32; 0 as long as the quantizer is not calibrated.

    """

    def __init__(self, low: int, high: int, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.scale = nn.Parameter(torch.zeros(shape))
        self.is_calibrated = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the nearest values to `x` on the grid; in float32 also under autocast, whose types lack them."""
        if not self.is_calibrated:
            return x
        quantized: Tensor = LearnedStep.apply(x.float(), self.step(), self.low, self.high)
        return quantized

    def step(self) -> Tensor:
        """Return the scale that is in force: a learned one may cross 0."""
        return self.scale.abs().clamp_min(SMALLEST_SCALE)

    def possible(self, scale: Tensor) -> Tensor:
        """Return the least scale that can be in force and reaches as far as `scale`, which is positive."""
        return scale

    @torch.no_grad()
    def calibrate(self, scale: Tensor) -> None:
        """Begin to quantize, with this `scale` or the next one that is possible."""
        self.scale.copy_(self.possible(scale))
        self.is_calibrated = True

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state, prefix, *rest)
        self.is_calibrated = bool(self.scale.any())

    def extra_repr(self) -> str:
        """Show the integers."""
        return f"{self.low}…{self.high}"


class WeightQuantizer(Quantizer):
    """A step for each output channel, and a range that is symmetric, so that BatchNorm's sign can be folded into it.

    Args:
        bits: of one integer.
        weight: the weight.

    """

    def __init__(self, bits: int, weight: Tensor) -> None:
        high = 2 ** (bits - 1) - 1
        super().__init__(-high, high, (len(weight), *[1] * (weight.ndim - 1)))
        self.bits = bits

    def limit(self, most: int) -> None:
        """Use no integers beyond ±`most`, nor more than there are bits for."""
        self.high = min(2 ** (self.bits - 1) - 1, most)
        self.low = -self.high


class ActivationQuantizer(Quantizer):
    """One step for a tensor; unsigned where values cannot be negative.

    Args:
        bits: of one integer.
        signed: whether values can be negative.

    """

    def __init__(self, bits: int, signed: bool) -> None:
        super().__init__(*((-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)))
        self.bits, self.signed = bits, signed
        self.is_fine = bits >= FINE_BITS

    def possible(self, scale: Tensor) -> Tensor:
        """Return the next power of two where steps are fine."""
        return shortened(scale, 0, up=True) if self.is_fine else scale

    def step(self) -> Tensor:
        """Return the scale that is in force; where steps are fine, the power of two nearest to what was learned."""
        scale = super().step()
        # Half or twice a number differs from it by a float32, so the sum is exact. Gradients pass through it.
        return scale + (shortened(scale.detach(), 0) - scale.detach()) if self.is_fine else scale
