"""All settings, without torch: one default, one unit, one sentence each.

Precedence, lowest first: defaults below, preset, configuration file, `NAYER_*` variables, command line.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from nayer_cli.model_settings import BenchConfig as BenchConfig
from nayer_cli.model_settings import EvaluateConfig as EvaluateConfig
from nayer_cli.model_settings import ModelConfig as ModelConfig
from nayer_cli.model_settings import ModelFacts as ModelFacts
from nayer_cli.model_settings import OnnxConfig as OnnxConfig
from nayer_cli.schema import build as build
from nayer_cli.schema import check as check
from nayer_cli.schema import describe as describe
from nayer_cli.schema import keys as keys
from nayer_cli.schema import setting as setting
from nayer_cli.schema import to_layer as to_layer
from nayer_cli.storage.presets import preset_names as preset_names
from nayer_cli.storage.presets import read_preset as read_preset
from nayer_cli.storage.toml import Layer as Layer
from nayer_cli.storage.toml import read_file as read_file
from nayer_cli.storage.toml import to_toml as to_toml

DEFAULT_METHOD = "nayer"
MEMORY = (
    "memory limit in GB on a CPU, to which batches and generator are fitted;"
    " default: 4 for images above 96 pixels, otherwise no limit"
)


@dataclass(frozen=True)
class LteConfig:
    """The pool of label-text embeddings."""

    file: str | None = setting(
        None, "a ready-made pool of label-text embeddings (safetensors); default: from the cache, or built"
    )
    labels: str | None = setting(None, "class names: a text file, or a known set; default: the teacher's own")
    encoder: str = setting(
        "clip",
        "text encoder: clip, sbert, a sentence-transformers name or folder, or a control (random, index, onehot)",
    )
    prompt: str = setting("p2", "prompt: a template with {name} and {index}, or p1, p2, p3 of the paper")
    dedupe: str = setting(
        "error", "what to do with equal class names: refuse them, or append the class index", choices=("error", "index")
    )
    cache_dir: str | None = setting(None, "folder of the cache; default: $XDG_CACHE_HOME/nayer")


@dataclass(frozen=True)
class EmbedConfig(LteConfig):
    """All settings of `nayer embed`. A ready-made `file` is checked, and copied to `out`."""

    out: str | None = setting(None, "file of the pool; default: an entry of the cache")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    seed: int = setting(0, "seed of every random generator; pools do not depend on it", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class BankConfig:
    """The memory bank."""

    capacity: int | None = setting(None, "most images kept; default: every image of the run", low=1)
    policy: str = setting(
        "fifo", "which image leaves when the bank is full: the oldest, or one at random", choices=("fifo", "reservoir")
    )
    place: str = setting(
        "auto",
        "where images are kept: in the training device's memory, in the host's, or in a file",
        choices=("auto", "device", "host", "disk"),
    )
    budget_gb: float = setting(
        8.0,
        "with place=auto, GB of host memory for a bank that does not fit on the device; a larger one goes to a file",
        low=0,
    )


@dataclass(frozen=True)
class StepsConfig:
    """The length of the student's learning."""

    epochs: int = setting(100, "epochs in which the student learns", low=0)
    budget: str | None = setting(
        None,
        "what the run may use, instead of a number of epochs: time (20m, or 20cpu-m of processor time), student images"
        " (450000images) or operations (2e15flop)",
    )
    batch_size: int = setting(512, "images per student step, over all processes together", low=2)
    max_skipped: int = setting(
        20, "steps per epoch that may be skipped because a loss or a gradient is not finite", low=0
    )


@dataclass(frozen=True)
class ScheduleConfig(StepsConfig):
    """The lengths of all phases. Epochs of warm-up come before `epochs`, and are not counted in them.

    The defaults are plain. Presets have what each method needs, under its name.
    """

    warmup_epochs: int = setting(0, "epochs that only make images, before the student starts", low=0)
    cycles: int = setting(1, "times per epoch that rounds and student steps alternate", low=1)
    rounds: int = setting(1, "rounds per cycle; each makes a batch of images", low=0)
    warmup_rounds: int = setting(10, "rounds per warm-up epoch", low=0)
    kd_steps: int = setting(400, "student steps per cycle", low=0)


