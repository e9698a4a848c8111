"""Classifiers: a network with everything needed to use it; loading, creating and saving them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from nayer_cli.classifiers import model_facts
from nayer_cli.classifiers.architecture import CONFIG, FACTORY, HUB, Architecture, build, find, timm_arguments
from nayer_cli.classifiers.fitting import load_weights
from nayer_cli.classifiers.weights import FILE_NAMES, Weights, find_weights, read_weights, require_finite
from nayer_cli.config import ModelConfig
from nayer_cli.errors import InputError, NayerError
from nayer_cli.machine.precision import Precision
from nayer_cli.quant.deploy import deploy
from nayer_cli.quant.graph import quantize
from nayer_cli.quant.scheme import Scheme
from nayer_cli.storage.files import write_json, write_text
from nayer_cli.storage.tensors import save_tensors
from nayer_cli.types import ImageShape, Normalization, Preparation

WRAP = "wrap it in a module that returns logits, and name its factory: py:package.module:factory"
PROBABILITY_TOLERANCE = 1e-3
"""Largest distance of a row of probabilities from the sum 1; some have 16 bits."""


@dataclass(frozen=True)
class Classifier:
    """A network, and what it takes and means."""

    network: nn.Module
    """Maps normalized images `[B, C, H, W]` to logits `[B, K]`."""
    name: str
    """For display."""
    shape: ImageShape
    normalization: Normalization
    num_classes: int
    labels: tuple[str, ...] | None
    """Class names that the checkpoint carries, in index order."""
    key: str = ""
    """The name in timm, or the Python factory, that rebuilds the network. By default its class."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """timm's keyword arguments that rebuild it."""
    scheme: Scheme | None = None
    """The bits of a network of integers."""
    preparation: Preparation = field(default_factory=Preparation)
    """The way in which pictures of another size get `shape`."""


class Normalized(nn.Module):
    """A network that takes images in [0, 1]: normalization, precision and odd heads are inside.

    Args:
        network: takes normalized images.
        normalization: one value for each channel, or one for all.
        precision: in which `network` computes; float32 by default.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, normalization: Normalization, precision: Precision | None = None) -> None:
        super().__init__()
        self.network = network
        self.precision = precision or Precision()
        self.register_buffer("mean", torch.tensor(normalization.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(normalization.std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map images `[B, C, H, W]` in [0, 1] to float32 logits `[B, K]`.

        Raises:
            InputError: the network returns something that holds no logits.
        """
        normalized = (images - self.mean) / self.std
        with self.precision():
            output = self.network(normalized)
        return logits_of(output).float()


def logits_of(output: object) -> Tensor:
    """Find the logits `[B, K]` in what a network returns.

    They are a tensor `[B, K]` or `[B, K, 1, 1]`, the entry or attribute `logits`, or else the first of several.

    Raises:
        InputError: there are none.
    """
    if isinstance(output, Tensor):
        if output.ndim >= 2 and output.shape[2:].numel() == 1:
            return output.flatten(1)
        raise InputError(f"the network returns a tensor of shape {list(output.shape)}, not logits [B, K]", hint=WRAP)
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if named is not None:
        return logits_of(named)
    if isinstance(output, (tuple, list)) and output:
        return logits_of(output[0])
    keys = f" of {', '.join(map(str, output))}," if isinstance(output, Mapping) and output else ""
    raise InputError(f"the network returns a {type(output).__name__}{keys} without 'logits'", hint=WRAP)


def parameters(network: nn.Module) -> int:
    """Count the parameters of a network; buffers do not count."""
    return sum(parameter.numel() for parameter in network.parameters())


def load_classifier(spec: ModelConfig, *, validating: bool = False) -> Classifier:
    """Load a classifier with its weights, in evaluation mode; facts that `spec` leaves open come from its checkpoint.

    Args:
        spec: the model.
        validating: whether images have the size that its configuration names for validation, if that differs.

    Raises:
        InputError: there is no such model, its weights are absent or do not fit, or it leaves facts open.
        EnvironmentFault: the weights are on a hub that cannot be reached.
    """
    architecture = find(spec.name)
    stored = _stored(spec, architecture)
    facts, weights = architecture.facts, stored.weights if stored else {}
    model_facts.check_told(spec, facts)
    num_classes = model_facts.class_count(spec, facts, weights)
    pretrained = stored is None and not architecture.is_factory
    if pretrained:
        _require_pretrained(architecture, num_classes)
    of_weights = facts if model_facts.tell_of(facts, num_classes) else {}
    if validating and of_weights and spec.input_size is None and spec.preparation == "model":
        facts = of_weights = model_facts.at_test_size(facts)
    shape = model_facts.image_shape(spec, facts, weights)
    normalization = model_facts.normalization(spec, facts, shape.channels)
    preparation = model_facts.preparation(spec, of_weights, normalization)
    labels = model_facts.class_labels(facts, num_classes)
    network = _filled(architecture, stored, num_classes, shape, pretrained=pretrained, most=spec.max_parameters).eval()
    return _classifier(architecture, network, shape, normalization, num_classes, labels, preparation)


