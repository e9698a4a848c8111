"""The composition root: settings in, the parts of a run out. The only place that unpacks configuration."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from nayer_cli import config as configuration
from nayer_cli import plugins
from nayer_cli.augment import Augment
from nayer_cli.bank import MemoryBank
from nayer_cli.budget import FLOP, IMAGES, Budget, parse_budget
from nayer_cli.classifiers.model import Classifier, Normalized
from nayer_cli.config import (
    DEFAULT_METHOD,
    AugmentConfig,
    BankConfig,
    DistillConfig,
    EvalConfig,
    LteConfig,
    RunConfig,
    ScheduleConfig,
)
from nayer_cli.critic import layers_with_statistics
from nayer_cli.engine import Plan
from nayer_cli.errors import ConfigError, InputError
from nayer_cli.images.labelled import LabelledImages, open_images
from nayer_cli.live_settings import BATCH
from nayer_cli.lte.labels import check_names, read_labels
from nayer_cli.lte.pool import load_pool
from nayer_cli.machine import precision
from nayer_cli.machine.device import resolve_device
from nayer_cli.machine.distributed import Group
from nayer_cli.machine.precision import Precision
from nayer_cli.machine.rng import Streams
from nayer_cli.method import EMBEDDINGS
from nayer_cli.quant.graph import quantizers
from nayer_cli.runs import models
from nayer_cli.storage.presets import has_table
from nayer_cli.storage.runlog import RunLog
from nayer_cli.student import Student
from nayer_cli.types import ImageShape, Settings

FREE_SHARE = 0.5  # of the free memory of a device, that a bank may take where its place is left open
PTQ = "imagenet-ptq"
"""The preset for large images that are only made to choose quantization steps."""
LAPTOP = "laptop"  # the preset for processors
HOLDOUT = 1000  # images kept from the student where there is no evaluation data


@dataclass(frozen=True)
class Machine:
    """Device, precision and layout of a run."""

    device: torch.device
    precision: Precision
    rng: Streams
    group: Group = field(default_factory=Group)
    layout: torch.memory_format = torch.channels_last
    compiled: bool = False


def new_machine(config: RunConfig, group: Group | None = None) -> Machine:
    """Choose device, precision and layout, and seed every random generator."""
    group = group or Group()
    device = resolve_device(config.device)
    if device.index is not None:
        torch.cuda.set_device(device)  # or every process would also take memory of the first one
    torch.manual_seed(config.seed + group.rank)
    return Machine(
        device,
        precision.choose(config.amp, device),
        Streams(config.seed, device, group.rank),
        group,
        # Measured on a CPU: channels-last pays in every precision (docs/project/benchmarks.md).
        torch.contiguous_format if config.channels_last == "off" else torch.channels_last,
        config.compile == "on",
    )


C = TypeVar("C", bound=DistillConfig)


def resolve(settings: Settings, schema: type[C], command: str) -> tuple[C, Classifier]:
    """Lay `settings` (dotted keys) over a preset and check them; load the teacher, which decides the preset `auto`.

    Args:
        settings: dotted keys of `schema`.
        schema: the configuration class of the command.
        command: what presets call it.

    Raises:
        ConfigError: a setting is unknown or out of range.
        InputError: the teacher cannot be loaded.

    """
    given = {key: value for key, value in settings.items() if value is not None}
    preset = str(given.get("preset", "auto"))
    calibrates = command == "quantize" and _only_calibrates(given)
    method = _method_of(PTQ if calibrates and preset == "auto" else preset, given, command)
    method_config({"name": method} | {key[7:]: value for key, value in given.items() if key.startswith("method.")})
    teacher = None
    if preset == "auto" and given.get("teacher.name"):
        teacher = _teacher(configuration.build(schema, given | {"method.name": method}), command, given)
        # The preset stays `auto` in the settings that are written down: under its name it would bring its facts, too.
        device = resolve_device(str(given.get("device", "auto")))
        name = automatic_preset(teacher, method, command, device, calibrates)
        method = _method_of(name, given, command)
        layer = _hyper_parameters(configuration.read_preset(name, method, command))
    else:
        preset = "digits" if preset == "auto" else preset
        layer = configuration.read_preset(preset, method, command)
    config = configuration.build(schema, layer | given | {"preset": preset, "method.name": method})
    config = replace(config, method=vars(method_config(config.method)))
    return _named(config, teacher or _teacher(config, command, given), given)


def _teacher(config: DistillConfig, command: str, given: Settings) -> Classifier:
    """Load the teacher with the class names that the user gives, if any."""
    role = models.TEACHERS[command]
    spec, labels = config.teacher, given.get("lte.labels")
    if spec.labels and labels and spec.labels != labels:
        raise ConfigError(
            f"the classes are named twice: by {spec.labels} and by {labels}", hint="leave out one of them"
        )
    needs_names = not config.lte.file and uses_of_names(config) == EMBEDDINGS
    student = f"--student {config.student.name or 'resnet18'}" if command == "distill" else ""
    return models.load(replace(spec, labels=spec.labels or labels), role, rest=student, needs_names=needs_names)


def _named(config: C, teacher: Classifier, given: Settings) -> tuple[C, Classifier]:
    """Choose the names of the teacher's classes if the user gave none: its own, or else those of a preset.

    A preset may word the same classes in another way; those that the LTE file carries come last.
    """
    labels = config.lte.labels
    if given.get("lte.labels"):
        return config, teacher
    if config.teacher.labels:
        return replace(config, lte=replace(config.lte, labels=None)), teacher
    if labels and (teacher.labels is None or models.are_same_classes(read_labels(labels, "index"), teacher.labels)):
        return config, models.named(teacher, labels)
    if teacher.labels is None and config.lte.file:
        pool = load_pool(Path(config.lte.file))
        teacher = replace(teacher, labels=pool.names if pool.encoder != "unknown" else None)
    return replace(config, lte=replace(config.lte, labels=None)), teacher


TEXT = ("lte.file", "lte.encoder", "lte.prompt")


def unused_text(settings: Settings, config: DistillConfig) -> str:
    """Say which settings about text are given to a method that uses none; empty if there is nothing to say."""
    given = [key for key in TEXT if settings.get(key) is not None]
    if not given or uses_of_names(config) == EMBEDDINGS:
        return ""
    change = "changes" if len(given) == 1 else "change"
    return f"the method {config.method['name']} uses no text, so {' and '.join(given)} {change} nothing"


def uses_of_names(config: DistillConfig) -> str:
    """Return what the method uses of the class names: `uses_names` of its settings, or else of its `Method`."""
    method = plugins.part("methods", str(config.method["name"]), "Method")
    found: str = getattr(method_config(config.method), "uses_names", method.uses_names)
    return found


def method_config(settings: Settings, group: Group | None = None) -> Any:
    """Check the settings of a method against its own `Config`, and make that; `batch` becomes the process's part."""
    config_class = plugins.part("methods", settings["name"], "Config")
    config = configuration.build(config_class, dict(settings), "method.")
    if group and (batch := getattr(config, BATCH, None)):
        return replace(config, **{BATCH: group.share(batch, f"method.{BATCH}")})
    return config


