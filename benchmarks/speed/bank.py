"""Sampling and augmentation from a bank of the size that the paper's longest run fills, against a student step."""

from argparse import Namespace
from collections.abc import Iterator

from nayer_cli.config import read_preset

from .common import Figure, compare, make_clock
from .networks import Bare, running

BANK, BATCH = 320_000, 512


def figures(options: Namespace) -> Iterator[Figure]:
    """Time a batch of the bank, the shuffle shared out over the steps of an epoch."""
    steps = read_preset("cifar10", "nayer")["schedule.kd_steps"]
    bare = Bare(options, 10)
    clock = make_clock(options.clock, bare.device)
    with running(options, bank=BANK, schedule__batch_size=BATCH, method__batch=10) as job:
        method, bank = job.engine.method, job.engine.bank
        batches = method.replay(bank, 10**9)
        shuffle_s = clock(lambda: next(batches)) / steps
        share, quartiles, step_s, batch_s = compare(
            bare.student_step(BATCH), lambda: next(batches), options.repeats, clock
        )
        percent = 100 * (share + shuffle_s / step_s)
        detail = {"batch ms": 1e3 * batch_s, "shuffle ms a step": 1e3 * shuffle_s, "student step ms": 1e3 * step_s}
        name = f"sampling and augmentation, bank of {len(bank):,}, batch {BATCH}, of a bare student step"
        yield Figure(name, percent, "%", 3, tuple(100 * quartile for quartile in quartiles), detail)
