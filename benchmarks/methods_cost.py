"""What an image of the student costs with each method: operations are counted, processor time is measured.

    python benchmarks/methods_cost.py --share 16
    python benchmarks/methods_cost.py --preset digits --size 16 --channels 1 --teacher resnet14_digits \
        --student resnet8_digits --repeats 3

A run is put together as `nayer distill` does with the preset, with random weights. A few rounds and a cycle of student
steps are counted, and the schedule says how many of each a run has. Operations are those of products and convolutions,
and the batches may be divided by `--share`, since they are proportional to them. Time is the process's own.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from speed.floor import operations
from speed.networks import settle

import nayer_cli.classifiers.models  # noqa: F401 - registers our networks with timm
from nayer_cli import config as configuration
from nayer_cli import plugins
from nayer_cli.classifiers.model import Classifier, new_network
from nayer_cli.config import DistillConfig, ModelConfig
from nayer_cli.engine import Engine
from nayer_cli.lte.labels import read_labels
from nayer_cli.machine.distributed import Group
from nayer_cli.method import LoopState
from nayer_cli.runs.distill import prepare
from nayer_cli.runs.folder import RunFolder
from nayer_cli.types import ImageShape, Normalization

METHODS = ("nayer", "deepinv", "zskt", "dfq", "cmi", "fm", "pre-dfkd", "mb-dfkd", "kakr", "mad", "spaceship")
VARIANTS = {"kakr generative": ("kakr", {"method.memory": "generative"})}
SHARED = ("schedule.batch_size", "method.batch", "method.queue", "method.negatives")
"""What is divided by `--share`."""
LATER = LoopState(warmup_epochs=0, epochs=10, epoch=2)
EARLY = LoopState(warmup_epochs=3, epochs=10, epoch=2)
"""Where a round is counted: with the student, and in warm-up."""

Work = Callable[[], object]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=[*METHODS, *VARIANTS], metavar="METHOD")
    parser.add_argument("--preset", default="cifar10")
    parser.add_argument("--teacher", default="wrn_40_2")
    parser.add_argument("--student", default="wrn_16_2")
    parser.add_argument("--size", type=int, default=32, help="image side in pixels")
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--share", type=int, default=1, help="divide batches by this")
    parser.add_argument("--repeats", type=int, default=0, help="times that processor time is measured; 0: not at all")
    return parser.parse_args()


@dataclass(frozen=True)
class Cost:
    """Of a whole run."""

    seen: int
    """Images that the student learns from, repetitions counted."""
    making: float
    """GFLOP, or seconds, of all rounds."""
    teaching: float
    """Likewise of all student steps, with what draws their images."""

    @property
    def figures(self) -> tuple[float, float, float]:
        """Of an image of the student: its step alone, then with its part of the rounds; of the run."""
        whole = self.making + self.teaching
        return self.teaching / self.seen, whole / self.seen, whole


def cost(name: str, options: argparse.Namespace, measure: Callable[[Work], float]) -> Cost:
    """Measure a method's rounds and steps, and multiply them as the preset says."""
    method, changes = VARIANTS.get(name, (name, {}))
    settings = configuration.read_preset(options.preset, method) | {"method.name": method} | changes
    config = configuration.build(DistillConfig, settings)
    schedule, g_steps = config.schedule, _own(config, "g_steps")
    with running(config, options, {"method.g_steps": 2} if g_steps else {}) as engine:
        later, early = (measure(lambda state=state: _round(engine, state)) for state in (LATER, EARLY))
        steps = min(schedule.kd_steps, 10)
        teaching = measure(lambda: _steps(engine, steps)) / steps
        images = options.share * _steps(engine, 1)
    if g_steps:  # the second step costs as much as each that follows
        with running(config, options, {"method.g_steps": 1}) as engine:
            once = [measure(lambda state=state: _round(engine, state)) for state in (LATER, EARLY)]
        later, early = (one + (two - one) * (g_steps - 1) for one, two in zip(once, (later, early), strict=True))
    taught = schedule.epochs * schedule.cycles
    making = taught * schedule.rounds * later + schedule.warmup_epochs * schedule.warmup_rounds * early
    seen = taught * schedule.kd_steps * images
    return Cost(seen, options.share * making, options.share * taught * schedule.kd_steps * teaching)


