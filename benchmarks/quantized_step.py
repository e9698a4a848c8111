"""What rounding costs while a network learns: a student step with quantizers against one without.

    python benchmarks/quantized_step.py --model resnet18 --size 64 --batch 32

Teacher and student are the same network; both sides take the step that a run takes (teacher without gradient, student
forward and backward, SGD), on random images, by turns in one process. The figure is the median of the ratios.
"""

import argparse
import json
from copy import deepcopy
from pathlib import Path

import torch
from speed.common import Step, compare, make_clock, times, use_threads
from speed.networks import settle
from torch import nn

from nayer_cli.classifiers.model import Classifier, new_network
from nayer_cli.config import DistillConfig, ModelConfig
from nayer_cli.losses import distillation_kl
from nayer_cli.machine.distributed import Group
from nayer_cli.quant.calibrate import calibrate
from nayer_cli.quant.graph import quantize
from nayer_cli.quant.scheme import Scheme, parse_bits
from nayer_cli.runs import assemble
from nayer_cli.types import ImageShape, Normalization

REACH = 1.6


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=["resnet18"], nargs="+", dest="models")
    parser.add_argument("--bits", default="w4a4")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2, help="steps that are timed together")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--amp", default="auto")
    parser.add_argument("--clock", default="wall", choices=("wall", "cpu"))
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    options = parse()
    use_threads(options)
    rows = [measure(options, name) for name in options.models]
    print("| network | float ms | quantized ms | ratio | quartiles |\n|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['network']} | {row['float_ms']:.0f} | {row['quantized_ms']:.0f} "
            f"| {row['ratio']:.2f} (reach {REACH}) | {row['quartiles'][0]:.2f} to {row['quartiles'][1]:.2f} |"
        )
    if options.json:
        options.json.write_text(json.dumps({"options": vars(options) | {"json": None}, "rows": rows}, indent=1))


def measure(options: argparse.Namespace, name: str) -> dict[str, object]:
    """Compare the two steps of one network."""
    shape = ImageShape(3, options.size, options.size)
    machine = assemble.new_machine(DistillConfig(device=options.device, amp=options.amp))
    images = torch.rand(options.batch, *shape, device=machine.device)
    plain = new_network(ModelConfig(name=name), 10, shape=shape, normalization=Normalization((0.5,) * 3, (0.25,) * 3))
    settle(plain.network, torch.randn(4, *shape))
    rounded = quantize(plain.network, shape, Scheme(*parse_bits(options.bits)))
    calibrate(rounded, [torch.randn(16, *shape)], Group())
    teacher = assemble.model(_with(plain, deepcopy(plain.network)), machine).eval()
    sides = [_step(teacher, _with(plain, network), machine, images) for network in (plain.network, rounded)]
    clock = make_clock(options.clock, machine.device)
    steps = [times(side, options.steps) for side in sides]
    ratio, quartiles, below, above = compare(steps[0], steps[1], options.repeats, clock)
    milliseconds = [1e3 * seconds / options.steps for seconds in (below, above)]
    return {
        "network": name,
        "ratio": ratio,
        "quartiles": quartiles,
        "float_ms": milliseconds[0],
        "quantized_ms": milliseconds[1],
    }


def _with(classifier: Classifier, network: nn.Module) -> Classifier:
    return Classifier(
        network, classifier.name, classifier.shape, classifier.normalization, classifier.num_classes, None
    )


def _step(teacher: nn.Module, classifier: Classifier, machine: assemble.Machine, images: torch.Tensor) -> Step:
    student = assemble.student(assemble.model(classifier, machine), DistillConfig(), machine)

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            t = teacher(batch)
        return distillation_kl(t, model(batch), 20.0)

    return lambda: student.step(loss, images)


if __name__ == "__main__":
    main()
