"""One step down a gradient: averaged over the processes of a job, and skipped where it is not finite."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nayer_cli.machine.distributed import Group
from nayer_cli.machine.precision import Precision


class Descent:
    """An optimizer's steps.

    A loss or a gradient that is not finite, in any process, leaves weights and moments alone in all of them; nobody
    waits for the device to learn about it.

    Args:
        optimizer: a fused one of `torch.optim`: those know how to skip a step on the device.
        precision: says whether losses are scaled, as float16 needs it.
        group: the processes whose gradients are averaged.
        max_norm: longer gradients are shortened to this L2 norm; where nothing is `own`, or it would differ by process.
        own: parameters that each process has for itself, such as a noisy layer that its images alone go through.

    Attributes:
        skipped: steps left out so far, 0-dimensional, on the device.

    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        group: Group,
        max_norm: float | None = None,
        own: Iterable[nn.Parameter] = (),
    ) -> None:
        self.optimizer, self.group, self.max_norm = optimizer, group, max_norm
        self._parameters = [parameter for part in optimizer.param_groups for parameter in part["params"]]
        self._own = list(own)
        self._common = [one for one in self._parameters if not any(one is mine for mine in self._own)]
        device = self._parameters[0].device
        if isinstance(optimizer, torch.optim.SGD):
            _start_momentum(optimizer)
        self._scaler = torch.amp.GradScaler(device.type, init_scale=2.0**12, enabled=precision.is_scaled)
        self.skipped = torch.zeros((), device=device)

    def step(self, loss: Tensor) -> Tensor:
        """Move the parameters down the gradient of `loss`, which is 0-dimensional.

        Returns whether the step was taken: 0-dimensional, on the device, and the same in every process.
        """
        self.optimizer.zero_grad()
        # Times NaN where it is not finite: a loss may be NaN and its gradient look innocent.
        self._scaler.scale(loss * torch.where(loss.isfinite(), 1.0, torch.nan)).backward()
        gradients = self._average()
        self._scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm(gradients)
        if self.max_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self.max_norm, norm)
        bad = 1.0 - norm.isfinite().to(torch.float32)  # the type that optimizers expect, whatever the weights'
        self.skipped += bad
        # The mark that `GradScaler` sets where it is in use; fused optimizers obey it.
        self.optimizer.found_inf = bad  # type: ignore[attr-defined]
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return bad == 0

    def _average(self) -> list[Tensor]:
        """Make the gradients those of the mean of all processes' losses, and return them."""
        common, own = _gradients(self._common), _gradients(self._own)
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
        return {"optimizer": self.optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])


def _start_momentum(optimizer: torch.optim.SGD) -> None:
    """Start with a momentum of 0: the fused kernel would leave that of a first step that is skipped uninitialized."""
    for group in optimizer.param_groups:
        if group["momentum"]:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
