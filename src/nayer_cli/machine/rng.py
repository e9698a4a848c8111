"""Randomness is passed, never ambient: one named generator per purpose, all derived from one seed."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
from torch import Tensor

SHARED = "shared/"
ON_HOST = "host/"


class Streams:
    """Named random generators on one device, each seeded by (seed, rank, name); their state goes into checkpoints.

    Every process of a job has its own sequences, save those that it asks for with `shared`.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu", rank: int = 0) -> None:
        self.seed = seed
        self.rank = rank
        self.device = torch.device(device)
        self._generators: dict[str, torch.Generator] = {}
        self._salt = 0

    def __getitem__(self, name: str) -> torch.Generator:
        """Return the generator for purpose `name`, made at first use."""
        return self._named(name, self.rank)

    def shared(self, name: str) -> torch.Generator:
        """Return the generator for purpose `name`, from which every process draws the same; it is one of the host."""
        return self._named(f"{SHARED}{name}", 0)

    def on(self, device: torch.device | str, name: str) -> torch.Generator:
        """Return the generator for purpose `name` that draws in the memory of `device`: the host's, or the own one.

        What the host must know is drawn there, or it would wait for the device to learn it.
        """
        is_here = torch.device(device).type == self.device.type
        return self._named(name if is_here else f"{ON_HOST}{name}", self.rank)

    def _named(self, name: str, rank: int) -> torch.Generator:
        if name not in self._generators:
            device = "cpu" if name.startswith((SHARED, ON_HOST)) else self.device
            self._generators[name] = torch.Generator(device).manual_seed(self._seed_of(name, rank))
        return self._generators[name]

    def _seed_of(self, name: str, rank: int) -> int:
        words = f"{self.seed}/{rank}/{name.removeprefix(SHARED).removeprefix(ON_HOST)}" + (
            f"/{self._salt}" if self._salt else ""
        )
        digest = blake2b(words.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1  # manual_seed takes a signed 64-bit number

    def reseed(self, seed: int) -> None:
        """Start all sequences afresh from another seed."""
        self.seed = seed
        self._generators = {}

    def state_dict(self) -> dict[str, Tensor]:
        """State of every generator used so far, by name, and of torch's own (dropout in a student draws from it)."""
        states = {name: generator.get_state() for name, generator in self._generators.items()}
        states |= {"torch": torch.get_rng_state(), "salt": torch.tensor(self._salt)}
        if self.device.type == "cuda":
            states["torch.cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def load_state_dict(self, states: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned; generators that it does not know start afresh."""
        self._generators = {}
        for name, state in states.items():
            if name == "salt":
                self._salt = int(state)
            elif name == "torch":
                torch.set_rng_state(state.cpu())
            elif name == "torch.cuda":
                torch.cuda.set_rng_state(state.cpu(), self.device)
            else:
                self._named(name, self.rank).set_state(state.cpu())

    def load_shared(self, states: dict[str, Tensor], salt: int) -> None:
        """Take over what all processes share, and start all other sequences afresh from (seed, rank, name, `salt`).

        For a run that goes on with another number of processes than `states` was saved by.
        """
        self._salt = salt
        self._generators = {}
        torch.manual_seed(self._seed_of("torch", self.rank))
        for name in filter(lambda name: name.startswith(SHARED), states):
            self._named(name, 0).set_state(states[name].cpu())


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Within the block torch's global generators are seeded from `generator`; afterwards they are as before.

    For code that draws ambiently, such as the constructors of `torch.nn`.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device).item())
    devices = [generator.device] if generator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
