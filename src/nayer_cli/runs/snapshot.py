"""Everything that a resumed run needs, taken out of an engine and put back: what is common, and each process's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nayer_cli.bank import MemoryBank
from nayer_cli.engine import Engine
from nayer_cli.machine.distributed import running_statistics
from nayer_cli.method import LoopState
from nayer_cli.runs.shards import Shards, refill
from nayer_cli.types import ImageShape

Tree = dict[str, Any]


def name(loop: LoopState) -> str:
    """Name a checkpoint by its epoch and, inside one, by round and step; names sort by age."""
    inside = f"-{loop.round:06d}-{loop.step:09d}" if loop.round or loop.step else ""
    return f"epoch-{loop.epoch:06d}{inside}"


def own_state(engine: Engine, shards: Mapping[str, Shards]) -> tuple[Tree, Tree]:
    """Return what only this process has, and the new shards of its part of bank and store; all in host memory."""
    collected = {kind: one.collect() for kind, one in shards.items()}
    own = {
        "rng": engine.rng.state_dict(),
        "pending": engine.bank.pending,
        "holdout": engine.holdout.state_dict() if engine.holdout is not None else None,
        "losses": engine.meter.state_dict(),
        "rows": {key: engine.method.get_buffer(key) for key in engine.method.own_rows()},
        "statistics": running_statistics(engine.student.model),
        **{kind: manifest for kind, (manifest, _) in collected.items()},
    }
    new = {name: content for _, written in collected.values() for name, content in written.items()}
    return _moved(own, torch.device("cpu")), new


def common_state(engine: Engine, processes: Sequence[Tree]) -> Tree:
    """Return what all processes have alike, with the `own_state` of each."""
    return {
        "loop": vars(engine.state),
        "student": engine.student.state_dict(),
        "method": engine.method.state_dict(),
        "seconds": engine.meter.seconds,
        "processor_seconds": engine.meter.processor_seconds,
        "processes": list(processes),
    }


def restore(engine: Engine, state: Tree, shards: Mapping[str, Shards]) -> None:
    """Put back what `common_state` returned.

    With as many processes as then, the run goes on exactly; otherwise what each had is dealt out among those there are.
    """
    planned = {"epochs"}  # a run may go on for longer than was planned
    vars(engine.state).update({key: value for key, value in state["loop"].items() if key not in planned})
    engine.student.load_state_dict(state["student"])
    engine.meter.seconds = dict(state["seconds"])
    engine.meter.processor_seconds = dict(state.get("processor_seconds", {}))
    processes = state["processes"]
    if len(processes) == engine.group.size:
        _restore_own(engine, state["method"], processes[engine.group.rank])
    else:
        _deal_out(engine, state["method"], processes)
    for kind, one in shards.items():
        one.load([own[kind] for own in processes])


def _restore_own(engine: Engine, of_method: Tree, own: Tree) -> None:
    engine.method.load_state_dict(of_method | own["rows"])
    engine.student.model.load_state_dict(own["statistics"], strict=False)
    engine.meter.load_state_dict(_moved(own["losses"], engine.student.descent.skipped.device))
    engine.rng.load_state_dict(own["rng"])
    engine.bank.pending = own["pending"]
    if engine.holdout is not None and own["holdout"] is not None:
        engine.holdout.load_state_dict(own["holdout"])


def _deal_out(engine: Engine, of_method: Tree, processes: Sequence[Tree]) -> None:
    """Divide what all processes had; random sequences start afresh, except those that all share."""
    group, device = engine.group, engine.student.descent.skipped.device
    rows = {key: torch.cat([own["rows"][key] for own in processes]) for key in engine.method.own_rows()}
    mine = {key: value.tensor_split(group.size)[group.rank] for key, value in rows.items()}
    engine.method.load_state_dict(of_method | mine)
    engine.student.model.load_state_dict(_mean([own["statistics"] for own in processes]), strict=False)
    engine.meter.load_state_dict(_moved(_mean([own["losses"] for own in processes]), device))
    engine.rng.load_shared(processes[0]["rng"], salt=engine.state.images)
    held = [_bank(own["holdout"]) for own in processes if own["holdout"] is not None]
    if engine.holdout is not None and held:
        refill(engine.holdout, held, list(map(len, held)), sum(bank.added for bank in held), group)


def _bank(state: Tree) -> MemoryBank:
    bank = MemoryBank(max(len(state["labels"]), 1), ImageShape(*state["images"].shape[1:]))
    bank.load_state_dict(state)
    return bank


def _moved(tree: object, device: torch.device) -> Any:
    """Return `tree` with its tensors on `device`."""
    if isinstance(tree, dict):
        return {key: _moved(value, device) for key, value in tree.items()}
    return tree.to(device) if isinstance(tree, Tensor) else tree


def _mean(trees: Sequence[Tree]) -> Tree:
    """Average, tensor by tensor, trees of the same form."""
    return {
        key: _mean([tree[key] for tree in trees])
        if isinstance(first, dict)
        else torch.stack([tree[key] for tree in trees]).mean(0)
        for key, first in trees[0].items()
    }
