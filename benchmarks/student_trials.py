"""Ways to teach a student on one fixed set of synthetic images: those in the bank of a finished run.

    nayer distill --teacher T ... --out runs/bank --epochs 1 --set schedule.warmup_epochs=1 \
        --set schedule.warmup_rounds=8 --set schedule.rounds=0 --set schedule.kd_steps=1
    python benchmarks/student_trials.py runs/bank --eval-data test.tar \
        "fresh: blocks=none" "even: blocks=0-3-7 lr=0.03" "features: blocks=0-3-7 lr=0.03 features=100"

Networks are those of the run: a teacher and a student with stages `layer1`, `layer2` …; `blocks` are those of each
teacher's stage that the student begins with. The learning rate follows a cosine over the steps.
"""

import argparse
import math
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nayer_cli import config as configuration
from nayer_cli import losses
from nayer_cli.activations import Staged, common
from nayer_cli.augment import Augment
from nayer_cli.classifiers.model import Classifier, Normalized, load_classifier, new_classifier
from nayer_cli.config import DistillConfig
from nayer_cli.images.labelled import open_images
from nayer_cli.runs.folder import RunFolder
from nayer_cli.runs.sample import images_of


@dataclass(frozen=True)
class Trial:
    """How a student is taught."""

    blocks: str = "none"
    """Blocks of every stage of the teacher that it begins with, such as 0-3-7."""
    lr: float = 0.1
    seen: int = 3840
    """Images, repetitions counted."""
    temperature: float = 20.0
    features: float = 0.0
    mix: float = 0.0
    """Share of batches that are mixed by CutMix."""
    average: float = 0.0
    """Share of earlier weights in the moving average that is measured besides."""
    frozen: float = 0.0
    """1: BatchNorm keeps the teacher's statistics."""
    batch: int = 64
    seed: int = 0


def read(text: str) -> tuple[str, Trial]:
    """Read `name: key=value …`."""
    name, _, rest = text.partition(":")
    kinds = {field.name: type(field.default) for field in fields(Trial)}
    given = dict(word.split("=") for word in rest.split())
    return name, replace(Trial(), **{key: kinds[key](value) for key, value in given.items()})


def begin(student: nn.Module, teacher: nn.Module, blocks: str) -> None:
    """Copy the stem, the head and the chosen blocks of every stage."""
    if blocks == "none":
        return
    chosen, theirs = blocks.split("-"), teacher.state_dict()
    names = student.state_dict()
    for name in names:
        stage, number, *rest = name.split(".")
        origin = ".".join([stage, chosen[int(number)], *rest]) if stage.startswith("layer") else name
        names[name] = theirs[origin].clone()
    student.load_state_dict(names)


def batches(images: Tensor, trial: Trial, rng: torch.Generator) -> Iterator[Tensor]:
    """Yield augmented batches, some of them mixed."""
    order, augment = torch.empty(0, dtype=torch.long), Augment(4, True)
    for step in range(trial.seen // trial.batch):
        if len(order) < trial.batch:
            order = torch.cat([order, torch.randperm(len(images), generator=rng)])
        batch = augment(images[order[: trial.batch]].float() / 255, rng)
        order = order[trial.batch :]
        yield cut_mix(batch, rng) if trial.mix and step % round(1 / trial.mix) else batch


def cut_mix(images: Tensor, rng: torch.Generator) -> Tensor:
    """Put a rectangle of another image of the batch into each (Yun et al. 2019)."""
    height, width = images.shape[2:]
    side = math.sqrt(torch.rand((), generator=rng).item()) / 2
    y, x = (torch.rand(2, generator=rng) * torch.tensor([height, width])).long().tolist()
    rows = slice(max(y - int(height * side), 0), y + int(height * side))
    columns = slice(max(x - int(width * side), 0), x + int(width * side))
    mixed = images.clone()
    mixed[:, :, rows, columns] = images.flip(0)[:, :, rows, columns]
    return mixed


def teach(student: Normalized, teacher: Normalized, images: Tensor, trial: Trial) -> nn.Module:
    """Teach the student; return the moving average of its weights."""
    optimizer = torch.optim.SGD(student.parameters(), lr=trial.lr, momentum=0.9, weight_decay=1e-4)
    mine, its, average = Staged(student), Staged(teacher), deepcopy(student)
    rng, steps = torch.Generator().manual_seed(trial.seed), trial.seen // trial.batch
    for step, batch in enumerate(batches(images, trial, rng)):
        optimizer.param_groups[0]["lr"] = trial.lr * (1 + math.cos(math.pi * step / steps)) / 2
        student.train()
        for norm in student.modules() if trial.frozen else ():
            norm.train(not isinstance(norm, nn.BatchNorm2d))
        with torch.no_grad():
            t, aims = its(teacher, batch)
        s, stages = mine(student, batch)
        loss = losses.distillation_kl(t, s, trial.temperature)
        if trial.features:
            loss = loss + trial.features * sum(losses.feature_distance(*pair) for pair in common(aims, stages))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        follow(average, student, min(trial.average, (1 + step) / (10 + step)))
    return average


@torch.no_grad()
def follow(average: nn.Module, student: nn.Module, share: float) -> None:
    """Move an average towards the student."""
    for old, new in zip(average.state_dict().values(), student.state_dict().values(), strict=True):
        old.lerp_(new, 1 - share) if old.is_floating_point() else old.copy_(new)


@torch.no_grad()
def top1(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Accuracy in percent."""
    network.eval()
    hits = [network(x).argmax(1) == y for x, y in zip(images.split(250), labels.split(250), strict=True)]
    return 100 * torch.cat(hits).float().mean().item()


def wrapped(classifier: Classifier) -> Normalized:
    """Let a network take images in [0, 1]."""
    network = Normalized(classifier.network, classifier.normalization)
    return network.to(memory_format=torch.channels_last)


def main() -> None:
    """Teach one student for each trial, and print how good it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("trials", nargs="+", type=read)
    parser.add_argument("--eval-data", required=True)
    arguments = parser.parse_args()
    folder = RunFolder(arguments.run)
    config = configuration.build(DistillConfig, configuration.read_file(folder.config))
    teacher = load_classifier(config.teacher)
    found = open_images(arguments.eval_data, split="validation", shape=teacher.shape, num_classes=teacher.num_classes)
    pairs = list(found.batches(250))
    tested = torch.cat([x for x, _ in pairs]).float() / 255, torch.cat([y for _, y in pairs])
    images, judge = images_of(folder)[0], wrapped(teacher).eval().requires_grad_(False)
    for name, trial in arguments.trials:
        torch.manual_seed(trial.seed)
        student = new_classifier(config.student, teacher)
        begin(student.network, teacher.network, trial.blocks)
        learner, started = wrapped(student), time.process_time()
        average = teach(learner, judge, images, trial)
        besides = f", averaged {top1(average, *tested):.1f} %" if trial.average else ""
        print(f"{name}: {top1(learner, *tested):.1f} %{besides}; {time.process_time() - started:.0f} s")


if __name__ == "__main__":
    main()
