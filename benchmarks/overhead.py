"""What the engine adds to the bare networks, in a student step and in a generator step of NAYER.

    python benchmarks/overhead.py --teacher wrn_40_2 --student wrn_16_2 --threads 1 --json overhead.json

Engine and bare networks take turns in one process (A B, B A, …), and the median of the ratios is reported: on a machine
that others use too, the times of a single run may be off by a factor, ratios of neighbours hardly are.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from nayer_cli import __version__
from nayer_cli.bank import MemoryBank
from nayer_cli.config import DistillConfig, ModelConfig
from nayer_cli.critic import Critic
from nayer_cli.method import LoopState, Parts
from nayer_cli.methods.nayer import Config, Method
from nayer_cli.model import Classifier, Normalized, new_network
from nayer_cli.runs import assemble
from nayer_cli.student import Student
from nayer_cli.types import ImageShape, Normalization

CLASSES, EMBEDDING = 10, 512
Step = Callable[[], object]
Clock = Callable[[Step], float]


@dataclass(frozen=True)
class Row:
    """One line of the table; times are medians, in milliseconds for one step."""

    phase: str
    batch: int
    bare_ms: float
    engine_ms: float
    ratio: float
    ratio_quartiles: tuple[float, float]
    images_per_s: float
    repeats: int


class Workbench:
    """Teacher, student and method as a run has them, and copies of the same networks without anything around them."""

    def __init__(self, options: argparse.Namespace, student_batch: int, generator_batch: int) -> None:
        config = DistillConfig(device=options.device, amp=options.amp)
        self.computer = assemble.machine(config)
        self.device, self.precision = self.computer.device, self.computer.precision
        self.clock = make_clock(options.clock, self.device)
        self.shape = ImageShape(3, options.size, options.size)
        teacher, student = self._wrapped(options.teacher), self._wrapped(options.student)
        self.student = assemble.student(student, config)
        self.method = Method(
            Config(batch=generator_batch, g_steps=options.g_steps, g_life=0), self._parts(teacher, student_batch)
        )
        self.bank = self._bank(options.bank)
        self.bare_teacher = deepcopy(teacher.network).eval().requires_grad_(False)
        self.bare_student = deepcopy(student.network)
        self.student_batch, self.generator_batch = student_batch, generator_batch

    def _wrapped(self, name: str) -> Normalized:
        classifier: Classifier = new_network(
            ModelConfig(name=name), CLASSES, shape=self.shape, normalization=Normalization((0.5,) * 3, (0.25,) * 3)
        )
        model = assemble.model(classifier, self.computer)
        settle(model, torch.rand(64, *self.shape, device=self.device))
        return model

    def _parts(self, teacher: Normalized, batch_size: int) -> Parts:
        return Parts(
            critic=Critic(teacher),
            pool=torch.randn(CLASSES, EMBEDDING, device=self.device),
            shape=self.shape,
            augment=assemble.augment(DistillConfig().augment, self.shape),
            rng=self.computer.rng,
            precision=self.precision,
            batch_size=batch_size,
        )

    def _bank(self, count: int) -> MemoryBank:
        bank = MemoryBank(count, self.shape, device=self.device)
        for _ in range(-(-count // 500)):
            images, labels = torch.rand(500, *self.shape), torch.randint(CLASSES, (500,))
            bank.add(images.to(self.device), labels.to(self.device), self.computer.rng["bank"])
        return bank

    def engine_student_step(self) -> Step:
        """Sample, augment, teacher, student, loss, update: what `Engine` does for every batch."""
        batches = self.method.replay(self.bank, 10**9)
        return lambda: self.student.step(self.method.student_loss, next(batches))

    def bare_student_step(self) -> Step:
        """Teacher without gradient; student forward, backward, SGD; on the same random tensor every time."""
        images, toward = self._images(self.student_batch), self._cotangent(self.student_batch)
        teacher, student = self.bare_teacher, self.bare_student.train().requires_grad_(True)
        optimizer = Student(student, optimizer="sgd", lr=1e-3, lr_min=0, momentum=0.9, weight_decay=1e-4, epochs=1)

        def step() -> None:
            with torch.no_grad(), self.precision():
                teacher(images)
            with self.precision():
                logits = student(images)
            optimizer.optimizer.zero_grad()
            logits.backward(toward.to(logits.dtype))
            optimizer.optimizer.step()

        return step

    def engine_generator_round(self) -> Step:
        """One round, with the terms ce, bn and adv."""
        state = LoopState(epoch=1, round=1)

        def step() -> None:
            with self.student.frozen() as student:
                assert set(self.method.synthesize(student, state).losses) == {"ce", "bn", "adv"}

        return step

    def bare_generator_round(self) -> Step:
        """As many steps of generator forward and backward, both networks forward and input-backward, and Adam."""
        draw = nn.Sequential(deepcopy(self.method.noisy), deepcopy(self.method.generator))
        embeddings = self.method.pool[torch.arange(self.generator_batch, device=self.device) % CLASSES]
        toward = self._cotangent(self.generator_batch)
        optimizer = torch.optim.Adam(draw.parameters(), lr=1e-4, betas=(0.5, 0.999), fused=True)
        teacher, student = self.bare_teacher, self.bare_student

        def step() -> None:
            student.eval().requires_grad_(False)
            for _ in range(self.method.config.g_steps):
                with self.precision():
                    images = draw(embeddings)
                    logits = [teacher(images), student(images)]
                optimizer.zero_grad()
                torch.autograd.backward(logits, [toward.to(one.dtype) for one in logits])
                optimizer.step()

        return step

    def _images(self, count: int) -> Tensor:
        images = torch.rand(count, *self.shape, device=self.device)
        return images.to(memory_format=torch.channels_last)

    def _cotangent(self, count: int) -> Tensor:
        return torch.randn(count, CLASSES, device=self.device) / count


@torch.no_grad()
def settle(model: nn.Module, images: Tensor) -> None:
    """Let BatchNorm statistics fit the random weights, so that no activation grows out of bounds."""
    model.train()
    for _ in range(20):
        model(images)


def interleave(bare: Step, engine: Step, repeats: int, clock: Clock) -> Iterator[tuple[float, float]]:
    """Time both by turns; which of them goes first alternates, so that a drift of the machine cancels out."""
    for step in (bare, engine, bare, engine):
        step()
    for number in range(repeats):
        seconds = {step: clock(step) for step in ((bare, engine) if number % 2 else (engine, bare))}
        yield seconds[bare], seconds[engine]


def make_clock(kind: str, device: torch.device) -> Clock:
    """Return what measures the seconds of a step: on the wall, or of the processor for this process alone."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    now = time.perf_counter if kind == "wall" else time.process_time

    def clock(step: Step) -> float:
        wait()
        start = now()
        step()
        wait()
        return now() - start

    return clock


