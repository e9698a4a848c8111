"""Several processes of one job, started as torchrun starts them but by forking, which takes no seconds of importing."""

import os
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch.distributed import TCPStore
from torch.distributed.launcher.api import elastic_launch
from torch.distributed.run import config_from_args, parse_args

from forks import FORKS

PATIENCE = 600.0
"""Seconds after which a job that has not ended counts as one that hangs."""


class Ended(NamedTuple):
    """A process that has ended."""

    code: int
    value: Any
    out: str
    err: str


def together(work: Callable[..., Any], *arguments: Any, size: int = 2) -> list[Any]:
    """Return what `work(*arguments)` returns in each process of a job, by rank; all must end well."""
    ended = job(work, *arguments, size=size)
    assert [one.code for one in ended] == [0] * size, "\n".join(one.err for one in ended)
    return [one.value for one in ended]


def job(work: Callable[..., Any], *arguments: Any, size: int = 2) -> list[Ended]:
    """Run `work(*arguments)` in each process of a job, and return how each ended, by rank."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=PATIENCE))
    with TemporaryDirectory() as folder:
        started = []
        for rank in range(size):
            receiving, sending = FORKS.Pipe(duplex=False)
            inside = (_environment(rank, size, store.port), Path(folder), sending, work, arguments)
            process = FORKS.Process(target=_enter, args=inside)
            process.start()
            sending.close()
            started.append((process, receiving))
        until = time.monotonic() + PATIENCE
        return [_wait(*pair, until, Path(folder) / str(rank)) for rank, pair in enumerate(started)]


def _wait(process: Any, receiving: Any, until: float, files: Path) -> Ended:
    value = None
    try:
        if receiving.poll(max(until - time.monotonic(), 0)):
            value = pickle.loads(receiving.recv_bytes())  # as it is: a Connection would share tensors with the process
    except EOFError:
        pass  # it ended without an answer; its exit code says how
    process.join(max(until - time.monotonic(), 0))
    hangs = process.is_alive()
    process.kill()
    process.join()
    out, err = (files.with_suffix(suffix).read_text() for suffix in (".out", ".err"))
    assert not hangs, f"a process hangs; it said\n{err}"
    return Ended(process.exitcode, value, out, err)


def _environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun tells its processes; it keeps the store, so that they are all its clients."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def _enter(environment: dict[str, str], folder: Path, sending: Any, work: Callable[..., Any], arguments: Any) -> None:
    os.environ.update(environment)
    for number, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(folder / f"{environment['RANK']}{suffix}", os.O_WRONLY | os.O_CREAT), number)
    torch.set_num_threads(1)
    sending.send_bytes(pickle.dumps(work(*arguments)))


def command(words: Sequence[str], *faults: "Fault") -> None:
    """`nayer WORDS` in this process, with what happens to it."""
    from nayer_cli.__main__ import main

    for fault in faults:
        fault.prepare()
    sys.exit(main(words))


def launch(words: Sequence[str], *faults: "Fault") -> None:
    """Be torchrun with two processes of `nayer WORDS`, which may be restarted once; it forks them."""
    place = ["--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "--rdzv-id=job"]
    config, _, _ = config_from_args(parse_args([*place, "--max-restarts=1", "--start-method=fork", "nayer"]))
    elastic_launch(config, command)(words, *faults)


class Fault(NamedTuple):
    """A process that gets a signal when it begins its n-th student step."""

    rank: int
    step: int
    signal: int
    attempt: int = 0
    """At which start of the job."""
    to_launcher: bool = False
    """The signal goes to the process that started it, instead."""

    def prepare(self) -> None:
        """Let it happen in this process, if it is the one."""
        from nayer_cli.student import Student

        here = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        if here != (self.rank, self.attempt):
            return
        steps, step = iter(range(1, 10**9)), Student.step

        def interrupted(student: Student, *arguments: Any) -> Any:
            if next(steps) == self.step:
                os.kill(os.getppid() if self.to_launcher else os.getpid(), self.signal)
            return step(student, *arguments)

        Student.step = interrupted  # type: ignore[method-assign]
