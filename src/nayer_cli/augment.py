"""Random crop and flip of every image by itself, batched on the device and differentiable."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Augment:
    """Zero-pad by `pad` pixels, crop each image at random to its old size, flip each with probability ½ if `flip`."""

    pad: int
    flip: bool

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment images `[B, C, H, W]`; shape and range stay."""
        if not self.pad and not self.flip:
            return images
        count, device = len(images), images.device
        shifts = torch.randint(-self.pad, self.pad + 1, (2, count), generator=generator, device=device)
        flips = torch.randint(0, 2 if self.flip else 1, (count,), generator=generator, device=device).bool()
        return shift_flip(images, shifts[0], shifts[1], flips)


def shift_flip(images: Tensor, down: Tensor, right: Tensor, flips: Tensor) -> Tensor:
    """Take pixel (y + down, x + right) of each image, 0 outside, then mirror the columns where `flips`.

    Args:
        images: `[B, C, H, W]`.
        down: `[B]` int64, rows to shift by.
        right: `[B]` int64, columns to shift by.
        flips: `[B]` bool.

    """
    result: Tensor = _ShiftFlip.apply(images, down, right, flips)
    return result


class _ShiftFlip(torch.autograd.Function):
    """A shift with a flip moves each pixel to one place, so its gradient is the opposite shift with the same flip.

    That makes the backward pass one gather like the forward, where indexing would scatter with atomic additions.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, down: Tensor, right: Tensor, flips: Tensor) -> Tensor:
        ctx.save_for_backward(down, right, flips)
        return _gather(images, down, right, flips)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        down, right, flips = ctx.saved_tensors
        # out[x] = in[W-1-x + right] where flipped, so in[u] = out[W-1-u + right]: the shift keeps its sign there.
        return _gather(gradient, -down, torch.where(flips, right, -right), flips), None, None, None


def _gather(images: Tensor, down: Tensor, right: Tensor, flips: Tensor) -> Tensor:
    count, channels, height, width = images.shape
    columns = torch.arange(width, device=images.device)
    rows = torch.arange(height, device=images.device) + down[:, None]
    columns = torch.where(flips[:, None], width - 1 - columns, columns) + right[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    places = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    index = places.view(count, 1, -1).expand(-1, channels, -1)
    taken = images.reshape(count, channels, -1).gather(2, index).view_as(images)
    return taken * inside[:, None].to(images.dtype)


@dataclass(frozen=True)
class ResizedCrop:
    """Cut a window out of each image at random, bring it back to the old size, flip it with probability ½ if `flip`.

    A window has between `smallest` and all of the image's area, and a ratio of its sides to the image's that is
    log-uniform between 3 : 4 and 4 : 3. It may begin and end between two pixels.
    """

    flip: bool
    smallest: float = 0.25

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Crop images `[B, C, H, W]`; shape and range stay."""
        height, width = images.shape[2:]
        area, ratio, top, left, flip = torch.rand(5, len(images), generator=generator, device=generator.device)
        area = self.smallest + (1 - self.smallest) * area
        stretch = (math.log(4 / 3) * (ratio - 0.5)).exp()  # the square root of the ratio
        tall, wide = ((area.sqrt() * share).clamp(max=1) for share in (1 / stretch, stretch))
        rows = _interpolation(tall, top * (1 - tall), height)
        columns = _interpolation(wide, left * (1 - wide), width)
        if self.flip:
            columns = torch.where(flip[:, None, None] < 0.5, columns.flip(1), columns)
        return resample(images, rows, columns)


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return A X Bᵀ for every channel X of each image `[B, C, H, W]`, with A = `rows` `[B, H', H]`, B = `columns`.

    Two batched products are bilinear interpolation in both directions, with a gradient that is exact, and is the same
    each time on any device.
    """
    return rows[:, None].to(images.dtype) @ images @ columns[:, None].to(images.dtype).mT


def _interpolation(share: Tensor, start: Tensor, size: int) -> Tensor:
    """Return weights `[B, size, size]` that stretch a part of an axis over all of it.

    The part begins at `start` and is `share` of the axis; both are fractions `[B]`.
    """
    pixels = torch.arange(size, device=share.device, dtype=share.dtype)
    centers = (start[:, None] + share[:, None] * (pixels + 0.5) / size) * size - 0.5
    distances = centers.clamp(0, size - 1)[:, :, None] - pixels
    return (1 - distances.abs()).clamp(min=0)
