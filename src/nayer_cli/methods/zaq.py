"""ZAQ: a generator looks for images that a quantized network gets wrong (Liu et al., CVPR 2021, arXiv 2103.15263)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli import losses, method
from nayer_cli.activations import PerNetwork, Staged, Stages, common
from nayer_cli.bank import MemoryBank
from nayer_cli.config import setting
from nayer_cli.live import LiveGenerator
from nayer_cli.method import Batch, LoopState, Parts, StudentLoss, SynthBatch
from nayer_cli.synthesis import weigh


@dataclass(frozen=True)
class Config:
    """Settings of ZAQ; the defaults are those of the paper."""

    name: str = setting("zaq", "the method")
    lr_g: float = setting(1e-3, "learning rate of the generator's Adam", low=0)
    code_size: int = setting(256, "length of the latent code", low=1)
    width: int = setting(64, "channels of the generator at full size", low=1)
    generator: str = setting("auto", "shallow, deep, auto, or a dotted path", plugin="generators", words=("auto",))
    adv: float = setting(1.0, "weight of the disagreement in logits", low=0)
    crm: float = setting(1.0, "weight α of the channel relation maps, for both networks", low=0)
    act: float = setting(0.1, "weight β of strong activations in the teacher's last stage", low=0)


class Method(method.Method):
    """Live and adversarial: one generator step, then student steps on fresh images of new codes; no bank."""

    uses_names = method.NOTHING
    lends = ("generator.",)

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts)
        self.config, self.batch = config, parts.batch_size
        self.generator = LiveGenerator(parts, config)
        self._teacher, self._student = Staged(parts.critic.teacher), PerNetwork(Staged)

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """One generator step towards disagreement: L_G = −L1 − α · CRM − β · ACT."""
        images = self.generator(self.generator.codes(self.batch))
        (t, _), teacher_stages = self._teacher(self.parts.critic.judge, images)
        adv, crm = self._disagreement(t, teacher_stages, student, images)
        last = next(reversed(teacher_stages.values()), t.new_zeros(()))
        act = last.float().abs().mean()
        terms = {"adv": -adv, "crm": -crm, "act": -act}
        skipped = self.generator.step(weigh(self.config, terms))
        return SynthBatch.of_step(images, t.argmax(1), terms, skipped)

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        """Yield `steps` batches of the generator's images, from new codes; the bank stays unread."""
        return self.generator.replay(steps)

    def student_loss(self, student: nn.Module, batch: Batch) -> StudentLoss:
        """Return L1 + α · CRM."""
        t, teacher_stages = self._teacher(self.parts.critic.logits, batch.images)
        l1, crm = self._disagreement(t, teacher_stages, student, batch.images)
        return StudentLoss(l1 + self.config.crm * crm, {"l1": l1, "crm": crm})

    def _disagreement(
        self, t: Tensor, teacher_stages: Stages, student: nn.Module, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the distance of student and teacher: L1 of the logits, and CRM over common stages."""
        s, student_stages = self._student(student)(student, images)
        crm = [losses.relation_distance(*pair) for pair in common(teacher_stages, student_stages)]
        return F.l1_loss(s, t), torch.stack([t.new_zeros(()), *crm]).sum()
