"""One step down a gradient: averaged over the processes of a job, and skipped where it is not finite."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nayer_cli.machine.distributed import Group
from nayer_cli.machine.precision import Precision


class RoundParameter(nn.Parameter):
    """A parameter that one round begins and ends with, such as the codes or the pixels of its images.

    Only the images of this round go through it. So in a job of several processes each has its own.
    """


class Follower:
    """An optimizer's steps down gradients that come from elsewhere.

    A gradient that is not finite leaves weights and moments alone. Nobody waits for the device to learn about it.

    Args:
        optimizer: a fused one of `torch.optim`: those know how to skip a step on the device.
        max_norm: longer gradients are shortened to this L2 norm.

    Attributes:
        skipped: steps left out so far, 0-dimensional, on the device.

    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_norm: float | None = None) -> None:
        self.optimizer, self.max_norm = optimizer, max_norm
        self._parameters = [parameter for part in optimizer.param_groups for parameter in part["params"]]
        if isinstance(optimizer, torch.optim.SGD):
            _start_momentum(optimizer)
        self.skipped = torch.zeros((), device=self._parameters[0].device)

    def follow(self, gradients: Iterable[Tensor]) -> Tensor:
        """Take a step down gradients, one for each parameter.

        Returns whether the step was taken: 0-dimensional, on the device.
        """
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        return self._move(_gradients(self._parameters)) == 0

    def _move(self, gradients: list[Tensor]) -> Tensor:
        """Let the optimizer take its step; return 1 where it was left out, else 0."""
        norm = nn.utils.get_total_norm(gradients)
        if self.max_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self.max_norm, norm)
        bad = 1.0 - norm.isfinite().to(torch.float32)  # the type that optimizers expect, whatever the weights'
        self.skipped += bad
        # The mark that torch's own `GradScaler` sets; fused optimizers obey it.
        self.optimizer.found_inf = bad  # type: ignore[attr-defined]
        self.optimizer.step()
        return bad

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.optimizer.load_state_dict(state["optimizer"])


class Descent(Follower):
    """An optimizer's steps down the gradients of losses, averaged over the processes of a job.

    A `RoundParameter` is not averaged. A loss or a gradient that is not finite, in any process, leaves the weights that
    they share alone in all of them.

    Args:
        optimizer: as a `Follower` takes it.
        precision: says whether losses are scaled, as float16 needs it.
        group: the processes whose gradients are averaged.
        max_norm: as a `Follower` takes it; not beside a `RoundParameter`, or it would differ by process.

    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        group: Group,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(optimizer, max_norm)
        self.group = group
        self._own = [one for one in self._parameters if isinstance(one, RoundParameter)]
        self._common = [one for one in self._parameters if not isinstance(one, RoundParameter)]
        self._scale = LossScale(self.skipped.device) if precision.is_scaled else None

    def step(self, loss: Tensor) -> Tensor:
        """Move the parameters down the gradient of `loss`, which is 0-dimensional.

        Returns whether the step was taken: 0-dimensional, on the device, and the same in every process.
        """
        self.optimizer.zero_grad()
        # Times NaN where it is not finite: a loss may be NaN and its gradient look innocent.
        loss = loss * torch.where(loss.isfinite(), 1.0, torch.nan)
        (loss if self._scale is None else loss * self._scale.factor).backward()
        gradients = self._average()
        if self._scale is not None:
            torch._foreach_mul_(gradients, 1 / self._scale.factor)
        bad = self._move(gradients)
        if self._scale is not None:
            self._scale.update(bad)
        return bad == 0

    def _average(self) -> list[Tensor]:
        """Average the gradients over all processes, and return them."""
        common, own = _gradients(self._common), _gradients(self._own)
        if not self._common:
            return own  # nothing is shared: each process goes its own way
        if own and self.group.size > 1:
            norm = nn.utils.get_total_norm(own)
            self.group.average([*common, norm])
            # What is not finite in one process must be so in all: the others would take the step.
            torch._foreach_mul_(own, torch.where(norm.isfinite(), 1 / self.group.size, torch.nan))
        else:
            self.group.average(common)
        return [*common, *own]

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        scale = self._scale.state_dict() if self._scale is not None else {}
        return super().state_dict() | {"scaler": scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        if self._scale is not None:
            self._scale.load_state_dict(state["scaler"])


class LossScale:
    """A factor for losses that keeps small gradients from vanishing in float16.

    It is halved after a step that was left out, and doubled after `PATIENCE` others in a row. That is what torch's
    `GradScaler` does; here the factor stays on the device, where saving and copying do not ask for it.

    Attributes:
        factor: 0-dimensional, a power of two: gradients are divided by it without an error of rounding.

    """

    PATIENCE = 2000

    def __init__(self, device: torch.device) -> None:
        self.factor = torch.full((), 2.0**12, device=device)
        self._steps = torch.zeros((), device=device)

    def update(self, bad: Tensor) -> None:
        """Take note of a step that was left out (`bad` is 1) or taken (0)."""
        self._steps.add_(1).mul_(1 - bad)
        grown = (self._steps == self.PATIENCE).to(torch.float32)
        self.factor.mul_(1 + grown - bad / 2).clamp_(2.0**-24, 2.0**24)
        self._steps.mul_(1 - grown)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs."""
        return {"factor": self.factor, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.factor.copy_(state["factor"])
        self._steps.copy_(state["steps"])


def _start_momentum(optimizer: torch.optim.SGD) -> None:
    """Start with a momentum of 0: if the first step is skipped, the fused kernel leaves it uninitialized."""
    for group in optimizer.param_groups:
        if group["momentum"]:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
