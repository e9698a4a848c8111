"""Peak memory of both phases, of the engine over the bare networks.

What torch's allocator hands out is counted, on a CPU (the profiler's memory events) as on a GPU
(`torch.cuda.max_memory_allocated`), weights, gradients and optimizers included, in a process for each side that holds
nothing else. It repeats to the byte, where the resident size of a process also has Python's pages, the code of
whatever kernel ran first, and what malloc kept. The bank holds as good as nothing.
"""

import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from nayer_cli.machine.device import resolve_device

from .common import Figure, Step, in_fresh_process, times
from .networks import Bare, epoch, running

STEPS = 3
Phases = Iterator[tuple[str, Step]]


def figures(options: Namespace) -> Iterator[Figure]:
    """Compare the peaks, for each student batch with the generator batch in the same place."""
    for batches in zip(options.student_batch, options.generator_batch, strict=False):
        bare, engine = (in_fresh_process(peaks, options, side, *batches) for side in (bare_phases, engine_phases))
        for phase, batch in zip(bare, batches, strict=True):
            detail = {"bare MB": bare[phase] / 1e6, "engine MB": engine[phase] / 1e6}
            name = f"{phase} step, batch {batch}: peak memory, engine / bare"
            yield Figure(name, engine[phase] / bare[phase], "×", 1.3, detail=detail)


def bare_phases(options: Namespace, student_batch: int, generator_batch: int) -> Phases:
    bare = Bare(options, generator_batch)
    yield "student", times(bare.student_step(student_batch), STEPS)
    yield "generator", times(bare.generator_step(), STEPS)


def engine_phases(options: Namespace, student_batch: int, generator_batch: int) -> Phases:
    changes = {"schedule__batch_size": student_batch, "method__batch": generator_batch, "method__g_steps": STEPS}
    with running(options, bank=student_batch, **changes) as job:
        yield "student", epoch(job.engine, rounds=0, kd_steps=STEPS)
        yield "generator", epoch(job.engine, rounds=1, kd_steps=0)


def peaks(options: Namespace, side: Callable[..., Phases], student_batch: int, generator_batch: int) -> dict[str, int]:
    """Peak bytes of each phase, one after the other."""
    device, phases = resolve_device(options.device), side(options, student_batch, generator_batch)
    return _on_cuda(phases, device) if device.type == "cuda" else _on_cpu(phases)


def _on_cuda(phases: Phases, device: torch.device) -> dict[str, int]:
    found = {}
    for phase, step in phases:
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        found[phase] = torch.cuda.max_memory_allocated(device)
    return found


def _on_cpu(phases: Phases) -> dict[str, int]:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for phase, step in phases:
            with record_function(f"phase {phase}"):
                step()
    events = _events(profiler)
    allocated = [(event["ts"], event["args"]["Total Allocated"]) for event in events if event["name"] == "[memory]"]
    spans = {
        event["name"].removeprefix("phase "): (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("cat") == "user_annotation" and event["name"].startswith("phase ")
    }
    return {phase: max(total for at, total in allocated if a <= at <= b) for phase, (a, b) in spans.items()}


def _events(profiler: profile) -> list[dict[str, Any]]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
