"""SpaceshipNet: images exchange features, and the student looks where the teacher does (Yu et al., CVPR 2023)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli import losses, method
from nayer_cli.activations import PerNetwork
from nayer_cli.bank import MemoryBank
from nayer_cli.config import setting
from nayer_cli.errors import ConfigError, InputError
from nayer_cli.generator import Generator, new_generator
from nayer_cli.machine.transfer import gather
from nayer_cli.method import Batch, LoopState, Parts, StudentLoss, SynthBatch
from nayer_cli.regions import Gaze
from nayer_cli.store import Store
from nayer_cli.synthesis import Best, draw_labels, unnoticed, weigh

WITHOUT_MAPS = "use --set method.cam=0 --set method.gradcam=0, which leaves the exchange of features"


@dataclass(frozen=True)
class Config:
    """Settings of SpaceshipNet; the defaults are those of the released code for CIFAR."""

    name: str = setting("spaceship", "the method")
    batch: int = setting(256, "images per round", low=2)
    g_steps: int = setting(200, "generator steps per round", low=1)
    lr_g: float = setting(1e-3, "learning rate of the generator's Adam, new in every round", low=0)
    code_size: int = setting(256, "length of the latent code", low=1)
    width: int = setting(64, "channels of the generator at full size", low=1)
    generator: str = setting(
        "auto", "shallow, tapered, deep, auto, or a dotted path", plugin="generators", words=("auto",)
    )
    ce: float = setting(0.5, "weight of the cross-entropy to the drawn classes", low=0)
    bn: float = setting(1.0, "weight of the BatchNorm statistics term", low=0)
    tv: float = setting(1e-3, "weight of the total variation, for a teacher without BatchNorm", low=0)
    capacity: int = setting(10240, "images whose features are kept", low=1)
    features: str = setting(
        "all",
        "stages whose features are kept; first: only the first, from which the rest follows",
        choices=("all", "first"),
    )
    place: str = setting(
        "device", "where features are kept: in the device's memory or the host's", choices=("device", "host")
    )
    exchange: float = setting(0.7, "share of the student's steps that exchange features", low=0, high=1)
    kl: float = setting(1.0, "weight of the divergence of student and teacher", low=0)
    cam: float = setting(1.0, "weight of the distance of class activation maps", low=0)
    gradcam: float = setting(1.0, "weight of the distance of Grad-CAM maps", low=0)
    temperature: float = setting(30.0, "softmax temperature T of the divergence", above=0)


class Method(method.Method):
    """One generator lives as long as the run; the student sees what it makes today of features that are stored."""

    uses_names = method.COUNT
    keeps = "features"
    bytes_kept = 212_992
    lends = ("generator.",)
    store: Store

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts)
        self.config, self.temperature, self.batch = config, config.temperature, config.batch
        with parts.making("generator"):
            network = new_generator(config.generator, config.code_size, parts.shape, config.width)
            initialize(network)
        if not network.stages:
            hint = "choose one that has: --set method.generator=shallow, tapered or deep"
            raise ConfigError(f"the generator '{config.generator}' has no stages to exchange features at", hint=hint)
        self.generator: Generator = network.to(parts.pool.device).to(memory_format=torch.channels_last)
        self.store = self._new_store()
        self._teacher, self._student = Gaze(parts.critic.teacher), PerNetwork(Gaze)
        self._compares = bool(config.cam or config.gradcam)
        if self._compares and not self._common_sizes():
            raise InputError("the teacher has no feature maps whose regions can be compared", hint=WITHOUT_MAPS)

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """One round: fit the generator to new codes, which are not trained themselves."""
        config, parts = self.config, self.parts
        if self._compares and state.images == 0 and not self._common_sizes(student):
            raise InputError("student and teacher have no feature maps of the same size to compare", hint=WITHOUT_MAPS)
        self.generator.train()
        labels = draw_labels(self.batch, len(parts.pool), parts.rng["labels"])
        codes = parts.codes(self.batch, config.code_size)
        optimizer = torch.optim.Adam(self.generator.parameters(), lr=config.lr_g, betas=(0.5, 0.999), fused=True)
        descent, best = parts.descent(optimizer), Best()
        for _ in parts.interruption.steps(config.g_steps):
            with parts.precision():
                features, images = self.generator.draw(codes)
            images = images.float()
            _, _, terms = parts.judge(images, labels, parts.critic.distance)
            loss = weigh(config, terms)
            best.offer(loss, terms, images=images, **dict(self._rows(features)))
            descent.step(loss)
        images = best.kept.pop("images")
        return SynthBatch(images, labels, best.losses, descent.skipped, config.g_steps, best.kept, best.course)

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        """Yield images that the generator as it stands makes of stored features; the bank stays unread."""
        if len(self.store) == 0:  # another run gave its images to the bank, and no round was made since
            yield from super().replay(bank, steps)
            return
        self.generator.eval()
        for _ in range(steps):
            images = self.parts.augment(self._decode(), self.parts.rng["augment"])
            yield Batch(images, torch.full((len(images),), -1, device=images.device))

    def student_loss(self, student: nn.Module, batch: Batch) -> StudentLoss:
        """Return `kl`·T²KL / K + `cam`·MSE of class activation maps + `gradcam`·Σ MSE of Grad-CAM maps (mSARC).

        The first maps are of the last stage; Grad-CAM is taken of every size that both networks have.
        """
        if self._compares:
            terms = self._compare(student, batch.images)
        else:
            terms = {"kl": self._kl(self.parts.critic.logits(batch.images), student(batch.images))}
        return StudentLoss(weigh(self.config, terms), terms)

    def _compare(self, student: nn.Module, images: Tensor) -> dict[str, Tensor]:
        # With a gradient in the images, there is one in all that follows from them.
        aim = self._teacher(self.parts.critic.teacher, images.detach().requires_grad_())
        own = self._student(student)(student, images)
        terms = {"kl": self._kl(aim.logits.detach(), own.logits)}
        if (pair := own.class_maps(aim)) is not None:
            terms["cam"] = F.mse_loss(*pair)
        if self.config.gradcam:
            terms["gradcam"] = torch.stack([F.mse_loss(*pair) for pair in own.regions(aim)]).sum()
        return terms

    def _kl(self, t: Tensor, s: Tensor) -> Tensor:
        return losses.distillation_kl(t, s, self.temperature) / t.shape[1]

    @torch.no_grad()
    def _decode(self) -> Tensor:
        """Images `[B, C, H, W]` of stored features of one stage; their channels may be exchanged (the paper's CFE)."""
        rng = self.parts.rng
        stage = int(torch.randint(len(self.generator.stages), (), generator=rng.on("cpu", "stages")))
        kept = min(stage, len(self.store.tensors) - 1)
        slots = self.store.draw(self.parts.batch_size, rng.on(self.store.device, "replay"))
        features = gather(self.store.tensors[f"f{kept}"], slots, self.parts.pool.device).float()
        is_mixed = bool(torch.rand((), generator=rng.on("cpu", "chance")) < self.config.exchange)
        with self.parts.precision():
            if kept < stage:
                features = self.generator.resume(features, kept, until=stage)
            if is_mixed:
                features = exchanged(features, halves(len(features), features.shape[1], rng["exchange"]))
            return self.generator.resume(features, stage).float()

    def _new_store(self) -> Store:
        """Make an empty store for the features."""
        config, device = self.config, self.parts.pool.device
        with unnoticed(self.generator), torch.no_grad():
            features, _ = self.generator.draw(torch.zeros(2, config.code_size, device=device))
        place = device if config.place == "device" else "cpu"
        rows = {name: torch.empty(x.shape[1:], dtype=torch.float16, device=place) for name, x in self._rows(features)}
        return self.parts.store(config.capacity, **rows)

    def _rows(self, features: list[Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Name the features that are kept."""
        kept = features if self.config.features == "all" else features[:1]
        return ((f"f{stage}", each) for stage, each in enumerate(kept))

    def _common_sizes(self, student: nn.Module | None = None) -> set[tuple[int, int]]:
        """Sizes of the teacher's feature maps that the student has, too."""
        one = torch.zeros(1, *self.parts.shape, device=self.parts.pool.device)
        sizes = self._teacher.sizes(self.parts.critic.teacher, one)
        return sizes if student is None else sizes & self._student(student).sizes(student, one)


def initialize(generator: nn.Module) -> None:
    """Draw weights as the released code does: N(0, √(2 / fan-in)), and N(1, 0.02) for BatchNorm; set biases to 0."""
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def halves(count: int, channels: int, generator: torch.Generator) -> Tensor:
    """Draw a random half of the channels for each of `count` images: True for the channels that it keeps, `[B, C]`."""
    order = torch.rand(count, channels, generator=generator, device=generator.device).argsort(1)
    return order < channels // 2


def exchanged(features: Tensor, own: Tensor) -> Tensor:
    """Give image i of `[B, C, h, w]` the channels of image B − 1 − i wherever it does not keep its `own` `[B, C]`."""
    return torch.where(own[:, :, None, None], features, features.flip(0))
