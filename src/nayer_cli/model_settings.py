"""Settings of a classifier, the same in every command, and of the commands that only look at classifiers."""

from dataclasses import dataclass, field
from typing import ClassVar

from nayer_cli.schema import setting
from nayer_cli.types import CROP_MODES, INTERPOLATIONS


@dataclass(frozen=True)
class ModelFacts:
    """Facts of a classifier that its checkpoint does not say, or gets wrong."""

    weights: str | None = setting(None, "weights file (safetensors, or a torch checkpoint read without pickled code)")
    match: str = setting(
        "name",
        "how weights from a file are matched: by name, or by order (first to first, if the shapes fit)",
        choices=("name", "order"),
    )
    max_parameters: int = setting(
        1_000_000_000, "most numbers that a network may hold, in parameters and buffers together", low=1
    )
    num_classes: int | None = setting(None, "number of classes, if the checkpoint does not say", low=2)
    input_size: int | None = setting(None, "image side in pixels, if the checkpoint does not say", low=4)
    channels: int | None = setting(None, "image channels, if the checkpoint does not say", low=1)
    mean: tuple[float, ...] | None = setting(None, "normalization mean per channel, for images in [0, 1]")
    std: tuple[float, ...] | None = setting(
        None, "normalization standard deviation per channel, for images in [0, 1]", above=0
    )
    preparation: str = setting(
        "model",
        "how pictures get the model's size. model: as its configuration says, which is timm's way for"
        " timm's networks; nayer: bicubic, until the shorter side fits",
        choices=("model", "nayer"),
    )
    interpolation: str | None = setting(
        None, "how pictures are resized, if the configuration does not say", choices=INTERPOLATIONS
    )
    crop_pct: float | None = setting(
        None,
        "share of the resized picture's side that is kept, if the configuration does not say; more than 1 pads it",
        above=0,
        high=2,
    )
    crop_mode: str | None = setting(
        None,
        "which side is resized to fit, if the configuration does not say: the shorter (center), both (squash), the"
        " longer (border)",
        choices=CROP_MODES,
    )
    labels: str | None = setting(
        None, "class names in the order of the outputs: a text file, or a known set; default: those of the checkpoint"
    )


@dataclass(frozen=True)
class ModelName:
    """The name of a classifier."""

    has_name: ClassVar[bool] = True
    """A text instead of the table is the model's name: `reference = "resnet50"`."""

    name: str = setting(
        "", "a timm name, hf-hub:ORG/REPO, local-dir:DIR, a run directory, or py:package.module:factory"
    )


@dataclass(frozen=True)
class ModelConfig(ModelFacts, ModelName):
    """A classifier to load or to create. Its name is the first field."""


@dataclass(frozen=True)
class OnnxConfig(ModelFacts):
    """All settings of `nayer export`."""

    model: str = setting("", "classifier to write: anything that teacher.name takes")
    out: str | None = setting(None, "the file to write; it must end in .onnx")
    normalization: str = setting(
        "outside",
        "outside: the file takes normalized images, as the network does; inside: it takes images in [0, 1]",
        choices=("outside", "inside"),
    )
    target: str = setting(
        "onnxruntime",
        "which runtime a quantized model is written for; tensorrt: symmetric int8, with limits and biases in float",
        choices=("onnxruntime", "openvino", "tensorrt"),
    )
    storage: str = setting(
        "int8", "type of stored weights of a quantized model, as in export.storage", choices=("int8", "int4")
    )
    device: str = setting("cpu", "where the model is written and compared", choices=("cpu",))
    seed: int = setting(0, "seed of the weights that a model starts with", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class BenchConfig:
    """All settings of `nayer bench`."""

    models: tuple[str, ...] = setting(
        (), "classifiers to time, each as in teacher.name, or an ONNX file; the first is what others are compared with"
    )
    num_classes: int | None = setting(None, "number of classes, if the checkpoint does not tell", low=2)
    input_size: int | None = setting(None, "image side in pixels, if the checkpoint does not tell", low=4)
    channels: int | None = setting(None, "image channels, if the checkpoint does not tell", low=1)
    batch: int = setting(16, "images at a time where throughput is measured", low=1)
    repeats: int = setting(21, "turns of each model", low=6)
    threads: int | None = setting(None, "processor threads; default: as many as torch takes", low=1)
    device: str = setting("cpu", "where torch computes; ONNX files run on the processor")
    seed: int = setting(0, "seed of weights and images", low=0, high=2**32 - 1)
    out: str | None = setting(None, "also write the result document to this JSON file")


@dataclass(frozen=True)
class EvaluateConfig(ModelFacts):
    """All settings of `nayer eval`. The facts of a model hold for all of `models`; weights for one alone."""

    models: tuple[str, ...] = setting((), "classifiers to measure: each is anything that teacher.name takes")
    data: str = setting(
        "", "a built-in set, an image folder, a tar of one, an .npz, or timm's dataset name (NAME@ROOT)"
    )
    split: str = setting("validation", "which part of the data")
    reference: ModelConfig = field(default_factory=ModelConfig)
    batch_size: int = setting(250, "images per batch", low=1)
    limit: int | None = setting(None, "most images used, evenly spaced through the data", low=1)
    min_top1: float | None = setting(None, "gate: lowest top-1 accuracy allowed, as a fraction", low=0, high=1)
    max_drop: float | None = setting(
        None, "gate: largest drop allowed from the reference's top-1 to a model's, as a fraction", low=0, high=1
    )
    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    seed: int = setting(0, "seed of the weights that a model starts with", low=0, high=2**32 - 1)
    out: str | None = setting(None, "also write the result document to this JSON file")
