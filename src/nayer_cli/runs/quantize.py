"""`nayer quantize`: a copy of few bits that learns from synthetic images, down to integers that run."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, fx

from nayer_cli import live_settings, plugins
from nayer_cli.classifiers.model import Classifier, Normalized
from nayer_cli.config import DEFAULT_METHOD, QuantizeConfig
from nayer_cli.engine import Engine
from nayer_cli.errors import ConfigError, InputError
from nayer_cli.gates import LEAST_AFTER_ROUNDING, LEAST_AGREEMENT, Count, Pair
from nayer_cli.machine.distributed import Group, join
from nayer_cli.quant import analytic, dfq_nagel, graph
from nayer_cli.quant.calibrate import calibrate, recalibrate_statistics
from nayer_cli.quant.compensate import compensate
from nayer_cli.quant.deploy import deploy
from nayer_cli.quant.moments import Gaussian, follow
from nayer_cli.quant.reconstruct import Recipe, reconstruct
from nayer_cli.quant.scheme import Scheme, parse_bits
from nayer_cli.runs import assemble, distill, documents, forecast
from nayer_cli.runs import folder as folders
from nayer_cli.runs.choice import settle
from nayer_cli.runs.documents import Result, Scores, Stages
from nayer_cli.runs.export import export
from nayer_cli.runs.folder import RunFolder
from nayer_cli.runs.recorder import Recorder
from nayer_cli.runs.resume import decide
from nayer_cli.runs.reuse import WITHOUT_IMAGES, complete, lend
from nayer_cli.runs.run import Job, conclude, shorten, start
from nayer_cli.runs.sample import images_of
from nayer_cli.runs.sizing import follow_memory
from nayer_cli.storage.runlog import Listener, RunLog
from nayer_cli.types import Normalization, Settings

BATCH, PIXELS = 128, 2**20
"""Images that pass at once where steps are chosen, and pixels of them: large images are fewer."""
SHIPPED = ("deployed", "onnxruntime")
"""Stages that a run leaves behind as files."""


def quantize(
    settings: Settings,
    *,
    listen: Listener | None = None,
    resume: str | None = None,
    dry_run: bool = False,
) -> Result:
    """Quantize a classifier and return the result document, which is also in the run directory.

    Args:
        settings: dotted keys, such as `{"teacher.name": "runs/one", "quantizer.bits": "w4a4"}`; without a model the
            student of the newest finished run is taken.
        listen: called with progress records.
        resume: a run directory to continue, or `auto`, as `distill` takes it.
        dry_run: load everything, do one step of each phase, leave nothing on disk.

    Raises:
        NayerError: something foreseen is wrong; its class says what kind.

    """
    group = join()
    existing, settings = decide(settings, QuantizeConfig, group, resume=resume, dry_run=dry_run)
    asked = _resolve(settings, group, is_new=existing is None, dry_run=dry_run)
    config, teacher, old = asked.config, asked.teacher, asked.images
    network, outputs = _with_quantizers(teacher, config)
    student = replace(teacher, network=network, name=f"{teacher.name} {scheme_of(config)}")
    name = f"{folders.slug(teacher.name)}-{scheme_of(config)}"
    with folders.run_folder(config.output.out, name, group, existing=existing, temporary=dry_run) as folder:
        log = folder.log(listen, config.output)
        for text, level in asked.notes:
            log.note(text, level=level)
        given, named = _at_hand(config), config.quantizer.calibration if _is_imageless(config) else None
        quantization = Quantization(config, network, outputs, student.normalization)
        first = quantization.choose_steps
        job = distill.prepare(
            config, teacher, student, folder, log, group, given=given, named=named, before_learning=first
        )
        if existing is None:
            trial, count = partial(_trial, teacher, group), len(old[1]) if old else 0
            forecast.tell(job, forecast.of_run(job, asked.whole, trial, images=count, always=dry_run))
        start(job, resume=existing is not None)
        if old:
            log.note(f"quantizing '{teacher.name}', with {len(old[1]):,} images of {config.reuse}")
            lend(job.engine, RunFolder(Path(str(config.reuse))), *old)
        job.engine.run()
        return quantization.finish(job, dry_run=dry_run)


@dataclass(frozen=True)
class _Asked:
    """The task of a command, with everything decided that the command leaves open."""

    config: QuantizeConfig
    """Of the run; shortened for a dry run."""
    whole: QuantizeConfig
    """Of the run in its full length."""
    teacher: Classifier
    images: tuple[Tensor, Tensor] | None
    """Images and labels of another run, to begin with."""
    notes: list[tuple[str, str]]
    """A message for the log, and its level."""


def _resolve(settings: Settings, group: Group, *, is_new: bool, dry_run: bool) -> _Asked:
    """Load the network, and decide what the settings leave open."""
    _require_quantizable(settings)
    with group.main_first():
        completed = complete(settings) if is_new else settings
        config, teacher = assemble.resolve(completed, QuantizeConfig, "quantize")
    notes = [(assemble.unused_text(settings, config), "warning")]
    if teacher.scheme is not None:
        raise InputError(f"'{teacher.name}' is already quantized", hint="name the float model that it was made from")
    _require_images(config)
    config, course = settle(config, teacher, completed, group)
    if is_new:
        config, chosen, much = follow_memory(config, completed, teacher, teacher, group)
        notes += [(chosen, "info"), (much, "warning")]
    notes.append((course, "info"))
    whole = _without_learning(config)
    config = _without_learning(_shortened(config) if dry_run else config)
    old = images_of(RunFolder(Path(config.reuse))) if config.reuse and is_new else None
    if old:
        config = _with_room(config, len(old[1]))
    return _Asked(config, whole, teacher, old, [note for note in notes if note[0]])


def _trial(teacher: Classifier, group: Group, config: QuantizeConfig, student: Classifier, folder: RunFolder) -> Job:
    """Put together what a forecast measures: steps are chosen by the images of the first rounds."""
    assert isinstance(student.network, fx.GraphModule)
    first = Quantization(config, student.network, None, student.normalization).choose_steps
    return distill.prepare(config, teacher, student, folder, RunLog(None), group, before_learning=first)


def _require_quantizable(settings: Settings) -> None:
    """Refuse wrong bits, and a method whose student cannot have quantizers, before anything is loaded."""
    parse_bits(str(settings.get("quantizer.bits") or QuantizeConfig().quantizer.bits))
    name = str(settings.get("method.name") or DEFAULT_METHOD)
    plugins.check("methods", name, extra=WITHOUT_IMAGES)
    if name not in WITHOUT_IMAGES and not plugins.part("methods", name, "Method").may_quantize:
        raise ConfigError(
            f"the method {name} differentiates its student twice, which is impossible through rounding",
            hint="choose another --method, such as zaq",
        )


def _require_images(config: QuantizeConfig) -> None:
    """Refuse to reconstruct where nothing is there to do it by, or where the network learns anyway."""
    quantizer = config.quantizer
    if quantizer.reconstruct and quantizer.mode != "ptq":
        raise ConfigError(
            "--reconstruct is for --mode ptq: with qat the network learns as a whole", hint="add --mode ptq"
        )
    if quantizer.reconstruct and quantizer.calibration in WITHOUT_IMAGES:
        raise ConfigError(
            f"--reconstruct needs images, and {quantizer.calibration} makes none",
            hint="add --method zeroq, for example",
        )


def _shortened(config: QuantizeConfig) -> QuantizeConfig:
    return replace(shorten(config), quantizer=replace(config.quantizer, reconstruct_steps=1))


def scheme_of(config: QuantizeConfig) -> Scheme:
    """Return the bits that the settings ask for."""
    quantizer = config.quantizer
    bits = parse_bits(quantizer.bits)
    return Scheme(*bits, quantizer.first_last_bits, quantizer.edge_bits, quantizer.weight_range)


def _with_quantizers(teacher: Classifier, config: QuantizeConfig) -> tuple[fx.GraphModule, dict[str, Gaussian] | None]:
    """Return a copy of the network that can round, and what is known of its layers without images."""
    network, outputs = teacher.network, None
    if config.quantizer.calibration == "dfq-nagel":
        network, outputs = dfq_nagel.equalize(network, teacher.shape)
    frozen = config.quantizer.bn != "train"
    return graph.quantize(network, teacher.shape, scheme_of(config), frozen=frozen), outputs


@dataclass
class Quantization:
    """Does everything besides learning: chooses steps before it, and turns the network into integers after it.

    Args:
        config: settings of the run.
        network: the student's network, with quantizers.
        outputs: what is known of its layers without images, where steps are chosen by that.
        normalization: of the images.

    """

    config: QuantizeConfig
    network: fx.GraphModule
    outputs: dict[str, Gaussian] | None
    normalization: Normalization

    def choose_steps(self, recorder: Recorder, engine: Engine) -> None:
        """Choose the steps, by images of the bank or without, and measure what that alone gives."""
        quantizer = self.config.quantizer
        with engine.meter.clock("calibration"):
            if self.outputs is not None:
                dfq_nagel.calibrate(self.network, self.outputs, self.normalization)
            elif quantizer.calibration == "analytic":
                noises = analytic.calibrate(self.network, self.normalization, limit=self._widens())
                _judge(noises, recorder.log)
            else:
                self._calibrate(engine, recorder.log)
            self._measure_statistics(engine)
        if quantizer.mode == "ptq":
            recorder.log.note(f"the bits took {engine.meter.worked()[1] / 60:.1f} minutes of one core")
        recorder.facts["ptq"] = recorder.measure.student(engine.student.model)

    def _widens(self) -> bool:
        """Say whether limits of weights follow the steps of activations: those do not learn."""
        return self.config.quantizer.mode == "ptq" and self.config.quantizer.weight_range == "7bit"

    def _calibrate(self, engine: Engine, log: RunLog) -> None:
        """Choose the steps by images, and round by them where nothing learns."""
        quantizer, clip = self.config.quantizer, self.config.quantizer.calibration == "mse"
        calibrate(self.network, self._batches(engine), engine.group, clip=clip, limit=self._widens())
        if quantizer.reconstruct:
            self._reconstruct(engine, log)
        elif clip and quantizer.mode == "ptq":
            self._compensate(engine)

    def _compensate(self, engine: Engine) -> None:
        """Round weights in turn where means are known without images; elsewhere each to the nearest."""
        try:
            known = follow(self.network, {}, self.normalization)
        except InputError:
            return
        compensate(self.network, self._batches(engine), engine.group, known)

    def _reconstruct(self, engine: Engine, log: RunLog) -> None:
        """Learn roundings and steps of all blocks."""
        quantizer = self.config.quantizer
        errors = reconstruct(
            self.network,
            torch.cat(list(self._batches(engine))),
            engine.rng["reconstruct"],
            Recipe(steps=quantizer.reconstruct_steps, batch=quantizer.reconstruct_batch),
            engine.group,
            lambda done, of: log({"event": "progress", "epoch": 1, "phase": "blocks", "done": done, "of": of}),
        )
        log.note(f"{len(errors)} blocks: the last one's error falls from {errors[-1][0]:.2%} to {errors[-1][1]:.2%}")

    def finish(self, job: Job, *, dry_run: bool) -> Result:
        """Deploy, export, measure, save; return the result."""
        self._settle(job)
        integers = deploy(self.network)
        student = replace(job.student, network=integers, scheme=scheme_of(self.config))
        model = Normalized(integers, student.normalization)
        model.to(job.device).to(memory_format=torch.channels_last)
        stages, pairs = _stages(job, model)
        onnx = export(job, student, model, self.config.export)
        if onnx:
            stages["onnxruntime"] = onnx.pop("scores")
            pairs.append(_pair("deployed", "onnxruntime", onnx.pop("same")))
        measured = cast(dict[str, Scores], stages)
        about = {
            **vars(self.config.quantizer),
            "stages": stages,
            "kept_float": [asdict(kept) for kept in graph.kept_float(integers)],
            "reused": self.config.reuse,
            "onnx": onnx,
        }
        return conclude(
            job,
            student,
            dry_run=dry_run,
            scores=stages["deployed"],
            shipped={stage: scores for stage, scores in measured.items() if stage in SHIPPED},
            pairs=[pair for pair in pairs if pair],
            quantization=cast(documents.Quantization, about),
        )

    def _settle(self, job: Job) -> None:
        """Make sure that steps are chosen, and all statistics are those of the finished network."""
        if not graph.is_calibrated(self.network):
            self.choose_steps(job.recorder, job.engine)
            return
        if self._widens():
            graph.limit_weights(self.network)  # of a run that goes on after that
        self._measure_statistics(job.engine)

    def _measure_statistics(self, engine: Engine) -> None:
        if self.config.quantizer.bn == "recalibrate":
            recalibrate_statistics(self.network, self._batches(engine), engine.group)

    def _batches(self, engine: Engine) -> Iterator[Tensor]:
        """Yield normalized images from all over the bank."""
        bank, model = engine.bank, engine.student.model
        assert isinstance(model, Normalized)
        count = min(len(bank), -(-self.config.quantizer.images // engine.group.size))
        slots = torch.linspace(0, len(bank) - 1, count).round().long().to(bank.labels.device)
        for some in slots.split(max(min(BATCH, PIXELS // bank.images[0, 0].numel()), 1)) if count else ():
            images, _ = bank.take(some, model.mean.device)
            yield ((images - model.mean) / model.std).contiguous(memory_format=torch.channels_last)


def _stages(job: Job, model: Normalized) -> tuple[Stages, list[Pair | None]]:
    """Measure all that becomes of the model but its file, and compare the last two."""
    measure, learned = job.recorder.measure, job.engine.student.model
    stages: Stages = {
        "float": measure.of_teacher(),
        "ptq": job.recorder.facts["ptq"],
        "fake_quantized": measure.student(learned),
        "deployed": measure.student(model),
    }
    return stages, [_pair("fake_quantized", "deployed", measure.compare(model, learned))]


def _judge(noises: list[analytic.Noise], log: RunLog) -> None:
    """Judge scales that no image has confirmed by the network's own statistics."""
    worst = max(noises, key=lambda noise: noise.share, default=None)
    if worst is None:
        log.note("no layer is followed by BatchNorm, so nothing tells whether rounding is harmless", level="warning")
    elif analytic.broken(noises):
        log.note(
            f"rounding disturbs '{worst.layer}' by {worst.share:.0%} of the variance that BatchNorm knows, so "
            "accuracy is in doubt: choose the steps with images (--mode ptq), or let it learn (--mode qat)",
            level="warning",
        )
    else:
        log.note(f"rounding adds at most {worst.share:.2%} to the variance that any BatchNorm knows")


