"""The common course of `distill` and `train`, once their parts are put together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import timm
import torch
from torch import nn

from nayer_cli.bank import MemoryBank
from nayer_cli.classifiers.architecture import HUB
from nayer_cli.classifiers.inherit import Inherited
from nayer_cli.classifiers.model import Classifier, parameters, save_classifier
from nayer_cli.config import DistillConfig, ModelConfig, QuantizeConfig, TrainConfig, to_layer
from nayer_cli.critic import layers_with_statistics
from nayer_cli.engine import Engine, Plan
from nayer_cli.gates import Pair
from nayer_cli.live_settings import BATCH, STEPS
from nayer_cli.machine.interruption import Interruption
from nayer_cli.method import Lesson, LoopState
from nayer_cli.runs import assemble
from nayer_cli.runs.assemble import LAPTOP, Machine, automatic_preset, preset_for
from nayer_cli.runs.card import model_card
from nayer_cli.runs.documents import Forecast, Network, Quantization, Result, Scores
from nayer_cli.runs.recorder import Provenance, Recorder
from nayer_cli.storage.checkpoint import digest, fingerprint


@dataclass
class Job:
    """A run that is ready to start."""

    config: DistillConfig | TrainConfig
    method: str
    teacher: Classifier | None
    student: Classifier
    engine: Engine
    recorder: Recorder
    device: torch.device
    encoder: str | None = None
    """The encoder of the class names, if the method uses their embeddings."""
    inherited: Inherited | None = None
    """The layers that the student took from its teacher at the start, if any."""
    forecast: Forecast | None = None
    """The forecast of the run, if it was measured."""


def fingerprints(teacher: Classifier) -> dict[str, str]:
    """Tell a teacher from others: its weights, and how it takes images."""
    return {
        "the teacher": fingerprint(teacher.network.state_dict()),
        "how the teacher takes images": fingerprint([teacher.normalization, teacher.shape]),
    }


BeforeLearning = Callable[[Recorder, Engine], None]
"""Called before the first student step, when there are images."""


def engine(
    config: DistillConfig | TrainConfig,
    machine: Machine,
    recorder: Recorder,
    method: Lesson,
    student: nn.Module,
    bank: MemoryBank,
    plan: Plan,
    interruption: Interruption,
    holdout: MemoryBank | None = None,
    before_learning: BeforeLearning = lambda recorder, engine: None,
) -> Engine:
    """Return the loop that teaches a student, and calls the recorder."""
    return Engine(
        method=method,
        student=assemble.student(student, config, machine),
        bank=bank,
        plan=plan,
        rng=machine.rng,
        state=LoopState(warmup_epochs=plan.warmup_epochs, epochs=plan.total),
        evaluate=recorder.evaluate,
        after_epoch=recorder.after_epoch,
        before_learning=partial(before_learning, recorder),
        save=recorder.save,
        save_seconds=60 * config.output.save_minutes,
        listen=recorder.log,
        holdout=holdout,
        group=machine.group,
        interruption=interruption,
        counts_steps=config.eval.synthesis,
    )


def carry_out(job: Job, *, resume: bool, dry_run: bool) -> Result:
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
    recorder.folder.note_start(job.config)  # only now: a run that cannot be continued keeps what it says of itself
    recorder.log(_start(job))


def conclude(
    job: Job,
    student: Classifier,
    *,
    dry_run: bool,
    scores: Scores | None = None,
    shipped: Mapping[str, Scores] | None = None,
    pairs: Sequence[Pair] = (),
    quantization: Quantization | None = None,
) -> Result:
    """Save the student, write and return the result; what else is given as `Recorder.write_result` takes them."""
    engine, recorder = job.engine, job.recorder
    about = Provenance(job.config.kind, job.method, job.encoder, list(student.labels) if student.labels else None)
    result = recorder.write_result(
        engine,
        _about_teacher(job.teacher, job.config.teacher) if job.teacher else None,
        _about_student(student, job.inherited),
        scores=scores,
        shipped=shipped,
        pairs=pairs,
        quantization=quantization,
        about=about,
    )
    if dry_run:
        result["dry_run"], result["config"] = True, to_layer(job.config)
        result["forecast"] = job.forecast
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
    schedule = replace(config.schedule, **once, batch_size=few, budget=None)
    least = {STEPS: 1, BATCH: min(config.method.get(BATCH, FEW), FEW)}
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
        "budget": job.config.schedule.budget,
        "device": str(job.device) if job.engine.group.size == 1 else f"{job.engine.group.size} × {job.device.type}",
    }


def _preset(job: Job) -> str | None:
    """Name the preset in use, and say so if it was chosen for the teacher."""
    if not isinstance(job.config, DistillConfig) or job.teacher is None:
        return None
    if job.config.preset != "auto":
        return job.config.preset
    calibrates = isinstance(job.config, QuantizeConfig) and job.config.quantizer.mode == "ptq"
    chosen = automatic_preset(job.teacher, job.method, job.config.kind, job.device, calibrates)
    if chosen == LAPTOP:
        papers = preset_for(job.teacher.num_classes, job.teacher.shape)
        return f"{chosen} (chosen for a processor; the paper's is --preset {papers})"
    return f"{chosen} (chosen by classes and image size)"


def _about_teacher(teacher: Classifier, spec: ModelConfig) -> Network:
    """Return also the number of layers that the term `bn` compares with; if 0, total variation replaces it."""
    about: Network = {
        **_about(teacher),
        "bn_layers": len(layers_with_statistics(teacher.network)),
        "sha256": digest(teacher.network.state_dict()),
    }
    facts = timm.get_pretrained_cfg(teacher.key) if spec.weights is None and timm.is_model(spec.name) else None
    if spec.weights is None and spec.name.startswith(HUB):
        about["hub"] = spec.name.removeprefix(HUB)
    elif facts and facts.hf_hub_id:
        about["hub"] = facts.hf_hub_id
    if facts and facts.license:
        about["license"] = facts.license
    return about


def _about_student(student: Classifier, inherited: Inherited | None) -> Network:
    about = _about(student)
    if inherited:
        about["inherited"] = {"parameters": inherited.parameters, "layers": inherited.layers}
    return about


def _about(classifier: Classifier) -> Network:
    return {"name": classifier.name, "parameters": parameters(classifier.network)}