def _own(config: DistillConfig, name: str) -> Any:
    """Return a setting of the method, if it has it."""
    whole = configuration.build(plugins.part("methods", config.method["name"], "Config"), config.method, "method.")
    return getattr(whole, name, None)


@contextmanager
def running(config: DistillConfig, options: argparse.Namespace, changes: dict[str, Any]) -> Iterator[Engine]:
    """Put a run together in a temporary folder; what its student replays is there."""
    known = {key: configuration.to_layer(config).get(key, _own(config, key.partition(".")[2])) for key in SHARED}
    smaller = {key: max(value // options.share, 2) for key, value in known.items() if value}
    layer = configuration.to_layer(config) | smaller | changes
    layer |= {"teacher.name": options.teacher, "student.name": options.student, "bank.capacity": 1000}
    with TemporaryDirectory(prefix="nayer-benchmark-") as path:
        layer |= {"amp": "off", "lte.encoder": "random", "lte.cache_dir": path, "schedule.epochs": 100}
        made = configuration.build(DistillConfig, layer)
        folder = RunFolder(Path(path))
        class_names = read_labels(made.lte.labels or "cifar10", "error")
        classifiers = [_network(name, options, class_names) for name in (options.teacher, options.student)]
        job = prepare(made, *classifiers, folder, folder.log(None, made.output), Group())
        _prime(job.engine)
        yield job.engine


def _network(name: str, options: argparse.Namespace, class_names: tuple[str, ...] | None) -> Classifier:
    shape = ImageShape(options.channels, options.size, options.size)
    normalization = Normalization((0.5,) * options.channels, (0.25,) * options.channels)
    torch.manual_seed(0)
    made = new_network(ModelConfig(name=name), 10, shape=shape, normalization=normalization)
    settle(made.network, torch.randn(4, *shape))
    return replace(made, labels=class_names)


def _prime(engine: Engine) -> None:
    """Make the rounds after which bank, store and ring have something to replay."""
    for epoch in range(2):
        _round(engine, LoopState(epochs=10, epoch=epoch))
        _steps(engine, 1)


def _round(engine: Engine, state: LoopState) -> None:
    with engine.student.frozen() as model:
        batch = engine.method.synthesize(model, state)
    engine.keep(batch.images, batch.labels)
    if engine.method.store is not None and batch.rows is not None:
        engine.method.store.push(batch.rows)


def _steps(engine: Engine, count: int) -> int:
    """Take steps of the student, and return the images of the last one."""
    for batch in engine.method.replay(engine.bank, count):
        engine.student.step(engine.method.student_loss, batch)
    return len(batch)


def processor_time(repeats: int) -> Callable[[Work], float]:
    """Return what measures the seconds of the processor: the median of some repetitions."""

    def measure(work: Work) -> float:
        work()
        return median(_seconds(work) for _ in range(repeats))

    return measure


def _seconds(work: Work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    count, unit, whole = (
        (processor_time(options.repeats), "ms", "h") if options.repeats else (operations, "MFLOP", "PFLOP")
    )
    small, large = (1e3, 1 / 3600) if options.repeats else (1e-6, 1e-15)
    header = (f"{unit} of a student's image: its step", "with its part of the rounds", f"{whole} of the run")
    print(f"| method | {' | × | '.join(header)} | × |")
    print("|---|---|---|---|---|---|---|")
    first: Cost | None = None
    for name in options.methods:
        found = cost(name, options, count)
        first = first or found
        pairs = zip(found.figures, first.figures, (small, small, large), strict=True)
        cells = [f"{factor * figure:,.4g} | {figure / of_first:.2f}" for figure, of_first, factor in pairs]
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