def new_classifier(spec: ModelConfig, like: Classifier) -> Classifier:
    """Create a student with the classes, image shape and normalization of `like`, whose network is not used.

    A timm name or a factory means an architecture: the weights are fresh, unless `spec.weights` names a file.
    A folder or a hub repository means a checkpoint: the student starts from its weights.

    Raises:
        InputError: there is no such model, it cannot be built so, or `spec` contradicts `like`.
        EnvironmentFault: it is on a hub that cannot be reached.
    """
    side = max(like.shape.height, like.shape.width)
    for key, what, wanted in (
        ("num_classes", "classes", like.num_classes),
        ("channels", "channels", like.shape.channels),
        ("input_size", "pixels a side", side),
    ):
        if (given := getattr(spec, key)) not in (None, wanted):
            raise InputError(
                f"a student of '{like.name}' must have {wanted} {what}, not {given}",
                hint=f"leave out student.{key}: a student takes its teacher's",
            )
    return new_network(
        spec,
        like.num_classes,
        like.labels,
        shape=like.shape,
        normalization=like.normalization,
        preparation=model_facts.preparation(spec, like.preparation._asdict(), like.normalization),
    )


def new_network(
    spec: ModelConfig,
    num_classes: int | None,
    labels: Sequence[str] | None = None,
    *,
    shape: ImageShape | None = None,
    normalization: Normalization | None = None,
    preparation: Preparation | None = None,
) -> Classifier:
    """Create a classifier to be trained, with weights as `new_classifier` has them.

    Args:
        spec: the architecture; its mean and std go before `normalization`.
        num_classes: K; None takes a Python factory's network as it is.
        labels: class names in index order, if known.
        shape: of the images; by default what `spec` or else the architecture says.
        normalization: by default what the architecture says.
        preparation: by default nayer's own, which `spec` may change.

    Raises:
        InputError, EnvironmentFault: as `new_classifier` does.
    """
    architecture = find(spec.name)
    stored = _stored(spec, architecture)
    pretrained = stored is None and spec.name.startswith(HUB)
    if pretrained:
        _require_pretrained(architecture, num_classes)
    shape = shape or model_facts.image_shape(spec, architecture.facts, stored.weights if stored else {})
    facts = normalization._asdict() if normalization else architecture.facts
    normalization = model_facts.normalization(spec, facts, shape.channels)
    names = tuple(labels) if labels is not None else None
    network = _filled(architecture, stored, num_classes, shape, pretrained=pretrained, most=spec.max_parameters)
    preparation = preparation or model_facts.preparation(spec, {}, normalization)
    return _classifier(architecture, network, shape, normalization, num_classes, names, preparation)


def save_classifier(folder: Path, classifier: Classifier, *, card: str, extra: Mapping[str, object]) -> None:
    """Write a classifier in timm's `local-dir:` layout: config.json, model.safetensors and README.md.

    timm rebuilds a network of its registry from it (ours after `import nayer_cli.models`). One that a Python
    factory made is rebuilt by `load_classifier` alone, where that factory can be imported.

    Each file is written atomically, config.json last.

    Args:
        folder: made if absent.
        classifier: what to write.
        card: the text of README.md.
        extra: goes to config.json under the key `nayer`; must be JSON.

    Raises:
        InputError: the folder cannot be written.
    """
    save_tensors(folder / FILE_NAMES[0], classifier.network.state_dict(), {"format": "pt"})
    write_text(folder / "README.md", card)
    write_json(folder / CONFIG, {**_config(classifier), "nayer": dict(extra)})


def _config(classifier: Classifier) -> dict[str, Any]:
    """Return timm's model config: how to rebuild the network, and how to prepare images for it."""
    network, shape = classifier.network, classifier.shape
    key = classifier.key or _key_of(network)
    document: dict[str, Any] = {"architecture": key, "num_classes": classifier.num_classes}
    preparation: dict[str, Any] = {}
    if key.startswith(FACTORY):
        document["note"] = f"timm cannot rebuild this network; nayer does, with {key.removeprefix(FACTORY)}()"
    else:
        facts = getattr(timm.get_pretrained_cfg(key), "__dict__", {})
        kept = ("fixed_input_size", "first_conv", "classifier")
        preparation = {fact: facts[fact] for fact in kept if fact in facts}
        minimum = {"num_classes": classifier.num_classes, "in_chans": shape.channels}
        document["model_args"] = {**minimum, **classifier.arguments}
        if classifier.scheme is None:
            document["num_features"] = network.num_features
    if classifier.scheme:
        document["quantization"] = asdict(classifier.scheme)
    if classifier.labels:
        document["label_names"] = list(classifier.labels)
    document["pretrained_cfg"] = preparation | {
        "input_size": list(shape),
        "mean": list(classifier.normalization.mean),
        "std": list(classifier.normalization.std),
        "interpolation": classifier.preparation.interpolation,
        "crop_pct": classifier.preparation.crop_pct,
        "crop_mode": classifier.preparation.crop_mode,
        "num_classes": classifier.num_classes,
    }
    return document


