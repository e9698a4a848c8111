"""The generator step of PRE-DFKD, MB-DFKD and KAKR: plausible images that a student does not know."""

from torch import Tensor, nn

from nayer_cli import losses
from nayer_cli.activations import Penultimate
from nayer_cli.live import LiveGenerator
from nayer_cli.method import Parts, SynthBatch
from nayer_cli.standard import StandardMaker
from nayer_cli.synthesis import weigh


class PriorGenerator(LiveGenerator):
    """A generator that drifts after the student, held by the priors of DAFL (Chen et al., ICCV 2019).

    Args:
        parts: of the method.
        name, code_size, width: of the generator; `standard`, or a name that `new_generator` takes.
        lr: of Adam.

    """

    def __init__(self, parts: Parts, name: str, code_size: int, width: int, lr: float) -> None:
        super().__init__(parts, name, code_size, width, lr, new=StandardMaker(parts.critic.teacher, spectral=True))
        self._with_features = Penultimate(parts.critic.teacher)

    def round(self, student: nn.Module, weights: object, js_reduction: str) -> SynthBatch:
        """Take one step on L_G = ce · OH + balance · IE + act · A + js · JS.

        Args:
            student: gets images in [0, 1]; the term `js` reaches the images through it alone.
            weights: has a weight by the name of each term.
            js_reduction: `batchmean`, or `released`.

        """
        images = self(self.codes(self.parts.batch_size))
        t, features = self._with_features(self.parts.critic.answer, images)
        terms = {
            "ce": losses.one_hot(t),
            "balance": self.parts.balance(t, base=10),
            "act": losses.activation(features) if features is not None else t.new_zeros(()),
            "js": _disagreement(t.detach(), student(images), js_reduction),
        }
        skipped = self.step(weigh(weights, terms))
        detached = {name: value.detach() for name, value in terms.items()}
        return SynthBatch(images.detach().clamp(0, 1), t.argmax(1), detached, skipped, 1)


def _disagreement(t: Tensor, s: Tensor, reduction: str) -> Tensor:
    """Term `js`, smaller the more student and teacher differ."""
    return losses.clamped_jensen_shannon(t, s) if reduction == "released" else -losses.jensen_shannon(t, s)
