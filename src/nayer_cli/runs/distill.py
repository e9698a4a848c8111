"""`nayer distill`: a student from a teacher, without data. `distill` is also the Python API."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from nayer_cli import plugins
from nayer_cli.bank import MemoryBank
from nayer_cli.classifiers.inherit import Inherited
from nayer_cli.classifiers.model import Classifier, new_classifier
from nayer_cli.config import DistillConfig
from nayer_cli.errors import InputError
from nayer_cli.lte.labels import about_repeated
from nayer_cli.lte.pool import Pool, load_pool, save_pool
from nayer_cli.machine.distributed import Group, join
from nayer_cli.machine.rng import Streams, seeded
from nayer_cli.method import EMBEDDINGS, Method
from nayer_cli.runs import assemble, forecast, makers, run
from nayer_cli.runs import folder as folders
from nayer_cli.runs.beginning import begin_with, fitting, paced, sentence
from nayer_cli.runs.documents import Result
from nayer_cli.runs.embed import find_or_build_pool
from nayer_cli.runs.folder import RunFolder
from nayer_cli.runs.measure import HELD_BACK, OF_RUN, Measure
from nayer_cli.runs.recorder import Recorder
from nayer_cli.runs.resume import decide
from nayer_cli.runs.run import Job, carry_out, shorten
from nayer_cli.runs.shards import Shards
from nayer_cli.runs.sizing import follow_memory, learns, tell
from nayer_cli.storage.checkpoint import fingerprint
from nayer_cli.storage.runlog import Listener, RunLog
from nayer_cli.types import Settings


def distill(
    settings: Settings,
    *,
    listen: Listener | None = None,
    resume: str | None = None,
    dry_run: bool = False,
) -> Result:
    """Distill a student; return the result document (`docs/reference/result.md`), which is also in the run directory.

    Args:
        settings: dotted keys, such as `{"teacher.name": "resnet50", "schedule.epochs": 300}`.
        listen: called with progress records.
        resume: a run directory to continue, or `auto` for the one at `output.out` if a run has saved something
            there; only settings that leave the run's meaning alone may differ.
        dry_run: load everything, do one step of each phase, leave nothing on disk.

    Raises:
        NayerError: something foreseen is wrong; its class says what kind.

    """
    group = join()
    existing, settings = decide(settings, DistillConfig, group, resume=resume, dry_run=dry_run)
    with group.main_first():  # it fetches what the others then find
        config, teacher = assemble.resolve(settings, DistillConfig, "distill")
    unused = assemble.unused_text(settings, config)
    if not config.student.name:
        raise InputError("no student is named", hint="add --student, for example --student resnet18")
    with seeded(Streams(config.seed)["student"]):  # the constructors of its layers draw ambiently
        student = new_classifier(config.student, teacher)
    chosen, much = "", ""
    if existing is None:
        config, chosen, much = follow_memory(config, settings, teacher, student, group)
    whole, config = config, shorten(config) if dry_run else config
    inherited = begin_with(config.init, student, config.student, teacher)
    name = f"{folders.slug(teacher.name)}-{folders.slug(student.name)}"
    with folders.run_folder(config.output.out, name, group, existing=existing, temporary=dry_run) as folder:
        log = folder.log(listen, config.output)
        if unused:
            log.note(unused, level="warning")
        tell(log, chosen, much)
        job = prepare(config, teacher, student, folder, log, group, inherited=inherited)
        if config.init != "own" and existing is None:
            log.note(sentence(student, inherited))
        if existing is None:
            trial = partial(_trial, teacher, group, inherited)
            forecast.tell(job, forecast.of_run(job, whole, trial, always=dry_run))
        return carry_out(job, resume=existing is not None, dry_run=dry_run)


def _trial(
    teacher: Classifier,
    group: Group,
    inherited: Inherited | None,
    config: DistillConfig,
    student: Classifier,
    folder: RunFolder,
) -> Job:
    """Put together what a forecast measures."""
    return prepare(config, teacher, student, folder, RunLog(None), group, inherited=inherited)


def prepare(
    config: DistillConfig,
    teacher: Classifier,
    student: Classifier,
    folder: RunFolder,
    log: RunLog,
    group: Group,
    *,
    given: int = 0,
    named: str | None = None,
    inherited: Inherited | None = None,
    before_learning: run.BeforeLearning = lambda recorder, engine: None,
) -> Job:
    """Put the parts together: teacher and student, LTE pool, method, bank, engine, recorder.

    `given` images, of all processes together, need room in the bank besides those that are planned. `named` is what the
    method is called in documents, if not by its name. `inherited` is what the student has of its teacher.
    `before_learning` is called before its first step.
    """
    machine = assemble.new_machine(config, group)
    has_text = assemble.uses_of_names(config) == EMBEDDINGS
    assemble.class_names(replace(config.lte, labels=None), teacher, needed=has_text)
    pool = _pool(config, teacher, folder, log, machine) if has_text else None
    embeddings = pool.embeddings if pool else torch.empty(teacher.num_classes, 0)
    critic = makers.critic(teacher, machine, log)
    learner = assemble.model(student, machine)
    parts = makers.parts(critic, embeddings, teacher.shape, machine, config.schedule.batch_size, config.augment)
    settings = fitting(assemble.method_config(config.method, group), config.init, inherited)
    method: Method = plugins.part("methods", settings.name, "Method")(settings, parts)
    plan = assemble.plan(config.schedule, given, assemble.budget(config))
    planned = plan.images(method.batch) + -(-given // group.size)
    bank = assemble.bank(config.bank, planned, teacher.shape, machine, folder.path)
    data = assemble.evaluation_data(config.eval, teacher, teacher.labels, group, log)
    holdout = None
    if data is None and learns(config):  # otherwise there is nobody to hide images from
        holdout = MemoryBank(-(-assemble.HOLDOUT // group.size), teacher.shape, device=machine.device)
    synthetic = (bank, OF_RUN) if holdout is None else (holdout, HELD_BACK)
    size, interruption = config.eval.batch_size, parts.interruption
    measure = Measure(critic.teacher, data, synthetic, machine, batch_size=size, interruption=interruption)
    names = teacher.labels or tuple(map(str, range(teacher.num_classes)))
    fingerprints = run.fingerprints(teacher) | {"the class list": fingerprint(tuple(names))}
    if has_text:
        fingerprints["the LTE pool"] = fingerprint(embeddings)
    shards = _shards(folder, bank, method, group)
    recorder = Recorder(folder, log, measure, config.eval, config.output, names, shards, fingerprints)
    learning = replace(config, optimizer=paced(config.optimizer, student, inherited))
    engine = run.engine(
        learning, machine, recorder, method, learner, bank, plan, interruption, holdout, before_learning
    )
    encoder = pool.encoder if pool else None
    return Job(config, named or settings.name, teacher, student, engine, recorder, machine.device, encoder, inherited)


def _shards(folder: RunFolder, bank: MemoryBank, method: Method, group: Group) -> dict[str, Shards]:
    """Return where the bank is kept, and the method's own store if it has one."""
    shards = {"bank": Shards(folder.checkpoints.bank, bank, group)}
    if method.store is not None:
        shards["store"] = Shards(folder.checkpoints.bank, method.store, group, kind="rows")
    return shards


