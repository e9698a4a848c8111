"""KAKR: a step on fresh images must not undo what was learned of remembered ones (Patel et al., CVPR 2023)."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nayer_cli import losses, method
from nayer_cli.bank import MemoryBank
from nayer_cli.config import setting
from nayer_cli.live_settings import VaeSettings
from nayer_cli.method import Batch, LoopState, Parts, StudentLoss, SynthBatch
from nayer_cli.prior import PriorGenerator
from nayer_cli.replay_memory import Rehearsal, Ring, rehearse, remembered
from nayer_cli.variational import VariationalMemory

Named = dict[str, Tensor]


@dataclass(frozen=True)
class Config(VaeSettings):
    """Settings of KAKR; the defaults are the paper's objective and the authors' numbers."""

    name: str = setting("kakr", "the method")
    memory: str = setting(
        "bank", "what remembers: a bank of batches (KAKR-MB) or a VAE (KAKR-GR)", choices=("bank", "generative")
    )
    meta: str = setting(
        "second",
        "how the step on fresh images is differentiated: fully, to first order, or not at all, as in the released code",
        choices=("second", "first", "detached"),
    )
    lr_in: float = setting(0.9, "learning rate of the trial step on fresh images", low=0)
    wd_in: float = setting(5e-4, "weight decay of that step", low=0)
    replay: float = setting(0.125, "remembered images in a student's batch, per fresh one", above=0, high=1)
    capacity: int = setting(10, "batches remembered by the bank", low=1)
    push_every: int = setting(5, "epochs from one remembered by the bank to the next", low=1)


class Method(method.Method):
    """Live, as MB-DFKD or PRE-DFKD is; the student's loss looks one step ahead."""

    uses_names = method.NOTHING
    keeps = "live and bank"
    bytes_kept = 6144  # in 16 bits
    lends = ("generator.",)
    may_quantize = False  # rounding has no second derivative

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts)
        self.config, self.batch = config, parts.batch_size
        self.generator = PriorGenerator(parts, config)
        self.memory: Ring | VariationalMemory
        count = remembered(config.replay, self.batch)
        if config.memory == "bank":
            self.memory = Ring(parts, config.capacity, count, config.push_every)
            self.store = self.memory.store
        else:
            self.memory = VariationalMemory(parts, config, count)

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """One generator step: L_G = ce · OH + balance · IE + act · A + js · JS."""
        made = self.generator.round(student)
        if isinstance(self.memory, Ring):
            return made._replace(rows=self.memory.rows(state, made.images))
        self.memory.start_cycle()
        return made._replace(losses=made.losses | {"vae": self.memory.loss})

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        """Yield `steps` batches of fresh and remembered images; the bank stays unread."""
        return rehearse(self.generator, self.memory, steps)

    def student_loss(self, student: nn.Module, batch: Batch) -> Tensor | StudentLoss:
        """Return L = L1(S_θ′(x_r), t_r) + L1(S_θ(x), t), x_r the remembered images, θ′ after a step on the others.

        The paper's second term has the fresh images alone; the released code's has all, and so has this.
        """
        assert isinstance(batch, Rehearsal)
        t = self.parts.critic.logits(batch.images)
        if len(batch) == batch.fresh:
            return losses.logit_l1(t, student(batch.images))
        with _as_written():
            ahead = self._ahead(student, batch, t)
        l1 = losses.logit_l1(t, student(batch.images))
        return StudentLoss(ahead + l1, {"ahead": ahead, "l1": l1})

    def _ahead(self, student: nn.Module, batch: Rehearsal, t: Tensor) -> Tensor:
        """L1(S_θ′(x_r), t_r) with θ′ = θ − α (∇ L1(S_θ(x_a), t_a) + wd · θ)."""
        weights: Named = {name: value for name, value in student.named_parameters() if value.requires_grad}
        if self.config.meta == "detached":
            weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
        # Batch statistics move copies of the running ones, which nobody reads.
        buffers = {name: value.clone() for name, value in student.named_buffers()}

        def distance(weights: Named, part: slice) -> Tensor:
            s: Tensor = functional_call(student, weights | buffers, (batch.images[part],))
            return losses.logit_l1(t[part], s)

        gradients = self._gradients(distance(weights, slice(batch.fresh)), list(weights.values()))
        lr, decay = self.config.lr_in, self.config.wd_in
        moved = {
            name: value - lr * (gradient + decay * value)
            for (name, value), gradient in zip(weights.items(), gradients, strict=True)
        }
        with torch.set_grad_enabled(self.config.meta != "detached"):
            return distance(moved, slice(batch.fresh, None))

    def _gradients(self, loss: Tensor, weights: list[Tensor]) -> tuple[Tensor, ...]:
        """Return the gradient of the inner loss for each weight, 0 where there is none."""
        scale = 2.0**10 if self.parts.precision.is_scaled else 1.0
        found = torch.autograd.grad(
            loss * scale, weights, create_graph=self.config.meta == "second", allow_unused=True, materialize_grads=True
        )
        return tuple(gradient / scale for gradient in found)


def _as_written() -> AbstractContextManager[None]:
    """Within the block no network runs compiled: torch.compile cannot differentiate twice."""
    is_loaded = "torch._dynamo" in sys.modules
    context: AbstractContextManager[None] = torch.compiler.set_stance("force_eager") if is_loaded else nullcontext()
    return context
