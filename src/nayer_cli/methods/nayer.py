"""NAYER: label-text embeddings through a noisy layer and a generator (Tran et al., CVPR 2024, arXiv 2310.00258)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nayer_cli import losses, method
from nayer_cli.activations import PerNetwork, Staged, common
from nayer_cli.codes import CODES, Codes
from nayer_cli.config import setting
from nayer_cli.critic import Judgement
from nayer_cli.generator import Generator, new_generator
from nayer_cli.live_settings import COUNT, EMBEDDINGS
from nayer_cli.method import Batch, LoopState, Parts, StudentLoss, SynthBatch
from nayer_cli.synthesis import Best, PastStatistics, draw_labels, weigh


@dataclass(frozen=True)
class Config:
    """Settings of NAYER; the defaults are the paper's for CIFAR-10."""

    name: str = setting("nayer", "the method")
    batch: int = setting(400, "images per round", low=2)
    g_steps: int = setting(30, "generator steps per round", low=1)
    g_life: int = setting(10, "epochs after which the generator starts again from fresh weights; 0: never", low=0)
    lr_g: float = setting(4e-3, "learning rate of the generator's Adam, new in every round", low=0)
    ce: float = setting(0.5, "weight of the cross-entropy to the drawn classes", low=0)
    bn: float = setting(10.0, "weight of the BatchNorm statistics term", low=0)
    adv: float = setting(1.33, "weight of the adversarial term, where teacher and student agree", low=0)
    tv: float = setting(1e-3, "weight of the total variation, for a teacher without BatchNorm", low=0)
    bn_momentum: float = setting(0.9, "share of earlier rounds in the matched statistics", low=0, high=1)
    code_size: int = setting(1000, "length of the noisy layer's output", low=1)
    width: int = setting(64, "channels of the generator at full size", low=1)
    generator: str = setting("auto", "shallow, deep, auto, or a dotted path", plugin="generators", words=("auto",))
    codes: str = setting(
        "noisy",
        "what the generator is fed with; noisy: LTEs through the noisy layer",
        # Not `tuple(CODES)`: a configuration stands by itself, so that a typo is told before torch is imported.
        choices=(
            *("noisy", "noisy-single", "noisy-raw", "noisy-kept"),
            *("onehot", "lte", "noise", "noise-fresh", "cat", "sum"),
        ),
    )
    beta: float = setting(0.1, "weight β of the noise in the codes `sum`", low=0)
    temperature: float = setting(20.0, "softmax temperature T of the student's loss", above=0)
    features: float = setting(
        0.0,
        "weight of the distance between features in the student's loss, at stages that have the teacher's shape",
        low=0,
    )
    faithful: bool = setting(False, "repeat what the released code does beyond the paper")

    @property
    def uses_names(self) -> str:
        """The part of the class names that is used: codes of classes or noise alone read no text."""
        return COUNT if self.codes in ("onehot", "noise", "noise-fresh") else EMBEDDINGS


class Method(method.Method):
    """Each round draws new noisy layers and fits the generator to them for `g_steps`; the best step is kept."""

    lends = ("generator.",)

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts)
        self.config = config
        self.temperature, self.batch = config.temperature, config.batch
        self.codes, self.generator = self._fresh_generator()
        self.past = PastStatistics(parts.critic, config.bn_momentum)  # outlives the generator
        if config.features:
            self._teacher, self._student = Staged(parts.critic.teacher), PerNetwork(Staged)

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """One round (paper, Algorithm 1, lines 4–11)."""
        config, rng = self.config, self.parts.rng
        if state.round == 0 and config.g_life and self._life_ends(state):
            self.codes, self.generator = self._fresh_generator()
        self.codes.renew(rng["noisy"])
        labels = draw_labels(config.batch, len(self.parts.pool), rng["labels"], replace=config.faithful)
        optimizer = torch.optim.Adam(
            [*self.codes.parameters(), *self.generator.parameters()],
            lr=config.lr_g,
            betas=(0.5, 0.999),
            fused=True,
        )
        student.train(config.faithful and state.round > 0 and not state.warming_up)
        descent, best = self.parts.descent(optimizer), Best()
        for _ in self.parts.interruption.steps(config.g_steps):
            images, judgement, terms = self._draw(labels, student, adversarial=not state.warming_up)
            loss = weigh(config, terms)  # paper, eq. 5
            best.offer(loss, terms, images=images)
            taken = descent.step(loss)
        self.past.remember(judgement.statistics, sound=taken)
        images = best.kept["images"]
        images = images.mul(255).floor_().div_(255) if config.faithful else images
        return SynthBatch(images, labels, best.losses, descent.skipped, config.g_steps, course=best.course)

    def student_loss(self, student: nn.Module, batch: Batch) -> Tensor | StudentLoss:
        """Return T² KL(t ‖ s) (paper, eq. 6), and with `features` the distance of the stages besides."""
        if not self.config.features:
            return super().student_loss(student, batch)
        t, aims = self._teacher(self.parts.critic.logits, batch.images)
        s, stages = self._student(student)(student, batch.images)
        distances = [losses.feature_distance(*pair) for pair in common(aims, stages)]
        kl = losses.distillation_kl(t, s, self.temperature)
        features = torch.stack([t.new_zeros(()), *distances]).sum()
        return StudentLoss(kl + self.config.features * features, {"kl": kl, "features": features})

    def draw(self, labels: Tensor) -> Tensor:
        """Images `[B, C, H, W]` in [0, 1] for labels `[B]` in class order, from the generator as it stands."""
        return self.parts.draw(lambda classes: self.generator(self.codes(classes)), labels)

    def _draw(
        self, labels: Tensor, student: nn.Module, adversarial: bool
    ) -> tuple[Tensor, Judgement, dict[str, Tensor]]:
        """Draw images and judge augmented copies of them: (images, judgement, unweighted losses)."""
        images = self.draw(labels)
        seen, judgement, terms = self.parts.judge(images, labels, self.past.distance)
        if adversarial and self.config.adv:
            terms["adv"] = losses.masked_adversarial_kl(judgement.logits, student(seen))
        return images, judgement, terms

    def _life_ends(self, state: LoopState) -> bool:
        return state.epoch % self.config.g_life == 0 or state.student_epoch % self.config.g_life == 0

    def _fresh_generator(self) -> tuple[Codes, Generator]:
        config, parts = self.config, self.parts
        with parts.making("generator"):
            codes = CODES[config.codes](parts.pool.float(), config.code_size, config.batch, config.beta)
            generator = new_generator(config.generator, config.code_size, parts.shape, config.width)
        device = parts.pool.device
        return codes.to(device), generator.to(device).to(memory_format=torch.channels_last)