def _pair(reference: str, stage: str, same: Count | None) -> Pair | None:
    """Say what two stages have in common, if there were images to find that out."""
    if same is None:
        return None
    exact = stage == "onnxruntime"
    return Pair(reference, stage, same, LEAST_AGREEMENT if exact else LEAST_AFTER_ROUNDING, spare=0 if exact else 1)


def _without_learning(config: QuantizeConfig) -> QuantizeConfig:
    """Leave out what comes after the steps are chosen, where that is all that is wanted."""
    if config.quantizer.mode == "qat":
        return config
    if config.schedule.budget:
        raise ConfigError("with --mode ptq nothing learns, so a budget limits nothing", hint="leave out --budget")
    has_images = config.reuse or config.quantizer.calibration in WITHOUT_IMAGES
    warmup = 0 if has_images else max(config.schedule.warmup_epochs, 1)
    return replace(config, schedule=replace(config.schedule, epochs=0, warmup_epochs=warmup))


def _is_imageless(config: QuantizeConfig) -> bool:
    return config.quantizer.mode == "ptq" and config.quantizer.calibration in WITHOUT_IMAGES


def _at_hand(config: QuantizeConfig) -> int:
    """Return how many images need room besides those that are planned; a bank has room for one where none is."""
    return (config.bank.capacity or 0) if config.reuse else int(_is_imageless(config))


def _with_room(config: QuantizeConfig, images: int) -> QuantizeConfig:
    """Let the bank hold that many images besides those that are planned, unless its size is given."""
    if config.bank.capacity:
        return config
    plan = assemble.plan(config.schedule, images, assemble.budget(config))
    batch = getattr(assemble.method_config(config.method), live_settings.BATCH, config.schedule.batch_size)
    return replace(config, bank=replace(config.bank, capacity=images + plan.images(batch)))