def measure(phase: str, batch: int, bare: Step, engine: Step, steps: int, repeats: int, clock: Clock) -> Row:
    """Make a line of the table from interleaved timings of `steps` steps each."""
    pairs = list(interleave(bare, engine, repeats, clock))
    ratios = [ours / theirs for theirs, ours in pairs]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    bare_s, engine_s = (median(times) / steps for times in zip(*pairs, strict=True))
    return Row(phase, batch, 1e3 * bare_s, 1e3 * engine_s, median(ratios), (low, high), batch / engine_s, repeats)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="wrn_40_2")
    parser.add_argument("--student", default="wrn_16_2")
    parser.add_argument("--size", type=int, default=32, help="image side in pixels")
    parser.add_argument("--student-batch", type=int, nargs="+", default=[128], metavar="B")
    parser.add_argument("--generator-batch", type=int, nargs="+", default=[100], metavar="B")
    parser.add_argument("--g-steps", type=int, default=5, help="generator steps per round (the paper's preset: 30)")
    parser.add_argument("--bank", type=int, default=20_000, help="images in the memory bank")
    parser.add_argument("--amp", choices=("auto", "off", "bf16"), default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="processor threads; default: all")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: less disturbed by other programs"
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    return parser.parse_args()


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """Measure both phases for every batch size."""
    for batch in options.student_batch:
        bench = Workbench(options, batch, generator_batch=CLASSES)
        steps = bench.bare_student_step(), bench.engine_student_step()
        yield measure("student", batch, *steps, 1, options.repeats, bench.clock)
    for batch in options.generator_batch:
        bench = Workbench(options, student_batch=2, generator_batch=batch)
        rounds = bench.bare_generator_round(), bench.engine_generator_round()
        yield measure("generator", batch, *rounds, options.g_steps, options.repeats, bench.clock)


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"{options.teacher} -> {options.student}, {options.size} px, amp {options.amp}, nayer {__version__}")
    print(f"{'phase':<10}{'batch':>6}{'bare ms':>10}{'engine ms':>11}{'ratio':>7}{'quartiles':>13}{'images/s':>10}")
    found = []
    for row in rows(options):
        found.append(asdict(row))
        spread = "{:.2f}–{:.2f}".format(*row.ratio_quartiles)
        times = f"{row.bare_ms:>10.1f}{row.engine_ms:>11.1f}{row.ratio:>7.2f}{spread:>13}{row.images_per_s:>10.1f}"
        print(f"{row.phase:<10}{row.batch:>6}{times}", flush=True)
    if options.json:
        machine = {"torch": torch.__version__, "platform": platform.platform(), "threads": torch.get_num_threads()}
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        options.json.write_text(json.dumps({"settings": settings, "machine": machine, "rows": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
