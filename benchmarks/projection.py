"""What a run would take on one GPU and on many: operations and bytes are counted, times are projected from them.

    python benchmarks/projection.py
    python benchmarks/projection.py --global-batch 1024
    python benchmarks/projection.py --preset cifar10 --teacher wrn_40_2 --student wrn_16_2 --size 32 --classes 10 \
        --epochs 100 --minutes 8 --gpus 1

The rate of one GPU is an assumption unless --measure is given; bandwidths are what the hardware's makers state, and
--link-efficiency of them is taken as reached. Gradients are averaged after the backward pass, so no part of that is
hidden. Not in it: evaluation, pictures, checkpoints, a GPU that waits for a slower one, a smaller batch's lower rate.
"""

import argparse
import math
from dataclasses import dataclass

import timm
import torch
from speed.common import make_clock
from speed.floor import best, operations
from speed.networks import EMBEDDING, Bare
from torch import nn

import nayer_cli.classifiers.models  # noqa: F401 - registers our networks with timm
from nayer_cli import config as configuration
from nayer_cli.codes import Noisy
from nayer_cli.config import DistillConfig
from nayer_cli.generator import new_generator
from nayer_cli.methods.nayer import Config as Nayer
from nayer_cli.runs import assemble
from nayer_cli.types import ImageShape

RATES = (30, 50, 100, 200, 300)  # TFLOP/s
TERA = 1e12


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="imagenet")
    parser.add_argument("--teacher", default="resnet50")
    parser.add_argument("--student", default="resnet18")
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--epochs", type=int, help="default: the preset's")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], metavar="N")
    batch = parser.add_mutually_exclusive_group()
    batch.add_argument("--batch", type=int, help="images of each GPU in a step of either phase; default: the preset's")
    batch.add_argument("--global-batch", type=int, help="images of all GPUs together, instead")
    parser.add_argument("--minutes", type=float, help="tell the rate at which one GPU would take no longer")
    parser.add_argument("--tflops", type=float, default=100.0, help="TFLOP/s that a GPU sustains: an assumption")
    parser.add_argument("--measure", action="store_true", help="measure these of the bare networks here, instead")
    parser.add_argument("--gpus-per-node", type=int, default=8)
    parser.add_argument("--link", type=float, default=450.0, help="GB/s of a GPU to the others of its node, each way")
    parser.add_argument("--network", type=float, default=400.0, help="Gbit/s of a node to the others, each way")
    parser.add_argument("--link-efficiency", type=float, default=0.8, help="part of either that is reached")
    parser.add_argument("--latency", type=float, default=50.0, help="microseconds of a message to all, besides")
    for name in ("device", "amp", "compile", "channels-last"):
        parser.add_argument(f"--{name}", default="auto", help="for --measure, as in nayer distill")
    return parser.parse_args()


@dataclass(frozen=True)
class Phase:
    """One of the two things that a run does over and over."""

    name: str
    batch: int
    """Images of the preset's step."""
    flop: int
    """Of an image in a step, the mean of the run; a multiplication and an addition are two."""
    messages: tuple[int, ...]
    """Bytes that the processes average in a step, message by message."""
    images: int
    """Images that all steps of the run take together, repetitions counted."""

    @property
    def total(self) -> int:
        """FLOP of the whole run."""
        return self.flop * self.images


@dataclass(frozen=True)
class Run:
    """What a run computes, whatever computes it."""

    phases: tuple[Phase, Phase]
    bank: int
    """Images that are synthesized, all of which the bank keeps."""

    @property
    def total(self) -> int:
        """FLOP of both phases."""
        return sum(phase.total for phase in self.phases)


def count(options: argparse.Namespace) -> Run:
    """Count the operations and messages of a run with a preset's schedule."""
    settings = configuration.read_preset(options.preset, "nayer")
    if options.epochs is not None:
        settings["schedule.epochs"] = options.epochs
    config = configuration.build(DistillConfig, settings)
    method: Nayer = assemble.method_config({"name": "nayer", **config.method})
    plan, schedule = assemble.plan(config.schedule), config.schedule
    networks = Networks(options, method)
    seen = schedule.epochs * plan.cycles * plan.kd_steps * schedule.batch_size
    drawn, warm = plan.images(method.batch), method.batch * plan.warmup_epochs * plan.warmup_rounds
    # While the generator warms up there is no adversarial term, so the student does not look on.
    mean = (networks.generator_flop(True) * (drawn - warm) + networks.generator_flop(False) * warm) // drawn
    student = Phase("student", schedule.batch_size, networks.student_flop(), (networks.student_bytes,), seen)
    messages = (networks.generator_bytes, networks.statistics_bytes)
    return Run((student, Phase("synthesis", method.batch, mean, messages, drawn * method.g_steps)), drawn)


