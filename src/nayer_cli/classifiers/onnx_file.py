"""Classifiers in ONNX files: what is written beside their graph, and how they are read again."""

import json
from dataclasses import asdict
from pathlib import Path

from nayer_cli.classifiers.model import Classifier
from nayer_cli.classifiers.model_facts import check_scale
from nayer_cli.errors import InputError
from nayer_cli.onnx.runner import OnnxNetwork, read_facts
from nayer_cli.quant.scheme import Scheme
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


def load_onnx(path: Path) -> Classifier:
    """Open an ONNX file that nayer wrote; ONNX Runtime computes, on the CPU.

    Raises:
        InputError: there is no such file, it is damaged, or it does not tell what `facts_of` writes.
        EnvironmentFault: onnxruntime is not installed.

    """
    facts = read_facts(path)
    if facts.get("format") != FORMAT:
        raise InputError(
            f"{path} does not tell how its images are prepared: nayer did not write it",
            hint="export it with nayer quantize",
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
        raise InputError(f"what {path} tells about its classifier is damaged: {error}") from error
