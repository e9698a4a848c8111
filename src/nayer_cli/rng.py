"""Randomness is passed, never ambient: one named generator per purpose, all derived from one seed."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
from torch import Tensor


class Streams:
    """Named random generators on one device, each seeded by (seed, rank, name); their state goes into checkpoints."""

    def __init__(self, seed: int, device: torch.device | str = "cpu", rank: int = 0) -> None:
        self.seed = seed
        self.rank = rank
        self.device = torch.device(device)
        self._generators: dict[str, torch.Generator] = {}

    def __getitem__(self, name: str) -> torch.Generator:
        """Return the generator for purpose `name`, made at first use."""
        if name not in self._generators:
            digest = blake2b(f"{self.seed}/{self.rank}/{name}".encode(), digest_size=8).digest()
            seed = int.from_bytes(digest, "little") >> 1  # manual_seed takes a signed 64-bit number
            self._generators[name] = torch.Generator(self.device).manual_seed(seed)
        return self._generators[name]

    def reseed(self, seed: int) -> None:
        """Start all sequences afresh from another seed."""
        self.seed = seed
        self._generators = {}

    def state_dict(self) -> dict[str, Tensor]:
        """State of every generator used so far, by name, and of torch's own (dropout in a student draws from it)."""
        states = {name: generator.get_state() for name, generator in self._generators.items()}
        states["torch"] = torch.get_rng_state()
        if self.device.type == "cuda":
            states["torch.cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def load_state_dict(self, states: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        for name, state in states.items():
            if name == "torch":
                torch.set_rng_state(state.cpu())
            elif name == "torch.cuda":
                torch.cuda.set_rng_state(state.cpu(), self.device)
            else:
                self[name].set_state(state.cpu())


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
