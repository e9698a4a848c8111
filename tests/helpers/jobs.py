"""What the processes of the jobs that tests start do; each function runs in every one of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nayer_cli.augment import Augment
from nayer_cli.bank import MemoryBank
from nayer_cli.classifiers.model import Normalized
from nayer_cli.critic import Critic
from nayer_cli.descent import Descent, RoundParameter
from nayer_cli.engine import Engine, Plan
from nayer_cli.evaluate import evaluate
from nayer_cli.images.labelled import LabelledImages
from nayer_cli.images.source import ArraySource
from nayer_cli.machine.distributed import Group, join, running_statistics
from nayer_cli.machine.interruption import Interruption
from nayer_cli.machine.precision import Precision
from nayer_cli.machine.rng import Streams
from nayer_cli.method import Batch, LoopState, Parts
from nayer_cli.methods import nayer
from nayer_cli.runs import distill, quantize, train
from nayer_cli.runs.assemble import Machine
from nayer_cli.runs.measure import Measure
from nayer_cli.runs.run import Job
from nayer_cli.storage.checkpoint import fingerprint
from nayer_cli.student import Student
from nayer_cli.types import Normalization
from tiny import CLASSES, SHAPE, normalized, parts

CPU = torch.device("cpu")


def exchange(folder: Path) -> dict[str, Any]:
    """All that a group does, once."""
    group = join()
    tensors = [torch.full((2, 3, 2, 2), float(group.rank)).to(memory_format=torch.channels_last), torch.ones(1)]
    group.average(tensors)
    x = torch.tensor([1.0, 2.0 + group.rank], requires_grad=True)
    group.mean(x).square().sum().backward()
    with group.main_first():
        found = (folder / "cache").exists()
        (folder / "cache").touch()
    return {
        "average": [tensor.unique().tolist() for tensor in tensors],
        "gradient": [] if x.grad is None else x.grad.tolist(),
        "found": found,
        "largest": group.largest(-3 if group.is_main else -5),
        "from_main": group.from_main({"rank": group.rank}),
        "gather": group.gather(group.rank),
        "collect": group.collect(group.rank),
        "share": group.share(8, "batch"),
    }


class Steep(torch.autograd.Function):
    """The identity, with a gradient so many times as large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def descend(bad: str) -> dict[str, Any]:
    """Take two steps; in the second process the loss or a gradient of the first one is not finite."""
    group = join()
    common, own = nn.Parameter(torch.ones(())), RoundParameter(torch.ones(()))
    descent = Descent(torch.optim.SGD([common, own], lr=1.0, fused=True), Precision(), group)
    taken = []
    for factor in (float("inf") if group.rank == 1 else 1.0, 1.0):
        of = {name: factor if name == bad else 1.0 for name in ("common", "own", "loss")}
        slope = Steep.apply(common, of["common"]) + Steep.apply(own, of["own"])
        taken.append(bool(descent.step((group.rank + 1) * slope * of["loss"])))
    return {"common": float(common), "own": float(own), "skipped": int(descent.skipped), "taken": taken}


