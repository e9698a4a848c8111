"""The facts needed to use a network. Options override its weights, and these override timm's `pretrained_cfg`."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import Tensor

from nayer_cli.classifiers.weights import Weights
from nayer_cli.config import ModelConfig, ModelFacts
from nayer_cli.errors import InputError
from nayer_cli.types import ImageShape, Normalization, Preparation

Facts = Mapping[str, Any]


class UntoldFacts(InputError):
    """A model leaves facts open, and nothing else has them."""

    def __init__(self, name: str, facts: Sequence[str]) -> None:
        words = {
            "input_size": "the size of its images",
            "mean": "the mean that its images are normalized with",
            "std": "the standard deviation that its images are normalized with",
        }
        told = [words[fact] for fact in facts]
        if {"mean", "std"} <= set(facts):
            told = [*told[:-2], "the mean and the standard deviation that they are normalized with"]
        super().__init__(
            f"'{name}' does not say {', '.join(told)}", hint=f"set {' and '.join(facts)} in the model's settings"
        )
        self.facts = tuple(facts)


def check_told(spec: ModelConfig, facts: Facts) -> None:
    """Make sure that image size and normalization are known.

    Raises:
        UntoldFacts: some are not; all of these are named at once.
    """
    needed = ("input_size", "mean", "std")
    if untold := [fact for fact in needed if not getattr(spec, fact) and not facts.get(fact)]:
        raise UntoldFacts(spec.name, untold)


MOST_CLASSES = 100_000
"""Most classes that a file may claim; the largest sets that classifiers are made for have some 20,000."""
LEAST_STD, MOST_STD, MOST_MEAN = 1e-6, 10.0, 1.0
"""Limits for images in [0, 1]: no mean is above 1, no standard deviation above 0.5; some recipes leave it at 1 or 2."""
SCALE = "mean and std are for images in [0, 1], such as --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
MOST_STEM_CHANNELS = 4
"""A first convolution with more inputs may be fed folded pixels, so it does not tell the image's channels."""


def class_count(spec: ModelConfig, facts: Facts, weights: Weights) -> int | None:
    """Return the number of classes K, or None if only the network's output shows it.

    Raises:
        InputError: a file tells, without weights to show for it, more than anybody has.
    """
    if spec.num_classes is not None:
        return spec.num_classes
    classifier = _layer(weights, facts.get("classifier"))
    if classifier is None and spec.match == "order":
        classifier = next((value for value in reversed(weights.values()) if value.ndim == 2), None)
    if classifier is not None:
        return classifier.shape[0]
    told: int | None = facts.get("num_classes")
    if told is not None and told > MOST_CLASSES:
        raise InputError(
            f"'{spec.name}' claims to have {told:,} classes; more than {MOST_CLASSES:,} must be confirmed",
            hint=f"if that is right: --num-classes {told}",
        )
    return told


def image_shape(spec: ModelConfig, facts: Facts, weights: Weights) -> ImageShape:
    """Return channels, height and width of the images.

    Raises:
        InputError: nothing tells the size.
    """
    size: Sequence[Any] = facts.get("input_size") or (len(spec.mean or ()) or 3, *[spec.input_size] * 2)
    channels, height, width = size
    if not height:
        raise UntoldFacts(spec.name, ["input_size"])
    stem = _layer(weights, facts.get("first_conv"))
    if stem is not None and stem.ndim == 4 and stem.shape[1] <= MOST_STEM_CHANNELS:
        channels = stem.shape[1]
    return ImageShape(spec.channels or channels, spec.input_size or height, spec.input_size or width)


def normalization(spec: ModelConfig, facts: Facts, channels: int) -> Normalization:
    """Return mean and standard deviation, one value for each channel.

    Raises:
        InputError: nothing tells them, their number is not that of the channels, or one is not positive.
    """
    mean = _per_channel("mean", spec.mean, facts.get("mean"), channels, spec.name)
    std = _per_channel("std", spec.std, facts.get("std"), channels, spec.name)
    return check_scale(Normalization(mean, std), spec.name)


def tell_of(facts: Facts, num_classes: int | None) -> bool:
    """Say whether facts describe weights of so many classes. Of weights of others, timm's facts tell only the shape."""
    return facts.get("crop_pct") is not None and facts.get("num_classes") in (None, num_classes)