def rebuild(config: DistillConfig, teacher: Classifier, folder: RunFolder) -> Job:
    """Put a run together again as its newest checkpoint left it; nothing is written."""
    job = prepare(config, teacher, new_classifier(config.student, teacher), folder, RunLog(None), Group())
    job.recorder.restore(job.engine)
    return job


def _pool(
    config: DistillConfig, teacher: Classifier, folder: RunFolder, log: RunLog, machine: assemble.Machine
) -> Pool:
    """Return the LTE pool, the same in every process, and say which classes it does not distinguish."""
    group, names = machine.group, teacher.labels
    assert names is not None
    pool = group.from_main(_find_pool(config, names, folder, str(machine.device)) if group.is_main else None)
    assert pool is not None
    if pool.same:
        pairs = ", ".join(f"'{names[i]}' and '{names[j]}'" for i, j in pool.same[:5])
        log.note(
            f"{config.lte.file} has one embedding for {pairs}: their images differ by noise alone", level="warning"
        )
    elif config.lte.file is None and (repeated := about_repeated(names)):
        log.note(f"some class names are equal ({repeated}), so their prompts get the class index", level="warning")
    return pool


def _find_pool(config: DistillConfig, names: tuple[str, ...], folder: RunFolder, device: str) -> Pool:
    """Find or build the LTE pool, and keep a copy in the run directory: a resumed run reads that one."""
    lte = config.lte
    if folder.pool.is_file():
        lte = replace(lte, file=str(folder.pool))
    pool = load_pool(Path(lte.file), names) if lte.file else find_or_build_pool(lte, names, device)[0]
    if not folder.pool.is_file():
        save_pool(folder.pool, pool)
    return pool
