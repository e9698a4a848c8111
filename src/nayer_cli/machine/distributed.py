"""The processes of one job, started by torchrun: what they agree on, and what they average."""

import atexit
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from nayer_cli.errors import ConfigError, EnvironmentFault
from nayer_cli.machine import breakdown

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""Longest that a process waits for another: building an LTE pool or evaluating may take one of them a while."""


class Group:
    """The processes that share a run; each method is called by all of them, and does nothing where there is one.

    Attributes:
        rank: this process, from 0.
        size: how many processes there are.

    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and output."""
        return self.rank == 0

    def share(self, count: int, what: str) -> int:
        """Return this process's part of a global batch of `count`.

        Raises:
            ConfigError: it cannot be divided evenly, or so that each process has a batch to normalize.

        """
        if count % self.size or count < 2 * self.size:
            raise ConfigError(
                f"{what} = {count} cannot be divided among {self.size} processes, two or more for each",
                hint=f"set it to a multiple of {self.size}: it counts the images of all processes",
            )
        return count // self.size

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes; one message for all of them."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _peers():
            dist.all_reduce(flat)
        parts = flat.div_(self.size).split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])

    def average_statistics(self, network: nn.Module) -> None:
        """Give the normalization layers of a network the mean of their running statistics over the processes.

        A running variance is a mean of variances within batches. The variance of the batches' means is not in it, also
        where there is one process. So it does not depend on how many there are.
        """
        self.average(list(running_statistics(network).values()))

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean over the processes; every process's gradient counts as if the loss were its own alone.

        Each of them has the same loss of the mean, so averaging their parameters' gradients (as `Descent` does) gives
        the gradient of that loss.
        """
        result: Tensor = tensor if self.size == 1 else _Mean.apply(tensor, self)
        return result

    def largest(self, value: int) -> int:
        """Return the largest value that any process gave; the accelerator is not waited for."""
        if self.size == 1:
            return value
        on_host = torch.tensor(value)
        with _peers():
            dist.all_reduce(on_host, op=dist.ReduceOp.MAX)
        return int(on_host)

    def from_main(self, value: T) -> T:
        """Return what the main process gave; between trusted processes, objects may travel as pickles."""
        if self.size == 1:
            return value
        box = [value]
        with _peers():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Return what every process gave, by rank; an empty list in all but the main process."""
        if self.size == 1:
            return [value]
        box: list[T | None] | None = [None] * self.size if self.is_main else None
        with _peers():
            dist.gather_object(value, box)
        return box or []  # type: ignore[return-value]

    def collect(self, value: T) -> list[T]:
        """Return what every process gave, by rank, in every process."""
        if self.size == 1:
            return [value]
        box: list[T | None] = [None] * self.size
        with _peers():
            dist.all_gather_object(box, value)
        return box  # type: ignore[return-value]

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process do the block first, so that the others find its caches filled."""
        if not self.is_main:
            self.largest(0)
        yield
        if self.is_main:
            self.largest(0)


def running_statistics(network: nn.Module) -> dict[str, Tensor]:
    """Return the running statistics of a network's normalization layers by name.

    Other buffers are constants, and the mean of equal numbers may differ from them in the last bit.
    """
    return {name: b for name, b in network.named_buffers() if name.rpartition(".")[2].startswith("running_")}


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, tensor: Tensor, group: Group) -> Tensor:
        mean = tensor.clone()
        group.average([mean])
        return mean

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


_group: Group | None = None
_store: Store | None = None


def join() -> Group:
    """Return the group of this process; the first call meets the other processes that torchrun has started.

    Raises:
        EnvironmentFault: they cannot be reached.

    """
    global _group
    if _group is None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
            _connect()
        _group = Group(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Group()
    return _group


def _connect() -> None:
    global _store
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=TIMEOUT)))
        _store = PrefixStore(f"nayer/{_agree_on_a_word(store, rank, size)}", store)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=_store, rank=rank, world_size=size, timeout=TIMEOUT)
        atexit.register(leave)
    except RuntimeError as error:
        fault = breakdown.explain(error)
        if isinstance(fault, EnvironmentFault):
            raise fault from error
        raise EnvironmentFault(
            f"the processes of this job cannot reach each other ({_first_line(error)})",
            hint="GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the network interface to use",
        ) from error


def leave() -> None:
    """End the group that `join` made: its threads and connections would outlive what they need. Called at exit."""
    global _group
    _group = None
    if dist.is_initialized():
        with suppress(RuntimeError):  # the others may be gone
            dist.destroy_process_group()


def _agree_on_a_word(store: Store, rank: int, size: int) -> str:
    """Return a word that no earlier start of this job knows: torchrun restarts it with the same store.

    What is found there may be of processes that are dead. So the others say a word of their own that nobody has said
    before, the main process answers whatever it finds with its own, and does so until it is confirmed.
    """
    word = uuid4().hex
    if rank:
        store.set(f"nayer/hello/{rank}", word)
        _wait_for(lambda: store.check([f"nayer/answer/{word}"]))
        word = str(store.get(f"nayer/answer/{word}").decode())
        store.set(f"nayer/confirmed/{word}/{rank}", "")
        return word

    def answered(peer: int) -> bool:
        if store.check([f"nayer/hello/{peer}"]):
            store.set(f"nayer/answer/{store.get(f'nayer/hello/{peer}').decode()}", word)
        return bool(store.check([f"nayer/confirmed/{word}/{peer}"]))

    for peer in range(1, size):
        _wait_for(partial(answered, peer))
    return word


def _wait_for(condition: Callable[[], bool]) -> None:
    """Wait until `condition`, as long as a signal does not end the process: waiting inside torch would hold it up."""
    until = time.monotonic() + TIMEOUT.total_seconds()
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError("some have not come")
        time.sleep(0.02)


def local_rank() -> int:
    """Return the number of this process on its machine, and so of its accelerator."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_size() -> int:
    """Return how many processes of the job this machine has."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_first_fault() -> bool:
    """Say whether this process is the first of its job to report a fault: the others only follow from it."""
    try:
        store = _store or _store_of_torchrun()
        return store is None or bool(store.add("faults", 1) == 1)
    except RuntimeError:  # who keeps the store is gone: better twice than never
        return True


def _store_of_torchrun() -> Store | None:
    """Reach the store that torchrun keeps, from a process that has not joined; None where somebody else started it."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    store, _, _ = next(iter(rendezvous("env://", timeout=timedelta(seconds=10))))
    return PrefixStore(f"nayer/start-{os.environ.get('TORCHELASTIC_RESTART_COUNT')}", store)


@contextmanager
def _peers() -> Iterator[None]:
    """Turn a failed message between processes into an error that explains it."""
    try:
        yield
    except RuntimeError as error:
        # Not every error is of the connection: memory can run out here, too.
        raise breakdown.explain(error) or breakdown.lost_peer(error) from error


def _first_line(error: RuntimeError) -> str:
    return str(error).partition("\n")[0][:120]
