"""Classifiers in ONNX files: what is written beside their graph, and how they are read again."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from nayer_cli.classifiers import model_facts
from nayer_cli.classifiers.config_json import check_facts
from nayer_cli.classifiers.model import PROBABILITY_TOLERANCE, Classifier, Normalized, logits_of
from nayer_cli.classifiers.model_facts import check_scale
from nayer_cli.config import ModelConfig
from nayer_cli.errors import InputError
from nayer_cli.onnx import by_torch
from nayer_cli.onnx.runner import OnnxNetwork, read_facts
from nayer_cli.onnx.signature import UnknownSize
from nayer_cli.onnx.writer import write_onnx
from nayer_cli.quant.scheme import Scheme
from nayer_cli.quant.trace import trace
from nayer_cli.storage.text import parse_json
from nayer_cli.types import ImageShape, Normalization

SUFFIX = ".onnx"
FORMAT = "nayer.onnx/1"


def facts_of(classifier: Classifier) -> dict[str, str]:
    """Return what one must know to use a classifier, as texts that go into its ONNX file."""
    return {
        "format": FORMAT,
        "name": classifier.name,
        "input_size": json.dumps(list(classifier.shape)),
        "mean": json.dumps(list(classifier.normalization.mean)),
        "std": json.dumps(list(classifier.normalization.std)),
        "interpolation": classifier.preparation.interpolation,
        "crop_pct": json.dumps(classifier.preparation.crop_pct),
        "crop_mode": classifier.preparation.crop_mode,
        "num_classes": str(classifier.num_classes),
        "label_names": json.dumps(classifier.labels),
        "quantization": json.dumps(asdict(classifier.scheme) if classifier.scheme else None),
    }


def write_classifier(
    path: Path, classifier: Classifier, *, inside: bool = False, target: str = "onnxruntime", storage: str = "int8"
) -> str:
    """Write a float or a quantized classifier as an ONNX file with `facts_of` it; return what wrote it.

    Args:
        path: the file.
        classifier: in evaluation mode, on the CPU.
        inside: whether normalization goes into the file, which then takes images in [0, 1].
        target: the runtime that integers are for: `onnxruntime`, `openvino` or `tensorrt`.
        storage: of the weights of integers: `int8`, or `int4` where they fit.

    Returns:
        `nayer`, or `torch.onnx` for a float network that has no graph of operations with rules of ours.

    Raises:
        InputError: neither can write it, or the file cannot be written.
        EnvironmentFault: a package is missing.

    """
    shape, normalization = classifier.shape, classifier.normalization if inside else None
    if inside:
        none = Normalization((0.0,) * shape.channels, (1.0,) * shape.channels)
        facts = facts_of(replace(classifier, normalization=none))
    else:
        facts = facts_of(classifier)
    try:
        write_onnx(
            _graph_of(classifier),
            shape,
            path,
            storage=storage,
            exact=target == "onnxruntime" and (not classifier.scheme or classifier.scheme.weight_range != "full"),
            symmetric=target == "tensorrt",
            normalization=normalization,
            facts=facts,
        )
    except InputError as error:
        if classifier.scheme:
            raise
        _write_by_torch(path, classifier, normalization, facts, error)
        return "torch.onnx"
    return "nayer"


def _graph_of(classifier: Classifier) -> fx.GraphModule:
    network = classifier.network
    return network if isinstance(network, fx.GraphModule) else trace(network, classifier.shape)


def _write_by_torch(
    path: Path, classifier: Classifier, normalization: Normalization | None, facts: dict[str, str], fault: InputError
) -> None:
    """Let PyTorch's exporter write what `fault` kept us from."""
    if not by_torch.is_there():
        raise InputError(
            f"'{classifier.name}' needs PyTorch's exporter, whose package is not installed ({fault})",
            hint=f"pip install {by_torch.PACKAGE}",
        ) from fault
    network = Normalized(classifier.network, normalization) if normalization else _Logits(classifier.network)
    try:
        by_torch.write_by_torch(network.eval(), classifier.shape, path, facts)
    except InputError as error:
        raise InputError(f"'{classifier.name}' cannot be written as ONNX: {fault}; {error}", hint=error.hint) from error


