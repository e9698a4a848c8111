"""`nayer train`: a network from real, labelled images; with a teacher, plain distillation on them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from nayer_cli import config as configuration
from nayer_cli import losses, plugins
from nayer_cli.augment import Augment
from nayer_cli.bank import MemoryBank
from nayer_cli.classifiers.architecture import FACTORY
from nayer_cli.classifiers.model import Classifier, new_classifier, new_network
from nayer_cli.config import BankConfig, TrainConfig
from nayer_cli.critic import Critic
from nayer_cli.engine import Plan
from nayer_cli.errors import ConfigError, InputError
from nayer_cli.images import dataset
from nayer_cli.images.labelled import LabelledImages, open_images
from nayer_cli.lte.labels import read_labels
from nayer_cli.machine.distributed import Group, join
from nayer_cli.machine.interruption import Interruption
from nayer_cli.machine.rng import Streams
from nayer_cli.method import Batch, Lesson, StudentLoss
from nayer_cli.runs import assemble, forecast, models, run
from nayer_cli.runs import folder as folders
from nayer_cli.runs.beginning import begin_with, paced, sentence
from nayer_cli.runs.documents import Result
from nayer_cli.runs.folder import RunFolder
from nayer_cli.runs.measure import Measure
from nayer_cli.runs.recorder import Recorder
from nayer_cli.runs.resume import decide
from nayer_cli.runs.run import Job, carry_out
from nayer_cli.runs.sizing import OF_BANK, follow_memory, limit_gb, tell
from nayer_cli.storage.checkpoint import fingerprint
from nayer_cli.storage.runlog import Listener, RunLog
from nayer_cli.synthesis import weigh
from nayer_cli.types import ImageShape, Settings


class Supervised(Lesson):
    """Learning from labels, and from a teacher where there is one: the bank holds real images, no round makes any.

    Args:
        teacher: a network to learn from as well, or None.
        augment, rng, batch_size: how the bank is sampled.
        config: weights of the losses.
    """

    def __init__(
        self, teacher: Critic | None, augment: Augment, rng: Streams, batch_size: int, config: TrainConfig
    ) -> None:
        super().__init__()
        # A tuple keeps the teacher out of this module's own state.
        self.teacher, self.config = (teacher,), config
        self.augment, self.rng, self.batch_size = augment, rng, batch_size

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        """Yield augmented batches of real images."""
        order = self.rng.on(bank.device, "replay")
        for images, labels in bank.batches(self.batch_size, steps, order, self.rng.device):
            yield Batch(self.augment(images, self.rng["augment"]), labels)

    def student_loss(self, student: nn.Module, batch: Batch) -> StudentLoss:
        """Return ce · cross-entropy + kl · T² KL(t ‖ s) (Hinton et al. 2015)."""
        logits, config = student(batch.images), self.config
        terms = {"ce": losses.cross_entropy(logits, batch.labels)}
        for teacher in filter(None, self.teacher):
            terms["kl"] = losses.distillation_kl(teacher.logits(batch.images), logits, config.temperature)
        return StudentLoss(weigh(config, terms), terms)


def train(
    settings: Settings,
    *,
    listen: Listener | None = None,
    resume: str | None = None,
    dry_run: bool = False,
) -> Result:
    """Train a network on labelled images; return the result document (`docs/reference/result.md`).

    The images are decoded once, at the network's size, into memory (or a memory-mapped file above the budget).

    Args:
        settings: dotted keys of `TrainConfig`, such as `{"student.name": "wrn_40_2", "data": "train.tar"}`.
        listen: called with progress records.
        resume: a run directory to continue.
        dry_run: load everything, do one step, leave nothing on disk.

    Raises:
        NayerError: something foreseen is wrong; its class says what kind.

    """
    group = join()
    existing, settings = decide(settings, TrainConfig, group, resume=resume, dry_run=dry_run)
    config = configuration.build(TrainConfig, _given(settings))
    for key, value in (("--model", config.student.name), ("--data", config.data)):
        if not value:
            raise InputError(f"{key} is missing", hint="for example: nayer train --model wrn_16_2 --data train.tar")
    if config.eval.max_drop is not None and not config.teacher.name:
        raise ConfigError("--max-drop compares with a teacher, but there is none", hint="gate with --min-top1")
    role, rest = models.TEACHERS["train"], f"--model {config.student.name} --data {config.data}"
    teacher = models.load(config.teacher, role, rest=rest) if config.teacher.name else None
    name = f"train-{folders.slug(config.student.name)}"
    with folders.run_folder(config.output.out, name, group, existing=existing, temporary=dry_run) as folder:
        log = folder.log(listen, config.output)
        free = None if existing else settings
        job = prepare(config, teacher, folder, log, group, steps=1 if dry_run else None, free=free)
        if config.init != "own" and existing is None:
            log.note(sentence(job.student, job.inherited))
        if existing is None:
            forecast.tell(job, forecast.of_training(job, always=dry_run))
        return carry_out(job, resume=existing is not None, dry_run=dry_run)


def prepare(
    config: TrainConfig,
    teacher: Classifier | None,
    folder: RunFolder,
    log: RunLog,
    group: Group,
    steps: int | None,
    free: Settings | None = None,
) -> Job:
    """Put the parts together: images, network, engine, recorder.

    All settings but those in `free`, which the user gave, may follow the memory; without it none does.
    """
    machine = assemble.new_machine(config, group)
    classifier, data = _network_and_data(config, teacher, group)
    if free is not None:
        config, *said = follow_memory(config, free, teacher, classifier, group, len(data))
        tell(log, *said)
    inherited = begin_with(config.init, classifier, config.student, teacher)
    classifier.network.load_state_dict(group.from_main(classifier.network.state_dict()))
    bank = _fill_bank(data, classifier.shape, machine, folder, limit_gb(config, classifier.shape))
    _say_about(data, config, teacher, classifier, log, group)
    critic = Critic(assemble.model(teacher, machine)) if teacher else None
    model = assemble.model(classifier, machine)
    augment = assemble.augment(config.augment, classifier.shape)
    batch_size = group.share(config.schedule.batch_size, "schedule.batch_size")
    method = Supervised(critic, augment, machine.rng, batch_size, config)
    plan = _plan(config, bank, batch_size, group, steps)
    measured = assemble.evaluation_data(config.eval, classifier, classifier.labels, group, log)
    judge, interruption = critic.teacher if critic else None, Interruption(group)
    size = config.eval.batch_size
    measure = Measure(judge, measured, None, machine, batch_size=size, interruption=interruption)
    names = classifier.labels or [str(k) for k in range(classifier.num_classes)]
    fingerprints = {"the data": _fingerprint(bank, data, group)} | (run.fingerprints(teacher) if teacher else {})
    recorder = Recorder(folder, log, measure, config.eval, config.output, names, shards={}, fingerprints=fingerprints)
    learning = replace(config, optimizer=paced(config.optimizer, classifier, inherited))
    engine = run.engine(learning, machine, recorder, method, model, bank, plan, interruption)
    return Job(config, "supervised", teacher, classifier, engine, recorder, machine.device, inherited=inherited)


def _say_about(
    data: LabelledImages,
    config: TrainConfig,
    teacher: Classifier | None,
    classifier: Classifier,
    log: RunLog,
    group: Group,
) -> None:
    """Say which images are left out, and what order of the classes is assumed."""
    if skipped := sum(group.collect(data.skipped)):
        some = ", ".join(list(data.unreadable)[:3])
        log.note(f"{skipped} images of {config.data} cannot be read and are left out: {some}", level="warning")
    is_named_elsewhere = teacher is not None or config.student.labels is not None
    if is_named_elsewhere and (assumption := models.assumption(teacher or classifier, data)):
        log.note(assumption, level="warning")


def _plan(config: TrainConfig, bank: MemoryBank, batch_size: int, group: Group, steps: int | None) -> Plan:
    """Return epochs over all images, or one of `steps` steps; every process has as many, by the smallest part.

    Raises:
        InputError: a process has no image.

    """
    smallest = -group.largest(-len(bank))
    if not smallest:
        raise InputError(f"{config.data} has fewer images than the job has processes", hint="start fewer")
    return Plan(
        1 if steps else config.schedule.epochs,
        warmup_epochs=0,
        cycles=1,
        rounds=0,
        warmup_rounds=0,
        kd_steps=steps or max(smallest // batch_size, 1),
        max_skipped=config.schedule.max_skipped,
        budget=None if steps else assemble.budget(config),
    )


def _fingerprint(bank: MemoryBank, data: LabelledImages, group: Group) -> str:
    """Return a fingerprint of at most two thousand of the images, the same for any number of processes."""
    images, own = bank.held()
    labels = torch.cat(group.collect(own.cpu()))
    stride = max(len(labels) // 1000, 1)
    # Image i of all is at place i // size of process i % size, unless a damaged one before it was left out.
    places = torch.arange(group.rank, group.rank + len(own) * group.size, group.size)
    some = images[:0] if group.largest(data.skipped) else images[places % stride == 0].cpu()
    digests = [digest for part in group.collect([fingerprint(image) for image in some]) for digest in part]
    return fingerprint([labels.sort().values, sorted(digests)])


def _network_and_data(
    config: TrainConfig, teacher: Classifier | None, group: Group
) -> tuple[Classifier, LabelledImages]:
    """Open this process's part of the images and create the network for them; each decides a part of the other.

    The classes are the data's, the image size is the network's (or the teacher's), and the normalization the teacher's,
    the data set's customary one, or the architecture's.
    """
    labels = config.student.labels
    if teacher:
        teacher = models.named(teacher, labels)
        classifier = new_classifier(config.student, teacher)
        data = _open(config, classifier, classifier.labels, group)
        return replace(classifier, labels=classifier.labels or _names_of(data)), data
    facts = dataset.find(config.data) if config.data in plugins.names("datasets") else None
    with models.told(models.TRAINED, config.student, f"--data {config.data}"):
        some = config.student.num_classes or (None if config.student.name.startswith(FACTORY) else 2)
        probe = new_network(config.student, some, shape=facts.shape if facts else None)
    names = read_labels(labels, dedupe="index") if labels else facts.class_names if facts else None
    data = _open(config, probe, names, group)
    if data.class_names is None and config.student.num_classes is None:
        raise InputError(f"{config.data} does not name its classes", hint="give their number with --num-classes")
    count = config.student.num_classes or len(data.class_names or ())
    normalization = facts.normalization if facts else None
    with models.told(models.TRAINED, config.student, f"--data {config.data}"):
        classifier = new_network(config.student, count, _names_of(data), shape=probe.shape, normalization=normalization)
    return classifier, data


def _names_of(data: LabelledImages) -> tuple[str, ...] | None:
    return tuple(data.class_names) if data.class_names else None


def _open(config: TrainConfig, model: Classifier, names: Sequence[str] | None, group: Group) -> LabelledImages:
    part, how = (group.rank, group.size), model.preparation
    return open_images(
        config.data, split=config.split, shape=model.shape, class_names=names, part=part, preparation=how
    )


def _fill_bank(
    data: LabelledImages, shape: ImageShape, machine: assemble.Machine, folder: RunFolder, limit: float | None
) -> MemoryBank:
    """Decode all images once, as uint8, to where the engine samples them; `limit` is that of the memory, in GB."""
    settings = BankConfig() if limit is None else BankConfig(budget_gb=min(OF_BANK * limit, BankConfig.budget_gb))
    bank = assemble.bank(settings, len(data), shape, machine, folder.path)
    for images, labels in data.batches(1024):
        bank.write(torch.arange(bank.added, bank.added + len(images)), {"images": images, "labels": labels})
        bank.added += len(images)
    return bank


def _given(settings: Settings) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}