class Plain(nn.Module):
    """A generator in which no image depends on the others of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(6, 4 * 8 * 8), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        """Draw images `[B, 3, 8, 8]`."""
        return self.conv(nn.functional.leaky_relu(self.linear(codes)).view(-1, 4, 8, 8)).sigmoid()


class Scripted(nayer.Method):
    """NAYER with nothing left to chance: the noisy layers of all processes together are always the same."""

    def __init__(self, given: Parts) -> None:
        config = nayer.Config(batch=16 // given.group.size, g_steps=3, g_life=0, code_size=6, temperature=4.0)
        super().__init__(config, given)
        torch.manual_seed(0)
        self.generator = Plain()
        drawn = torch.randn(4, 5, 6).tensor_split(given.group.size)[given.group.rank]
        self.codes.renew = lambda _: (self.codes.weight.data.copy_(drawn), self.codes.bias.data.zero_())
        self.labels = torch.arange(CLASSES).repeat(4 // given.group.size)

    def replay(self, bank: MemoryBank, steps: int) -> Iterator[Batch]:
        """Yield what the generator draws now: the bank's images are rounded, and of each process's best step."""
        with torch.no_grad():
            batch = Batch(self.draw(self.labels), self.labels)
        for _ in range(steps):
            yield batch


def student(group: Group) -> Student:
    """A student that normalizes each image by itself."""
    torch.manual_seed(1)
    layers = (nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(*layers, nn.Linear(8, CLASSES))
    model = Normalized(network, Normalization((0.5,) * 3, (0.25,) * 3))
    settings = {"optimizer": "sgd", "lr": 0.1, "lr_min": 0.0, "momentum": 0.9, "weight_decay": 1e-4}
    return Student(model.train(), group=group, **settings)


def learn() -> dict[str, Any]:
    """A run in which nothing is left to chance, by batches that are the same however many processes share them."""
    group, records = join(), []
    given = parts()._replace(
        group=group, critic=Critic(normalized(), group), augment=Augment(0, False), interruption=Interruption(group)
    )
    engine = Engine(
        method=Scripted(given),
        student=student(group),
        bank=MemoryBank(100, SHAPE),
        plan=Plan(epochs=3, warmup_epochs=1, cycles=1, rounds=2, warmup_rounds=1, kd_steps=3),
        rng=given.rng,
        state=LoopState(warmup_epochs=1),
        evaluate=lambda *_: None,
        after_epoch=lambda _, record: records.append(record),
        group=group,
        interruption=given.interruption,
    )
    engine.run()
    method = {name: value.detach() for name, value in engine.method.state_dict().items()}
    method.pop("codes.norm.running_var")  # of n images it is n / (n - 1) times their variance, and each has its own n
    return {
        "student": {name: value.detach() for name, value in engine.student.model.state_dict().items()},
        "method": method | {"own noisy layers": group.collect(engine.method.codes.weight.detach())},
        "losses": [record["losses"] for record in records],
        "counts": [(record["images"], record["seen"]) for record in records],
    }


def score(count: int) -> dict[str, Any]:
    """Evaluate a network on so many images, of which each process has a part."""
    group = join()
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    source = ArraySource(images, np.arange(count) % CLASSES, None)
    data = LabelledImages(source, SHAPE, part=(group.rank, group.size))
    found = evaluate(normalized(), data, device=CPU, batch_size=2, reference=normalized(seed=1), group=group)
    return {"scores": vars(found.scores), "reference": vars(found.reference), "agreement": found.agreement}


def agree(count: int) -> dict[str, Any]:
    """Measure agreement on so many images, all of them held back by the last process."""
    group = join()
    holdout = MemoryBank(10, SHAPE)
    if count and group.rank == group.size - 1:
        images = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))
        holdout.add(images, torch.zeros(count, dtype=torch.long), torch.Generator())
    machine, interruption = Machine(CPU, Precision(), Streams(0), group), Interruption(group)
    synthetic = (holdout, "images")
    measure = Measure(normalized(seed=1), None, synthetic, machine, batch_size=4, interruption=interruption)
    return measure.student(normalized())


RECIPES = {"distill": distill, "train": train, "quantize": quantize}


def run(recipe: str, settings: dict[str, Any], resume: str | None = None) -> dict[str, Any]:
    """Carry out a whole run: its result, and checksums of what all processes must have alike."""
    jobs: list[Job] = []
    module = RECIPES[recipe]
    begin = "start" if recipe == "quantize" else "carry_out"
    carry_out = getattr(module, begin)
    setattr(module, begin, lambda job, **options: (jobs.append(job), carry_out(job, **options))[1])
    result = getattr(module, recipe)(settings, resume=resume)
    engine = jobs[0].engine
    rows = engine.method.own_rows()
    method = {key: value for key, value in engine.method.state_dict().items() if key not in rows}
    return {
        "result": result,
        "student": fingerprint(engine.student.state_dict()),
        "method": fingerprint(method),
        "bank": fingerprint(list(engine.bank.held())),
    }


def run_each(several: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Carry out one run of `nayer distill` after the other, by name."""
    return {name: run("distill", settings) for name, settings in several.items()}


def restored(run: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Resume a run, but only to look at what it would go on from."""
    jobs: list[Job] = []
    distill.carry_out = lambda job, **_: jobs.append(job) or {}
    distill.distill(settings, resume=run)
    engine = jobs[0].engine
    jobs[0].recorder.restore(engine)
    banks = {"bank": engine.bank, "holdout": engine.holdout}
    model = engine.student.model
    learned = [engine.student.optimizer.state_dict(), *(parameter.detach() for parameter in model.parameters())]
    return {
        "common": {
            "loop": dict(vars(engine.state)),
            "student": fingerprint(learned),
            "method": fingerprint(engine.method.state_dict()),
        },
        "statistics": torch.cat(list(running_statistics(model).values())),
        "images": {name: bank.held()[0].flatten(1).tolist() for name, bank in banks.items() if bank is not None},
    }
