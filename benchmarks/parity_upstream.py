"""Run NAYER's released code and ours from the same weights and inputs, and print how far apart they end.

    git clone https://github.com/tmtuan1307/nayer /tmp/nayer
    python benchmarks/parity_upstream.py --upstream /tmp/nayer

The released code runs unmodified, on the CPU. What it needs and a machine may lack (kornia, a GPU, loader processes) is
replaced while this script runs. Its noisy layers are filled with given weights instead of random ones, and its random
crop and flip with fixed ones; otherwise its `synthesize` does what it always does.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from upstream import add_checkout, import_upstream, read_commit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

import golden_parts as gp  # noqa: E402
from golden_parts import CHECKS, NORMALIZATION, Case, Check, Tensors  # noqa: E402
from nayer_cli.types import ImageShape  # noqa: E402

Half = Callable[[Case], Tensors]
"""One implementation's run of one check."""
TOLERANCE = 1e-5
DTYPES = (torch.float64, torch.float32)
QUANTITIES = {
    "gradient.": "gradients",
    "student.": "student's statistics",
    "state.past.": "momentum buffers",
    "running_": "BatchNorm buffers",
    "num_batches": "BatchNorm buffers",
    "state.codes.": "noisy layer",
    "state.generator.": "generator",
}
GOLDEN = ROOT / "tests" / "methods" / "nayer_golden.safetensors"


class FixedCrop:
    """Zero-pad and crop each image at its own given place: slicing, where ours gathers."""

    def __init__(self, padding: int) -> None:
        self.padding = padding

    def __call__(self, images: Tensor) -> Tensor:
        padded, (height, width) = F.pad(images, (self.padding,) * 4), images.shape[2:]
        corners = zip(*(shift + self.padding for shift in gp.fixed_shifts(len(images))), strict=True)
        return torch.stack([x[:, y : y + height, z : z + width] for x, (y, z) in zip(padded, corners, strict=True)])


def fixed_flip(images: Tensor) -> Tensor:
    """Flip every other image."""
    flips = gp.fixed_flips(len(images))
    return torch.stack([image.flip(2) if flip else image for image, flip in zip(images, flips, strict=True)])


class Upstream:
    """The released code's half of the checks."""

    def __init__(self, datafree: Any) -> None:
        self.datafree = datafree
        self.normalizer = datafree.utils.Normalizer(*NORMALIZATION)

    def run_check(self, case: Case, check: Check) -> Tensors:
        """What `synthesize` leaves behind, in our names."""
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            student = deepcopy(case.student)
            synthesizer = self._synthesizer(case, check, student, folder)
            assert torch.equal(synthesizer.generate_ys()[0], case.labels)
            for _ in range(1 if check.faithful else check.rounds):
                made, _, loss, _ = synthesizer.synthesize()
            images = _stored(Path(folder), check.rounds - 1, case.batch) if check.faithful else made["synthetic"][-1]
        state = to_ours(synthesizer.generator.state_dict()) | _momentum(synthesizer.hooks)
        gradients = to_ours({name: p.grad for name, p in synthesizer.generator.named_parameters()})
        return gp.outcome(check, torch.tensor(loss), images, state, gradients, student)

    def run_student(self, case: Case) -> Tensors:
        """Loss of a student step at temperature 20, and the gradients in the student."""
        student, teacher = deepcopy(case.student).train(), deepcopy(case.teacher).eval()
        images = self.normalizer(case.images)
        loss = self.datafree.criterions.KLDiv(T=20)(student(images), teacher(images).detach())
        loss.backward()
        return {"loss": loss.detach(), **{f"gradient.{name}": p.grad for name, p in student.named_parameters()}}

    def _synthesizer(self, case: Case, check: Check, student: nn.Module, folder: str) -> Any:
        classes, embedding = case.pool.shape
        kind = {"shallow": "NLGenerator", "deep": "NLDeepGenerator"}[case.generator]
        generator = getattr(self.datafree.models.generator, kind)(
            ngf=case.width, img_size=case.shape.height, nc=case.shape.channels, nl=classes, label_emb=case.pool,
            le_emb_size=case.code_size, le_size=embedding, sbz=case.batch,
        )  # fmt: skip
        generator.load_state_dict(to_upstream(case.start))
        draws = iter(case.draws)
        generator.re_init_le = lambda: _fill(generator.le1, next(draws))
        synthesizer = self.datafree.synthesis.NAYER(
            deepcopy(case.teacher), student, generator, num_classes=classes, img_size=tuple(case.shape),
            g_steps=check.steps, lr_g=check.lr, synthesis_batch_size=case.batch, sample_batch_size=case.batch,
            adv=check.adv, bn=check.bn, oh=check.ce, save_dir=folder, normalizer=self.normalizer, warmup=0,
            bn_mmt=0.9, g_life=1000, g_loops=check.rounds if check.faithful else 1,
        )  # fmt: skip
        synthesizer.ep = 1  # past the warm-up, and not an epoch in which the generator starts afresh
        return synthesizer


