"""Seconds from the start of a process to its first student step, on the digits that ship with the package."""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from .common import Figure

SCRIPT = Path(__file__).with_name("first_step.py")
AT_ONCE = {"schedule.warmup_epochs": 0, "method.g_steps": 1}
"""Without the synthesis that comes before: one step of the generator, then the student."""
REPEATS = 5


def figures(options: Namespace) -> Iterator[Figure]:
    """Start processes; the first of them compiles Python's code and the pool of embeddings, which the others find."""
    with TemporaryDirectory() as cache:
        shared = {"lte.cache_dir": cache, "device": options.device, "amp": options.amp}
        cold = first_step(options, shared | AT_ONCE, cache)
        warm = [first_step(options, shared | AT_ONCE, cache) for _ in range(REPEATS)]
        whole = first_step(options, shared, cache)
    middle = {name: median(run[name] for run in warm) for name in warm[0]}
    after = {f"{name} s": middle[name] for name in ("import", "start", "synthesis", "student", "processor")}
    yield Figure("import of what a run needs", middle["import"] - middle["python"], "s")
    yield Figure("first student step, one generator step before it", middle["student"], "s", detail=after)
    yield Figure("the same for the first time on a machine", cold["student"], "s")
    yield Figure("first student step of the demonstration, after its warm-up", whole["student"], "s")


def first_step(options: Namespace, settings: dict[str, object], cache: str) -> dict[str, float]:
    """Seconds from the start of a process to each of its events."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
    if options.threads:
        environment["OMP_NUM_THREADS"] = str(options.threads)
    with TemporaryDirectory() as folder:
        document = json.dumps(settings | {"output.out": f"{folder}/run"})
        command = [sys.executable, str(SCRIPT), document]
        started = time.time()
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    marks = json.loads(done.stdout)
    return {name: at if name == "processor" else at - started for name, at in marks.items()}
