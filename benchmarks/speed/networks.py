"""The two sides of every comparison: the engine as a run has it, and the same networks with nothing around them."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nayer_cli import config as configuration
from nayer_cli.bank import MemoryBank
from nayer_cli.classifiers.model import Classifier, new_classifier, new_network
from nayer_cli.codes import Noisy
from nayer_cli.config import DistillConfig, ModelConfig
from nayer_cli.engine import Engine
from nayer_cli.generator import new_generator
from nayer_cli.machine.distributed import Group
from nayer_cli.machine.rng import Streams
from nayer_cli.methods.nayer import Config as Nayer
from nayer_cli.runs import assemble
from nayer_cli.runs.distill import prepare
from nayer_cli.runs.folder import RunFolder
from nayer_cli.runs.run import Job
from nayer_cli.storage.runlog import Listener
from nayer_cli.types import ImageShape, Normalization

from .common import Step, times

CLASSES, EMBEDDING = 10, 512


def classifiers(options: Namespace) -> tuple[Classifier, Classifier]:
    """Make teacher and student with random weights, which are the same every time."""
    torch.manual_seed(0)
    shape = ImageShape(3, options.size, options.size)
    return _network(options.teacher, shape), _network(options.student, shape)


def _network(name: str, shape: ImageShape) -> Classifier:
    normalization = Normalization((0.5,) * 3, (0.25,) * 3)
    classifier = new_network(ModelConfig(name=name), CLASSES, shape=shape, normalization=normalization)
    settle(classifier.network, torch.randn(4, *shape))
    return classifier


@torch.no_grad()
def settle(network: nn.Module, images: Tensor) -> None:
    """Let BatchNorm statistics fit the random weights, so that no activation grows out of bounds."""
    network.train()
    for _ in range(20):
        network(images)
    network.eval()


def settings(options: Namespace, **changes: Any) -> DistillConfig:
    """Take the paper's settings for CIFAR-10, but for `changes`; `__` stands for the dot in a key."""
    layer = configuration.read_preset("cifar10", "nayer") | {
        "device": options.device,
        "amp": options.amp,
        "compile": options.compile,
        "channels_last": options.channels_last,
        "teacher.name": options.teacher,
        "student.name": options.student,
        "lte.encoder": "random",
        "schedule.warmup_epochs": 0,
        "optimizer.lr": 1e-3,
        "output.save_minutes": 1e6,
    }
    return configuration.build(DistillConfig, layer | {key.replace("__", "."): value for key, value in changes.items()})


@contextmanager
def running(options: Namespace, *, bank: int = 1000, listen: Listener | None = None, **changes: Any) -> Iterator[Job]:
    """Put a run together as `nayer distill` does, in a temporary folder, with `bank` random images in its bank."""
    with TemporaryDirectory(prefix="nayer-benchmark-") as path:
        # A bank is never made larger than what the whole run synthesizes.
        config = settings(options, bank__capacity=bank, schedule__epochs=bank, lte__cache_dir=path, **changes)
        folder = RunFolder(Path(path))
        job = prepare(config, *classifiers(options), folder, folder.log(listen, config.output), Group())
        fill(job.engine.bank, bank)
        yield job


@contextmanager
def demonstration(options: Namespace, listen: Listener | None = None) -> Iterator[Job]:
    """Put together the run of the digits that ship with the package."""
    with TemporaryDirectory(prefix="nayer-benchmark-") as path:
        config, teacher = assemble.resolve({"device": options.device, "amp": options.amp})
        folder = RunFolder(Path(path))
        student = new_classifier(config.student, teacher)
        yield prepare(config, teacher, student, folder, folder.log(listen, config.output), Group())


def fill(bank: MemoryBank, count: int) -> None:
    """Add random images."""
    rng, size = Streams(0, bank.images.device), bank.images.shape[1:]
    for start in range(0, count, 1000):
        some, device = min(1000, count - start), bank.images.device
        labels = torch.randint(CLASSES, (some,), device=device)
        bank.add(torch.rand(some, *size, device=device), labels, rng["bank"])


def epoch(
    engine: Engine, *, rounds: int, kd_steps: int, after: Callable[[Engine, dict[str, Any]], object] = lambda *_: None
) -> Step:
    """An epoch of so many rounds and student steps, by the engine's own loop; nothing is measured or saved after it."""
    plan = replace(engine.plan, epochs=2, warmup_epochs=0, cycles=1, rounds=rounds, kd_steps=kd_steps)

    def step() -> None:
        engine.plan, engine.after_epoch, engine.evaluate = plan, after, lambda *_: None
        engine.state.epoch = 1  # a generator starts its life in epoch 0
        engine.run()

    return step