@dataclass(frozen=True)
class OptimizerConfig:
    """The student's optimizer; the learning rate follows a cosine over the epochs after warm-up."""

    name: str = setting("sgd", "optimizer", choices=("sgd", "adam"))
    lr: float = setting(0.2, "learning rate at the start", low=0)
    lr_min: float = setting(2e-4, "learning rate at the end of the cosine", low=0)
    inherited: float = setting(
        1.0, "factor on lr for a student that begins with most of its parameters from its teacher", above=0
    )
    momentum: float = setting(0.9, "SGD momentum", low=0, high=1)
    weight_decay: float = setting(1e-4, "L2 penalty on the weights", low=0)


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of each image, on the device, when the student or the teacher sees it."""

    pad: int | None = setting(
        None, "pixels of zero padding before a random crop; default: an eighth of the side", low=0
    )
    flip: bool = setting(True, "random horizontal flip")


@dataclass(frozen=True)
class EvalConfig:
    """Data that measures, and never trains."""

    data: str | None = setting(None, "a built-in set, an image folder, a tar of one, an .npz, or timm's dataset name")
    split: str = setting("validation", "which part of the data")
    every: int = setting(10, "epochs between measurements", low=1)
    synthesis: bool = setting(
        False, "also measure how many steps it takes to make an image, and how much the images of a class differ"
    )
    batch_size: int = setting(250, "images per batch", low=1)
    min_top1: float | None = setting(
        None, "gate: lowest top-1 accuracy allowed for the student, as a fraction", low=0, high=1
    )
    max_drop: float | None = setting(
        None, "gate: largest drop allowed from the teacher's top-1 to the student's, as a fraction", low=0, high=1
    )


@dataclass(frozen=True)
class OutputConfig:
    """The files that a run leaves."""

    out: str | None = setting(None, "run directory; default: runs/TIME-TEACHER-STUDENT")
    save_every: int = setting(1, "epochs between checkpoints", low=1)
    save_minutes: float = setting(15.0, "minutes after which a checkpoint is also written within an epoch", low=0)
    keep: int = setting(2, "checkpoints kept", low=1)
    sample_every: int = setting(10, "epochs between sample grids; 0 for none", low=0)
    tensorboard: bool = setting(False, "also write TensorBoard events")


@dataclass(frozen=True)
class RunConfig:
    """Settings that `distill` and `train` have in common."""

    kind: ClassVar[str] = ""
    """The command, as runs tell it of themselves."""

    seed: int = setting(0, "seed of every random generator", low=0, high=2**32 - 1)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    amp: str = setting(
        "auto",
        "precision of the networks; auto: bfloat16 if the device supports it",
        choices=("auto", "off", "bf16", "fp16"),
    )
    compile: str = setting(
        "auto", "compile the networks with torch.compile; auto: do not", choices=("auto", "off", "on")
    )
    channels_last: str = setting("auto", "channels-last memory layout; auto: on", choices=("auto", "off", "on"))
    memory_gb: float | None = setting(None, MEMORY, above=0)
    student: ModelConfig = field(default_factory=ModelConfig)
    init: str = setting(
        "own",
        "what the student begins with: its own weights (fresh ones, unless its name or a file provides some), those"
        " layers"
        " of its teacher that fit, or auto: its teacher's layers if any fit, otherwise its own weights",
        choices=("own", "teacher", "auto"),
    )
    schedule: StepsConfig = field(default_factory=StepsConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    output: OutputConfig = field(default_factory=OutputConfig)


@dataclass(frozen=True)
class DistillConfig(RunConfig):
    """All settings of `nayer distill`."""

    kind: ClassVar[str] = "distill"

    preset: str = setting(
        "auto", "hyper-parameters of the paper for a data set; auto chooses by classes, image size and device"
    )
    teacher: ModelConfig = field(default_factory=ModelConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    lte: LteConfig = field(default_factory=LteConfig)
    bank: BankConfig = field(default_factory=BankConfig)
    # The chosen method owns these settings: they are checked against its own `Config`.
    method: dict[str, Any] = field(default_factory=lambda: {"name": DEFAULT_METHOD})


@dataclass(frozen=True)
class QuantizerConfig:
    """The rounding of a network, and its learning with it."""

    bits: str = setting("w8a8", "bits of weights and of activations, 2 to 8 each: w4a8 is 4 and 8")
    first_last_bits: int = setting(
        8,
        "bits of the weights of the first and last layer; 0: the same as the others",
        choices=(0, 2, 3, 4, 5, 6, 7, 8),
    )
    edge_bits: int = setting(
        8,
        "bits of the input, of sums, of pooled features and of layers without activation function; 0: the same as"
        " other activations",
        choices=(0, 2, 3, 4, 5, 6, 7, 8),
    )
    weight_range: str = setting(
        "7bit",
        "what to do with 8-bit weights if two products could exceed 16 bits: 7bit keeps them within ±64, u8u8 stores"
        " them"
        " unsigned, full does nothing and gives wrong results on x86 processors without VNNI",
        choices=("7bit", "u8u8", "full"),
    )
    mode: str = setting(
        "qat",
        "qat: let the network learn while rounded; ptq: only choose the steps of the rounding",
        choices=("qat", "ptq"),
    )
    calibration: str = setting(
        "mse",
        "how steps are chosen: by least squared error, without clipping, or without images from BatchNorm alone"
        " (analytic, dfq-nagel)",
        choices=("mse", "minmax", "analytic", "dfq-nagel"),
    )
    images: int = setting(1024, "number of synthetic images for choosing the steps", low=1)
    reconstruct: bool = setting(
        False, "with mode=ptq: also learn roundings and steps on those images, block by block; for fewer than 8 bits"
    )
    reconstruct_steps: int = setting(500, "with reconstruct: training steps for each block", low=1)
    reconstruct_batch: int = setting(16, "with reconstruct: images in each of these steps", low=1)
    bn: str = setting(
        "train",
        "running statistics of BatchNorm: keep learning, stay as they are, or are measured again before and after",
        choices=("train", "freeze", "recalibrate"),
    )


@dataclass(frozen=True)
class ExportConfig:
    """The ONNX file of a quantized model."""

    onnx: str = setting(
        "auto", "write model.onnx and run it; auto: if the extra onnx is installed", choices=("auto", "on", "off")
    )
    storage: str = setting(
        "int8",
        "type of stored weights: int8 runs as integers, int4 makes the file half as large",
        choices=("int8", "int4"),
    )


@dataclass(frozen=True)
class QuantizeConfig(DistillConfig):
    """All settings of `nayer quantize`. The teacher is the float model, its rounded copy the student."""

    kind: ClassVar[str] = "quantize"

    init: str = setting("teacher", "the rounded copy begins with the model's own weights", choices=("teacher",))
    reuse: str | None = setting(None, "run whose images, LTE pool and generator are used again")
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    export: ExportConfig = field(default_factory=ExportConfig)


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """All settings of `nayer train`; the defaults are recipe A, by which the paper's teachers were trained."""

    kind: ClassVar[str] = "train"

    data: str = setting(
        "", "images to learn from: a built-in set, an image folder, a tar of one, an .npz, or timm's name"
    )
    split: str = setting("train", "which part of the data")
    teacher: ModelConfig = field(default_factory=ModelConfig)
    ce: float = setting(1.0, "weight of the cross-entropy to the labels", low=0)
    kl: float = setting(1.0, "with a teacher: weight of the KL divergence from it", low=0)
    temperature: float = setting(4.0, "with a teacher: softmax temperature T of the KL divergence", above=0)
    schedule: StepsConfig = field(default_factory=lambda: StepsConfig(epochs=200, batch_size=256))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=0.1, lr_min=0.0, weight_decay=5e-4))


