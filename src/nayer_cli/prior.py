"""The generator step of PRE-DFKD, MB-DFKD and KAKR: plausible images that a student does not know."""

from torch import Tensor, nn

from nayer_cli import losses
from nayer_cli.activations import Penultimate
from nayer_cli.live import LiveGenerator
from nayer_cli.live_settings import PriorSettings
from nayer_cli.method import Parts, SynthBatch
from nayer_cli.standard import StandardMaker
from nayer_cli.synthesis import weigh


class PriorGenerator(LiveGenerator):
    """A generator that drifts after the student, held by the priors of DAFL (Chen et al., ICCV 2019).

    Args:
        parts: of the method.
        settings: of the generator, and of its loss.

    """

    def __init__(self, parts: Parts, settings: PriorSettings) -> None:
        super().__init__(parts, settings, new=StandardMaker(parts.critic.teacher, spectral=True))
        self.settings = settings
        self._with_features = Penultimate(parts.critic.teacher)

    def round(self, student: nn.Module) -> SynthBatch:
        """Take one step on L_G = ce · OH + balance · IE + act · A + js · JS.

        `student` gets images in [0, 1]; the term `js` reaches the images through it alone.
        """
        images = self(self.codes(self.parts.batch_size))
        t, features = self._with_features(self.parts.critic.answer, images)
        terms = {
            "ce": losses.one_hot(t),
            "balance": self.parts.balance(t, base=10),
            "act": losses.activation(features) if features is not None else t.new_zeros(()),
            "js": _disagreement(t.detach(), student(images), self.settings.js_reduction),
        }
        skipped = self.step(weigh(self.settings, terms))
        return SynthBatch.of_step(images.clamp(0, 1), t.argmax(1), terms, skipped)


def _disagreement(t: Tensor, s: Tensor, reduction: str) -> Tensor:
    """Term `js`, smaller the more student and teacher differ."""
    return losses.clamped_jensen_shannon(t, s) if reduction == "released" else -losses.jensen_shannon(t, s)
