"""Settings without torch: one default, one unit, one sentence each; layers of dotted keys become dataclasses.

A layer is a flat mapping such as `{"schedule.epochs": 100, "method.adv": 1.33}`. Precedence, lowest first: defaults
below, preset, configuration file, `NAYER_*` variables, command line.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from nayer_cli import plugins
from nayer_cli.errors import ConfigError, InputError, did_you_mean

Layer = dict[str, Any]
C = TypeVar("C")

PRESETS = Path(__file__).parent / "presets"


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare a dataclass field: its default, its sentence (with the unit), and the values it admits."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class ModelConfig:
    """A classifier to load or to create."""

    name: str = setting("", "a timm name, hf-hub:ORG/REPO, local-dir:DIR, a run directory, or py:package.module:factory")
    weights: str | None = setting(None, "weights file (safetensors, or a torch checkpoint read without pickled code)")
    num_classes: int | None = setting(None, "number of classes, if the checkpoint does not tell", low=2)
    input_size: int | None = setting(None, "image side in pixels, if the checkpoint does not tell", low=4)
    channels: int | None = setting(None, "image channels, if the checkpoint does not tell", low=1)
    mean: tuple[float, ...] | None = setting(None, "normalization mean per channel, for images in [0, 1]")
    std: tuple[float, ...] | None = setting(None, "normalization standard deviation per channel, for images in [0, 1]")


@dataclass(frozen=True)
class LteConfig:
    """The pool of label-text embeddings."""

    file: str | None = setting(None, "a ready-made pool (safetensors); otherwise found in the cache or built")
    labels: str | None = setting(None, "class names: a text file, or a known set; default: the names the teacher carries")
    encoder: str = setting("clip", "text encoder: clip, sbert, a sentence-transformers name or folder, or a control")
    prompt: str = setting("p2", "template with {name} and {index}, or p1, p2, p3 of the paper")
    dedupe: str = setting("error", "what to do with equal class names", choices=("error", "index"))
    cache_dir: str | None = setting(None, "folder of the cache; default: $XDG_CACHE_HOME/nayer")


@dataclass(frozen=True)
class BankConfig:
    """The memory bank."""

    capacity: int | None = setting(None, "images kept at most; default: every image of the run", low=1)
    policy: str = setting("fifo", "which image goes when the bank is full", choices=("fifo", "reservoir"))
    place: str = setting(
        "auto", "memory of the training device, of the host, or a file", choices=("auto", "device", "host", "disk")
    )
    budget_gb: float = setting(8.0, "with place=auto, GB of memory above which the bank goes to a file", low=0)


@dataclass(frozen=True)
class ScheduleConfig:
    """How much of what. Epochs of warm-up come before, and are not counted in, `epochs`."""

    epochs: int = setting(100, "epochs in which the student learns", low=0)
    warmup_epochs: int = setting(20, "epochs of synthesis alone, before the student starts", low=0)
    cycles: int = setting(1, "times per epoch that synthesis and student steps alternate", low=1)
    rounds: int = setting(2, "rounds of synthesis per cycle", low=0)
    warmup_rounds: int = setting(10, "rounds of synthesis per warm-up epoch", low=0)
    kd_steps: int = setting(400, "student steps per cycle", low=0)
    batch_size: int = setting(512, "images per student step", low=2)


@dataclass(frozen=True)
class OptimizerConfig:
    """The student's optimizer; the learning rate follows a cosine over the epochs after warm-up."""

    name: str = setting("sgd", "optimizer", choices=("sgd", "adam"))
    lr: float = setting(0.2, "learning rate at the start", low=0)
    lr_min: float = setting(2e-4, "learning rate at the end of the cosine", low=0)
    momentum: float = setting(0.9, "SGD momentum", low=0, high=1)
    weight_decay: float = setting(1e-4, "L2 penalty on the weights", low=0)


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of each image, on the device, when the student or the teacher sees it."""

    pad: int | None = setting(None, "random crop after zero padding by so many pixels; default: an eighth of the side", low=0)
    flip: bool = setting(True, "random horizontal flip")


@dataclass(frozen=True)
class EvalConfig:
    """Data that measures, and never trains."""

    data: str | None = setting(None, "a built-in set, an image folder, a tar of one, an .npz, or timm's dataset name")
    split: str = setting("validation", "which part of the data")
    every: int = setting(10, "epochs between measurements", low=1)
    batch_size: int = setting(250, "images per batch", low=1)
    min_top1: float | None = setting(None, "gate: least top-1 accuracy of the student, as a fraction", low=0, high=1)
    max_drop: float | None = setting(None, "gate: most top-1 that the student may lose to the teacher", low=0, high=1)


@dataclass(frozen=True)
class OutputConfig:
    """What a run leaves on disk."""

    out: str | None = setting(None, "run directory; default: runs/TIME-TEACHER-STUDENT")
    save_every: int = setting(1, "epochs between checkpoints", low=1)
    keep: int = setting(2, "checkpoints kept", low=1)
    sample_every: int = setting(10, "epochs between sample grids; 0 for none", low=0)
    tensorboard: bool = setting(False, "also write TensorBoard events")


@dataclass(frozen=True)
class RunConfig:
    """Settings that `distill` and `train` have in common."""

    seed: int = setting(0, "seed of every random generator", low=0, high=2**32 - 1)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    amp: str = setting("auto", "precision of the networks: bfloat16 where it pays", choices=("auto", "off", "bf16"))
    student: ModelConfig = field(default_factory=ModelConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    output: OutputConfig = field(default_factory=OutputConfig)


@dataclass(frozen=True)
class DistillConfig(RunConfig):
    """Everything `nayer distill` can be told."""

    preset: str = setting("auto", "hyper-parameters of the paper for a data set; auto goes by classes and image size")
    teacher: ModelConfig = field(default_factory=ModelConfig)
    lte: LteConfig = field(default_factory=LteConfig)
    bank: BankConfig = field(default_factory=BankConfig)
    # The chosen method owns these settings: they are checked against its own `Config`.
    method: dict[str, Any] = field(default_factory=lambda: {"name": "nayer"})


def parse_assignment(text: str) -> tuple[str, Any]:
    """Read `key=value` with a TOML value; a value that is not TOML is taken as a string.

    Raises:
        ConfigError: there is no `=`.
    """
    key, found, value = text.partition("=")
    if not found or not key.strip():
        raise ConfigError(f"cannot read '{text}' as KEY=VALUE", hint="for example: --set method.adv=1.33")
    try:
        return key.strip(), tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def read_file(path: Path) -> Layer:
    """Read a TOML file into a layer.

    Raises:
        ConfigError: the file is missing or not TOML.
    """
    try:
        with path.open("rb") as file:
            return dict(flatten(tomllib.load(file)))
    except OSError as error:
        raise ConfigError(f"cannot read configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def preset_names() -> list[str]:
    """Names of the presets that ship with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def read_preset(name: str, method: str) -> Layer:
    """Read a preset: its general settings, overlaid with its table for `method`.

    Raises:
        ConfigError: no such preset.
    """
    if name not in preset_names():
        raise ConfigError(
            f"no preset is called '{name}'{did_you_mean(name, preset_names())}",
            hint=f"choose one of: auto, {', '.join(preset_names())}",
        )
    with (PRESETS / f"{name}.toml").open("rb") as file:
        document = tomllib.load(file)
    of_method = {key: document.pop(key) for key in plugins.names("methods") if key in document}
    return dict(flatten(document)) | dict(flatten(of_method.get(method, {})))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values of nested tables."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def unflatten(layer: Layer) -> dict[str, Any]:
    """Turn dotted keys into nested tables."""
    tree: dict[str, Any] = {}
    for key, value in layer.items():
        *tables, last = key.split(".")
        node = tree
        for table in tables:
            node = node.setdefault(table, {})
            if not isinstance(node, dict):
                raise ConfigError(f"setting '{table}' is not a table, so '{key}' cannot be set")
        node[last] = value
    return tree


