"""Measure a classifier on labelled images, and the agreement of two classifiers."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nayer_cli.classifiers.model import Normalized
from nayer_cli.errors import InputError, RunFailed
from nayer_cli.gates import Count, drop
from nayer_cli.images.labelled import OTHER_DATA, LabelledImages
from nayer_cli.machine.distributed import Group
from nayer_cli.machine.interruption import Interruption
from nayer_cli.machine.precision import Precision
from nayer_cli.machine.transfer import send

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Outcomes:
    """One network's answers to N images, in the data's order, on the CPU."""

    prediction: Tensor
    """`[N]` int64, the class with the highest logit."""
    confidence: Tensor
    """`[N]` probability of that class."""
    correct: Tensor
    """`[N]` bool: the prediction is the label."""
    in_top5: Tensor
    """`[N]` bool: the label is among the min(5, K) classes with the highest logits."""
    loss: Tensor
    """`[N]` cross-entropy with the label, in nats."""
    seconds: float
    """Wall time of the pass; with decoding only where the data does not fit in memory."""


@dataclass(frozen=True)
class Scores:
    """Figures of one network on n images; accuracies are fractions of 1."""

    n: int
    hits: int
    """Images whose class was right."""
    top1: float
    """`hits / n`."""
    top5: float
    """Top-5 accuracy, or top-K with fewer than five classes."""
    loss: float
    """Mean cross-entropy, in nats."""
    ece: float
    """Expected calibration error, 15 bins."""
    ci95: tuple[float, float]
    """Wilson's 95 % interval of `top1`."""

    @property
    def count(self) -> Count:
        """Images whose class was right, of all."""
        return Count(self.hits, self.n)


@dataclass(frozen=True)
class Evaluation:
    """A network's scores, and what a comparison with a reference adds."""

    scores: Scores
    skipped: int
    """Images that could not be read; they are not in n."""
    seconds: float
    """Wall time of the network's own pass."""
    reference: Scores | None = None
    same: Count | None = None
    """Images on which both have the same top-1 class."""

    @property
    def agreement(self) -> float | None:
        """Fraction of the images on which both have the same top-1 class."""
        return self.same.rate if self.same else None

    @property
    def drop(self) -> float | None:
        """Top-1 that the network loses to the reference."""
        if self.reference is None:
            return None
        return float(drop(self.reference.count, self.scores.count))


def evaluate(
    model: nn.Module,
    data: LabelledImages,
    *,
    device: torch.device,
    batch_size: int,
    reference: nn.Module | Outcomes | None = None,
    group: Group | None = None,
    interruption: Interruption | None = None,
) -> Evaluation:
    """Score `model` on `data` and compare it with `reference`.

    Args:
        model: maps images in [0, 1] to logits; lives on `device`, and gets its modes back as they were.
        data: the labelled images.
        device: where the network runs.
        batch_size: images per forward pass.
        reference: another such network, or what `measure` found for it on the same data.
        group: processes that have a part of the data each, and all get the scores of the whole.
        interruption: whether the surrounding run was asked to end.

    Raises:
        InputError: the data cannot be read, or has labels that the model has no output for.
        RunFailed: the logits are not finite.
        Stopped: the run was asked to end.

    """
    outcomes = measure(model, data, device=device, batch_size=batch_size, group=group, interruption=interruption)
    skipped = sum((group or Group()).collect(data.skipped))
    own, seconds = scores(outcomes), outcomes.seconds
    if reference is None:
        return Evaluation(own, skipped, seconds)
    if not isinstance(reference, Outcomes):
        reference = measure(reference, data, device=device, batch_size=batch_size, group=group)
    return Evaluation(own, skipped, seconds, scores(reference), same_class(outcomes, reference))


def measure(
    model: nn.Module,
    data: LabelledImages,
    *,
    device: torch.device,
    batch_size: int,
    group: Group | None = None,
    interruption: Interruption | None = None,
) -> Outcomes:
    """Run `model` over `data` once, judging its logits in float32; arguments and faults as for `evaluate`."""
    data.prepare()
    start = perf_counter()
    batches = (interruption or Interruption(Group())).unless_asked(data.batches(batch_size))
    with evaluating(model):
        rows = [_judge(model, images, labels, device) for images, labels in batches]
    # The only wait for the device.
    own = torch.cat(rows).cpu() if rows else torch.zeros(0, 5)
    prediction, confidence, correct, in_top5, loss = torch.cat((group or Group()).collect(own)).double().unbind(1)
    if not len(loss):  # a stream may promise more than it holds
        raise InputError(f"{data.where} holds no image that can be read", hint=OTHER_DATA)
    if not loss.isfinite().all():
        bad = int((~loss.isfinite()).sum())
        raise RunFailed(
            f"the loss is not finite on {bad} of {len(loss)} images of {data.where}",
            hint="its training diverged: name an earlier checkpoint",
        )
    seconds = perf_counter() - start
    return Outcomes(prediction.long(), confidence, correct.bool(), in_top5.bool(), loss, seconds)


