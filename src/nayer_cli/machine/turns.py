"""Time steps in turns, A B A B, so that a drift of the machine affects all of them. Without torch."""

import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

Step = Callable[[], object]
Now = Callable[[], float]

WARM_UP = 3
"""Calls of each step before anything counts; the first ones allocate, and choose kernels."""
TURN = 0.05
"""Seconds that a turn takes at least: a short step is called several times in it."""
OUTSIDE = 0.05
"""Probability that a median lies outside of its interval."""
LEAST = 6
"""Values from which a median has such an interval."""


class Interval(NamedTuple):
    """A median, and where it lies with a probability of 95 %."""

    median: float
    low: float
    high: float


def take_turns(steps: Sequence[Step], repeats: int, now: Now = time.perf_counter) -> list[list[float]]:
    """Time steps by turns, after a warm-up that does not count.

    Args:
        steps: what to time; a step returns when its work is done.
        repeats: turns of each step.
        now: a clock, in seconds.

    Returns:
        For each step the seconds that a call took in each of its turns.

    """
    counts = [_warm_up(step, now) for step in steps]
    turns = [[_turn(step, count, now) for step, count in zip(steps, counts, strict=True)] for _ in range(repeats)]
    return [list(of_step) for of_step in zip(*turns, strict=True)]


def _warm_up(step: Step, now: Now) -> int:
    """Return how many calls make a turn."""
    fastest = min(_turn(step, 1, now) for _ in range(WARM_UP))
    return max(math.ceil(TURN / fastest), 1) if fastest > 0 else 1


def _turn(step: Step, count: int, now: Now) -> float:
    start = now()
    for _ in range(count):
        step()
    return (now() - start) / count


def interval(values: Sequence[float]) -> Interval:
    """Return the median with a 95 % interval that supposes nothing of the distribution.

    Its ends are values themselves: those between which the binomial distribution puts the median.

    Raises:
        ValueError: there are less than `LEAST` values.

    """
    if len(values) < LEAST:
        raise ValueError(f"{len(values)} values have no such interval")
    ordered, count = sorted(values), len(values)
    rank, below = 0, 0.0
    while (below := below + 2 * math.comb(count, rank) / 2**count) <= OUTSIDE:
        rank += 1
    return Interval(median(ordered), ordered[rank - 1], ordered[count - rank])
