"""What `distill` and `train` have in common once their parts are put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from nayer_cli.classifiers.model import Classifier, parameters, save_classifier
from nayer_cli.config import DistillConfig, RunConfig, to_layer
from nayer_cli.critic import layers_with_statistics
from nayer_cli.engine import Engine
from nayer_cli.gates import Pair
from nayer_cli.runs.assemble import preset_for
from nayer_cli.runs.card import model_card
from nayer_cli.runs.recorder import Recorder


@dataclass
class Job:
    """A run that is ready to start."""

    config: RunConfig
    method: str
    teacher: Classifier | None
    student: Classifier
    engine: Engine
    recorder: Recorder
    device: torch.device


def carry_out(job: Job, *, resume: bool, dry_run: bool) -> dict[str, Any]:
    """Run the engine, save the student, write and return the result."""
    start(job, resume=resume)
    job.engine.run()
    return conclude(job, job.student, dry_run=dry_run)


def start(job: Job, *, resume: bool) -> None:
    """Put the engine where it stopped, or at the beginning, and write down what is being run."""
    recorder = job.recorder
    if resume:
        recorder.restore(job.engine)
    else:
        recorder.log.rewind(0)
    recorder.folder.start(job.config)  # only now: a run that cannot be continued keeps what it says of itself
    recorder.log(_start(job))


def conclude(
    job: Job,
    student: Classifier,
    *,
    dry_run: bool,
    scores: Mapping[str, Any] | None = None,
    shipped: Mapping[str, Mapping[str, Any]] | None = None,
    pairs: Sequence[Pair] = (),
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Save the student, write and return the result; what else is given as `Recorder.finish` takes them."""
    engine, recorder = job.engine, job.recorder
    teacher = _about_teacher(job.teacher) if job.teacher else {}
    about = _about(student)
    more = {"label_names": list(student.labels) if student.labels else None, **(more or {})}
    result = recorder.finish(engine, job.method, teacher, about, scores=scores, shipped=shipped, pairs=pairs, more=more)
    if dry_run:
        result |= {"dry_run": True, "config": to_layer(job.config)}
    extra = {
        "teacher": job.teacher.name if job.teacher else None,
        "method": job.method,
        "seed": engine.rng.seed,
    }
    if not engine.group.is_main:
        return result
    save_classifier(recorder.folder.student, student, card=model_card(result), extra=extra)
    recorder.log({"event": "result", **result})
    return result


C = TypeVar("C", bound=DistillConfig)
FEW = 32
"""Images of a batch of a dry run; enough for each of several processes."""


def shorten(config: C) -> C:
    """Cut a configuration down to one round of one step, and one student step, of few images."""
    once = {"epochs": 1, "warmup_epochs": 0, "warmup_rounds": 1, "cycles": 1, "rounds": 1, "kd_steps": 1}
    few = min(config.schedule.batch_size, FEW)
    schedule = replace(config.schedule, **once, batch_size=few)
    least = {"g_steps": 1, "batch": min(config.method.get("batch", FEW), FEW)}
    method = config.method | {name: value for name, value in least.items() if name in config.method}
    return replace(config, schedule=schedule, method=method)


def _start(job: Job) -> dict[str, Any]:
    return {
        "event": "start",
        "run": str(job.recorder.folder.path),
        "teacher": job.teacher.name if job.teacher else None,
        "student": job.student.name,
        "method": job.method,
        "preset": _preset(job),
        "epoch": job.engine.state.epoch,
        "epochs": job.engine.plan.total,
        "device": str(job.device) if job.engine.group.size == 1 else f"{job.engine.group.size} × {job.device.type}",
    }


def _preset(job: Job) -> str | None:
    """Name the preset in use, and say so if it was chosen for the teacher."""
    if not isinstance(job.config, DistillConfig) or job.teacher is None:
        return None
    if job.config.preset != "auto":
        return job.config.preset
    return f"{preset_for(job.teacher.num_classes, job.teacher.shape)} (chosen by classes and image size)"


def _about_teacher(teacher: Classifier) -> dict[str, Any]:
    """Return, besides, with how many layers the term `bn` compares; with 0, total variation replaces it."""
    return {**_about(teacher), "bn_layers": len(layers_with_statistics(teacher.network))}


def _about(classifier: Classifier) -> dict[str, Any]:
    return {"name": classifier.name, "parameters": parameters(classifier.network)}