@dataclass(frozen=True)
class SampleConfig:
    """All settings of `nayer sample`: images of a run, or of a classifier alone."""

    run: str = setting("", "run directory to take images from")
    model: ModelConfig = field(default_factory=ModelConfig)
    # The chosen method owns these settings: they are checked against its own `Config`.
    method: dict[str, Any] = field(default_factory=lambda: {"name": "auto"})
    count: int = setting(100, "images to write; of a run, spread evenly over the classes", low=1)
    per_class: int | None = setting(None, "images to write for each class, instead of `count`", low=1)
    classes: tuple[int | str, ...] | None = setting(None, "only these classes, by name or index; default: all")
    source: str = setting(
        "bank",
        "of a run: images that the student saw (bank), or fresh ones from the generator",
        choices=("bank", "generator"),
    )
    format: str | None = setting(
        None,
        "one array (npz with labels, npy), or PNG files; default: npz with --model, PNG of a run",
        choices=("npz", "npy", "png"),
    )
    values: str | None = setting(
        None,
        "whole numbers from 0 to 255 (pixels), floats from 0 to 1 (unit), or floats as the network takes them; default:"
        " normalized, and pixels in PNG files",
        choices=("pixels", "unit", "normalized"),
    )
    layout: str = setting("nchw", "order of an array's axes", choices=("nchw", "nhwc"))
    out: str | None = setting(None, "a new folder, or a file that ends in .npz or .npy; default: RUN/images")
    grid: str | None = setting(None, "write one picture of all images to this PNG file instead")
    upscale: int = setting(
        1, "factor by which each pixel is enlarged; 1: as it is, or chosen to suit in a grid", low=1, high=64
    )
    seed: int = setting(0, "seed of the choice of images, and of their making", low=0, high=2**32 - 1)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    memory_gb: float | None = setting(None, MEMORY, above=0)
