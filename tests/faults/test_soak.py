"""A run of hours: neither memory nor open files nor the disk grow with the rounds."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nayer_cli.runs.distill import distill
from quick import few_images, quick

MIB = 2**20


def soak(folder: Path, epochs: int, rounds: int, look: Callable[[], None]) -> None:
    """Run many rounds with a small bank, and look after every epoch."""
    small = {"bank.capacity": 60, "schedule.rounds": rounds, "schedule.kd_steps": 1, "schedule.epochs": epochs}
    rare = {"output.sample_every": 5, "eval.every": 5, "method.g_steps": 1, "method.g_life": 3}

    def listen(record: dict) -> None:
        if record["event"] == "epoch":
            look()

    distill(quick(folder, {"eval.data": few_images(folder), **small, **rare}), listen=listen)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize(("epochs", "rounds"), [(12, 10), pytest.param(60, 60, marks=pytest.mark.slow)])
def test_nothing_grows(epochs: int, rounds: int, tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []

    def look() -> None:
        files = sum(1 for path in (tmp_path / "run/checkpoints").rglob("*") if path.is_file())
        seen.append((resident(), len(list(Path("/proc/self/fd").iterdir())), files))

    soak(tmp_path, epochs, rounds, look)
    warm, last = seen[epochs // 2], seen[-1]
    assert last[0] - warm[0] < 16 * MIB, f"memory grew by {(last[0] - warm[0]) / MIB:.1f} MiB"
    assert last[1] <= warm[1] and last[2] <= warm[2] + 1
    assert torch.get_num_threads() >= 1