def epoch_end(engine: Engine, images: int) -> Callable[[int], None]:
    """Return what ends an epoch as a run does, with so many new images in the bank: it logs, draws and saves."""
    plan, after, records = engine.plan, engine.after_epoch, []
    epoch(engine, rounds=1, kd_steps=1, after=lambda _, record: records.append(record))()
    engine.plan = plan

    def end(number: int) -> None:
        fill(engine.bank, images)
        engine.state.epoch = number
        after(engine, records[0] | {"epoch": number, "epochs": plan.total})

    return end


class Bare:
    """Teacher, student and generator as `nn.Module`s, in the engine's precision and layout, compiled if it is.

    Args:
        options: networks, device, precision, layout, compilation.
        generator_batch: images that the generator draws at once.

    """

    def __init__(self, options: Namespace, generator_batch: int) -> None:
        self.machine = assemble.new_machine(settings(options))
        self.device, self.precision = self.machine.device, self.machine.precision
        self.shape = ImageShape(3, options.size, options.size)
        self.teacher, self.student = (assemble.model(one, self.machine).network for one in classifiers(options))
        self.teacher.eval().requires_grad_(False)
        self.generator = self._generator(generator_batch)
        self.generator_batch = generator_batch

    def _generator(self, batch: int) -> nn.Module:
        noisy = Noisy(torch.randn(CLASSES, EMBEDDING), Nayer().code_size, batch).to(self.device)
        noisy.renew(self.machine.rng["noisy"])
        generator = new_generator("auto", Nayer().code_size, self.shape, Nayer().width).to(self.device)
        return nn.Sequential(noisy, generator.to(memory_format=self.machine.layout))

    def student_step(self, batch: int) -> Step:
        """Teacher without gradient; student forward, backward, SGD; on the same random images every time."""
        images, toward = self.images(batch), self._cotangent(batch)
        optimizer = torch.optim.SGD(self.student.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True)

        def step() -> None:
            self.student.train().requires_grad_(True)
            with torch.no_grad(), self.precision():
                self.teacher(images)
            with self.precision():
                logits = self.student(images)
            optimizer.zero_grad()
            logits.backward(toward.to(logits.dtype))
            optimizer.step()

        return step

    def generator_step(self) -> Step:
        """Generator forward and backward, both networks forward and input-backward, Adam."""
        labels = torch.arange(self.generator_batch, device=self.device) % CLASSES
        toward = self._cotangent(self.generator_batch)
        optimizer = torch.optim.Adam(self.generator.parameters(), lr=4e-3, betas=(0.5, 0.999), fused=True)

        def step() -> None:
            self.student.eval().requires_grad_(False)
            with self.precision():
                images = self.generator(labels)
                logits = [self.teacher(images), self.student(images)]
            optimizer.zero_grad()
            torch.autograd.backward(logits, [toward.to(one.dtype) for one in logits])
            optimizer.step()

        return step

    def images(self, count: int) -> Tensor:
        """Random images that are already where and how the networks want them."""
        return torch.randn(count, *self.shape, device=self.device).to(memory_format=self.machine.layout)

    def _cotangent(self, count: int) -> Tensor:
        return torch.randn(count, CLASSES, device=self.device) / count


class Phase(NamedTuple):
    """The same work on both sides."""

    name: str
    batch: int
    bare: Step
    engine: Step
    device: torch.device


def phases(options: Namespace, count: int) -> Iterator[Phase]:
    """Both phases for every batch size, `count` steps each; the other phase's batch does not matter."""
    for batch in options.student_batch:
        bare = Bare(options, CLASSES)
        with running(options, bank=options.bank, schedule__batch_size=batch, method__batch=CLASSES) as job:
            engine = epoch(job.engine, rounds=0, kd_steps=count)
            yield Phase("student", batch, times(bare.student_step(batch), count), engine, bare.device)
    for batch in options.generator_batch:
        bare = Bare(options, batch)
        with running(options, method__batch=batch, method__g_steps=count) as job:
            engine = epoch(job.engine, rounds=1, kd_steps=0)
            yield Phase("generator", batch, times(bare.generator_step(), count), engine, bare.device)
