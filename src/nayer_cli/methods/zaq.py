"""ZAQ: a generator looks for images that a quantized network gets wrong (Liu et al., CVPR 2021, arXiv 2103.15263)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from nayer_cli import losses, method
from nayer_cli.activations import PerNetwork, Staged, Stages, common
from nayer_cli.bank import MemoryBank
from nayer_cli.config import setting
from nayer_cli.generator import new_generator
from nayer_cli.machine.rng import seeded
from nayer_cli.method import Batch, LoopState, Parts, SynthBatch


@dataclass(frozen=True)
class Config:
    """Settings of ZAQ; the defaults are those of the paper."""

    name: str = setting("zaq", "the method")
    lr_g: float = setting(1e-3, "learning rate of the generator's Adam", low=0)
    code_size: int = setting(256, "length of the latent code", low=1)
    width: int = setting(64, "channels of the generator at full size", low=1)
    generator: str = setting("auto", "shallow, deep, auto, or a dotted path")
    crm: float = setting(1.0, "weight α of the channel relation maps, for both networks", low=0)
    act: float = setting(0.1, "weight β of strong activations in the teacher's last stage", low=0)


class Method(method.Method):
    """Live and adversarial: one generator step, then student steps on fresh images of new codes; no bank."""

    uses_names = method.NOTHING

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts)
        self.config, self.batch = config, parts.batch_size
        with seeded(parts.rng.shared("generator")):
            self.generator = new_generator(config.generator, config.code_size, parts.shape, config.width)
        self.generator.to(parts.pool.device).to(memory_format=torch.channels_last)
        self._teacher, self._student = Staged(parts.critic.teacher), PerNetwork(Staged)
        self.descent = parts.descent(torch.optim.Adam(self.generator.parameters(), lr=config.lr_g, fused=True))

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """One generator step towards disagreement: L_G = −L1 − α · CRM − β · ACT."""
        images, skipped = self._draw(), self.descent.skipped.clone()
        (t, _), teacher_stages = self._teacher(self.parts.critic.judge, images)
        adv, crm = self._disagreement(t, teacher_stages, student, images)
        last = next(reversed(teacher_stages.values()), t.new_zeros(()))
        act = last.float().abs().mean()
        self.descent.step(-adv - self.config.crm * crm - self.config.act * act)
        terms = {"adv": -adv.detach(), "crm": -crm.detach(), "act": -act.detach()}
        return SynthBatch(images.detach(), t.argmax(1), terms, self.descent.skipped - skipped)

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        """Yield `steps` batches of the generator's images, of codes of their own; the bank stays unread."""
        for _ in range(steps):
            images = self._draw_unnoticed()
            # Nothing asks for classes, and each batch would cost a forward pass of the teacher.
            yield Batch(images, torch.full((len(images),), -1, device=images.device))

    def student_loss(self, student: nn.Module, batch: Batch) -> Tensor:
        """Return L1 + α · CRM."""
        t, teacher_stages = self._teacher(self.parts.critic.logits, batch.images)
        l1, crm = self._disagreement(t, teacher_stages, student, batch.images)
        return l1 + self.config.crm * crm

    def get_extra_state(self) -> dict[str, object]:
        """Adam's moments, which outlive a round."""
        return self.descent.state_dict()

    def set_extra_state(self, state: dict[str, object]) -> None:
        """Restore what `get_extra_state` returned."""
        self.descent.load_state_dict(state)

    def _disagreement(
        self, t: Tensor, teacher_stages: Stages, student: nn.Module, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """How far a student is from the teacher: L1 of the logits, and CRM over common stages."""
        s, student_stages = self._student(student)(student, images)
        crm = [losses.relation_distance(*pair) for pair in common(teacher_stages, student_stages)]
        return F.l1_loss(s, t), torch.stack([t.new_zeros(()), *crm]).sum()

    def _draw(self, draw: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Draw images `[B, C, H, W]` of new codes."""
        size = (self.batch, self.config.code_size)
        codes = torch.randn(size, generator=self.parts.rng["codes"], device=self.parts.pool.device)
        with self.parts.precision():
            images: Tensor = (draw or self.generator)(codes)
        return images.float()

    @torch.no_grad()
    def _draw_unnoticed(self) -> Tensor:
        """Draw without a trace in running statistics: processes average them after a round, not after each step."""
        buffers = {name: buffer.clone() for name, buffer in self.generator.named_buffers()}
        return self._draw(partial(functional_call, self.generator, buffers))