def at_test_size(facts: Facts) -> Facts:
    """Return facts with the image size and the crop that timm validates with, where these are others."""
    tested = {"input_size": facts.get("test_input_size"), "crop_pct": facts.get("test_crop_pct")}
    return {**facts, **{name: value for name, value in tested.items() if value}}


def preparation(spec: ModelFacts, facts: Facts, normalization: Normalization) -> Preparation:
    """Return how pictures are prepared: options go before facts, and these before nayer's own way.

    Args:
        spec: the options.
        facts: of the weights; empty where nothing tells of them.
        normalization: its mean surrounds pictures that do not fill an image.
    """
    names = ("interpolation", "crop_pct", "crop_mode")
    told = facts if spec.preparation == "model" else {}
    found = {name: getattr(spec, name) or told.get(name) for name in names}
    return Preparation(border=normalization.mean)._replace(**{name: value for name, value in found.items() if value})


def check_scale(normalization: Normalization, name: str) -> Normalization:
    """Return constants that are meant for images in [0, 1].

    Raises:
        InputError: they are not finite, not positive, or meant for images in [0, 255].
    """
    mean, std = normalization
    if not all(map(math.isfinite, mean + std)):
        raise InputError(
            f"mean and std of '{name}' must be finite numbers, not {_listed(mean)} and {_listed(std)}", hint=SCALE
        )
    if min(std) < LEAST_STD:
        raise InputError(f"std of '{name}' must be positive, not {min(std):g}", hint=SCALE)
    for what, values, most in (("mean", mean, MOST_MEAN), ("std", std, MOST_STD)):
        if max(map(abs, values)) > most:
            raise InputError(
                f"{what} of '{name}' is {_listed(values)}: that is for pixels from 0 to 255, and nayer's go "
                "from 0 to 1",
                hint=f"divide by 255: {_listed([value / 255 for value in values])}; {SCALE}",
            )
    return normalization


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:.6g}" for value in values)


def class_labels(facts: Facts, num_classes: int | None) -> tuple[str, ...] | None:
    """Return the class names that a checkpoint carries, those of ImageNet for timm's ImageNet networks, or None.

    No two are equal, because their embeddings would be: a name that occurs twice is followed by its gloss.
    """
    names = facts.get("label_names")
    if names:
        described = facts.get("label_descriptions") or {}
        ordered = [names[index] for index in sorted(names, key=int)] if isinstance(names, Mapping) else names
        texts = [str(described.get(name, name)) for name in ordered]
        return _distinct(texts, [f"{text} ({name})" for text, name in zip(texts, ordered, strict=True)])
    subset = infer_imagenet_subset({"num_classes": num_classes})
    if subset is None or num_classes != facts.get("num_classes"):
        return None
    info = ImageNetInfo(subset)
    return _distinct(list(info.label_descriptions()), list(info.label_descriptions(detailed=True)))


def _layer(weights: Weights, names: str | Sequence[str] | None) -> Tensor | None:
    """Return the weight of the first of the layers that timm names, if the file has it, perhaps behind a prefix."""
    first = names if isinstance(names, str) or not names else names[0]
    name = f"{first}.weight"
    behind = [value for key, value in weights.items() if key.endswith(f".{name}")]
    return weights.get(name, behind[0] if len(behind) == 1 else None)


def _per_channel(
    what: str, given: Sequence[float] | None, known: Sequence[float] | None, channels: int, name: str
) -> tuple[float, ...]:
    """Return one value for each channel. What a checkpoint knows of colours is averaged for grey images."""
    values = tuple(given or known or ())
    if not values:
        raise UntoldFacts(name, [what])
    if len(values) == channels:
        return values
    if len(values) == 1:
        return values * channels
    if channels == 1 and not given:
        return (sum(values) / len(values),)
    raise InputError(
        f"{what} has {len(values)} values, but the images of '{name}' have {channels} channels",
        hint="give one value for each channel, or one for all of them",
    )


def _distinct(labels: Sequence[str], details: Sequence[str]) -> tuple[str, ...]:
    count = Counter(labels)
    return tuple(label if count[label] == 1 else detail for label, detail in zip(labels, details, strict=True))