def automatic_preset(
    teacher: Classifier, method: str, command: str, device: torch.device, calibrates: bool = False
) -> str:
    """Name of the preset that is used where none is named: on a processor the paper's would take days.

    Where images only calibrate a network with BatchNorm, minutes are enough for large ones anywhere.
    """
    side = max(teacher.shape.height, teacher.shape.width)
    if calibrates and side > 96 and layers_with_statistics(teacher.network):
        return PTQ
    is_small = 32 <= side <= 64
    if command == "distill" and device.type == "cpu" and is_small and has_table(LAPTOP, method):
        return LAPTOP
    return preset_for(teacher.num_classes, teacher.shape)


def preset_for(classes: int, shape: ImageShape) -> str:
    """Name of the preset whose data set is nearest to a teacher's number of classes and image size."""
    side = max(shape.height, shape.width)
    if side > 96:
        return "imagenet"
    if side > 48:
        return "tiny-imagenet"
    return "cifar10" if classes <= 20 else "cifar100"


def _only_calibrates(given: Settings) -> bool:
    """Say whether steps are chosen and nothing learns: it is asked for, or eight bits are, and nothing else."""
    if given.get("quantizer.mode"):
        return bool(given["quantizer.mode"] == "ptq")
    learning = ("schedule.", "optimizer.", "method.", "reuse", "quantizer.bn")
    return str(given.get("quantizer.bits", "w8a8")).lower() == "w8a8" and not any(
        key.startswith(learning) for key in given
    )


def _method_of(preset: str, given: Settings, command: str) -> str:
    """Return the method that is named, or that of a preset."""
    if name := given.get("method.name"):
        return str(name)
    of_preset = {} if preset == "auto" else configuration.read_preset(preset, DEFAULT_METHOD, command)
    return str(of_preset.get("method.name") or DEFAULT_METHOD)


