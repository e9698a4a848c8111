"""A run's measures of itself: losses on the device, and seconds by phase."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nayer_cli.machine.distributed import Group

WORK = ("synthesis", "calibration", "student")
"""Phases in which something is learned; loading, measuring and saving are not."""


@dataclass
class Clock:
    """Seconds by phase: wall time, and processor time of all threads. A phase within another counts alone.

    Attributes:
        seconds, processor_seconds: by phase.

    """

    seconds: dict[str, float] = field(default_factory=dict)
    processor_seconds: dict[str, float] = field(default_factory=dict)
    _phase: str = ""
    _since: tuple[float, float] = (0.0, 0.0)

    @contextmanager
    def clock(self, phase: str) -> Iterator[None]:
        """Add the time that the block takes to `phase`."""
        outer = self._phase
        self._go_on(phase)
        try:
            yield
        finally:
            self._go_on(outer)

    def lap(self) -> None:
        """Add the time so far to the phase at hand."""
        self._go_on(self._phase)

    def worked(self) -> tuple[float, float]:
        """Return the seconds of all phases of `WORK` so far, on the wall and on processors."""
        return _sum(self.seconds), _sum(self.processor_seconds)

    def _go_on(self, phase: str) -> None:
        now = (time.perf_counter(), time.process_time())
        for seconds, until, since in zip((self.seconds, self.processor_seconds), now, self._since, strict=True):
            if self._phase:
                seconds[self._phase] = seconds.get(self._phase, 0.0) + until - since
        self._phase, self._since = phase, now


def _sum(seconds: dict[str, float]) -> float:
    return sum(seconds.get(phase, 0.0) for phase in WORK)


@dataclass
class Meter(Clock):
    """Sums losses on the device, and seconds by phase; the host reads the losses once an epoch."""

    _sums: dict[str, Tensor] = field(default_factory=dict)
    _counts: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        """Add one value of loss `name`; one that is not finite is left out of the mean."""
        finite = value.isfinite()
        counted, value = finite.float(), torch.where(finite, value, 0.0)
        self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts[name] = self._counts[name] + counted if name in self._counts else counted

    def read(self, group: Group, more: Tensor) -> tuple[dict[str, float], float]:
        """Return the mean of each loss of this epoch, and of `more`, over all processes; the host waits once."""
        pairs = {name: torch.stack([total.float(), self._counts[name]]) for name, total in self._sums.items()}
        totals = torch.stack([*pairs.values(), torch.stack([more, more])])
        group.average([totals])
        *of_losses, (other, _) = totals.tolist()
        return {name: total / count for name, (total, count) in zip(pairs, of_losses, strict=True) if count}, other

    def start_epoch(self) -> None:
        """Forget the losses of the epoch before."""
        self._sums, self._counts = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """Return sums and counts of the epoch so far."""
        return {"sums": self._sums, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