class Networks:
    """The networks of a run without memory: only what they would compute is counted."""

    def __init__(self, options: argparse.Namespace, method: Nayer) -> None:
        shape = ImageShape(3, options.size, options.size)
        with torch.device("meta"):
            self.teacher = timm.create_model(options.teacher, num_classes=options.classes).requires_grad_(False)
            self.student = timm.create_model(options.student, num_classes=options.classes)
            self.noisy = Noisy(torch.randn(options.classes, EMBEDDING), method.code_size, method.batch)
            self.generator = new_generator(method.generator, method.code_size, shape, method.width)
            self.images = torch.randn(method.batch, *shape)
            self.labels = torch.zeros(method.batch, dtype=torch.long)
        # Each process has noisy layers of its own: only their BatchNorm is averaged.
        self.generator_bytes = _bytes(self.generator) + _bytes(self.noisy.norm)
        self.student_bytes = _bytes(self.student)
        norms = [module for module in self.teacher.modules() if isinstance(module, nn.BatchNorm2d)]
        self.statistics_bytes = 4 * 2 * sum(norm.num_features for norm in norms)  # means and mean squares

    def student_flop(self) -> int:
        """Teacher forward, student forward and backward, of one image."""

        def step() -> None:
            with torch.no_grad():
                self.teacher(self.images)
            self.student.requires_grad_(True)(self.images).sum().backward()

        return operations(step) // len(self.images)

    def generator_flop(self, with_student: bool) -> int:
        """Generator forward and backward, teacher and perhaps student forward and back to the image, of one image."""

        def step() -> None:
            images = self.generator(self.noisy(self.labels))
            judges = [self.teacher, self.student.requires_grad_(False)][: 1 + with_student]
            torch.stack([judge(images).sum() for judge in judges]).sum().backward()

        return operations(step) // len(self.images)


def _bytes(network: nn.Module) -> int:
    return 4 * sum(parameter.numel() for parameter in network.parameters())  # gradients are float32


def measured(options: argparse.Namespace, run: Run) -> list[float]:
    """FLOP/s of the bare networks on this machine, by phase."""
    student, synthesis = run.phases
    bare = Bare(options, synthesis.batch)
    clock = make_clock("wall", bare.device)
    return [operations(step) / best(step, clock) for step in (bare.student_step(student.batch), bare.generator_step())]


@dataclass(frozen=True)
class Share:
    """A step of one phase on one of so many GPUs."""

    images: int
    flop: int
    sent: float
    """Bytes."""
    working: float
    """Seconds of computing."""
    waiting: float
    """Seconds of averaging."""

    @property
    def efficiency(self) -> float:
        return self.working / (self.working + self.waiting)


def share(phase: Phase, rate: float, gpus: int, options: argparse.Namespace) -> Share:
    """Take one GPU's part of a step; a ring passes each byte on twice, over the slowest of its links."""
    images = options.global_batch // gpus if options.global_batch else options.batch or phase.batch
    flop, sent = images * phase.flop, 2 * (gpus - 1) / gpus * sum(phase.messages)
    link = options.link * 1e9 if gpus <= options.gpus_per_node else options.network * 1e9 / 8
    latency = len(phase.messages) * options.latency * 1e-6 if gpus > 1 else 0.0
    return Share(images, flop, sent, flop / rate, sent / (link * options.link_efficiency) + latency)


def duration(seconds: float) -> str:
    """Write a duration with the unit that fits."""
    return f"{seconds / 60:.1f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def heading(*names: str) -> str:
    return f"\n| {' | '.join(names)} |\n{'|---' * len(names)}|"


def print_work(run: Run) -> None:
    print(heading("phase", "GFLOP of an image", "images in steps", "FLOP", "averaged in a step"))
    for phase in run.phases:
        sizes = " + ".join(f"{size / 1e6:.2f} MB" for size in phase.messages)
        print(f"| {phase.name} | {phase.flop / 1e9:.2f} | {phase.images / 1e6:.1f} M | {phase.total:.1e} | {sizes} |")


def print_one(run: Run, minutes: float | None) -> None:
    print(heading("one GPU sustains", *(f"{rate} TFLOP/s" for rate in RATES)))
    print(f"| both phases take | {' | '.join(duration(run.total / rate / TERA) for rate in RATES)} |")
    if minutes:
        print(f"\n{run.total:.2e} FLOP in {minutes:g} minutes are {run.total / minutes / 60 / TERA:.1f} TFLOP/s.")


def print_many(run: Run, rates: list[float], options: argparse.Namespace) -> None:
    columns = "TFLOP of a GPU", "sent by a GPU", "computing", "averaging", "efficiency"
    print(heading("GPUs", "images in a step", *columns, "bank of a GPU", "both phases"))
    for gpus in options.gpus:
        shares = [share(phase, rate, gpus, options) for phase, rate in zip(run.phases, rates, strict=True)]
        seconds = sum(
            phase.total / rate / gpus / part.efficiency
            for phase, rate, part in zip(run.phases, rates, shares, strict=True)
        )
        bank = math.ceil(run.bank / gpus)
        cells = (
            f"{gpus}",
            " / ".join(f"{part.images * gpus:,}" for part in shares),
            " / ".join(f"{part.flop / TERA:.2f}" for part in shares),
            " / ".join(f"{part.sent / 1e6:.0f}" for part in shares) + " MB",
            " / ".join(f"{1e3 * part.working:.1f}" for part in shares) + " ms",
            " / ".join(f"{1e3 * part.waiting:.1f}" for part in shares) + " ms",
            " / ".join(f"{100 * part.efficiency:.0f}" for part in shares) + " %",
            f"{bank:,}, {bank * 3 * options.size**2 / 1e9:.1f} GB",
            duration(seconds),
        )
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    options = parse()
    run = count(options)
    print(f"{options.teacher} → {options.student}, {options.size} px, preset {options.preset}")
    print_work(run)
    print_one(run, options.minutes)
    rates = measured(options, run) if options.measure else [options.tflops * TERA] * 2
    sustained = " / ".join(f"{rate / TERA:.3g}" for rate in rates)
    print(f"\nOne GPU sustains {sustained} TFLOP/s ({'measured here' if options.measure else 'assumed'}).", end=" ")
    print("A step, student / synthesis:")
    print_many(run, rates, options)


if __name__ == "__main__":
    main()