def _hyper_parameters(preset: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out models, names and data: a preset chosen by size says nothing about which data set it is."""
    facts = ("teacher.", "student.", "lte.", "eval.data", "eval.split")
    return {key: value for key, value in preset.items() if not key.startswith(facts)}


def budget(config: RunConfig) -> Budget | None:
    """Return what the run may use, if that is limited.

    Raises:
        ConfigError: the text is not a budget, or what it counts cannot be counted.

    """
    if config.schedule.budget is None:
        return None
    found = parse_budget(config.schedule.budget)
    if found.counts == FLOP and config.compile == "on":
        raise ConfigError(
            "operations of compiled networks are not counted", hint="leave out --compile, or give a budget of images"
        )
    return found


def plan(schedule: ScheduleConfig, given: int = 0, budget: Budget | None = None) -> Plan:
    """Take the engine's plan out of the settings, for a run that has `given` images to begin with.

    Raises:
        ConfigError: no image would ever be made, or a budget never be used.

    """
    epochs, per_epoch = schedule.epochs, schedule.cycles * schedule.kd_steps * schedule.batch_size
    if budget and not per_epoch:
        raise ConfigError("without student steps nothing uses the budget", hint="set schedule.kd_steps to 1 or more")
    if budget and budget.counts == IMAGES:
        epochs = math.ceil(budget.amount / per_epoch)  # for the size of the bank
    made = Plan(
        epochs=epochs,
        warmup_epochs=schedule.warmup_epochs,
        cycles=schedule.cycles,
        rounds=schedule.rounds,
        warmup_rounds=schedule.warmup_rounds,
        kd_steps=schedule.kd_steps,
        max_skipped=schedule.max_skipped,
        budget=budget,
    )
    if not made.images(1) and not given:
        raise ConfigError("this schedule makes no images", hint="set schedule.rounds and schedule.epochs to 1 or more")
    return made


def model(classifier: Classifier, machine: Machine) -> Normalized:
    """Wrap a network so that it takes images in [0, 1], on the device, in the machine's layout."""
    wrapped = Normalized(classifier.network, classifier.normalization, machine.precision)
    wrapped.to(machine.device).to(memory_format=machine.layout)
    if machine.compiled:
        wrapped.network.compile()
    return wrapped


def student(network: nn.Module, config: RunConfig, machine: Machine) -> Student:
    """Give the student's network its optimizer."""
    optimizer = config.optimizer
    return Student(
        network.train(),
        optimizer=optimizer.name,
        lr=optimizer.lr,
        lr_min=optimizer.lr_min,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        undecayed=[quantizer.scale for _, quantizer in quantizers(network)],
        precision=machine.precision,
        group=machine.group,
    )


def augment(settings: AugmentConfig, shape: ImageShape) -> Augment:
    """Crop by an eighth of the side unless a setting says otherwise."""
    pad = min(shape.height, shape.width) // 8 if settings.pad is None else settings.pad
    return Augment(pad, settings.flip)


def class_names(lte: LteConfig, teacher: Classifier, *, needed: bool = True) -> tuple[str, ...] | None:
    """Names of the teacher's classes: those of `--labels`, or its own; None if there are none and none are needed.

    Raises:
        InputError: there are none, not as many as the teacher has outputs, or one is not a name.

    """
    names = read_labels(lte.labels, lte.dedupe) if lte.labels else teacher.labels
    if names is None and needed:
        raise InputError(
            f"the teacher '{teacher.name}' does not carry class names",
            hint="give them with --labels FILE, one name a line in index order",
        )
    if names is not None:
        check_names(names, teacher.num_classes, teacher.name, lte.labels or f"the checkpoint of '{teacher.name}'")
    return names


def bank(settings: BankConfig, planned: int, shape: ImageShape, machine: Machine, folder: Path) -> MemoryBank:
    """Make an empty bank for this process's part of the images, of which `planned` are planned."""
    size = machine.group.size
    capacity = max(min(-(-settings.capacity // size) if settings.capacity else planned, planned), 1)
    size = capacity * shape.channels * shape.height * shape.width
    place = settings.place
    if place == "auto":
        place = _place(size, settings.budget_gb * 1e9, machine.device)
    file = None
    if place == "disk":
        file = folder / (f"bank-{machine.group.rank:04d}.mmap" if machine.group.size > 1 else "bank.mmap")
    device = machine.device if place == "device" else torch.device("cpu")
    return MemoryBank(capacity, shape, policy=settings.policy, device=device, file=file)


def _place(size: int, budget: float, device: torch.device) -> str:
    if device.type == "cuda" and size <= FREE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    return "host" if size <= budget else "disk"


def evaluation_data(
    settings: EvalConfig,
    classifier: Classifier,
    names: tuple[str, ...] | None,
    group: Group,
    log: RunLog | None = None,
) -> LabelledImages | None:
    """Open this process's part of the evaluation data, if there is any; say so if its order is assumed.

    Raises:
        ConfigError: a gate is set, but there is nothing to measure it on.

    """
    if settings.data is None:
        if settings.min_top1 is not None or settings.max_drop is not None:
            raise ConfigError("--min-top1 and --max-drop need evaluation data", hint="add --eval-data")
        return None
    data = open_images(
        settings.data,
        split=settings.split,
        shape=classifier.shape,
        class_names=names,
        num_classes=classifier.num_classes,
        part=(group.rank, group.size),
        preparation=classifier.preparation,
    )
    if log and (assumption := models.assumption(replace(classifier, labels=names), data)):
        log.note(assumption, level="warning")
    return data
