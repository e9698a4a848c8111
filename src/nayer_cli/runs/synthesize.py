"""Images for a classifier alone: no run, no student, no data."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from nayer_cli import __version__, plugins
from nayer_cli import config as configuration
from nayer_cli.classifiers.model import Classifier
from nayer_cli.config import DistillConfig, EvalConfig, QuantizeConfig, QuantizerConfig, SampleConfig
from nayer_cli.critic import Critic
from nayer_cli.errors import InputError, did_you_mean
from nayer_cli.images.pictures import described
from nayer_cli.live_settings import STEPS
from nayer_cli.machine.distributed import Group
from nayer_cli.method import EMBEDDINGS, LoopState, Method
from nayer_cli.runs import assemble, makers, models, rounds, sampling
from nayer_cli.runs.image_set import ImageSet, Source, check_channels
from nayer_cli.runs.sizing import follow_memory, tell
from nayer_cli.storage.checkpoint import digest
from nayer_cli.storage.files import check_writable
from nayer_cli.storage.runlog import RunLog
from nayer_cli.types import ImageShape

OUTPUT_TERM = 100.0
"""Weight of the cross-entropy to drawn classes, where a method has that term and leaves it out by default."""
COMMAND = "quantize"
"""The command whose presets say how images that only calibrate are made."""


def without_run(config: SampleConfig, log: RunLog) -> Source:
    """Make the images that `config` asks for by its model, or as many as come.

    Raises:
        InputError: the model cannot be loaded, or the method makes no images for it.
        RunFailed: no image could be made.

    """
    teacher = _load(config)
    if sampling.has_manifest(config):
        check_channels(sampling.format_of(config), teacher.shape.channels)
    _check_place(config)
    run = DistillConfig(seed=config.seed, device=config.device)
    machine = assemble.new_machine(run)
    critic = makers.critic(teacher, machine, log)
    settings = _within_memory(config, _method_settings(config, teacher, critic), teacher, log)
    embeddings = torch.empty(teacher.num_classes, 0)
    parts = makers.parts(critic, embeddings, teacher.shape, machine, settings.batch, run.augment)
    method: Method = plugins.part("methods", settings.name, "Method")(settings, parts)
    if method.needs_student or method.uses_names == EMBEDDINGS:
        raise InputError(f"the method {settings.name} needs more than a model", hint="choose another --method")
    names = teacher.labels or tuple(map(str, range(teacher.num_classes)))
    total = total_of(config, names)
    wanted = class_indices(config.classes, names) if sampling.asks_for_classes(config) else None
    log.note(_plan(teacher, method, settings, total))
    state = LoopState(warmup_epochs=1)  # in warm-up nothing asks the student
    images, labels = rounds.make(method, rounds.NoStudent(), state, wanted, total, _teller(log, total))
    about = {"source": "model", **about_model(teacher), "method": asdict(settings)}
    about |= {"seed": config.seed, "device": str(machine.device), "nayer": __version__}
    return Source(ImageSet(images, labels, names), teacher, about, f"what {settings.name} makes for '{teacher.name}'")


def about_model(model: Classifier) -> dict[str, Any]:
    """Return what a manifest says of the network that images are for."""
    return {
        "model": model.name,
        "model_sha256": digest(model.network.state_dict()),
        "input_size": list(model.shape),
        "mean": list(model.normalization.mean),
        "std": list(model.normalization.std),
        "preparation": described(model.preparation),
        "num_classes": model.num_classes,
    }


def class_indices(wanted: Sequence[int | str] | None, names: Sequence[str]) -> list[int]:
    """Turn names or indices into indices; nothing means every class."""
    known = {str(k): k for k in range(len(names))} | {name: k for k, name in enumerate(names)}
    words = [str(word) for word in wanted or ()]
    for word in words:
        if word not in known:
            raise InputError(f"there is no class '{word}'{did_you_mean(word, names)}", hint="name it, or its index")
    return sorted({known[word] for word in words}) or list(range(len(names)))


def total_of(config: SampleConfig, names: Sequence[str]) -> int:
    """Return how many images are asked for."""
    return config.per_class * len(class_indices(config.classes, names)) if config.per_class else config.count


def _load(config: SampleConfig) -> Classifier:
    out = f"--out {config.out}" if config.out else f"--grid {config.grid}"
    teacher = models.load(config.model, models.SAMPLED, rest=out)
    if teacher.scheme is not None:
        raise InputError(f"'{teacher.name}' is quantized", hint="name the float model that it was made from")
    return teacher


def _check_place(config: SampleConfig) -> None:
    """Make sure before minutes of work that files can be made where they shall lie."""
    place = Path(config.grid or sampling.place_of(config)).absolute()
    check_writable(next(parent for parent in place.parents if parent.is_dir()))


def _method_settings(config: SampleConfig, teacher: Classifier, critic: Critic) -> Any:
    """Return the settings of the method: those given, over those that the preset for such images has."""
    name = str(config.method["name"])
    if name == sampling.AUTO:
        name = sampling.USUAL if critic.has_statistics else sampling.WITHOUT_STATISTICS
    preset = configuration.read_preset(preset_for(teacher.num_classes, teacher.shape), name, COMMAND)
    layer = {key.removeprefix("method."): value for key, value in preset.items() if key.startswith("method.")}
    found = assemble.method_config(layer | config.method | {"name": name})
    # Other tools quantize the outputs, too, and no BatchNorm says how far these reach.
    return replace(found, ce=OUTPUT_TERM) if getattr(found, "ce", None) == 0 and "ce" not in config.method else found


def _within_memory(config: SampleConfig, settings: Any, teacher: Classifier, log: RunLog) -> Any:
    """Return the settings of the method with rounds, and a generator, that keep within the memory."""
    calibrates = QuantizeConfig(
        device=config.device,
        memory_gb=config.memory_gb,
        method=asdict(settings),
        quantizer=QuantizerConfig(mode="ptq"),
        eval=EvalConfig(batch_size=1),  # nothing is measured
    )
    given = {f"method.{key}": value for key, value in config.method.items()}
    fitted, *said = follow_memory(calibrates, given, teacher, teacher, Group(), images=config.count)
    tell(log, *said)
    return assemble.method_config(fitted.method)


def preset_for(classes: int, shape: ImageShape) -> str:
    """Return the name of the preset that says how images that only calibrate are made."""
    name = assemble.preset_for(classes, shape)
    return assemble.PTQ if name == "imagenet" else name


def _plan(teacher: Classifier, method: Method, settings: Any, total: int) -> str:
    size, steps = "×".join(map(str, teacher.shape)), getattr(settings, STEPS, None)
    of, count = f", {steps} steps each" if steps else "", math.ceil(total / method.batch)
    return (
        f"making {total} images of {size} for '{teacher.name}' by {settings.name}: "
        f"{count} round{'s' if count > 1 else ''} of {method.batch}{of}"
    )


def _teller(log: RunLog, total: int) -> Callable[[int], None]:
    started = time.monotonic()

    def tell(have: int) -> None:
        left = (time.monotonic() - started) * (total - have) / have / 60 if have else math.nan
        rest = f", about {left:.1f} minutes left" if left > 0 else ""
        log.note(f"{have} of {total} images{rest}")

    return tell
