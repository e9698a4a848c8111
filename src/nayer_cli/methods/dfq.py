"""DFQ: a generator with a prior looks for images that the student gets wrong (Choi et al., CVPRW 2020).

arXiv 2005.04136. ZSKT is DFQ with the first term alone, and DAFL is DFQ without it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from nayer_cli import losses, method
from nayer_cli.bank import MemoryBank
from nayer_cli.classifiers.model import Normalized
from nayer_cli.config import setting
from nayer_cli.critic import Statistics
from nayer_cli.generator import Generator, halved, new_generator, up_to
from nayer_cli.live import LiveGenerator
from nayer_cli.method import Batch, LoopState, Parts, SynthBatch
from nayer_cli.standard import BatchNormalized
from nayer_cli.synthesis import weigh
from nayer_cli.types import ImageShape

CONFIDENCE = {"one_hot": losses.one_hot, "entropy": losses.entropy}


@dataclass(frozen=True)
class Config:
    """Settings of DFQ; the defaults are those of the common comparison loop of CMI and FM."""

    name: str = setting("dfq", "the method")
    lr_g: float = setting(1e-3, "learning rate of the generator's Adam", low=0)
    anneal: bool = setting(False, "let the generator's learning rate fall to 0 along a cosine over the run")
    code_size: int = setting(256, "length of the latent code", low=1)
    width: int = setting(64, "channels of the generator at full size", low=1)
    generator: str = setting(
        "tapered",
        "tapered, shallow, deep, auto, native, or a dotted path",
        plugin="generators",
        words=("auto", "native"),
    )
    adv: float = setting(1.0, "weight of the disagreement with the student", low=0)
    bn: float = setting(1.0, "weight of the BatchNorm statistics term", low=0)
    ce: float = setting(1.0, "weight of the teacher's confidence", low=0)
    balance: float = setting(20.0, "weight of the term that makes all classes equally frequent", low=0)
    tv: float = setting(1e-3, "weight of the total variation, for a teacher without BatchNorm", low=0)
    prior: str = setting(
        "norm",
        "distance between statistics; norm: of means and variances, layer by layer, gaussian: KL, channel by channel",
        choices=("norm", "gaussian"),
    )
    confidence: str = setting(
        "one_hot",
        "what `ce` is; one_hot: cross-entropy to the teacher's own class, entropy: the entropy of its probabilities",
        choices=("one_hot", "entropy"),
    )
    settled: bool = setting(False, "draw the student's images with the generator's running statistics")


class Method(method.Method):
    """Live and adversarial: one generator step, then student steps on fresh images of new codes; no bank."""

    uses_names = method.NOTHING
    lends = ("generator.",)

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts)
        self.config, self.batch = config, parts.batch_size
        self.generator = LiveGenerator(
            parts, config, betas=(0.5, 0.999), settled=config.settled, new=self._new_generator
        )

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """One generator step on adv · ADV + bn · BN + ce · CE + balance · BALANCE."""
        if self.config.anneal:
            self.generator.anneal(state.done)
        images = self.generator(self.generator.codes(self.batch))
        judgement = self.parts.critic.judge(images)
        terms = self._prior(images, judgement.logits, judgement.statistics)
        if self.config.adv and not state.warming_up:
            # −KL(t ‖ s) over all images, unmasked; gradients flow through both networks.
            terms["adv"] = -losses.distillation_kl(judgement.logits, student(images), 1.0)
        skipped = self.generator.step(weigh(self.config, terms))
        return SynthBatch.of_step(images.clamp(0, 1), judgement.logits.argmax(1), terms, skipped)

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        """Yield `steps` batches of the generator's images, from new codes; the bank stays unread."""
        return self.generator.replay(steps)

    def _prior(self, images: Tensor, t: Tensor, now: Statistics) -> dict[str, Tensor]:
        """Unweighted losses that keep images plausible, independent of the student."""
        terms = {
            "ce": CONFIDENCE[self.config.confidence](t),
            "balance": self.parts.balance(t),
        }
        return terms | self.parts.prior(images, now, self._distance)

    def _distance(self, now: Statistics) -> Tensor:
        """Return the distance of a batch's statistics from those that the teacher remembers."""
        critic = self.parts.critic
        if self.config.prior == "norm":
            return critic.distance(now)
        running = critic.running
        # The variance of a dead channel is 0. BatchNorm adds the same number before it divides.
        return losses.gaussian_kl(now.mean, now.var + 1e-5, running.mean, running.var + 1e-5)

    def _new_generator(self, name: str, code_size: int, shape: ImageShape, width: int) -> Generator:
        if name == "native":
            return Native(code_size, shape, width, self.parts.critic.teacher)
        return new_generator(name, code_size, shape, width)


class Native(BatchNormalized):
    """Linear → (↑, conv, BN, ReLU) × 3 → conv → tanh → BN without weights.

    Args:
        code_size, shape: as every generator's.
        width: channels at full size; before, there are eight, four and two times as many.
        teacher: whose normalization is undone.

    """

    def __init__(self, code_size: int, shape: ImageShape, width: int, teacher: Normalized) -> None:
        widths = (8 * width, 4 * width, 2 * width, width)
        layers: list[nn.Module] = []
        for halvings, (inputs, outputs) in zip((2, 1, 0), pairwise(widths), strict=True):
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
            layers += [up_to(shape, halvings), convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        super().__init__(code_size, shape, (widths[0], *halved(shape, 3)), layers, width, teacher)
