"""The frozen teacher in its judging role: logits, and the statistics that its BatchNorm layers see."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli.distributed import Group
from nayer_cli.model import Normalized


class Statistics(NamedTuple):
    """Mean and biased variance of the input of every BatchNorm2d, channels of all layers one after another, `[ΣC]`."""

    mean: Tensor
    var: Tensor


class Judgement(NamedTuple):
    """What the critic says of a batch: logits `[B, K]`, and the batch's statistics."""

    logits: Tensor
    statistics: Statistics


class Critic(nn.Module):
    """A frozen teacher in evaluation mode; its parameters and buffers never change.

    Args:
        teacher: maps images in [0, 1] to logits.
        group: the processes whose batches are one batch: `judge` gives the statistics of all of it.

    Attributes:
        running: the running statistics of its BatchNorm2d layers, in module order.
        members: `[ΣC, L]`, 1 where a channel belongs to a layer.
        has_statistics: False for a teacher without BatchNorm2d, such as a ViT: the term `bn` is then 0.

    """

    members: Tensor

    def __init__(self, teacher: Normalized, group: Group | None = None) -> None:
        super().__init__()
        self._group = group or Group()
        self.teacher = teacher.requires_grad_(False).eval()
        self._taps = [m for m in teacher.modules() if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None]
        self._seen: list[tuple[Tensor, Tensor]] = []
        self.has_statistics = bool(self._taps)
        device = teacher.mean.device
        means = [_buffer(tap.running_mean) for tap in self._taps]
        self.running = Statistics(_join(means, device), _join([_buffer(tap.running_var) for tap in self._taps], device))
        counts = torch.tensor([len(mean) for mean in means], dtype=torch.long)
        layers = torch.repeat_interleave(torch.arange(len(means)), counts)
        self.members = nn.functional.one_hot(layers, max(len(means), 1)).float().to(device)

    def train(self, mode: bool = True) -> "Critic":
        """Stay in evaluation mode whatever is asked: a teacher does not learn."""
        return super().train(False)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Logits `[B, K]` of images `[B, C, H, W]` in [0, 1], without gradient."""
        logits: Tensor = self.teacher(images)
        return logits

    def judge(self, images: Tensor) -> Judgement:
        """Logits and batch statistics of images `[B, C, H, W]` in [0, 1], differentiable in the images."""
        with self._tapped():
            logits = self.teacher(images)
        means, variances = zip(*self._seen, strict=True) if self._seen else ((), ())
        self._seen = []
        own = Statistics(_join(list(means), images.device), _join(list(variances), images.device))
        return Judgement(logits, self._of_all(own))

    def _of_all(self, own: Statistics) -> Statistics:
        """Statistics of the batches of all processes together."""
        if self._group.size == 1:
            return own
        mean, square = self._group.mean(torch.stack([own.mean, own.var + own.mean.square()]))
        return Statistics(mean, square - mean.square())

    @contextmanager
    def _tapped(self) -> Iterator[None]:
        """Collect statistics within the block only: the student's steps do not pay for them."""
        hooks = [tap.register_forward_pre_hook(self._see) for tap in self._taps]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _see(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen.append(channel_statistics(inputs[0]))


def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance `[C]`, float32, of activations `[B, C, H, W]`; one elementwise pass backward."""
    result: tuple[Tensor, Tensor] = _ChannelStatistics.apply(x)
    return result


class _ChannelStatistics(torch.autograd.Function):
    """Statistics and their gradient by BatchNorm's own kernels, which read x once and know its memory layout.

    `torch.var_mean` takes twelve times as long on channels-last bfloat16 activations, and its backward makes several
    temporaries as large as x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        # Running statistics, which nobody reads here, make the kernel answer in their precision instead of x's.
        unread = torch.zeros(2, x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        mean, var = torch.batch_norm_update_stats(x, unread[0], unread[1], 0.0)
        ctx.save_for_backward(x, mean)
        return mean, var

    @staticmethod
    def backward(ctx: Any, to_mean: Tensor, to_var: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        # d var / dx = 2 (x − mean) / N and d mean / dx = 1 / N: linear in x, which a BatchNorm in evaluation mode with
        # mean 0 and variance 1 computes in one pass.
        slope = to_var * (2 / count)
        offset = to_mean / count - slope * mean
        zero, one = torch.zeros_like(mean), torch.ones_like(mean)
        return F.batch_norm(x, zero, one, slope, offset, training=False, eps=1e-30)


def _buffer(value: Tensor | None) -> Tensor:
    assert value is not None
    return value.detach().float()


def _join(parts: list[Tensor], device: torch.device) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, device=device)
