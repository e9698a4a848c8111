"""`nayer export`: a classifier as an ONNX file, compared with its network before it is put in place."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor

from nayer_cli import config as configuration
from nayer_cli.classifiers.model import Classifier, Normalized, parameters
from nayer_cli.config import ModelConfig, ModelFacts, OnnxConfig
from nayer_cli.errors import ConfigError, RunFailed
from nayer_cli.gates import LEAST_AGREEMENT
from nayer_cli.onnx import packages
from nayer_cli.runs import models
from nayer_cli.runs.documents import Exported
from nayer_cli.storage import files, inputs

IMAGES = 32
"""On which file and network are compared: half of them noise, half of them smooth."""
TOLERANCE = 1e-3
"""Largest difference of float logits, as a share of their range."""


def export_onnx(settings: Mapping[str, object]) -> Exported:
    """Write a classifier as an ONNX file, and say what it takes and how well it agrees.

    Args:
        settings: keys of `OnnxConfig`, such as `{"model": "resnet18", "out": "resnet18.onnx"}`.

    Raises:
        InputError: the model cannot be loaded or written.
        EnvironmentFault: a package is missing, or the disk is full.
        RunFailed: the file does not do what the network does; nothing is left of it.

    """
    config = configuration.build(OnnxConfig, {key: value for key, value in settings.items() if value is not None})
    _check(config)
    torch.manual_seed(config.seed)
    classifier = models.load(_model_config(config), models.EXPORTED, rest=f"--out {config.out}")
    if config.target != "onnxruntime" and not classifier.scheme:
        raise ConfigError(
            f"--target {config.target} is for quantized models, and '{classifier.name}' is not one",
            hint="leave it out: every runtime reads the float file",
        )
    with TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        inside = config.normalization == "inside"
        writer = _write(file, classifier, config)
        found = compare(file, classifier, inside=inside)
        coarser = _judge(found, classifier, config.target, file)
        files.write_bytes(Path(str(config.out)), file.read_bytes())
    normalization = classifier.normalization
    return {
        "path": str(config.out),
        "bytes": Path(str(config.out)).stat().st_size,
        "model": classifier.name,
        "parameters": parameters(classifier.network),
        "kind": f"integers for {config.target}" if classifier.scheme else "float32",
        "input": f"images [batch, {', '.join(map(str, classifier.shape))}], "
        + ("in [0, 1]" if inside else "normalized"),
        "mean": list(normalization.mean),
        "std": list(normalization.std),
        "writer": writer,
        "images": found.images,
        "agreement": found.same / found.images,
        "largest_difference": found.largest,
        "range": found.range,
        "coarser": coarser,
    }


def _check(config: OnnxConfig) -> None:
    inputs.require_onnx_name(config.model, config.out)
    if config.target == "tensorrt" and config.storage == "int4":
        raise ConfigError("files for TensorRT store int8", hint="leave out --storage int4")
    packages.require()


def _model_config(config: OnnxConfig) -> ModelConfig:
    return ModelConfig(name=config.model, **{fact.name: getattr(config, fact.name) for fact in fields(ModelFacts)})


def _write(file: Path, classifier: Classifier, config: OnnxConfig) -> str:
    from nayer_cli.classifiers.onnx_file import write_classifier

    inside = config.normalization == "inside"
    return write_classifier(file, classifier, inside=inside, target=config.target, storage=config.storage)


class Comparison(NamedTuple):
    """The answers of a file and its network to the same images."""

    images: int
    same: int
    """Number of images that both put in the same class."""
    largest: float
    """Difference of two logits."""
    range: float
    """From the least to the largest logit."""


@torch.no_grad()
def compare(file: Path, classifier: Classifier, *, inside: bool = False) -> Comparison:
    """Run a file and the network that it was made of on the same images, which are not photographs.

    Args:
        file: written by `write_classifier`.
        classifier: on the CPU.
        inside: whether the file normalizes.

    """
    from nayer_cli.onnx.runner import OnnxNetwork

    runs: Callable[[Tensor], Tensor] = OnnxNetwork(file)
    if not inside:
        runs = Normalized(OnnxNetwork(file), classifier.normalization)
    network = Normalized(classifier.network, classifier.normalization)
    images = _images(classifier)
    wanted, found = torch.cat([network(x) for x in images.split(8)]), torch.cat([runs(x) for x in images.split(8)])
    same = int((wanted.argmax(1) == found.argmax(1)).sum())
    return Comparison(len(images), same, float((wanted - found).abs().max()), float(wanted.max() - wanted.min()))


def _images(classifier: Classifier) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = classifier.shape
    noise = torch.rand(IMAGES // 2, *shape, generator=generator)
    coarse = torch.rand(IMAGES // 2, shape.channels, 4, 4, generator=generator)
    return torch.cat([noise, torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear")])


def _judge(found: Comparison, classifier: Classifier, target: str, file: Path) -> str:
    """Refuse a file that computes something else than its network; return what it rounds more coarsely, or nothing."""
    if target == "tensorrt":
        _require_readable(file)
        from nayer_cli.onnx.layers import loses_a_bit

        if loses_a_bit(classifier.network):
            return "unsigned 8-bit activations keep 7 bits in int8; --bits w8a7 --edge-bits 7 loses nothing"
    right = (
        found.largest <= TOLERANCE * found.range if not classifier.scheme else found.same >= LEAST_AGREEMENT * IMAGES
    )
    if not right:
        raise RunFailed(
            f"the file does not compute what '{classifier.name}' computes: of {found.images} images, "
            f"{found.same} have the same class, and logits differ by up to {found.largest:.2g} of a range of"
            f" {found.range:.2g}; it is not kept",
            hint="use student/, which holds the network itself, and report which network it is",
        )
    return ""


def _require_readable(file: Path) -> None:
    from nayer_cli.onnx.tensorrt import complaints

    if faults := complaints(file):
        raise RunFailed(
            f"TensorRT would refuse the file: {faults[0]} (and {len(faults) - 1} more); it is not kept",
            hint="choose another --target",
        )
