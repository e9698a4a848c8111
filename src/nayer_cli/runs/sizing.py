"""Counts the parts of a run, and lets its settings follow the memory of the host (`footprint` has the arithmetic)."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from nayer_cli import plugins
from nayer_cli.classifiers.model import Classifier
from nayer_cli.codes import CODES as CODES_BY_NAME
from nayer_cli.config import DistillConfig, QuantizeConfig, RunConfig
from nayer_cli.generator import new_generator
from nayer_cli.live_settings import GENERATOR
from nayer_cli.machine.device import resolve_device
from nayer_cli.machine.distributed import Group
from nayer_cli.runs import assemble
from nayer_cli.runs.footprint import BATCH, CODES, EVALUATION, STUDENT, WIDTH, Part, Sizes, fit, peak
from nayer_cli.storage.runlog import RunLog
from nayer_cli.types import ImageShape, Settings

LARGE = 96
"""Pixels of a side above which a run follows the memory unasked; smaller ones are cheap, with the paper's presets."""
USUAL_GB = 4.0
OF_BANK = 0.25
"""Share of the limit that images in memory may take; more of them go to a file."""
TEXT = 512
"""Numbers of a class embedding; those of CLIP."""
GB = 1e9
SHARED = (BATCH, STUDENT)
"""Settings that the processes of a job share."""
C = TypeVar("C", bound=RunConfig)


def limit_gb(config: RunConfig, shape: ImageShape) -> float | None:
    """Return the GB of host memory that a run keeps within, or None if nothing says so."""
    if resolve_device(config.device).type != "cpu":
        return None
    return config.memory_gb or (USUAL_GB if max(shape.height, shape.width) > LARGE else None)


class Followed(NamedTuple, Generic[C]):
    """The settings that follow the memory."""

    config: C
    chosen: str = ""
    """The choices, and what they replace; empty if there are none."""
    much: str = ""
    """The reason why a run may take more than is allowed; empty if it does not."""


def follow_memory(
    config: C,
    settings: Settings,
    teacher: Classifier | None,
    student: Classifier,
    group: Group,
    images: int | None = None,
) -> Followed[C]:
    """Let the settings that the user left open follow the memory.

    Args:
        config: all settings.
        settings: those that the user gave; they stay.
        teacher: the network to learn from, if there is one.
        student: the one that learns; its images are those of the run.
        group: processes that share a batch.
        images: how many the bank holds, if that is known already.

    """
    allowed = limit_gb(config, student.shape)
    if allowed is None:
        return Followed(config)
    given = {key for key, value in settings.items() if value is not None}
    if isinstance(config, DistillConfig) and "bank.budget_gb" not in given:
        config = _with(config, {"bank.budget_gb": min(config.bank.budget_gb, OF_BANK * allowed)})
    sizes, wanted = count(config, teacher, student, images), numbers(config)
    chosen = _fit(sizes, wanted, given, int(allowed * GB), group.size)
    changed = {key: value for key, value in chosen.items() if value != wanted[key]}
    said = ", ".join(f"{key} {value} instead of {wanted[key]}" for key, value in changed.items())
    if said:
        said = f"to stay within {allowed:g} GB of memory: {said}. --set memory_gb=N allows more"
    needed = peak(sizes, _shared(chosen, group.size)) / GB
    much = _too_much(needed, allowed, given & wanted.keys()) if needed > allowed else ""
    return Followed(_with(config, changed), said, much)


def _fit(sizes: Sizes, wanted: Mapping[str, int], given: set[str], limit: int, processes: int) -> dict[str, int]:
    """Choose for one process, and return the settings of all together."""
    own = _shared(wanted, processes)
    chosen = fit(sizes, own, given, limit)
    return {
        key: wanted[key] if value == own[key] else value * (processes if key in SHARED else 1)
        for key, value in chosen.items()
    }


