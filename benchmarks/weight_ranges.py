"""What the range of 8-bit weights costs and saves: accuracy, and whether integers and runtimes name the same classes.

    python benchmarks/weight_ranges.py --model builtin:digits --data digits --bits w8a8 w4a4
    python benchmarks/weight_ranges.py --model builtin:digits --data digits --bits w2a2 --ranges 7bit --learn 150
    python benchmarks/weight_ranges.py --model resnet20_cifar_a --weights resnet20-12fca82f.th --data test.tar \
        --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 --bits w8a8 w4a4

Steps are chosen by some of the images that are then classified, since ranges are compared here, not ways to do without
data. The same images teach the float network's answers, which two bits need (--learn). ONNX Runtime is run in its
default settings, OpenVINO without bfloat16. Speed: benchmarks/quantized_onnx.py.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import openvino
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nayer_cli.classifiers.model import Classifier, load_classifier
from nayer_cli.config import ModelConfig
from nayer_cli.images.labelled import open_images
from nayer_cli.machine import processor
from nayer_cli.machine.distributed import Group
from nayer_cli.onnx.runner import OnnxNetwork
from nayer_cli.onnx.writer import write_onnx
from nayer_cli.quant.calibrate import calibrate
from nayer_cli.quant.deploy import deploy
from nayer_cli.quant.graph import quantize
from nayer_cli.quant.scheme import WEIGHT_RANGES, Scheme, parse_bits

BATCH = 250


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--mean", type=float, nargs="+")
    parser.add_argument("--std", type=float, nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--bits", nargs="+", default=["w8a8", "w4a4"])
    parser.add_argument("--ranges", nargs="+", default=WEIGHT_RANGES)
    parser.add_argument("--calibration", type=int, default=250, help="images that steps are chosen by")
    parser.add_argument("--learn", type=int, default=0, help="steps of learning, with 64 of the images each")
    parser.add_argument("--limit", type=int, help="images that are classified; default: all")
    return parser.parse_args()


def load(options: argparse.Namespace) -> tuple[Classifier, Tensor, Tensor]:
    """Return the float model, normalized images `[N, C, H, W]` and labels `[N]`."""
    mean, std = (tuple(values) if values else None for values in (options.mean, options.std))
    model = load_classifier(ModelConfig(options.model, options.weights, mean=mean, std=std))
    data = open_images(options.data, shape=model.shape, class_names=model.labels, limit=options.limit)
    pixels, labels = (torch.cat(parts) for parts in zip(*data.batches(BATCH), strict=True))
    center, spread = (torch.tensor(values).view(-1, 1, 1) for values in model.normalization)
    return model, (pixels.float() / 255 - center) / spread, labels


@torch.no_grad()
def classes(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.cat([network(part).argmax(1) for part in images.split(BATCH)])


def in_openvino(path: Path) -> Callable[[Tensor], Tensor]:
    """Return the file as OpenVINO computes it."""
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda images: torch.from_numpy(compiled(images.numpy())[0])


def learn(quantized: nn.Module, network: nn.Module, images: Tensor, steps: int) -> None:
    """Teach the float network's answers."""
    optimizer, numbers = torch.optim.Adam(quantized.parameters(), 1e-3), torch.Generator().manual_seed(0)
    quantized.train()
    for _ in range(steps):
        some = images[torch.randint(len(images), (64,), generator=numbers)]
        with torch.no_grad():
            wanted = network(some).softmax(1)
        optimizer.zero_grad()
        F.cross_entropy(quantized(some), wanted).backward()
        optimizer.step()
    quantized.eval()


def row(model: Classifier, scheme: Scheme, images: Tensor, labels: Tensor, options: argparse.Namespace) -> str:
    """Quantize, write and run; return a line of the Markdown table."""
    quantized = quantize(model.network, model.shape, scheme)
    calibrate(quantized, [images[:: max(len(images) // options.calibration, 1)]], Group())
    learn(quantized, model.network, images, options.learn)
    integers = deploy(quantized)
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        write_onnx(integers, model.shape, path, exact=scheme.weight_range != "full", facts={})
        found = [classes(network, images) for network in (integers, OnnxNetwork(path, threads=1), in_openvino(path))]
    top1 = [f"{100 * (one == labels).double().mean():.2f}" for one in found]
    same = [f"{int((one == found[0]).sum()):,}" for one in found[1:]]
    return f"| {scheme} | {scheme.weight_range} | {' | '.join(top1)} | {' | '.join(same)} of {len(images):,} |"


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    model, images, labels = load(options)
    print(processor.describe())
    print(f"float: {100 * (classes(model.network, images) == labels).double().mean():.2f}\n")
    print("| bits | range | integers | ONNX Runtime | OpenVINO | same class: ONNX Runtime | OpenVINO |")
    print("|---|---|---|---|---|---|---|")
    for bits in options.bits:
        for weight_range in options.ranges:
            scheme = Scheme(*parse_bits(bits), weight_range=weight_range)
            print(row(model, scheme, images, labels, options), flush=True)


if __name__ == "__main__":
    main()
