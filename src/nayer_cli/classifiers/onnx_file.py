"""Classifiers in ONNX files: what is written beside their graph, and how they are read again."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor, fx, nn

from nayer_cli.classifiers.model import Classifier, Normalized, logits_of
from nayer_cli.classifiers.model_facts import check_scale
from nayer_cli.errors import InputError
from nayer_cli.onnx import by_torch
from nayer_cli.onnx.runner import OnnxNetwork, read_facts
from nayer_cli.onnx.writer import write_onnx
from nayer_cli.quant.scheme import Scheme
from nayer_cli.quant.trace import trace
from nayer_cli.types import CROP, INTERPOLATION, ImageShape, Normalization

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
        "interpolation": INTERPOLATION,
        "crop_pct": json.dumps(CROP),
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
        raise InputError(f"'{classifier.name}' cannot be written as ONNX: {fault}; {error}") from error


class _Logits(nn.Module):
    """A network that returns its logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return logits_of(self.network(images))


def load_onnx(path: Path) -> Classifier:
    """Open an ONNX file that nayer wrote; ONNX Runtime computes, on the CPU.

    Raises:
        InputError: there is no such file, it is damaged, or it does not tell what `facts_of` writes.
        EnvironmentFault: onnxruntime is not installed.

    """
    facts = read_facts(path)
    if facts.get("format") != FORMAT:
        raise InputError(
            f"{path} does not say how its images are prepared: nayer did not write it",
            hint="export the model again with nayer export or nayer quantize",
        )
    try:
        labels, scheme = json.loads(facts["label_names"]), json.loads(facts["quantization"])
        return Classifier(
            network=OnnxNetwork(path),
            name=facts["name"],
            shape=ImageShape(*json.loads(facts["input_size"])),
            normalization=check_scale(
                Normalization(tuple(json.loads(facts["mean"])), tuple(json.loads(facts["std"]))), str(path)
            ),
            num_classes=int(facts["num_classes"]),
            labels=tuple(labels) if labels else None,
            scheme=Scheme(**scheme) if scheme else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"what {path} says about its classifier is damaged: {error}",
            hint="export the model again with nayer export or nayer quantize",
        ) from error
