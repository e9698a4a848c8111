"""Teachers of a dozen families, with random weights: two rounds of NAYER and one student step each.

    python benchmarks/teachers.py
    python benchmarks/teachers.py vit_tiny_patch16_224 densenet121 --json teachers.json

Each is to end well, or with one clear sentence.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import timm
import torch

from nayer_cli.errors import NayerError
from nayer_cli.runs.distill import distill
from nayer_cli.storage.runlog import read_metrics

FAMILIES = (
    "resnet18",
    "resnext50_32x4d",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "efficientnet_b0",
    "regnety_002",
    "densenet121",
    "vgg11_bn",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mixer_s32_224",
)


@dataclass(frozen=True)
class Row:
    """How one family did."""

    family: str
    batch_norms: int
    terms: list[str]
    seconds: float
    outcome: str


def attempt(family: str, side: int, folder: Path) -> Row:
    """Distill from a teacher with random weights."""
    torch.manual_seed(0)
    network = create(family, side)
    torch.save(network.state_dict(), folder / "teacher.pth")  # safetensors refuses families that share weights
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    started = time.perf_counter()
    try:
        distill(settings(family, side, folder))
        outcome = "ran"
    except NayerError as error:
        outcome = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - started
    terms = sorted({name for record in read_metrics(folder / "run" / "metrics.jsonl") for name in record["losses"]})
    return Row(family, norms, terms, seconds, outcome)


def create(family: str, side: int) -> torch.nn.Module:
    """Make the network for 10 classes; only some architectures must be told the image size."""
    fixed = timm.get_pretrained_cfg(family).fixed_input_size
    return timm.create_model(family, num_classes=10, **({"img_size": side} if fixed else {}))


def settings(family: str, side: int, folder: Path) -> dict[str, object]:
    """Two rounds of two steps, then one student step."""
    return {
        "teacher.name": family,
        "teacher.weights": str(folder / "teacher.pth"),
        "teacher.num_classes": 10,
        "teacher.input_size": side,
        "student.name": "resnet20_cifar_a",
        "lte.labels": "cifar10",
        "lte.encoder": "random",
        "lte.cache_dir": str(folder / "cache"),
        "method.batch": 10,
        "method.g_steps": 2,
        "method.width": 16,
        "method.code_size": 64,
        "schedule.epochs": 1,
        "schedule.warmup_epochs": 0,
        "schedule.rounds": 2,
        "schedule.kd_steps": 1,
        "schedule.batch_size": 8,
        "output.out": str(folder / "run"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=FAMILIES, help="timm architectures; default: a dozen")
    parser.add_argument("--size", type=int, default=64, help="image side in pixels; default: 64")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"{'family':<32}{'BatchNorms':>12}  {'terms':<24}{'seconds':>8}  outcome")
    rows = []
    for family in options.families:
        with tempfile.TemporaryDirectory() as folder:
            row = attempt(family, options.size, Path(folder))
        rows.append(asdict(row))
        terms = " ".join(row.terms)
        line = f"{row.family:<32}{row.batch_norms:>12}  {terms:<24}{row.seconds:>8.1f}  {row.outcome}"
        print(line, flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
