"""DeepInversion: optimize the pixels themselves (Yin et al., CVPR 2020, arXiv 1912.08795).

With `adv` > 0 it is Adaptive DeepInversion, the form in which data-free distillation papers compare with it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nayer_cli import losses, method
from nayer_cli.config import setting
from nayer_cli.descent import RoundParameter
from nayer_cli.method import LoopState, Parts, SynthBatch
from nayer_cli.synthesis import Best, draw_labels, weigh


@dataclass(frozen=True)
class Config:
    """Settings of DeepInversion; the defaults are those of the common comparison loop of CMI and FM."""

    name: str = setting("deepinv", "the method")
    batch: int = setting(256, "images per round", low=2)
    g_steps: int = setting(1000, "steps on the pixels per round", low=1)
    lr_g: float = setting(0.1, "learning rate of Adam on the pixels, in normalized units", low=0)
    ce: float = setting(1.0, "weight of the cross-entropy to the drawn classes", low=0)
    bn: float = setting(10.0, "weight of the BatchNorm statistics term", low=0)
    adv: float = setting(1.0, "weight of the Jensen–Shannon competition with the student", low=0)
    tv: float = setting(1e-3, "weight of the total variation", low=0)
    l2: float = setting(0.0, "weight of the L2 norm of the normalized image", low=0)
    temperature: float = setting(20.0, "softmax temperature T of the student's loss", above=0)


class Method(method.Method):
    """Each round starts from noise and descends on the pixels; nothing is trained that outlives the round."""

    uses_names = method.COUNT
    needs_student = False

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts)
        self.config = config
        self.temperature, self.batch = config.temperature, config.batch

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """One round: a batch of images from noise."""
        config, parts = self.config, self.parts
        mean, std = parts.critic.teacher.mean, parts.critic.teacher.std
        labels = draw_labels(config.batch, len(parts.pool), parts.rng["labels"])
        pixels = RoundParameter(parts.pixels(config.batch))
        optimizer = torch.optim.Adam([pixels], lr=config.lr_g, betas=(0.5, 0.99), fused=True)
        descent, best = parts.descent(optimizer), Best()
        for _ in parts.interruption.steps(config.g_steps):
            self._clip(pixels, mean, std)
            terms = self._judge(pixels, mean, std, labels, student, adversarial=not state.warming_up)
            loss = weigh(config, terms)
            best.offer(loss, terms, pixels=pixels.clone())
            descent.step(loss)
        images = (best.kept["pixels"] * std + mean).clamp_(0, 1)
        return SynthBatch(images, labels, best.losses, descent.skipped, config.g_steps, course=best.course)

    def _judge(
        self, pixels: Tensor, mean: Tensor, std: Tensor, labels: Tensor, student: nn.Module, adversarial: bool
    ) -> dict[str, Tensor]:
        """Unweighted losses of a jittered view of the pixels (Yin et al., eq. 2–7; competition eq. 8–9)."""
        critic = self.parts.critic
        seen = jitter(pixels * std + mean, self.parts.rng["augment"])
        judgement = critic.judge(seen)
        terms = {
            "ce": losses.cross_entropy(judgement.logits, labels),
            "bn": critic.distance(judgement.statistics),
            "tv": self.parts.tv(pixels),
            "l2": self.parts.l2(pixels),
        }
        if adversarial and self.config.adv:
            terms["adv"] = -losses.jensen_shannon(judgement.logits, student(seen))
        return terms

    @staticmethod
    @torch.no_grad()
    def _clip(pixels: Tensor, mean: Tensor, std: Tensor) -> None:
        """Move pixels back to where the image is in [0, 1]."""
        pixels.clamp_(-mean / std, (1 - mean) / std)


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Roll the whole batch by up to an eighth of its side on both axes, and flip it with probability ½."""
    height, width = images.shape[-2:]
    uniform = torch.rand(3, generator=generator, device=generator.device)
    rows = torch.arange(height, device=images.device) + _offset(uniform[0], height // 8)
    columns = torch.arange(width, device=images.device) + _offset(uniform[1], width // 8)
    columns = torch.where(uniform[2] < 0.5, columns.flip(0), columns)
    return images.index_select(2, rows % height).index_select(3, columns % width)


def _offset(uniform: Tensor, limit: int) -> Tensor:
    """Map a number in [0, 1) to a whole one in −limit … limit, on the device."""
    return (uniform * (2 * limit + 1)).long() - limit
