"""An epoch's fixed costs: display, log, checkpoint and grid. Evaluation is told beside them.

The demonstration is run as it is. For the pair of networks the costs are measured with the bank of the whole run, and
the epoch that they are a share of is projected: the steps of the paper's schedule times the seconds of measured steps.
"""

import io
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from nayer_cli.cli.output import LiveDisplay
from nayer_cli.config import read_preset
from nayer_cli.engine import Engine

from .common import Clock, Figure, make_clock
from .networks import demonstration, epoch, epoch_end, running

BANK = 320_000
EPOCHS = 10
"""Of which one draws a grid, as in a run."""


def figures(options: Namespace) -> Iterator[Figure]:
    """Shares of the demonstration's and of the pair's epochs."""
    yield shipped(options)
    yield projection(options)


class Timed:
    """A function that adds up the seconds of its calls."""

    def __init__(self, work: Callable[..., object]) -> None:
        self.work, self.seconds = work, 0.0

    def __call__(self, *arguments: Any) -> None:
        start = time.perf_counter()
        self.work(*arguments)
        self.seconds += time.perf_counter() - start


@contextmanager
def display() -> Iterator[LiveDisplay]:
    """Show the live display on a terminal that nobody looks at."""
    with LiveDisplay(Console(file=io.StringIO(), force_terminal=True, width=100, highlight=False)) as shown:
        yield shown


def refreshing(seconds: float = 10.0) -> float:
    """Processor seconds a second that the display's own thread takes while the run computes."""
    start = time.process_time()
    time.sleep(seconds)
    return (time.process_time() - start) / seconds


def shipped(options: Namespace) -> Figure:
    """Run the demonstration."""
    with display() as shown, demonstration(options, shown) as job:
        engine = job.engine
        engine.listen, engine.after_epoch = listen, after = Timed(engine.listen), Timed(engine.after_epoch)
        start = time.perf_counter()
        engine.run()
        total = time.perf_counter() - start
        return share("the demonstration", engine, after, listen, total, engine.plan.total)


def projection(options: Namespace) -> Figure:
    """Measure `EPOCHS` ends of an epoch, and project what comes before them."""
    with display() as shown, running(options, bank=BANK, listen=shown, method__g_steps=2) as job:
        engine, plan = job.engine, job.engine.plan
        listen, engine.after_epoch = Timed(engine.listen), Timed(engine.after_epoch)
        after, end = engine.after_epoch, epoch_end(engine, plan.rounds * engine.method.batch)
        seconds = epoch_seconds(engine, make_clock("wall", job.device))
        engine.plan = plan
        end(0)  # the first checkpoint writes the whole bank, which a run has written epoch by epoch
        engine.meter.seconds, after.seconds = {}, 0.0
        for number in range(1, EPOCHS + 1):
            for _ in range(plan.rounds + plan.kd_steps):
                listen({"event": "progress", "epoch": number, "phase": "student", "done": 1, "of": plan.kd_steps})
            end(number)
        return share("the paper's schedule", engine, after, listen, EPOCHS * seconds, EPOCHS)


def epoch_seconds(engine: Engine, clock: Clock) -> float:
    """Seconds of an epoch of the paper's schedule, from two student steps and two generator steps."""
    paper = read_preset("cifar10", "nayer")
    steps = {"rounds": paper["schedule.rounds"] * paper["method.g_steps"], "kd_steps": paper["schedule.kd_steps"]}
    two_of = {
        "rounds": epoch(engine, rounds=1, kd_steps=0),  # a round has two steps here
        "kd_steps": epoch(engine, rounds=0, kd_steps=2),
    }
    for step in two_of.values():
        step()
    return sum(steps[name] / 2 * clock(step) for name, step in two_of.items())


def share(what: str, engine: Engine, after: Timed, listen: Timed, total: float, epochs: int) -> Figure:
    """Fixed costs in percent of `total` seconds, which `epochs` epochs took."""
    spent = engine.meter.seconds
    parts = {
        "display": listen.seconds + refreshing() * total,
        "checkpoint": spent["saving"],
        "log and grid": after.seconds - spent["saving"],
    }
    told = parts | ({"evaluation (not counted)": spent["evaluation"]} if "evaluation" in spent else {})
    detail = {"epoch s": total / epochs} | {f"{name} ms": 1e3 * took / epochs for name, took in told.items()}
    return Figure(f"an epoch's fixed costs, {what}", 100 * sum(parts.values()) / total, "%", 2, detail=detail)
