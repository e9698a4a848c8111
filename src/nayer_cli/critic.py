"""The frozen teacher in its judging role: logits, and the statistics that its BatchNorm layers see."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli import losses
from nayer_cli.activations import Activations
from nayer_cli.classifiers.model import Normalized
from nayer_cli.errors import InputError
from nayer_cli.machine.distributed import Group

T = TypeVar("T")


class Statistics(NamedTuple):
    """Mean and biased variance of the input of every tapped layer, channels of all layers one after another, `[ΣC]`."""

    mean: Tensor
    var: Tensor


class Judgement(NamedTuple):
    """The critic's answer to a batch: logits `[B, K]`, and the batch's statistics."""

    logits: Tensor
    statistics: Statistics


class Critic(nn.Module):
    """A frozen teacher in evaluation mode; its parameters and buffers never change.

    Args:
        teacher: maps images in [0, 1] to logits.
        group: the processes whose batches are one batch: `judge` gives the statistics of all of it.

    Attributes:
        running: the running statistics of its layers that have some (`layers_with_statistics`), in module order.
        members: `[ΣC, L]`, 1 where a channel belongs to a layer.
        has_statistics: False for a teacher without such layers, such as a ViT: the term `bn` is then 0.

    """

    members: Tensor

    def __init__(self, teacher: Normalized, group: Group | None = None) -> None:
        super().__init__()
        self._group = group or Group()
        self.teacher = teacher.requires_grad_(False).eval()
        self._taps = layers_with_statistics(teacher)
        self._seen = self.listening(lambda layer, x: Statistics(*channel_statistics(x)))
        self.has_statistics = bool(self._taps)
        device = teacher.mean.device
        self._known = {tap: Statistics(_buffer(tap.running_mean), _buffer(tap.running_var)) for tap in self._taps}
        self.running = _join(self._known.values(), device)
        counts = torch.tensor([len(known.mean) for known in self._known.values()], dtype=torch.long)
        layers = torch.repeat_interleave(torch.arange(len(counts)), counts)
        self.members = nn.functional.one_hot(layers, max(len(counts), 1)).float().to(device)

    def train(self, mode: bool = True) -> "Critic":
        """Stay in evaluation mode whatever is asked: a teacher does not learn."""
        return super().train(False)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Logits `[B, K]` of images `[B, C, H, W]` in [0, 1], without gradient."""
        logits: Tensor = self.teacher(images)
        return logits

    def answer(self, images: Tensor) -> Tensor:
        """Logits `[B, K]` of images `[B, C, H, W]` in [0, 1], differentiable in the images.

        Raises:
            InputError: the logits carry no gradient, so nothing could be learned from them.

        """
        logits: Tensor = self.teacher(images)
        if images.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            raise InputError(
                "the logits of the teacher carry no gradient, so no image can be made with it",
                hint="its forward must not use no_grad, detach, numpy or rounding",
            )
        return logits

    def judge(self, images: Tensor) -> Judgement:
        """Return what `answer` does, and the batch statistics, differentiable too."""
        logits, seen = self._seen(self.answer, images)
        # By layer, not by order: layers may run in another order than they were made in, twice (the last time counts),
        # or not at all, as heads that only help training do.
        own = _join((self._known | dict(seen)).values(), images.device)
        return Judgement(logits, self._of_all(own))

    def distance(self, now: Statistics) -> Tensor:
        """Term `bn`: how far statistics are from the running ones (Yin et al. 2020, eq. 4)."""
        running = self.running
        return losses.statistics_distance(now.mean, now.var, running.mean, running.var, self.members)

    def _of_all(self, own: Statistics) -> Statistics:
        """Statistics of the batches of all processes together."""
        if self._group.size == 1:
            return own
        mean = self._group.mean(own.mean)
        # Not E[x²] − E[x]²: that loses what a variance has beside a large mean. The mean is detached, since its own
        # part of the gradient is 0: deviations of the processes from it sum to 0.
        return Statistics(mean, self._group.mean(own.var + (own.mean - mean.detach()).square()))

    def listening(self, read: Callable[[nn.Module, Tensor], T]) -> Activations[T]:
        """Return a way to call the teacher that also gives `read(layer, input)` of each tapped layer."""
        return Activations(self._taps, read, before=True)


def layers_with_statistics(network: nn.Module) -> list[nn.Module]:
    """Return the layers that know mean and variance of their input `[B, C, H, W]`, in module order.

    They are BatchNorm2d and SyncBatchNorm with running statistics, and what replaces them in networks that are
    fine-tuned: the frozen layers of torchvision, timm, transformers and detectron2 share no class but the names of two
    buffers. BatchNorm1d, whose input is not an image, and InstanceNorm, whose variance is that within an image, do not
    count.
    """
    return [module for module in network.modules() if _has_statistics(module)]


def _has_statistics(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.batchnorm._NormBase) and not isinstance(
        module, (nn.BatchNorm2d, nn.SyncBatchNorm)
    ):
        return False
    return all(isinstance(getattr(module, name, None), Tensor) for name in ("running_mean", "running_var"))


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


def _buffer(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value.detach().float()


def _join(parts: Collection[Statistics], device: torch.device) -> Statistics:
    empty = torch.zeros(0, device=device)
    means, variances = zip(*parts, strict=True) if parts else ((), ())
    return Statistics(torch.cat([empty, *means]), torch.cat([empty, *variances]))
