"""Forecast a run on this machine: time from a few measured steps of each phase, memory and disk from counts."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from nayer_cli.budget import IMAGES
from nayer_cli.classifiers.model import Classifier
from nayer_cli.config import DistillConfig, QuantizeConfig, RunConfig, TrainConfig
from nayer_cli.engine import Engine, Plan
from nayer_cli.errors import InputError, RunFailed
from nayer_cli.evaluate import evaluating
from nayer_cli.live_settings import BATCH as ROUND
from nayer_cli.live_settings import STEPS
from nayer_cli.runs import assemble
from nayer_cli.runs.documents import Forecast
from nayer_cli.runs.folder import RunFolder
from nayer_cli.runs.footprint import BATCH, STUDENT, peak
from nayer_cli.runs.run import Job, shorten
from nayer_cli.runs.sizing import count, numbers
from nayer_cli.types import ImageShape

WORTH = 2e8
"""Pixels in all steps of a run; with fewer, it ends before a forecast would be of use."""
PIXELS = 400_000
"""Pixels of all images of a measured step, at most 32 images: enough to show what an image costs."""
PHASES = ("synthesis", "calibration", "student", "evaluation")


@dataclass(frozen=True)
class Costs:
    """Measured: seconds for one image and one step of each phase, and bytes of a checkpoint's networks."""

    synthesis: float = 0.0
    student: float = 0.0
    calibration: float = 0.0
    evaluation: float = 0.0
    checkpoint: int = 0


@dataclass(frozen=True)
class Work:
    """The work of a run: images times steps of each phase, and images that are kept."""

    synthesis: int = 0
    student: int = 0
    calibration: int = 0
    evaluation: int = 0
    kept: int = 0


