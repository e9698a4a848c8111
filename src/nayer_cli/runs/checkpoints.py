"""The checkpoints of a run: one is always intact, and every byte is checked before it is read."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nayer_cli.errors import RunFailed
from nayer_cli.storage.checkpoint import (
    RESTORE,
    Seal,
    damaged,
    load_state,
    read_manifest,
    save_state,
    seal,
    verify,
    write_manifest,
)
from nayer_cli.storage.files import delete

OURS = re.compile(
    r"(epoch-\d{6,}(-\d{6,}-\d{9,})?\.(json|safetensors)|(shard|rows)-\d{4,}-of-\d{4,}-\d{12,}\.safetensors)"
)
"""Names of our files; whatever else lies beside them is the user's."""
PARTS = ("loop", "student", "method", "fingerprints")
"""What the state of every run has, besides the parts of its processes."""


class Checkpoints:
    """A folder of checkpoints: each a manifest, a state, and the shards of the bank that the manifest lists."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bank = path / "bank"
        self._seals: dict[str, Seal] = {}
        self._newest: Path | None = None
        """The checkpoint that was written or read last."""

    def save(
        self, name: str, state: object, keep: int, shards: Mapping[str, Any] | None = None, needed: Sequence[str] = ()
    ) -> Path:
        """Write a checkpoint, then delete what only older ones than the `keep` newest need.

        Args:
            name: names sort by age. The checkpoint that was written or read last is of the same moment if it has
                the same name, and stays: written again, it would not be whole for a while.
            state: everything but the bank's images.
            keep: checkpoints kept.
            shards: new shards of the bank, by name.
            needed: names of all shards that the bank consists of.

        """
        path = self.path / f"{name}.json"
        if path != self._newest:
            self._write(path, state, shards or {}, needed)
            self._newest = path
        self.sweep(keep)
        return path

    def _write(self, path: Path, state: object, shards: Mapping[str, Any], needed: Sequence[str]) -> None:
        """Write the shards, the state, and at last the manifest at `path`."""
        for shard, content in shards.items():
            save_state(self.bank / shard, content)
            self._seals[f"bank/{shard}"] = seal(self.bank / shard)
        own = path.with_suffix(".safetensors")
        save_state(own, state)
        seals = {own.name: seal(own)} | {f"bank/{shard}": self._seals[f"bank/{shard}"] for shard in needed}
        write_manifest(path, seals)

    def sweep(self, keep: int) -> None:
        """Delete what the `keep` newest checkpoints up to that which was written or read last do not need.

        A run that was killed between a manifest and this, or before a manifest, leaves something to delete.
        """
        # One that claims to be newer is damaged: it was passed over when the run went on.
        known = [path for path in self.all() if self._newest and path.stem <= self._newest.stem]
        self._delete_but(known[-keep:])

    def clear(self) -> None:
        """Delete all checkpoints, and parts of them that were never finished."""
        self._delete_but([])

    def _delete_but(self, kept: Sequence[Path]) -> None:
        """Delete all that the checkpoints `kept` do not need: others, and parts of saves that were cut off."""
        needed = {path.name for path in kept} | {Path(name).name for path in kept for name in _files_of(path)}
        # A checkpoint's manifest goes first, so that none is left without its files.
        present = [path for path in (*sorted(self.path.glob("epoch-*")), *self.bank.glob("*-of-*")) if _is_ours(path)]
        delete([path for path in present if path.name not in needed])

    def newest_valid(self, warn: Callable[[str], None] = lambda message: None) -> Path:
        """Return the newest checkpoint whose every byte is as it was written.

        Args:
            warn: is called with each damaged one that is skipped.

        Raises:
            RunFailed: there is no checkpoint, or none is intact.

        """
        found = self.all()
        if not found:
            raise RunFailed(f"{self.path.parent} has no checkpoint", hint="start again with another --out")
        faults = []
        for path in reversed(found):
            try:
                self._seals, self._newest = _verified(path), path
            except RunFailed as fault:
                faults.append(str(fault))
                continue
            for fault_found in faults:
                warn(f"{fault_found}; going on from {path.stem}")
            return path
        raise RunFailed(
            f"no checkpoint of {self.path.parent} is intact: {'; '.join(faults)}",
            hint=RESTORE,
        )

    def load(self, path: Path | None = None) -> Any:
        """Load the state of the checkpoint at `path`, by default the newest intact one.

        Raises:
            RunFailed: as `newest_valid` does.

        """
        return load_state((path or self.newest_valid()).with_suffix(".safetensors"))

    def load_run(self, path: Path | None = None, *, with_bank: bool = False) -> dict[str, Any]:
        """Load a checkpoint as `load` does, and make sure that it holds the state of a run.

        Args:
            path: its manifest.
            with_bank: whether every process must have a part of a bank.

        Raises:
            RunFailed: also where it does not.

        """
        path = path or self.newest_valid()
        state = self.load(path)
        if not _is_of_a_run(state, with_bank=with_bank):
            raise RunFailed(f"{path} does not hold the state of a run", hint="restore the directory from a backup")
        return dict(state)

    def all(self) -> list[Path]:
        """Return the manifests of all checkpoints, oldest first."""
        return sorted(filter(_is_ours, self.path.glob("epoch-*.json")), key=lambda path: path.stem)


def _verified(manifest: Path) -> dict[str, Seal]:
    """Return the files of a checkpoint after a look at every byte of them."""
    verify(manifest)
    files = read_manifest(manifest)
    if manifest.with_suffix(".safetensors").name not in files:
        raise damaged(f"{manifest} is the manifest of another checkpoint")
    return files


def _is_of_a_run(state: object, *, with_bank: bool) -> bool:
    if not isinstance(state, dict) or not all(isinstance(state.get(part), dict) for part in PARTS):
        return False
    names, processes = state.get("names"), state.get("processes")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        return False
    if not isinstance(processes, list) or not processes or not all(isinstance(one, dict) for one in processes):
        return False
    return all(_is_bank(one["bank"]) if "bank" in one else not with_bank for one in processes)


def _is_bank(manifest: object) -> bool:
    """Say whether a process tells of its part of a bank as `Shards.collect` does."""
    try:
        numbers = [manifest["added"], manifest["capacity"], *manifest["shapes"]["images"]]  # type: ignore[index]
        shards = [OURS.fullmatch(name) for name in manifest["shards"]]  # type: ignore[index]
    except (KeyError, TypeError):
        return False
    return len(numbers) == 5 and all(type(number) is int and number >= 0 for number in numbers) and all(shards)


def _is_ours(path: Path) -> bool:
    return OURS.fullmatch(path.name) is not None and path.is_file()


def _files_of(manifest: Path) -> Iterable[str]:
    """Return the files that a checkpoint needs; a damaged one needs none."""
    try:
        return read_manifest(manifest)
    except RunFailed:
        return ()