def scores(outcomes: Outcomes) -> Scores:
    """Summarize what a network said about each image."""
    n = len(outcomes.correct)
    hits = int(outcomes.correct.sum())
    return Scores(
        n=n,
        hits=hits,
        top1=hits / n,
        top5=int(outcomes.in_top5.sum()) / n,
        loss=float(outcomes.loss.mean()),
        ece=expected_calibration_error(outcomes.confidence, outcomes.correct),
        ci95=wilson_interval(hits, n),
    )


def same_class(one: Outcomes, other: Outcomes) -> Count:
    """Count the images on which two networks have the same top-1 class."""
    return Count(int((one.prediction == other.prediction).sum()), len(one.prediction))


def wilson_interval(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's score interval for `hits` of `n` (J. Am. Stat. Assoc. 22, 1927), by default at 95 %."""
    rate = hits / n
    center = rate + z * z / (2 * n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (center - half) / scale), min(1.0, (center + half) / scale)


def expected_calibration_error(confidence: Tensor, correct: Tensor, bins: int = CALIBRATION_BINS) -> float:
    """Return the mean gap between confidence and accuracy over equal-width bins (Guo et al. 2017, eq. 3).

    Args:
        confidence: `[N]` probability of the predicted class.
        correct: `[N]` bool.
        bins: number of bins; bin m holds confidences in ((m-1)/M, m/M].

    """
    index = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add(0, index, correct.double() - confidence.double())
    return float(gaps.abs().sum()) / len(confidence)


def agreement(model: nn.Module, reference: nn.Module, images: Tensor, *, batch_size: int = 256) -> float:
    """Return the fraction of images on which both networks have the same top-1 class.

    `images` are `[N, C, H, W]` in [0, 1], on the device of both networks.

    Raises:
        InputError: there are no images.

    """
    if not len(images):
        raise InputError("there are no images to compare two networks on", hint="give at least one")
    return count_same(model, reference, images, batch_size=batch_size).rate


def count_same(model: nn.Module, reference: nn.Module, images: Tensor, *, batch_size: int = 256) -> Count:
    """Count the images on which both networks have the same top-1 class. There may be no images."""
    if not len(images):
        return Count(0, 0)
    with evaluating(model, reference):
        same = [model(x).argmax(1) == reference(x).argmax(1) for x in torch.split(images, batch_size)]
        return Count(int(torch.cat(same).sum()), len(images))


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Within the block the networks are in evaluation mode, compute in float32, and gather no gradients.

    Afterwards each of their modules has the mode and the precision it had: a run reports what `nayer eval` would.
    """
    modules = [module for model in models for module in model.modules()]
    modes = [(module, module.training) for module in modules]
    precisions = [(module, module.precision) for module in modules if isinstance(module, Normalized)]
    device_type = next((p.device.type for model in models for p in model.parameters()), "cpu")
    for model in models:
        model.eval()
    for wrapper, _ in precisions:
        wrapper.precision = Precision(device_type)
    try:
        with torch.no_grad(), torch.autocast(device_type, enabled=False):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for wrapper, precision in precisions:
            wrapper.precision = precision


def _judge(model: nn.Module, images: Tensor, labels: Tensor, device: torch.device) -> Tensor:
    """Return prediction, confidence, correct, in top 5, and loss of each image: `[B, 5]`, on the device."""
    logits = model(send(images, device).float() / 255).float()
    num_classes = logits.shape[1]
    if int(labels.max()) >= num_classes:  # still on the CPU; on CUDA such a label would end the process
        raise InputError(
            f"the data has a label {int(labels.max())}, but the model has {num_classes} classes",
            hint="give data with the classes of the model",
        )
    labels = send(labels, device)
    best, prediction = logits.max(1)  # of the logits: probabilities can tie where logits do not
    confidence = (best - logits.logsumexp(1)).exp()
    top5 = logits.topk(min(5, num_classes), dim=1).indices
    columns = (
        prediction,
        confidence,
        prediction == labels,
        (top5 == labels[:, None]).any(1),
        F.cross_entropy(logits, labels, reduction="none"),
    )
    return torch.stack([column.float() for column in columns], dim=1)
