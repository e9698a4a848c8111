"""ZSKT: a generator looks for images on which student and teacher differ (Micaelli & Storkey, NeurIPS 2019)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nayer_cli import losses, method
from nayer_cli.activations import Activations, PerNetwork, named_layers
from nayer_cli.bank import MemoryBank
from nayer_cli.config import setting
from nayer_cli.errors import ConfigError
from nayer_cli.live import LiveGenerator
from nayer_cli.method import Batch, LoopState, Parts, StudentLoss, SynthBatch


@dataclass(frozen=True)
class Config:
    """Settings of ZSKT; the defaults are those of the common comparison loop of CMI and FM."""

    name: str = setting("zskt", "the method")
    lr_g: float = setting(1e-3, "learning rate of the generator's Adam", low=0)
    code_size: int = setting(256, "length of the latent code", low=1)
    width: int = setting(128, "channels of the generator at full size", low=1)
    generator: str = setting("auto", "shallow, deep, auto, or a dotted path", plugin="generators", words=("auto",))
    clip: float = setting(5.0, "largest gradient norm of the generator", above=0)
    temperature: float = setting(1.0, "softmax temperature T of both losses", above=0)
    attention: float = setting(0.0, "weight of attention transfer (the paper: 250, for networks of one family)", low=0)
    teacher_stages: tuple[str, ...] = setting((), "teacher modules whose attention maps are imitated")
    student_stages: tuple[str, ...] = setting((), "student modules whose outputs imitate them, in the same order")


class Method(method.Method):
    """Live and adversarial: one generator step, then student steps on fresh images of the same codes; no bank."""

    uses_names = method.NOTHING
    lends = ("generator.",)

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts)
        self.config = config
        self.temperature, self.batch = config.temperature, parts.batch_size
        if config.attention and len(config.teacher_stages) != len(config.student_stages):
            raise ConfigError(
                "method.teacher_stages and method.student_stages must have the same length",
                hint="name as many modules of the student as of the teacher, in the same order",
            )
        self.generator = LiveGenerator(parts, config, max_norm=config.clip)
        self._teacher = _outputs(parts.critic, config.teacher_stages if config.attention else ())
        self._student = PerNetwork(lambda network: _outputs(network, config.student_stages))
        # What the student sees until the next round.
        self.register_buffer("images", torch.zeros(self.batch, *parts.shape, device=parts.pool.device))

    images: Tensor
    per_image = ("images",)

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """One generator step towards disagreement: L_G = −KL(t ‖ s) (paper, Algorithm 1, lines 3–8)."""
        codes = self.generator.codes(self.batch)
        images = self.generator(codes)
        judgement = self.parts.critic.judge(images)
        adv = -losses.distillation_kl(judgement.logits, student(images), self.temperature)
        skipped = self.generator.step(adv)
        with torch.no_grad():
            self.images = self.generator(codes)
        return SynthBatch.of_step(images, judgement.logits.argmax(1), {"adv": adv}, skipped)

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        """Yield the updated generator's images of this round's codes, `steps` times; the bank stays unread."""
        batch = Batch(self.images, self.parts.critic.logits(self.images).argmax(1))
        for _ in range(steps):
            yield batch

    def student_loss(self, student: nn.Module, batch: Batch) -> Tensor | StudentLoss:
        """Return KL to the teacher, plus attention transfer over the named stages (paper, eq. 1–2)."""
        if not self.config.attention:
            return super().student_loss(student, batch)
        t, teacher_maps = self._teacher(self.parts.critic.logits, batch.images)
        s, student_maps = self._student(student)(student, batch.images)
        pairs = zip(teacher_maps, student_maps, strict=True)
        maps = [losses.attention_transfer(mine, other) for (_, mine), (_, other) in pairs]
        kl, attention = losses.distillation_kl(t, s, self.temperature), torch.stack(maps).sum()
        return StudentLoss(kl + self.config.attention * attention, {"kl": kl, "attention": attention})


def _outputs(network: nn.Module, names: Iterable[str]) -> Activations[Tensor]:
    """Let a network return what its modules of these names return, in order of execution."""
    return Activations(named_layers(network, names), lambda layer, x, output: output)
