"""The checkpoints of a run: written so that one can always be trusted, and read only after a look at every byte."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nayer_cli.checkpoint import Seal, load_state, read_manifest, save_state, seal, verify, write_manifest
from nayer_cli.errors import RunFailed
from nayer_cli.files import delete, leftovers


class Checkpoints:
    """A folder of checkpoints: each a manifest, a state, and the shards of the bank that the manifest lists."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bank = path / "bank"
        self._seals: dict[str, Seal] = {}

    def save(
        self, name: str, state: Any, keep: int, shards: Mapping[str, Any] | None = None, needed: Sequence[str] = ()
    ) -> Path:
        """Write a checkpoint, then delete what only older ones than the `keep` newest need.

        Args:
            name: names sort by age.
            state: everything but the bank's images.
            keep: checkpoints kept.
            shards: new shards of the bank, by name.
            needed: names of all shards that the bank consists of.

        """
        for shard, content in (shards or {}).items():
            save_state(self.bank / shard, content)
            self._seals[f"bank/{shard}"] = seal(self.bank / shard)
        path = self.path / f"{name}.json"
        save_state(path.with_suffix(".safetensors"), state)
        own = {f"{name}.safetensors": seal(path.with_suffix(".safetensors"))}
        write_manifest(path, own | {f"bank/{shard}": self._seals[f"bank/{shard}"] for shard in needed})
        self._prune(keep)
        return path

    def _prune(self, keep: int) -> None:
        """Delete checkpoints but the `keep` newest, and whatever belongs to none: parts of saves that were cut off."""
        kept = self.all()[-keep:]
        needed = {path.name for path in kept} | {Path(name).name for path in kept for name in _files_of(path)}
        ours = [*self.path.glob("epoch-*"), *self.bank.glob("shard-*")]
        delete([path for path in ours if path.name not in needed])
        delete([*leftovers(self.path), *leftovers(self.bank)])

    def newest_valid(self, warn: Callable[[str], None] = lambda message: None) -> Path:
        """Return the newest checkpoint of which every byte is as it was written.

        Args:
            warn: is told of each damaged one that is passed over.

        Raises:
            RunFailed: there is no checkpoint, or none is intact.

        """
        found = self.all()
        if not found:
            raise RunFailed(f"{self.path.parent} has no checkpoint", hint="start again with another --out")
        faults = []
        for path in reversed(found):
            try:
                verify(path)
            except RunFailed as fault:
                faults.append(str(fault))
                continue
            for fault_found in faults:
                warn(f"{fault_found}; going on from {path.stem}")
            self._seals = read_manifest(path)
            return path
        raise RunFailed(
            f"no checkpoint of {self.path.parent} is intact: {'; '.join(faults)}",
            hint="restore the directory from a backup, or start again with another --out",
        )

    def load(self, path: Path | None = None) -> Any:
        """Load the state of the checkpoint at `path`, by default the newest intact one.

        Raises:
            RunFailed: as `newest_valid` does.

        """
        return load_state((path or self.newest_valid()).with_suffix(".safetensors"))

    def all(self) -> list[Path]:
        """Return the manifests of all checkpoints, oldest first."""
        return sorted(self.path.glob("epoch-*.json"), key=lambda path: path.stem)


def _files_of(manifest: Path) -> Iterable[str]:
    """Return the files that a checkpoint needs; a damaged one needs none."""
    try:
        return read_manifest(manifest)
    except RunFailed:
        return ()
