"""Settings of a classifier: its name, and what its checkpoint does not say. The same in every command."""

from dataclasses import dataclass
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
