"""The student: its network, and one update of it."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nayer_cli.descent import Descent
from nayer_cli.machine.distributed import Group
from nayer_cli.machine.precision import Precision
from nayer_cli.method import Batch, StudentLoss

Loss = Callable[[nn.Module, Batch], Tensor | StudentLoss]


class Student:
    """A network that maps images in [0, 1] to logits, its optimizer, and a learning rate that follows a cosine.

    Args:
        model: the network.
        optimizer: `sgd` (with momentum) or `adam`.
        lr: learning rate at the start.
        lr_min: learning rate that the cosine ends at.
        undecayed: parameters without weight decay.
        precision, group: as `Descent` takes them.

    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: str,
        lr: float,
        lr_min: float,
        momentum: float,
        weight_decay: float,
        undecayed: Iterable[nn.Parameter] = (),
        precision: Precision | None = None,
        group: Group | None = None,
    ) -> None:
        self.model = model
        self.lr, self.lr_min = lr, lr_min
        free = set(undecayed)
        decayed = [parameter for parameter in model.parameters() if parameter not in free]
        parts: list[dict[str, Any]] = [{"params": decayed, "weight_decay": weight_decay}]
        if free:
            parts.append({"params": [one for one in model.parameters() if one in free], "weight_decay": 0.0})
        if optimizer == "adam":
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(parts, lr=lr, fused=True)
        else:
            self.optimizer = torch.optim.SGD(parts, lr=lr, momentum=momentum, fused=True)
        self.group = group or Group()
        self.descent = Descent(self.optimizer, precision or Precision(), self.group)

    def anneal(self, done: float) -> None:
        """Set the learning rate for a student that has done the share `done` of its learning."""
        cosine = (1 + math.cos(math.pi * min(done, 1))) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr_min + (self.lr - self.lr_min) * cosine

    def step(self, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        """Update the network once; return the loss as `student` and its terms as `student.NAME`, on the device."""
        found = loss(self.model, batch)
        total, terms = (found, {}) if isinstance(found, Tensor) else (found.total, found.terms)
        self.descent.step(total)
        return {"student": total.detach()} | {f"student.{name}": value.detach() for name, value in terms.items()}

    def average_statistics(self) -> None:
        """Give the BatchNorm layers of all processes the mean of their running statistics."""
        self.group.average_statistics(self.model)

    @contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """Within the block the network is in evaluation mode and gathers no gradients; statistics cannot change."""
        self.model.eval().requires_grad_(False)
        try:
            yield self.model
        finally:
            self.model.train().requires_grad_(True)

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimizer."""
        return {"model": self.model.state_dict(), **self.descent.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.descent.load_state_dict(state)
