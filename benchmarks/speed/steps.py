"""Time of the engine's student and generator steps over that of the bare networks."""

from argparse import Namespace
from collections.abc import Iterator

from .common import Figure, compare, make_clock
from .networks import phases

REACH = {("student", "cpu"): 1.10, ("student", "cuda"): 1.10, ("generator", "cpu"): 1.25, ("generator", "cuda"): 1.20}


def figures(options: Namespace) -> Iterator[Figure]:
    """Compare both phases for every batch size."""
    for name, batch, bare, engine, device in phases(options, options.steps):
        clock = make_clock(options.clock, device)
        ratio, quartiles, bare_s, engine_s = compare(bare, engine, options.repeats, clock)
        detail = {
            "bare ms": 1e3 * bare_s / options.steps,
            "engine ms": 1e3 * engine_s / options.steps,
            "engine images/s": batch * options.steps / engine_s,
        }
        reach = REACH[name, device.type]
        yield Figure(f"{name} step, batch {batch}: engine / bare", ratio, "×", reach, quartiles, detail)
