"""FM: a generator that learns to be fitted quickly to new images (Fang et al., AAAI 2022, arXiv 2112.06253)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nayer_cli import losses, method
from nayer_cli.config import setting
from nayer_cli.critic import Judgement
from nayer_cli.descent import Follower, RoundParameter
from nayer_cli.generator import Generator, new_generator, redraw_first
from nayer_cli.method import LoopState, Parts, SynthBatch
from nayer_cli.synthesis import Best, PastStatistics, draw_labels, unnoticed, weigh

BETAS = 0.5, 0.999
REPTILE = 67.0
"""Factor of θ − θ′ in the released code; of Adam's steps it changes only how little its ε counts."""


@dataclass(frozen=True)
class Config:
    """Settings of FM; the defaults are those of the released scripts for 10 steps and wide residual networks."""

    name: str = setting("fm", "the method")
    batch: int = setting(256, "images per round", low=2)
    g_steps: int = setting(10, "steps of fitting per round", low=1)
    lr_g: float = setting(2e-3, "learning rate of Adam on the fitted generator, new in every round", low=0)
    lr_z: float = setting(0.01, "learning rate of Adam on the codes, new in every round", low=0)
    lr_meta: float = setting(0.0, "learning rate of Adam on the generator that is kept; 0: lr_g · g_steps", low=0)
    meta: str = setting(
        "fomaml",
        "what is kept of a fit; fomaml: the sum of its gradients, reptile: its direction, none: the fitted weights",
        choices=("fomaml", "reptile", "none"),
    )
    reset_l0: int = setting(120, "student epoch at which the generator's first layer is drawn again; 0: never", low=0)
    ce: float = setting(0.4, "weight of the cross-entropy to the drawn classes", low=0)
    bn: float = setting(10.0, "weight of the BatchNorm statistics term", low=0)
    adv: float = setting(1.1, "weight of the adversarial term, where teacher and student agree", low=0)
    tv: float = setting(1e-3, "weight of the total variation, for a teacher without BatchNorm", low=0)
    bn_momentum: float = setting(0.9, "share of earlier rounds in the matched statistics", low=0, high=1)
    code_size: int = setting(256, "length of the latent code", low=1)
    width: int = setting(64, "channels of the generator at full size", low=1)
    generator: str = setting("auto", "shallow, deep, auto, or a dotted path", plugin="generators", words=("auto",))
    temperature: float = setting(20.0, "softmax temperature T of the student's loss", above=0)
    faithful: bool = setting(False, "turn on `adv` one epoch before the student starts, as in the released code")


class Method(method.Method):
    """Each round fits the generator to new codes, keeps the best step's images, and takes one meta step."""

    uses_names = method.COUNT
    lends = ("generator.",)

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts)
        self.config = config
        self.temperature, self.batch = config.temperature, config.batch
        with parts.making("generator"):
            generator = new_generator(config.generator, config.code_size, parts.shape, config.width)
        self.generator: Generator = generator.to(parts.pool.device).to(memory_format=torch.channels_last)
        self.past = PastStatistics(parts.critic, config.bn_momentum)
        rate = config.lr_meta or config.lr_g * config.g_steps
        meta = torch.optim.Adam(self.generator.parameters(), lr=rate, betas=BETAS, fused=True)
        self.meta = Follower(meta)

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """One round (paper, Algorithm 1): fitting from the kept weights θ to θ′, then the meta step on θ."""
        config, rng = self.config, self.parts.rng
        if config.reset_l0 and state.student_epoch == config.reset_l0 - 1 and state.round == 0:
            redraw_first(self.generator, self.parts.weights("reset_l0"))
        labels = draw_labels(config.batch, len(self.parts.pool), rng["labels"])
        codes = RoundParameter(self.parts.codes(config.batch, config.code_size))
        kept = [parameter.detach().clone() for parameter in self.generator.parameters()]
        way, best = [torch.zeros_like(weight) for weight in kept], Best()
        descent = self.parts.descent(self._adam(codes))
        adversarial = state.epoch >= state.warmup_epochs - config.faithful
        with unnoticed(self.generator):
            for _ in self.parts.interruption.steps(config.g_steps):
                images, judgement, terms = self._draw(codes, labels, student, adversarial)
                loss = weigh(config, terms)
                best.offer(loss, terms, images=images)
                taken = descent.step(loss)
                way = self._further(way, taken)
        self.past.remember(judgement.statistics, sound=taken)
        self._take_meta_step(kept, way)
        return SynthBatch(best.kept["images"], labels, best.losses, descent.skipped, config.g_steps, course=best.course)

    def _adam(self, codes: nn.Parameter) -> torch.optim.Adam:
        groups = [
            {"params": list(self.generator.parameters()), "lr": self.config.lr_g},
            {"params": [codes], "lr": self.config.lr_z},
        ]
        return torch.optim.Adam(groups, betas=BETAS, fused=True)

    def _draw(
        self, codes: Tensor, labels: Tensor, student: nn.Module, adversarial: bool
    ) -> tuple[Tensor, Judgement, dict[str, Tensor]]:
        """Draw images and judge augmented copies of them (paper, eq. 2): (images, judgement, unweighted losses)."""
        images = self.parts.draw(self.generator, codes)
        seen, judgement, terms = self.parts.judge(images, labels, self.past.distance)
        if adversarial and self.config.adv:
            terms["adv"] = losses.masked_adversarial_kl(judgement.logits, student(seen))
        return images, judgement, terms

    @torch.no_grad()
    def _further(self, way: Sequence[Tensor], taken: Tensor) -> list[Tensor]:
        """Add the gradients at θ′ to their sum Σ ∂L/∂θ′, where the step was taken (FOMAML: nothing of second order)."""
        gradients = [parameter.grad for parameter in self.generator.parameters()]
        return [
            total if gradient is None else torch.where(taken, total + gradient, total)
            for total, gradient in zip(way, gradients, strict=True)
        ]

    @torch.no_grad()
    def _take_meta_step(self, kept: Sequence[Tensor], way: Sequence[Tensor]) -> None:
        """Go back from θ′ to θ and take a step of the meta Adam from there: once a round."""
        if self.config.meta == "none":
            return
        if self.config.meta == "reptile":
            way = [REPTILE * (weight - own) for weight, own in zip(kept, self.generator.parameters(), strict=True)]
        for parameter, weight in zip(self.generator.parameters(), kept, strict=True):
            parameter.copy_(weight)
        self.meta.follow(way)

    def get_extra_state(self) -> dict[str, object]:
        """Moments of the meta Adam, which outlive a round."""
        return self.meta.state_dict()

    def set_extra_state(self, state: dict[str, object]) -> None:
        """Restore what `get_extra_state` returned."""
        self.meta.load_state_dict(state)