class _Logits(nn.Module):
    """A network that returns its logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return logits_of(self.network(images))


def load_onnx(path: Path, spec: ModelConfig | None = None) -> Classifier:
    """Open an ONNX file; ONNX Runtime computes, on the CPU.

    Args:
        path: a file that nayer wrote, or that of anybody which maps a batch of images to a row of numbers for each.
        spec: what is said of it: of files of others mean and std, and the image size unless the file fixes it.

    Raises:
        UntoldFacts: something is not said.
        InputError: there is no such file, it is damaged, or no classifier.
        EnvironmentFault: onnxruntime is not installed.

    """
    spec = spec or ModelConfig(name=str(path))
    facts = read_facts(path)
    return _own(path, facts, spec) if facts.get("format") == FORMAT else _of_others(path, spec)


def _own(path: Path, facts: Mapping[str, str], spec: ModelConfig) -> Classifier:
    """Open a file that tells of itself what `facts_of` writes."""
    try:
        told = {name: parse_json(facts[name]) for name in ("label_names", "mean", "std", "input_size")}
        told |= {"crop_pct": parse_json(facts.get("crop_pct", "null"))}
        told |= {name: facts.get(name) for name in ("interpolation", "crop_mode")}
        check_facts(told, path)
        labels, shape = told["label_names"], ImageShape(*told["input_size"])
        own = Normalization(tuple(told["mean"]), tuple(told["std"]))
        normalization = model_facts.normalization(spec, check_scale(own, str(path))._asdict(), shape.channels)
        return Classifier(
            network=OnnxNetwork(path),
            name=facts["name"],
            shape=shape,
            normalization=normalization,
            num_classes=int(facts["num_classes"]),
            labels=tuple(labels) if labels else None,
            scheme=scheme_of(facts, path),
            preparation=model_facts.preparation(spec, told, normalization),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def scheme_of(facts: Mapping[str, str], path: Path) -> Scheme | None:
    """Return the scheme that the metadata of file `path` tell; None if they tell none.

    Raises:
        InputError: they tell something else.

    """
    try:
        told = parse_json(facts.get("quantization") or "null")
    except ValueError as error:
        raise _damaged(path, error) from error
    check_facts({"quantization": told}, path)
    return Scheme(**told) if told else None


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"what {path} says about its classifier is damaged: {error}",
        hint="export the model again with nayer export or nayer quantize",
    )


def _of_others(path: Path, spec: ModelConfig) -> Classifier:
    """Open a file that tells nothing but what it takes and returns."""
    try:
        network, untold = OnnxNetwork(path, side=spec.input_size, channels=spec.channels), []
    except UnknownSize:
        network, untold = None, ["input_size"]
    takes_bytes = network is not None and network.takes_bytes
    untold += [fact for fact in ("mean", "std") if not takes_bytes and not getattr(spec, fact)]
    if untold or network is None:
        raise model_facts.UntoldFacts(str(path), untold)
    told = {"mean": (0.0,), "std": (1.0,)} if takes_bytes else {}
    normalization = model_facts.normalization(spec, told, network.image_shape.channels)
    answers = _answers(network, normalization)
    return Classifier(
        network=_Logarithms(network) if _are_probabilities(answers) else network,
        name=path.stem,
        shape=network.image_shape,
        normalization=normalization,
        num_classes=answers.shape[1],
        labels=None,
        preparation=model_facts.preparation(spec, {}, normalization),
    )


def _answers(network: OnnxNetwork, normalization: Normalization) -> Tensor:
    """Return what a network says of noise."""
    images = torch.rand(2, *network.image_shape, generator=torch.Generator().manual_seed(0))
    answers: Tensor = Normalized(network, normalization)(images)
    return answers


def _are_probabilities(answers: Tensor) -> bool:
    return bool((answers >= 0).all() and (answers.sum(1) - 1).abs().max() < PROBABILITY_TOLERANCE)


class _Logarithms(nn.Module):
    """A network that returns probabilities, as one that returns logits: their logarithms are, but for a constant."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images `[B, C, H, W]` to logits `[B, K]`."""
        probabilities: Tensor = self.network(images)
        return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()
