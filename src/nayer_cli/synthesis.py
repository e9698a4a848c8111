"""What rounds of synthesis have in common: the classes to draw, and keeping the best of several steps."""

import torch
from torch import Tensor


class Best:
    """Keeps the images and losses of the step with the lowest loss, without the host ever asking which it is."""

    def __init__(self) -> None:
        self._loss: Tensor | None = None

    @torch.no_grad()
    def offer(self, loss: Tensor, images: Tensor, terms: dict[str, Tensor]) -> None:
        """Take over `images` and `terms` if `loss` is the lowest so far."""
        terms = {name: value.detach() for name, value in terms.items()}
        if self._loss is None:
            self._loss, self.images, self.losses = loss.detach(), images.detach(), terms
            return
        # A loss that is not finite gives way to any other, and never wins.
        better = (loss < self._loss) | ~self._loss.isfinite()
        self._loss = torch.where(better, loss, self._loss)
        self.images = torch.where(better, images, self.images)
        self.losses = {name: torch.where(better, value, self.losses[name]) for name, value in terms.items()}


def draw_labels(count: int, classes: int, generator: torch.Generator, *, replace: bool = False) -> Tensor:
    """Labels `[count]`: all classes in order, as often as they fit, then a random rest.

    The rest is drawn without replacement, since two images of one class in one group of the noisy layer are the same;
    the released code draws it with replacement.
    """
    device = generator.device
    whole = torch.arange(classes, device=device).repeat(count // classes)
    if replace:
        rest = torch.randint(classes, (count % classes,), generator=generator, device=device)
    else:
        rest = torch.randperm(classes, generator=generator, device=device)[: count % classes]
    return torch.cat([whole, rest])
