"""Images per second of NAYER's released code and of ours: same networks, same weights, same batch, one process.

    git clone https://github.com/tmtuan1307/nayer /tmp/nayer
    pip install kornia
    python benchmarks/upstream_speed.py --upstream /tmp/nayer --threads 1 --json speed.json

The released code runs unmodified, in float32, which is all it has; ours in its default precision and in float32. All
take turns in one process, and the medians of the ratios are reported. What is timed:

- student, theirs: `train` of `datafree_kd.py` for `--kd-steps` steps: PNG files through their loader and transforms,
  teacher with its hooks, student, loss, SGD, meters of accuracy and loss.
- student, ours: an epoch of `Engine` with as many steps: sampling, augmentation, teacher, student, loss, SGD.
- generator, theirs: `synthesize` for one round of `--g-steps` steps: noisy layers, labels, Adam, steps with BatchNorm
  and adversarial term, momentum of the statistics, PNG files written, the folder listed for a new loader.
- generator, ours: an epoch of `Engine` with one such round, whose images go to the bank.
- networks only: theirs without reading, transforming and writing images; the student gets the same tensor each time.
  Ours is the same as above.

Without kornia, torchvision's crop and flip stand in for it; they take a seventh of the time.
"""

import argparse
import contextlib
import importlib
import json
import platform
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torchvision
from speed.common import Clock, Step, make_clock, use_threads
from speed.networks import CLASSES, EMBEDDING, classifiers, epoch, running
from torch import nn
from upstream import add_checkout, import_upstream, read_commit

from nayer_cli import __version__
from nayer_cli.classifiers.model import Classifier
from nayer_cli.types import ImageShape

CODE, WIDTH = 1000, 64
SHAPE = ImageShape(3, 32, 32)
WEIGHTS = {"ce": 0.5, "bn": 10.0, "adv": 1.33}
PRECISIONS = {"default": "auto", "float32": "off"}
NETWORKS = ("wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2")


@dataclass(frozen=True)
class Load:
    """What is timed at once: student steps of a batch, or generator steps of one round."""

    phase: str
    batch: int
    steps: int
    bank: int
    """Images at hand for the student, a multiple of the batch: their loader's last batch would be smaller."""


@dataclass(frozen=True)
class Row:
    """One line of the table: images per second (a generator step counts its batch once), and medians of ratios."""

    phase: str
    batch: int
    precision: str
    theirs: float
    ours: float
    ratio: float
    ratio_quartiles: tuple[float, float]
    ratio_networks_only: float
    repeats: int


class Theirs:
    """The released code, its networks with the weights of ours."""

    def __init__(self, datafree: Any, options: argparse.Namespace) -> None:
        self.datafree = datafree
        self.script, self.registry = (importlib.import_module(name) for name in ("datafree_kd", "registry"))
        self.device = torch.device(options.device)
        self.teacher, self.student = (self._network(ours) for ours in classifiers(options))
        self.normalization = self.registry.NORMALIZE_DICT["cifar10"]

    def _network(self, ours: Classifier) -> nn.Module:
        """Both define their layers in the same order, and must answer alike."""
        network = self.registry.MODEL_DICT[ours.name.replace("_", "", 1)](num_classes=CLASSES)
        network.load_state_dict(dict(zip(network.state_dict(), ours.network.state_dict().values(), strict=True)))
        images = torch.randn(2, *SHAPE)
        torch.testing.assert_close(network.eval()(images), ours.network.eval()(images), rtol=1e-3, atol=1e-3)
        return network.to(self.device)

    def steps(self, load: Load, folder: str) -> tuple[Step, Step]:
        """Return what takes the load, with its image files and without."""
        make = self._student if load.phase == "student" else self._generator
        return make(load, folder, files=True), make(load, folder, files=False)

    def _student(self, load: Load, folder: str, files: bool) -> Step:
        synthesizer = self._synthesizer(CLASSES, 1, load.batch, folder)
        networks = [synthesizer.student, synthesizer.teacher]
        synthesizer.data_pool.add(torch.rand(load.bank - CLASSES, *SHAPE))
        synthesizer.synthesize()
        if not files:
            synthesizer.data_iter = SimpleNamespace(next=partial(torch.clone, synthesizer.sample()))
        criterion = self.datafree.criterions.KLDiv(T=20)
        optimizer = torch.optim.SGD(networks[0].parameters(), 1e-3, weight_decay=1e-4, momentum=0.9)
        settings = SimpleNamespace(
            kd_steps=load.steps, method="nayer", gpu=0 if self.device.type == "cuda" else None, fp16=False,
            autocast=self.datafree.utils.dummy_ctx, print_freq=0,
        )  # fmt: skip
        return lambda: self.script.train(synthesizer, networks, criterion, optimizer, settings)

    def _generator(self, load: Load, folder: str, files: bool) -> Step:
        synthesizer = self._synthesizer(load.batch, load.steps, load.batch, folder)
        if not files:
            synthesizer.data_pool = SimpleNamespace(add=lambda images: None, get_dataset=lambda transform: [None])
        return synthesizer.synthesize

    def _synthesizer(self, batch: int, steps: int, student_batch: int, folder: str) -> Any:
        generator = self.datafree.models.generator.NLGenerator(
            ngf=WIDTH, img_size=SHAPE.height, nc=SHAPE.channels, nl=CLASSES, sbz=batch, le_emb_size=CODE,
            le_size=EMBEDDING, label_emb=torch.randn(CLASSES, EMBEDDING, device=self.device),
        )  # fmt: skip
        synthesizer = self.datafree.synthesis.NAYER(
            deepcopy(self.teacher), deepcopy(self.student), generator, num_classes=CLASSES, img_size=tuple(SHAPE),
            g_steps=steps, lr_g=4e-3, synthesis_batch_size=batch, sample_batch_size=student_batch, bn_mmt=0.9,
            oh=WEIGHTS["ce"], bn=WEIGHTS["bn"], adv=WEIGHTS["adv"], save_dir=tempfile.mkdtemp(dir=folder),
            transform=self._transform(), normalizer=self.datafree.utils.Normalizer(**self.normalization),
            device=self.device, warmup=0, g_life=10**9, g_loops=1,
        )  # fmt: skip
        synthesizer.ep = 1  # past the warm-up, so that the adversarial term is on
        return synthesizer

    def _transform(self) -> Any:
        """Take what their CIFAR-10 comes with, without the images."""
        stand_in = patch.object(torchvision.datasets, "CIFAR10", lambda *_, **given: SimpleNamespace(**given))
        with stand_in:
            return self.registry.get_dataset("cifar10")[1].transform


