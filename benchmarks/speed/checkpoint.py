"""Bytes and seconds of a checkpoint with a small and with a large bank, after an epoch's images were added."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from .common import Figure
from .networks import epoch_end, running

BANKS = 10_000, 320_000
REPEATS = 5
IMAGES = 800
"""That an epoch of the paper's schedule synthesizes."""
SMALL = {"method__batch": IMAGES // 2, "method__g_steps": 1, "schedule__batch_size": 8, "output__sample_every": 0}


def figures(options: Namespace) -> Iterator[Figure]:
    """Compare the two banks."""
    small, large = (checkpoint(options, bank) for bank in BANKS)
    for what, unit in (("bytes", "MB"), ("time", "ms")):
        detail = {f"{count:,} images {unit}": found[unit] for count, found in zip(BANKS, (small, large), strict=True)}
        name = f"{what} of a checkpoint, bank of {BANKS[1]:,} images over {BANKS[0]:,}"
        yield Figure(name, large[unit] / small[unit], "×", detail=detail)


def checkpoint(options: Namespace, bank: int) -> dict[str, float]:
    """Size and time of saving what an epoch of the paper's schedule changes."""
    with running(options, bank=bank, **SMALL) as job:
        meter, folder = job.engine.meter, job.recorder.folder.path
        end = epoch_end(job.engine, IMAGES)
        end(1)  # the first one writes the whole bank
        found = []
        for number in range(2, REPEATS + 2):
            before, seconds = _files(folder), meter.seconds["saving"]
            end(number)
            written = sum(size for _, size, _ in _files(folder) - before)
            found.append((written / 1e6, 1e3 * (meter.seconds["saving"] - seconds)))
        megabytes, milliseconds = zip(*found, strict=True)
        return {"MB": median(megabytes), "ms": median(milliseconds)}


def _files(folder: Path) -> set[tuple[Path, int, int]]:
    """Each file with its size and when it was written."""
    facts = ((path, path.stat()) for path in folder.rglob("*") if path.is_file())
    return {(path, fact.st_size, fact.st_mtime_ns) for path, fact in facts}