def work_of(config: RunConfig, plan: Plan, measured: int, images: int = 0) -> Work:
    """Count what a run does.

    Args:
        config: its settings.
        plan: its epochs, rounds and steps.
        measured: images that a measurement has.
        images: those that the bank begins with.

    """
    epochs = plan.epochs
    batch = numbers(config).get(BATCH, config.schedule.batch_size)
    method = config.method if isinstance(config, DistillConfig) else {}
    made = plan.images(batch)
    steps = epochs * plan.cycles * plan.kd_steps
    evaluations = (-(-epochs // config.eval.every) if epochs else 0) + 2  # the last one, and the teacher's
    calibrated = 0
    if isinstance(config, QuantizeConfig):
        calibrated, evaluations = min(config.quantizer.images, made + images), evaluations + 3
    return Work(
        made * method.get(STEPS, 1),
        steps * config.schedule.batch_size,
        calibrated,
        evaluations * measured,
        made + images,
    )


def is_worth_it(work: Work, shape: ImageShape) -> bool:
    """Say whether a run is so long that measuring some steps for a forecast is worth it."""
    return (work.synthesis + work.student) * shape.channels * shape.height * shape.width > WORTH


def total(config: RunConfig, work: Work, costs: Costs, shape: ImageShape, memory: int | None) -> Forecast:
    """Return what a run takes: seconds of each phase, bytes of memory (None if unknown) and of disk."""
    seconds = {phase: getattr(work, phase) * getattr(costs, phase) for phase in PHASES}
    bank = work.kept * shape.channels * shape.height * shape.width
    capacity = config.bank.capacity if isinstance(config, DistillConfig) else None
    if capacity:
        bank = min(bank, capacity * shape.channels * shape.height * shape.width)
    on_disk = isinstance(config, DistillConfig) and (
        config.bank.place == "disk" or (config.bank.place == "auto" and bank > config.bank.budget_gb * 1e9)
    )
    disk = bank * (1 + on_disk) + (config.output.keep + 1) * costs.checkpoint
    return {"seconds": {**seconds, "total": sum(seconds.values())}, "memory": memory, "disk": disk}


def tell(job: Job, found: Forecast | None) -> None:
    """Say a forecast, and keep it for the result of a dry run."""
    job.forecast = found
    if found:
        job.recorder.log.note(sentence(found))


def sentence(found: Forecast) -> str:
    """Say a forecast in one line."""
    seconds = {name: value for name, value in found["seconds"].items() if value and name != "total"}
    parts = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())
    memory = f", {found['memory'] / 1e9:.1f} GB of memory at most" if found["memory"] else ""
    return (
        f"this run will take about {duration(found['seconds']['total'])} here ({parts}){memory}, and "
        f"{found['disk'] / 1e9:.2g} GB on disk"
    )


def duration(seconds: float) -> str:
    """Write a length of time in its two largest units."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"


Build = Callable[[Any, Classifier, RunFolder], Job]


def of_run(job: Job, config: DistillConfig, build: Build, *, images: int = 0, always: bool = False) -> Forecast | None:
    """Measure two steps of each phase in a separate run that leaves nothing, and scale the second one.

    Args:
        job: the run, which has not begun.
        config: all settings of the whole run.
        build: makes a job of settings, a student and a folder.
        images: those that the bank begins with.
        always: measure even where the run is short.

    Returns:
        None for a short run, for one that ends by a budget of something else than images, for one that several
        processes share, and where the steps fail: the run will say why.

    """
    plan = assemble.plan(config.schedule, max(images, 1), assemble.budget(config))
    work = work_of(config, plan, _measured(job), images)
    if not _is_wanted(job, work, always) or job.teacher is None or (plan.budget and plan.budget.counts != IMAGES):
        return None
    try:
        with TemporaryDirectory(prefix="nayer-") as path, _own_randomness(job):
            costs = _trial(build(_short(config, job.student.shape), _copy(job.student), RunFolder(Path(path))))
    except (RunFailed, InputError):
        return None
    return _total(job, config, work, costs)


def of_training(job: Job, *, always: bool = False) -> Forecast | None:
    """Measure two steps of a run that learns from real images, and take them back; otherwise as `of_run`."""
    plan, engine, config = job.engine.plan, job.engine, job.config
    work = work_of(config, replace(plan, epochs=config.schedule.epochs, kd_steps=_steps(job)), _measured(job))
    if not _is_wanted(job, work, always) or config.schedule.budget:
        return None
    batch = config.schedule.batch_size
    before = deepcopy((engine.student.state_dict(), engine.rng.state_dict(), engine.bank.pending))
    with _own_randomness(job):
        seconds = _second(engine) / batch
        classifies = _pass(engine, job.student.shape, batch)
    state, rng, engine.bank.pending = before
    checkpoint = sum(tensor.nbytes for tensor in _tensors(engine.student.state_dict()))
    engine.student.load_state_dict(state)
    engine.rng.load_state_dict(rng)
    engine.student.descent.skipped.zero_()
    return _total(job, config, work, Costs(student=seconds, evaluation=classifies, checkpoint=checkpoint))


def _own_randomness(job: Job) -> AbstractContextManager[None]:
    """Within the block, what is drawn ambiently does not count."""
    return torch.random.fork_rng([job.device] if job.device.type == "cuda" else [])


def _second(engine: Engine) -> float:
    """Return what the second of two student steps takes."""
    marks = []
    for batch in engine.method.replay(engine.bank, 2):
        losses = engine.student.step(engine.method.student_loss, batch)
        losses["student"].item()
        marks.append(perf_counter())
    return marks[1] - marks[0]


def _steps(job: Job) -> int:
    """Return the steps of an epoch; a dry run plans one."""
    return max(len(job.engine.bank) // job.config.schedule.batch_size, 1)


def _is_wanted(job: Job, work: Work, always: bool) -> bool:
    is_alone = job.engine.group.size == 1
    return is_alone and bool(work.synthesis + work.student) and (always or is_worth_it(work, job.student.shape))


def _total(job: Job, config: RunConfig, work: Work, costs: Costs) -> Forecast:
    """Put time, memory and disk together."""
    memory = None
    if job.device.type == "cpu":
        images = len(job.engine.bank) if isinstance(config, TrainConfig) else None
        memory = peak(count(config, job.teacher, job.student, images), numbers(config))
    return total(config, work, costs, job.student.shape, memory)


def _measured(job: Job) -> int:
    """Return how many images a measurement has; without data both networks see synthetic ones."""
    data, engine = job.recorder.measure.data, job.engine
    synthetic = len(engine.bank.images) if engine.holdout is None else assemble.HOLDOUT
    return 2 * synthetic if data is None else len(data)


def _copy(student: Classifier) -> Classifier:
    return replace(student, network=deepcopy(student.network))


def _short(config: DistillConfig, shape: ImageShape) -> DistillConfig:
    """Return settings of two epochs of one step each, of few images, with nothing to measure on."""
    short = shorten(config)
    learns, few = config.schedule.epochs > 0, max(PIXELS // (shape.height * shape.width), 2)
    schedule = replace(short.schedule, epochs=2, kd_steps=int(learns), batch_size=min(short.schedule.batch_size, few))
    method = short.method | ({ROUND: min(short.method[ROUND], few)} if ROUND in short.method else {})
    evaluation = replace(config.eval, data=None, min_top1=None, max_drop=None, synthesis=False)
    if isinstance(short, QuantizeConfig):
        short = replace(short, reuse=None, quantizer=replace(short.quantizer, reconstruct=False))
    return replace(short, schedule=schedule, method=method, eval=evaluation)


def _trial(job: Job) -> Costs:
    """Run two epochs, and return what the second took; the first one allocates, and chooses kernels."""
    engine, laps = job.engine, list[dict[str, float]]()
    engine.evaluate = lambda engine, record: None
    engine.after_epoch = lambda engine, record: laps.append(dict(engine.meter.seconds))
    engine.run()
    if "calibration" not in engine.meter.seconds:  # nothing has learned
        engine.before_learning(engine)
    rounds, steps = numbers(job.config).get(BATCH, 0), numbers(job.config)[STUDENT]
    first, second = laps

    def lap(phase: str) -> float:
        return second.get(phase, 0.0) - first.get(phase, 0.0)

    calibrated = max(engine.state.images, 1)
    return Costs(
        lap("synthesis") / (rounds or steps),
        lap("student") / steps,
        engine.meter.seconds.get("calibration", 0.0) / calibrated,
        _pass(engine, job.student.shape, steps),
        sum(tensor.nbytes for tensor in _tensors((engine.student.state_dict(), engine.method.state_dict()))),
    )


def _pass(engine: Engine, shape: ImageShape, batch: int) -> float:
    """Return the seconds that the student takes to classify one image."""
    images = torch.zeros(batch, *shape, device=engine.student.descent.skipped.device)
    with evaluating(engine.student.model):
        engine.student.model(images).sum().item()
        start = perf_counter()
        engine.student.model(images).sum().item()
    return (perf_counter() - start) / batch


def _tensors(tree: object) -> list[Tensor]:
    """Return all tensors of a state."""
    if isinstance(tree, Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