def ours(options: argparse.Namespace, load: Load, amp: str, stack: contextlib.ExitStack) -> Step:
    """Return what takes the load by our engine, in a run put together as `nayer distill` does."""
    asked = argparse.Namespace(**vars(options) | {"amp": amp})
    if load.phase == "student":
        changes, counts = {"schedule__batch_size": load.batch, "method__batch": CLASSES}, (0, load.steps)
    else:
        changes, counts = {"method__batch": load.batch, "method__g_steps": load.steps}, (1, 0)
    job = stack.enter_context(running(asked, bank=load.bank, **changes))
    return epoch(job.engine, rounds=counts[0], kd_steps=counts[1])


def interleave(sides: dict[str, Step], repeats: int, clock: Clock) -> list[dict[str, float]]:
    """Seconds of every side in every repeat; another one goes first each time, so that a drift cancels out."""
    with contextlib.redirect_stdout(None):
        for step in sides.values():
            step()
        names, found = list(sides), []
        for _ in range(repeats):
            names = names[1:] + names[:1]
            found.append({name: clock(sides[name]) for name in names})
    return found


def measure(load: Load, theirs: Theirs, options: argparse.Namespace) -> Iterator[Row]:
    """Make a line of the table for each precision of ours."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        with contextlib.redirect_stdout(None):
            whole, bare = theirs.steps(load, folder)
        sides = {name: ours(options, load, amp, stack) for name, amp in PRECISIONS.items()}
        clock = make_clock(options.clock, theirs.device)
        found = interleave({"theirs": whole, "bare": bare, **sides}, options.repeats, clock)
    for name in PRECISIONS:
        yield _row(load, name, found)


def _row(load: Load, name: str, found: list[dict[str, float]]) -> Row:
    ratios = [times["theirs"] / times[name] for times in found]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    images = load.batch * load.steps
    return Row(
        load.phase,
        load.batch,
        name,
        theirs=images / median(times["theirs"] for times in found),
        ours=images / median(times[name] for times in found),
        ratio=median(ratios),
        ratio_quartiles=(low, high),
        ratio_networks_only=median(times["bare"] / times[name] for times in found),
        repeats=len(found),
    )


def loads(options: argparse.Namespace) -> Iterator[Load]:
    for batch in options.student_batch:
        yield Load("student", batch, options.kd_steps, batch * -(-options.bank // batch))
    for batch in options.generator_batch:
        yield Load("generator", batch, options.g_steps, batch)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_checkout(parser)
    parser.add_argument("--teacher", default="wrn_40_2", choices=NETWORKS)
    parser.add_argument("--student", default="wrn_16_2", choices=NETWORKS)
    parser.add_argument("--student-batch", type=int, nargs="*", default=[128], metavar="B")
    parser.add_argument("--generator-batch", type=int, nargs="*", default=[100], metavar="B")
    parser.add_argument("--kd-steps", type=int, default=1, help="student steps timed at once")
    parser.add_argument("--g-steps", type=int, default=2, help="generator steps per round (their scripts: 30 to 40)")
    parser.add_argument("--bank", type=int, default=1024, help="images at hand for the student, at least")
    parser.add_argument("--workers", type=int, default=0, help="processes of their loader (they ask for 4)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: less disturbed by other programs"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    return parser.parse_args(namespace=argparse.Namespace(size=SHAPE.height, compile="auto", channels_last="auto"))


def main() -> None:
    options = parse()
    use_threads(options)
    kornia = find_spec("kornia")
    datafree = import_upstream(options.upstream, None if kornia else torchvision.transforms, options.workers)
    theirs = Theirs(datafree, options)
    commit = read_commit(options.upstream)
    print(f"{options.teacher} -> {options.student}, upstream {commit[:7]}, nayer {__version__}; images/s and ratios")
    print(
        "| phase | batch | ours in | theirs | ours | ours / theirs | quartiles | networks only |\n" + "|---" * 8 + "|"
    )
    rows = []
    for load in loads(options):
        for row in measure(load, theirs, options):
            rows.append(asdict(row))
            spread = "{:.2f}–{:.2f}".format(*row.ratio_quartiles)
            speeds = f"{row.theirs:.1f} | {row.ours:.1f} | {row.ratio:.2f} | {spread} | {row.ratio_networks_only:.2f}"
            print(f"| {row.phase} | {row.batch} | {row.precision} | {speeds} |", flush=True)
    if options.json:
        facts = {
            "upstream": commit,
            "torch": torch.__version__,
            "platform": platform.platform(),
            "kornia": bool(kornia),
        }
        settings = {key: value for key, value in vars(options).items() if key not in ("json", "upstream")}
        options.json.write_text(json.dumps({"settings": settings, "machine": facts, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
