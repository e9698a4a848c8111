"""Common parts of synthesis rounds: weighing losses, matching statistics, keeping the best of several steps."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nayer_cli import losses
from nayer_cli.critic import Critic, Statistics


def weigh(config: object, terms: Mapping[str, Tensor]) -> Tensor:
    """Return the weighted sum of losses; the weight of each is the setting that has its name."""
    return torch.stack([getattr(config, name) * value for name, value in terms.items()]).sum()


class Best:
    """Keeps what belongs to the step with the lowest loss, without the host ever asking which step it is.

    Attributes:
        kept: tensors by name, as they were at that step.
        losses: its terms by name.
        course: the term `ce` of every step so far, if there is one.

    """

    def __init__(self) -> None:
        self._loss: Tensor | None = None
        self.course: list[Tensor] = []

    @torch.no_grad()
    def offer(self, loss: Tensor, terms: Mapping[str, Tensor], **tensors: Tensor) -> None:
        """Take over `terms` and `tensors`, which have the same names every time, if `loss` is the lowest so far."""
        self.course += [terms["ce"].detach()] if "ce" in terms else []
        if self._loss is None:
            self._loss = loss.detach()
            self.losses = {name: value.detach() for name, value in terms.items()}
            self.kept = {name: value.detach() for name, value in tensors.items()}
            return
        # A loss that is not finite gives way to any other, and never wins.
        better = (loss < self._loss) | ~self._loss.isfinite()
        self._loss = torch.where(better, loss, self._loss)
        self.losses = {name: torch.where(better, value, self.losses[name]) for name, value in terms.items()}
        self.kept = {name: torch.where(better, value, self.kept[name]) for name, value in tensors.items()}


def steps_until(course: Sequence[Tensor], below: float) -> Tensor:
    """Return after how many steps a loss was first `below`, 0-dimensional; NaN if it never was.

    `course` has the loss before each step, so that 0 says: before the first. The host does not wait.
    """
    reached = torch.stack(list(course)) < below
    return torch.where(reached.any(), reached.float().argmax(), torch.nan)


class PastStatistics(nn.Module):
    """BatchNorm statistics of earlier rounds; a batch is mixed with them before it is compared (FM, NAYER).

    Args:
        critic: whose running statistics are aimed at.
        momentum: share of the past.

    """

    mean: Tensor
    var: Tensor

    def __init__(self, critic: Critic, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self._aim = critic.running, critic.members
        # NaN marks that there was no round yet.
        self.register_buffer("mean", torch.full_like(critic.running.mean, torch.nan))
        self.register_buffer("var", torch.full_like(critic.running.var, torch.nan))

    def distance(self, now: Statistics) -> Tensor:
        """Term `bn` of (1 − momentum) · now + momentum · past; gradients flow into `now`."""
        running, members = self._aim
        mixed = self._mixed(self.mean, now.mean), self._mixed(self.var, now.var)
        return losses.statistics_distance(*mixed, running.mean, running.var, members)

    @torch.no_grad()
    def remember(self, last: Statistics, sound: Tensor) -> None:
        """Move towards the statistics of a round's last step, if it was `sound`.

        The buffers would never get rid of a number that is not finite.
        """
        for past, now in ((self.mean, last.mean), (self.var, last.var)):
            moved = torch.where(past.isnan(), now, torch.lerp(now, past, self.momentum))
            past.copy_(torch.where(sound, moved, past))

    def _mixed(self, past: Tensor, now: Tensor) -> Tensor:
        return torch.where(past.isnan(), now, (1 - self.momentum) * now + self.momentum * past)


@contextmanager
def unnoticed(network: nn.Module) -> Iterator[None]:
    """Within the block a network computes with the statistics of its batch, and its running statistics stay."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def draw_labels(count: int, classes: int, generator: torch.Generator, *, replace: bool = False) -> Tensor:
    """Labels `[count]`: all classes in order, as often as they fit, then a random rest.

    The rest is drawn without replacement, since two images of one class in one group of the noisy layer are the same;
    the released code draws it with replacement.
    """
    device = generator.device
    whole = torch.arange(classes, device=device).repeat(count // classes)
    if replace:
        rest = torch.randint(classes, (count % classes,), generator=generator, device=device)
    else:
        rest = torch.randperm(classes, generator=generator, device=device)[: count % classes]
    return torch.cat([whole, rest])
