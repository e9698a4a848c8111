"""PRE-DFKD: a VAE remembers what the generator drew before (Binici et al., AAAI 2022, arXiv 2201.03019)."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from nayer_cli import losses, method
from nayer_cli.bank import MemoryBank
from nayer_cli.config import setting
from nayer_cli.live_settings import VaeSettings
from nayer_cli.method import Batch, LoopState, Parts, SynthBatch
from nayer_cli.prior import PriorGenerator
from nayer_cli.replay_memory import rehearse, remembered
from nayer_cli.variational import VariationalMemory


@dataclass(frozen=True)
class Config(VaeSettings):
    """Settings of PRE-DFKD; the defaults are those of the authors' code, except `js_reduction`."""

    name: str = setting("pre-dfkd", "the method")


class Method(method.Method):
    """Live: a step of the generator, then student steps on fresh images and on some that the VAE draws; no bank."""

    uses_names = method.NOTHING
    keeps = "live"
    lends = ("generator.", "memory.")

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts)
        self.config, self.batch = config, parts.batch_size
        self.generator = PriorGenerator(parts, config)
        self.memory = VariationalMemory(parts, config, remembered(config.replay, self.batch))

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """One generator step: L_G = ce · OH + balance · IE + act · A + js · JS."""
        self.memory.start_cycle()
        made = self.generator.round(student)
        return made._replace(losses=made.losses | {"vae": self.memory.loss})

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        """Yield `steps` batches of fresh and remembered images, while the VAE learns; the bank stays unread."""
        return rehearse(self.generator, self.memory, steps)

    def student_loss(self, student: nn.Module, batch: Batch) -> Tensor:
        """Return the L1 distance of the logits, over fresh and remembered images alike."""
        return losses.logit_l1(self.parts.critic.logits(batch.images), student(batch.images))
