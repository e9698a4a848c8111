"""What the measurements share: figures, clocks, taking turns, fresh processes."""

import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from statistics import median, quantiles
from typing import Any, TypeVar

import torch

T = TypeVar("T")
Step = Callable[[], object]
Clock = Callable[[Step], float]


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str
    reach: float | None = None
    """The most that the value may be."""
    quartiles: tuple[float, float] | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    """What the value was made from; keys name the unit."""


def make_clock(kind: str, device: torch.device) -> Clock:
    """Return what measures the seconds of a step: on the wall, or of the processor for this process alone."""
    on_cuda = device.type == "cuda"  # whose work is no time of the processor's
    now = time.process_time if kind == "cpu" and not on_cuda else time.perf_counter

    def wait() -> None:
        if on_cuda:
            torch.cuda.synchronize(device)

    def clock(step: Step) -> float:
        wait()
        start = now()
        step()
        wait()
        return now() - start

    return clock


def interleave(first: Step, second: Step, repeats: int, clock: Clock) -> Iterator[tuple[float, float]]:
    """Time both by turns; which of them goes first alternates, so that a drift of the machine cancels out."""
    first(), second()
    for number in range(repeats):
        seconds = {step: clock(step) for step in ((first, second) if number % 2 else (second, first))}
        yield seconds[first], seconds[second]


def compare(below: Step, above: Step, repeats: int, clock: Clock) -> tuple[float, tuple[float, float], float, float]:
    """Time both by turns: median and quartiles of the ratios above / below, then the median seconds of each."""
    pairs = list(interleave(below, above, repeats, clock))
    ratios = [b / a for a, b in pairs]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    below_s, above_s = (median(times) for times in zip(*pairs, strict=True))
    return median(ratios), (low, high), below_s, above_s


def times(step: Step, count: int) -> Step:
    """Return what does `step` so many times."""

    def steps() -> None:
        for _ in range(count):
            step()

    return steps


def in_fresh_process(work: Callable[..., T], options: Namespace, *arguments: Any) -> T:
    """Return `work(options, *arguments)` as a new process finds it, with nothing in memory or in caches."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_work, work, options, arguments).result()


def _work(work: Callable[..., T], options: Namespace, arguments: tuple[Any, ...]) -> T:
    use_threads(options)
    return work(options, *arguments)


def use_threads(options: Namespace) -> None:
    """Use as many threads as the user asks for."""
    if options.threads:
        torch.set_num_threads(options.threads)