def _shared(settings: Mapping[str, int], processes: int) -> dict[str, int]:
    """Return what each of several processes has of the settings."""
    return {key: max(value // processes, 1) if key in SHARED else value for key, value in settings.items()}


def _too_much(needed: float, allowed: float, given: Collection[str]) -> str:
    stay = f"; {', '.join(sorted(given))} stay as given" if given else ""
    return f"this run may take {needed:.1f} GB of memory, but memory_gb allows {allowed:g}{stay}"


def tell(log: RunLog, chosen: str, much: str) -> None:
    """Say what `follow_memory` found."""
    if chosen:
        log.note(chosen)
    if much:
        log.note(much, level="warning")


def numbers(config: RunConfig) -> dict[str, int]:
    """Return the settings that decide how much memory a run takes."""
    found = {STUDENT: config.schedule.batch_size, EVALUATION: config.eval.batch_size}
    if isinstance(config, DistillConfig):
        method = vars(assemble.method_config(config.method))
        keys = (BATCH, *((WIDTH, CODES) if GENERATOR in method else ()))
        found |= {key: method[name] for key in keys if (name := key.partition(".")[2]) in method}
    return found


def learns(config: RunConfig) -> bool:
    """Say whether the student does, or only has its steps chosen."""
    return not isinstance(config, QuantizeConfig) or config.quantizer.mode == "qat"


def count(config: RunConfig, teacher: Classifier | None, student: Classifier, images: int | None = None) -> Sizes:
    """Count the parts of a run."""
    shape = student.shape
    makes_images = isinstance(config, DistillConfig)
    volume = shape.channels * shape.height * shape.width
    of_student = part(student.network, shape)
    of_teacher = Part() if teacher is None else of_student if teacher is student else part(teacher.network, shape)
    generator = None
    if isinstance(config, DistillConfig):
        generator = _generator(vars(assemble.method_config(config.method)), shape, student.num_classes)
        images = _kept(config) if images is None else images
    held = (images or 0) * volume
    budget = config.bank.budget_gb if isinstance(config, DistillConfig) else OF_BANK * USUAL_GB
    in_memory = held if held <= budget * GB else 0
    holdout = assemble.HOLDOUT * volume if makes_images and learns(config) and config.eval.data is None else 0
    return Sizes(4 * volume, of_teacher, of_student, generator, in_memory + holdout, makes_images, learns(config))


def _kept(config: DistillConfig) -> int:
    """Return how many images the bank is made for."""
    planned = assemble.plan(config.schedule, 1).images(numbers(config).get(BATCH, config.schedule.batch_size))
    return min(config.bank.capacity or planned, planned)


def _generator(method: Mapping[str, Any], shape: ImageShape, classes: int) -> Callable[[int, int, int], Part] | None:
    """Return what counts the generator of a method, with its noisy layers; None if it has none."""
    if GENERATOR not in method:
        return None
    name = method[GENERATOR] if method[GENERATOR] in plugins.own("generators") else "auto"

    @cache
    def drawn(width: int, codes: int) -> Part:
        with torch.device("meta"):
            network = new_generator(name, codes, shape, width)
            return _part(network, lambda: network(torch.empty(2, codes)))

    @cache
    def counted(batch: int, width: int, codes: int) -> Part:
        found = drawn(width, codes)
        if method.get("codes") not in CODES_BY_NAME:
            return found
        with torch.device("meta"):
            layers = CODES_BY_NAME[method["codes"]](torch.empty(classes, TEXT), codes, batch, 0.0)
        return found._replace(weights=found.weights + _bytes(layers))

    return counted


def part(network: nn.Module, shape: ImageShape) -> Part:
    """Count a network in one pass of two images that leaves nothing behind."""
    modes = [(module, module.training) for module in network.modules()]
    images = torch.zeros(2, *shape, requires_grad=True)
    with torch.enable_grad():
        found = _part(network.eval(), lambda: network(images))
    for module, was_training in modes:
        module.training = was_training
    return found


def _part(network: nn.Module, run: Callable[[], object]) -> Part:
    """Count what a pass of two images keeps for its gradient, besides the network itself."""
    own = {_storage(value) for value in (*network.parameters(), *network.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    sizes = [tensor.untyped_storage().nbytes() for tensor in kept.values()]
    return Part(_bytes(network), sum(sizes) // 2, max(sizes, default=0) // 2)


def _storage(tensor: Tensor) -> int:
    """Identify a storage, even one without memory."""
    return int(tensor.untyped_storage()._cdata)


def _bytes(network: nn.Module) -> int:
    return sum(value.nbytes for value in (*network.parameters(), *network.buffers()))


def _with(config: C, changed: Mapping[str, float]) -> C:
    """Return a configuration with other settings."""
    for key, value in changed.items():
        section, _, name = key.partition(".")
        own = getattr(config, section)
        changes: Any = {section: {**own, name: value} if isinstance(own, dict) else replace(own, **{name: value})}
        config = replace(config, **changes)
    return config
