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
from nayer_cli.generator import new_generator
from nayer_cli.machine.rng import seeded
from nayer_cli.method import Batch, LoopState, Parts, SynthBatch


@dataclass(frozen=True)
class Config:
    """Settings of ZSKT; the defaults are those of the common comparison loop of CMI and FM."""

    name: str = setting("zskt", "the method")
    lr_g: float = setting(1e-3, "learning rate of the generator's Adam", low=0)
    code_size: int = setting(256, "length of the latent code", low=1)
    width: int = setting(128, "channels of the generator at full size", low=1)
    generator: str = setting("auto", "shallow, deep, auto, or a dotted path")
    clip: float = setting(5.0, "largest gradient norm of the generator", above=0)
    temperature: float = setting(1.0, "softmax temperature T of both losses", above=0)
    attention: float = setting(0.0, "weight of attention transfer (the paper: 250, for networks of one family)", low=0)
    teacher_stages: tuple[str, ...] = setting((), "teacher modules whose outputs are attended")
    student_stages: tuple[str, ...] = setting((), "student modules whose outputs follow them, in the same order")


class Method(method.Method):
    """Live and adversarial: one generator step, then student steps on fresh images of the same codes; no bank."""

    uses_names = method.NOTHING

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts)
        self.config = config
        self.temperature, self.batch = config.temperature, parts.batch_size
        if config.attention and len(config.teacher_stages) != len(config.student_stages):
            raise ConfigError("method.teacher_stages and method.student_stages must have the same length")
        device = parts.pool.device
        with seeded(parts.rng.shared("generator")):
            self.generator = new_generator(config.generator, config.code_size, parts.shape, config.width)
        self.generator.to(device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(self.generator.parameters(), lr=config.lr_g, fused=True)
        self.descent = parts.descent(optimizer, max_norm=config.clip)
        self._teacher = _outputs(parts.critic, config.teacher_stages if config.attention else ())
        self._student = PerNetwork(lambda network: _outputs(network, config.student_stages))
        # What the student sees until the next round.
        self.register_buffer("images", torch.zeros(self.batch, *parts.shape, device=device))

    images: Tensor
    rank_local = ("images",)

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """One generator step towards disagreement: L_G = −KL(t ‖ s) (paper, Algorithm 1, lines 3–8)."""
        codes, skipped = self._draw_codes(), self.descent.skipped.clone()
        images = self._draw(codes)
        judgement = self.parts.critic.judge(images)
        adv = -losses.distillation_kl(judgement.logits, student(images), self.temperature)
        self.descent.step(adv)
        with torch.no_grad():
            self.images = self._draw(codes)
        labels = judgement.logits.argmax(1)
        return SynthBatch(images.detach(), labels, {"adv": adv.detach()}, self.descent.skipped - skipped)

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        """Yield the updated generator's images of this round's codes, `steps` times; the bank stays unread."""
        batch = Batch(self.images, self.parts.critic.logits(self.images).argmax(1))
        for _ in range(steps):
            yield batch

    def student_loss(self, student: nn.Module, batch: Batch) -> Tensor:
        """KL to the teacher, plus attention transfer over the named stages (paper, eq. 1–2)."""
        if not self.config.attention:
            return super().student_loss(student, batch)
        t, teacher_maps = self._teacher(self.parts.critic.logits, batch.images)
        s, student_maps = self._student(student)(student, batch.images)
        pairs = zip(teacher_maps, student_maps, strict=True)
        attention = [losses.attention_transfer(mine, other) for (_, mine), (_, other) in pairs]
        return losses.distillation_kl(t, s, self.temperature) + self.config.attention * torch.stack(attention).sum()

    def get_extra_state(self) -> dict[str, object]:
        """Adam's moments, which outlive a round."""
        return self.descent.state_dict()

    def set_extra_state(self, state: dict[str, object]) -> None:
        """Restore what `get_extra_state` returned."""
        self.descent.load_state_dict(state)

    def _draw_codes(self) -> Tensor:
        size = (self.parts.batch_size, self.config.code_size)
        return torch.randn(size, generator=self.parts.rng["codes"], device=self.parts.pool.device)

    def _draw(self, codes: Tensor) -> Tensor:
        with self.parts.precision():
            images: Tensor = self.generator(codes)
        return images.float()


def _outputs(network: nn.Module, names: Iterable[str]) -> Activations[Tensor]:
    """Let a network return what its modules of these names return, in order of execution."""
    return Activations(named_layers(network, names), lambda layer, x, output: output)