def _key_of(network: nn.Module) -> str:
    """Return what rebuilds a network that came without a key: its name in timm, or its class."""
    name = getattr(network, "pretrained_cfg", {}).get("architecture")
    return name or f"{FACTORY}{type(network).__module__}:{type(network).__qualname__}"


class _Stored(NamedTuple):
    """Weights, the file they came from, and how they find their places."""

    path: Path
    weights: Weights
    match: str


def _stored(spec: ModelConfig, architecture: Architecture) -> _Stored | None:
    if spec.weights:
        path = Path(spec.weights).expanduser()
    elif architecture.folder:
        path = find_weights(architecture.folder)
    else:
        return None
    return _Stored(path, read_weights(path), spec.match)


def _require_pretrained(architecture: Architecture, num_classes: int | None) -> None:
    if not architecture.source:
        raise InputError(
            f"there are no pretrained weights for '{architecture.name}'",
            hint="give a weight file: --teacher-weights FILE, or --weights FILE with quantize and eval",
        )
    own = architecture.facts.get("num_classes")
    if own == 0:
        raise InputError(
            f"'{architecture.name}' has no classifier, only features",
            hint="choose a model that was fine-tuned for classification",
        )
    if num_classes != own:
        raise InputError(
            f"the pretrained '{architecture.name}' has {own} classes, not {num_classes}",
            hint=f"leave out --num-classes, or give a weight file that has {num_classes}",
        )


def _filled(
    architecture: Architecture,
    stored: _Stored | None,
    num_classes: int | None,
    shape: ImageShape,
    *,
    pretrained: bool,
    most: int,
) -> nn.Module:
    """Build the network with weights that fit and are finite, in float32 or as integers."""
    network = build(architecture, num_classes, shape, pretrained=pretrained, most=most).float()
    if architecture.quantization:
        network = deploy(quantize(network, shape, Scheme(**architecture.quantization)))
    if stored:
        load_weights(network, stored.weights, name=architecture.name, path=stored.path, match=stored.match)
    require_finite(network, str(stored.path) if stored else f"'{architecture.name}'")
    return network


def _classifier(
    architecture: Architecture,
    network: nn.Module,
    shape: ImageShape,
    normalization: Normalization,
    num_classes: int | None,
    labels: tuple[str, ...] | None,
    preparation: Preparation,
) -> Classifier:
    """Make sure that the network maps images of `shape` to `num_classes` logits (None: to any number)."""
    width = _probe(network, shape, architecture.name)
    if num_classes is not None and width != num_classes:
        raise InputError(
            f"'{architecture.name}' returns {width} logits, but there are {num_classes} classes",
            hint="choose a network with one output for each class",
        )
    return Classifier(
        network=network,
        name=architecture.name,
        shape=shape,
        normalization=normalization,
        num_classes=width,
        labels=labels,
        key=architecture.key,
        arguments=timm_arguments(architecture, width, shape),
        scheme=Scheme(**architecture.quantization) if architecture.quantization else None,
        preparation=preparation,
    )


@torch.no_grad()
def _probe(network: nn.Module, shape: ImageShape, name: str) -> int:
    """Return the number of logits K, after making sure on noise that a network answers with logits."""
    was_training = network.training
    network.eval()
    try:
        noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
        _answer(network, noise[:1], name)  # some heads squeeze a batch of one away
        logits = _answer(network, noise, name)
    finally:
        network.train(was_training)
    _require_logits(logits, name)
    return logits.shape[1]


def _answer(network: nn.Module, images: Tensor, name: str) -> Tensor:
    try:
        logits = logits_of(network(images))
    except NayerError as error:
        raise InputError(f"'{name}' cannot be used: {error}", hint=error.hint) from error
    except Exception as error:  # a thousand networks have as many ways to say that an image is too small
        size = "×".join(map(str, images.shape[1:]))
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"'{name}' cannot take {size} images: {reason}",
            hint="it is given float32 images of this size; choose another with --set teacher.input_size=N",
        ) from error
    if len(logits) != len(images):
        raise InputError(f"'{name}' returns {len(logits)} rows of logits for {len(images)} images", hint=WRAP)
    return logits


def _require_logits(logits: Tensor, name: str) -> None:
    """Refuse answers that training and measuring would take for logits, silently."""
    if not logits.is_floating_point():
        raise InputError(f"'{name}' returns {str(logits.dtype).removeprefix('torch.')}, not real logits", hint=WRAP)
    if not logits.isfinite().all():
        raise InputError(
            f"'{name}' answers noise with NaN or infinity, though its weights are finite",
            hint="its forward may divide by zero or overflow: check it, or choose another model",
        )
    if (logits >= 0).all() and (logits.sum(1) - 1).abs().max() < PROBABILITY_TOLERANCE:
        raise InputError(
            f"'{name}' returns probabilities (no row has a negative number, each sums to 1), not logits",
            hint="leave out its softmax, or make it a log_softmax; " + WRAP,
        )