def build(config_class: type[C], layer: Layer, prefix: str = "") -> C:
    """Check `layer` against the dataclass and make it; keys are named with `prefix` in messages.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type or is out of range.
    """
    return _build(config_class, unflatten(layer), prefix, keys(config_class, prefix))


def keys(config_class: type, prefix: str = "") -> list[str]:
    """All dotted keys of a configuration class, in order."""
    return [key for key, _ in describe(config_class, prefix)]


def describe(config_class: type, prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each dotted key with its `help`, `low`, `high`, `choices`, `default` and `type`."""
    hints = get_type_hints(config_class)
    for item in fields(config_class):
        if is_dataclass(hints[item.name]):
            yield from describe(hints[item.name], f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", {**item.metadata, "default": item.default, "type": hints[item.name]}


def _build(config_class: type[C], tree: Mapping[str, Any], prefix: str, known: list[str]) -> C:
    hints = get_type_hints(config_class)
    own = {item.name: item for item in fields(config_class)}  # type: ignore[arg-type]
    for name in tree:
        if name not in own:
            raise ConfigError(
                f"unknown setting '{prefix}{name}'{did_you_mean(prefix + name, known)}",
                hint="docs/settings.md lists every setting",
            )
    values = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"'{key}' is a table of settings, not a value", hint=f"set {key}.NAME=VALUE")
            base = own[name].default_factory
            defaults = vars(base()) if base is not MISSING else {}
            values[name] = _build(hints[name], {**_plain(defaults), **value}, f"{key}.", known)  # type: ignore[arg-type]
        else:
            values[name] = _check(key, value, hints[name], own[name].metadata)
    return config_class(**values)


def _plain(defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in defaults.items() if value is not None}


def _check(key: str, value: Any, hint: Any, limits: Mapping[str, Any]) -> Any:
    """Return `value` as the annotated type, or say what is wrong with it."""
    wanted = _strip_optional(hint)
    if value is None and wanted is not hint:
        return None
    value = _coerce(key, value, wanted)
    low, high, choices = limits.get("low"), limits.get("high"), limits.get("choices")
    if choices and value not in choices:
        raise ConfigError(
            f"{key} = {value!r} is not possible{did_you_mean(str(value), choices)}",
            hint=f"choose one of: {', '.join(choices)}",
        )
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ConfigError(f"{key} = {value!r} is out of range: it must be {bounds}")
    return value


def _strip_optional(hint: Any) -> Any:
    if get_origin(hint) is UnionType:
        return next(part for part in get_args(hint) if part is not NoneType)
    return hint


def _coerce(key: str, value: Any, wanted: Any) -> Any:
    if get_origin(wanted) is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_coerce(key, item, get_args(wanted)[0]) for item in items)
    if get_origin(wanted) is dict:
        return dict(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and wanted in (int, float, bool):
        _, value = parse_assignment(f"{key}={value}")
        if not isinstance(value, str):
            return _coerce(key, value, wanted)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise ConfigError(f"{key} = {value!r} is not a value of type {wanted.__name__}")
    return value


def to_layer(config: Any, prefix: str = "") -> Layer:
    """Flatten a built configuration back to dotted keys; unset (None) settings are left out."""
    layer: Layer = {}
    for name, value in vars(config).items():
        if is_dataclass(value):
            layer |= to_layer(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            layer |= dict(flatten(value, f"{prefix}{name}."))
        elif value is not None:
            layer[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return layer


def to_toml(layer: Layer) -> str:
    """Write a layer as TOML with one table per section, readable by `read_file`."""
    tree = unflatten(layer)
    lines = [_toml_line(key, value) for key, value in tree.items() if not isinstance(value, dict)]
    for table, items in tree.items():
        if isinstance(items, dict):
            lines += ["", f"[{table}]", *(_toml_line(key, value) for key, value in items.items())]
    return "\n".join(lines) + "\n"


def _toml_line(key: str, value: Any) -> str:
    if isinstance(value, float) and value != value:  # NaN is never a sensible setting
        raise InputError(f"setting {key} is not a number")
    # JSON's strings, numbers, booleans and arrays of them are TOML's too.
    return f"{key} = {json.dumps(value, ensure_ascii=False)}"
