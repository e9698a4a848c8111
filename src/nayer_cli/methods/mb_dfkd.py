"""MB-DFKD: a bank of batches that the generator drew before (Binici et al., WACV 2022, arXiv 2108.05698)."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from nayer_cli import losses, method
from nayer_cli.bank import MemoryBank
from nayer_cli.config import setting
from nayer_cli.live_settings import PriorSettings
from nayer_cli.method import Batch, LoopState, Parts, SynthBatch
from nayer_cli.prior import PriorGenerator
from nayer_cli.replay_memory import Ring, rehearse, remembered


@dataclass(frozen=True)
class Config(PriorSettings):
    """Settings of MB-DFKD; the defaults are those of its port in KAKR's code, except `js_reduction`."""

    name: str = setting("mb-dfkd", "the method")
    replay: float = setting(0.125, "remembered images in a student's batch, per fresh one", above=0, high=1)
    capacity: int = setting(10, "batches remembered", low=1)
    push_every: int = setting(5, "epochs from one remembered to the next", low=1)
    keep: int = setting(
        0, "instead, images remembered of every round and recalled one by one; the bank holds as many as before", low=0
    )


class Method(method.Method):
    """Live: a step of the generator, then student steps on fresh images and one remembered batch; no bank but that."""

    uses_names = method.NOTHING
    keeps = "live and bank"
    bytes_kept = 6144  # in 16 bits
    lends = ("generator.",)

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts)
        self.config, self.batch = config, parts.batch_size
        self.generator = PriorGenerator(parts, config)
        count = remembered(config.replay, self.batch)
        self.memory = Ring(parts, config.capacity, count, config.push_every, config.keep)
        self.store = self.memory.store

    def synthesize(self, student: nn.Module, state: LoopState) -> SynthBatch:
        """One generator step: L_G = ce · OH + balance · IE + act · A + js · JS."""
        made = self.generator.round(student)
        return made._replace(rows=self.memory.rows(state, made.images))

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        """Yield `steps` batches of fresh images, with a remembered batch once there is one; the bank stays unread."""
        return rehearse(self.generator, self.memory, steps)

    def student_loss(self, student: nn.Module, batch: Batch) -> Tensor:
        """Return the L1 distance of the logits, over fresh and remembered images alike."""
        return losses.logit_l1(self.parts.critic.logits(batch.images), student(batch.images))