@torch.no_grad()
def _fill(layers: nn.ModuleList, draw: Tensor) -> None:
    for layer, weight in zip(layers, draw, strict=True):
        layer.weight.copy_(weight.T)
        layer.bias.zero_()


def _momentum(hooks: list[Any]) -> Tensors:
    return {f"past.{name}": torch.cat([hook.mmt[part] for hook in hooks]) for part, name in enumerate(("mean", "var"))}


def _stored(folder: Path, number: int, count: int) -> Tensor:
    images = [np.asarray(Image.open(folder / f"{number}-{index}.png")) for index in range(count)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(torch.get_default_dtype()) / 255


NAMES = {"n1.": "codes.norm.", "l1.0.": "generator.linear.", "conv_blocks.": "generator.body."}


def to_ours(state: Tensors) -> Tensors:
    """Rename the released generator's tensors; its noisy layers become one `[groups, E, r]`."""
    weights = [value.T for name, value in state.items() if name.startswith("le1.") and name.endswith("weight")]
    biases = [value for name, value in state.items() if name.startswith("le1.") and name.endswith("bias")]
    noisy = {"codes.weight": torch.stack(weights), "codes.bias": torch.stack(biases)[:, None]}
    return _renamed(state, NAMES) | noisy


def to_upstream(state: Tensors) -> Tensors:
    """Undo `to_ours`."""
    renamed = _renamed(state, {ours: theirs for theirs, ours in NAMES.items()})
    for index, (weight, bias) in enumerate(zip(state["codes.weight"], state["codes.bias"], strict=True)):
        renamed |= {f"le1.{index}.weight": weight.T, f"le1.{index}.bias": bias[0]}
    return renamed


def _renamed(state: Tensors, prefixes: dict[str, str]) -> Tensors:
    return {
        new + name.removeprefix(old): value
        for old, new in prefixes.items()
        for name, value in state.items()
        if name.startswith(old)
    }


def realistic_case(datafree: Any, options: argparse.Namespace, generator: str) -> Case:
    """A WRN-16-1 with random weights and BatchNorm statistics of noise; the student is a neighbour of the teacher."""
    torch.manual_seed(options.seed)
    pool = load_file(options.pool)["embeddings"].float() if options.pool else torch.randn(10, 512)
    code_size = 1000
    teacher = _warmed_up(datafree.models.classifiers.wresnet.wrn_16_1(len(pool)), options.side)
    blank = Case(
        pool=pool,
        teacher=teacher,
        student=_neighbour(teacher),
        shape=ImageShape(3, options.side, options.side),
        batch=options.groups * len(pool),
        code_size=code_size,
        width=options.width,
        start={},
        draws=tuple(torch.randn(options.groups, pool.shape[1], code_size) for _ in range(3)),
        generator=generator,
    )
    return replace(blank, start=gp.start_of(blank))


@torch.no_grad()
def _warmed_up(network: nn.Module, side: int) -> nn.Module:
    for _ in range(20):
        network(torch.randn(32, 3, side, side))
    return network.eval()


@torch.no_grad()
def _neighbour(network: nn.Module) -> nn.Module:
    """Near enough to agree on some images and not on others, which the adversarial term tells apart."""
    other = deepcopy(network)
    for parameter in other.parameters():
        parameter.add_(0.2 * parameter.std() * torch.randn_like(parameter))
    return other


@contextlib.contextmanager
def without_kinks() -> Iterator[None]:
    """Within the block activations are smooth on both sides: no rounding of the input can switch a gradient."""
    with (
        patch.object(nn.ReLU, "forward", lambda _, x: F.silu(x)),
        patch.object(nn.LeakyReLU, "forward", lambda layer, x: torch.lerp(F.silu(x), x, layer.negative_slope)),
    ):
        yield


class Row(NamedTuple):
    """Largest difference of a quantity, as a fraction of its largest value."""

    case: str
    check: str
    quantity: str
    float64: float
    """Between the two in float64: what differs is the algorithm."""
    float32: float
    """Between the two in float32."""
    rounding: float
    """Between the released code in float32 and itself in float64: what float32 costs."""

    @property
    def equal(self) -> bool:
        return self.float64 <= TOLERANCE


def halves(upstream: Upstream) -> dict[str, tuple[Half, Half]]:
    """Theirs and ours of every check, by name."""
    checks: dict[str, tuple[Half, Half]] = {
        name: (partial(upstream.run_check, check=check), partial(gp.run_check, check=check))
        for name, check in CHECKS.items()
    }
    return checks | {"student": (upstream.run_student, gp.run_student)}


def compare(name: str, case: Case, checks: dict[str, tuple[Half, Half]]) -> Iterator[Row]:
    """Run checks on both sides in both precisions."""
    for check, (theirs, ours) in checks.items():
        yield from _rows(name, check, case, theirs, ours)


def _rows(name: str, check: str, case: Case, theirs: Half, ours: Half) -> Iterator[Row]:
    sides = {(half, dtype): _computed(half, case, dtype) for half in (theirs, ours) for dtype in DTYPES}
    wide, narrow = sides[theirs, torch.float64], sides[theirs, torch.float32]
    for quantity in dict.fromkeys(map(_quantity, wide)):
        members = [tensor for tensor in wide if _quantity(tensor) == quantity]
        yield Row(
            name,
            check,
            quantity,
            _difference(members, sides[ours, torch.float64], wide),
            _difference(members, sides[ours, torch.float32], narrow),
            _difference(members, narrow, wide),
        )


def _computed(half: Half, case: Case, dtype: torch.dtype) -> Tensors:
    with gp.computing_in(dtype):
        return {name: value.detach().to(torch.float64, copy=True) for name, value in half(case.to(dtype)).items()}


def _quantity(name: str) -> str:
    for part, quantity in QUANTITIES.items():
        if part in name:
            return quantity
    return name


def _difference(names: list[str], actual: Tensors, expected: Tensors) -> float:
    return max(float((actual[n] - expected[n]).abs().max() / expected[n].abs().max().clamp_min(1e-30)) for n in names)


def write_golden(upstream: Upstream, commit: str) -> None:
    """Store what the released code computes in float64 for the tiny case, which a test can rebuild."""
    numbers = {
        f"{name}/{tensor}": value.to(torch.float32).contiguous()
        for name, (theirs, _) in halves(upstream).items()
        for tensor, value in _computed(theirs, gp.golden_case(), torch.float64).items()
    }
    save_file(numbers, GOLDEN, {"upstream": commit, "torch": torch.__version__})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_checkout(parser)
    parser.add_argument("--pool", type=Path, help="LTE pool file; default: random numbers, 10 x 512")
    parser.add_argument("--side", type=int, default=32, help="image side in pixels, a multiple of 16")
    parser.add_argument("--width", type=int, default=8, help="generator width; the paper's is 64")
    parser.add_argument("--groups", type=int, default=2, help="noisy layers; the paper's CIFAR-10 batch has 40")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    parser.add_argument("--write-golden", action="store_true", help=f"also write {GOLDEN.name} for the tests")
    options = parser.parse_args()
    commit = read_commit(options.upstream)
    augmentation = SimpleNamespace(
        RandomCrop=lambda size, padding: FixedCrop(padding), RandomHorizontalFlip=lambda: fixed_flip
    )
    datafree = import_upstream(options.upstream, augmentation)
    upstream = Upstream(datafree)
    if options.write_golden:
        write_golden(upstream, commit)
    checks, wrn = halves(upstream), realistic_case(datafree, options, "shallow")
    rows = [
        *compare("tiny", gp.golden_case(), checks),
        *compare("wrn", wrn, checks),
        *compare("deep", realistic_case(datafree, options, "deep"), {"ce": checks["ce"]}),
    ]
    with without_kinks():
        rows += compare("smooth", wrn, {name: checks[name] for name in ("ce", "bn", "adv", "ten steps")})
    _print(rows)
    if options.json:
        facts = {"upstream": commit, "torch": torch.__version__, "rows": [row._asdict() for row in rows]}
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if all(row.equal for row in rows) else 1


def _print(rows: list[Row]) -> None:
    print("| case | check | quantity | float64 | float32 | float32's own |\n|---|---|---|---|---|---|")
    for row in rows:
        numbers = " | ".join(f"{value:.0e}" for value in (row.float64, row.float32, row.rounding))
        print(f"| {row.case} | {row.check} | {row.quantity} | {numbers} |{'' if row.equal else ' DIFFERS'}")


if __name__ == "__main__":
    sys.exit(main())
