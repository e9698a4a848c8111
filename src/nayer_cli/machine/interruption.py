"""Signals that ask a run to end: noticed between two steps, by all processes of a job at the same one."""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from nayer_cli.machine.distributed import Group

T = TypeVar("T")


class Stopped(Exception):
    """Raised inside a round or a measurement that gives up because the run was asked to end."""


class Interruption:
    """Whether the run was asked to end.

    The first Ctrl-C or SIGTERM only asks. A second Ctrl-C ends the process at once; a second SIGTERM says nothing new.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._asked = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within the block signals ask; threads other than the main one cannot listen, and leave them alone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, self._ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = self._asked or number

    def asked(self, other: int = 0) -> int:
        """Return the signal by which any process was asked to end, or the largest `other` if none was."""
        return self._group.largest(self._asked or other)

    def steps(self, count: int) -> Iterator[int]:
        """Count to `count`, the steps of a round.

        Raises:
            Stopped: the run was asked to end.

        """
        for number in range(count):
            if self.asked():
                raise Stopped
            yield number

    def unless_asked(self, items: Iterable[T]) -> Iterator[T]:
        """Pass on `items`. Other processes may have more or fewer: they meet only at the end.

        Raises:
            Stopped: the run was asked to end.

        """
        for item in items:
            if self._asked:
                break
            yield item
        if self.asked():
            raise Stopped
