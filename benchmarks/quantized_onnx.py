"""What ONNX Runtime makes of quantized networks: what runs as integers, how well it agrees, how large and how fast.

    python benchmarks/quantized_onnx.py --bits w4a4 --size 64 --threads 1 --json onnx.json
    python benchmarks/quantized_onnx.py resnet18 mobilenetv2_100 --bits w8a8 --size 224 --batch 1 --weight-range u8u8
    python benchmarks/quantized_onnx.py resnet18 --bits w8a8 --size 224 --batch 1 --compare-ranges

Weights are random, BatchNorm has seen random images, and so has calibration: accuracy means nothing here, agreement
does. The float and the quantized file take turns (A B, B A, …); speed is the median of the ratios of neighbours.
"""

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import onnxruntime
import timm
import torch
from speed.common import compare, make_clock
from torch import Tensor, fx, nn

import nayer_cli.classifiers.models  # noqa: F401 - registers the networks
from nayer_cli import __version__
from nayer_cli.errors import NayerError
from nayer_cli.machine.distributed import Group
from nayer_cli.onnx.runner import OnnxNetwork, integer_share
from nayer_cli.onnx.writer import write_onnx
from nayer_cli.quant.calibrate import calibrate
from nayer_cli.quant.deploy import deploy
from nayer_cli.quant.graph import quantize
from nayer_cli.quant.scheme import WEIGHT_RANGES, Scheme, parse_bits
from nayer_cli.quant.trace import trace
from nayer_cli.types import ImageShape

NETWORKS = [
    *("resnet18", "resnet50", "mobilenetv2_100", "vgg11_bn", "vgg11_cifar", "vgg19_cifar", "resnet20_cifar_a"),
    *("mobilenetv2_cifar", "wrn_16_2", "wrn_40_2", "densenet121", "efficientnet_b0", "convnext_atto", "regnety_002"),
    "vit_tiny_patch16_224",
]
CLASSES = 10
CALIBRATION = 2
"""Batches."""


@dataclass(frozen=True)
class Figures:
    """Of one network."""

    network: str
    convolutions: str
    """That run as integers / all."""
    products: str
    """The same of linear layers and matrix products."""
    floats: list[str]
    """Names of those that do not."""
    agreement: float
    """Share of images that torch and ONNX Runtime put into the same class."""
    largest: float
    """Difference of two logits, as part of the range of all logits."""
    mean: float
    float_mb: float
    int8_mb: float
    int4_mb: float
    faster: float
    """Seconds of the float file over those of the quantized one."""
    quartiles: tuple[float, float]
    float_ms: float
    quantized_ms: float


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="names that timm knows, or ours")
    parser.add_argument("--bits", default="w4a4")
    parser.add_argument("--weight-range", default=WEIGHT_RANGES[0], choices=WEIGHT_RANGES)
    parser.add_argument("--compare-ranges", action="store_true", help="only the speed of each range of 8-bit weights")
    parser.add_argument("--size", type=int, default=64, help="image side in pixels")
    parser.add_argument("--batch", type=int, default=16, help="images at a time when speed is measured")
    parser.add_argument("--images", type=int, default=64, help="images on which agreement is measured")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--repeats", type=int, default=9, help="turns of each file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    return parser.parse_args()


def measure(name: str, options: argparse.Namespace, folder: Path) -> Figures:
    """Quantize, write, run and compare one network."""
    network, shape = make(name, options.size), ImageShape(3, options.size, options.size)
    paths = {kind: folder / f"{name}.{kind}.onnx" for kind in ("float", "int8", "int4")}
    integers = deployed(network, shape, Scheme(*parse_bits(options.bits), weight_range=options.weight_range))
    write_onnx(trace(network, shape), shape, paths["float"], facts={})
    exact = options.weight_range != "full"
    for storage in ("int8", "int4"):
        write_onnx(integers, shape, paths[storage], storage=storage, exact=exact, facts={})
    share = integer_share(paths["int8"])
    runner, float_runner = (OnnxNetwork(paths[kind], options.threads) for kind in ("int8", "float"))
    expected, found = in_batches(integers, options), in_batches(runner, options)
    difference = (expected - found).abs() / (expected.max() - expected.min())
    images = torch.randn(options.batch, *shape)
    faster, quartiles, quantized_s, float_s = compare(
        lambda: runner(images),
        lambda: float_runner(images),
        options.repeats,
        make_clock("wall", torch.device("cpu")),
    )
    return Figures(
        name,
        *(f"{kind.integers}/{kind.total}" for kind in share),
        share.convolutions.floats + share.products.floats,
        (expected.argmax(1) == found.argmax(1)).double().mean().item(),
        difference.max().item(),
        difference.mean().item(),
        *(paths[kind].stat().st_size / 1e6 for kind in ("float", "int8", "int4")),
        faster,
        quartiles,
        1e3 * float_s,
        1e3 * quantized_s,
    )


def range_speeds(name: str, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Return for each range of weights how many times as fast as the float file a network runs."""
    network, shape = make(name, options.size), ImageShape(3, options.size, options.size)
    write_onnx(trace(network, shape), shape, folder / "float.onnx", facts={})
    runners: dict[str, Callable[[Tensor], Tensor]] = {}
    for weight_range in WEIGHT_RANGES:
        torch.manual_seed(0)
        integers = deployed(network, shape, Scheme(*parse_bits(options.bits), weight_range=weight_range))
        path = folder / f"{weight_range}.onnx"
        write_onnx(integers, shape, path, exact=weight_range != "full", facts={})
        runners[weight_range] = OnnxNetwork(path, options.threads)
    runners["full, x64quantprecision=1"] = precise(folder / "full.onnx", options.threads)
    images, in_float = torch.randn(options.batch, *shape), OnnxNetwork(folder / "float.onnx", options.threads)
    clock = make_clock("wall", torch.device("cpu"))
    return {
        title: compare(partial(runner, images), partial(in_float, images), options.repeats, clock)[0]
        for title, runner in runners.items()
    }


def precise(path: Path, threads: int) -> Callable[[Tensor], Tensor]:
    """Return a file as ONNX Runtime computes it when it is told to add products in 32 bits."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def make(name: str, size: int) -> nn.Module:
    """Make a network with random weights, whose BatchNorm layers have seen random images."""
    torch.manual_seed(0)
    try:
        network = timm.create_model(name, num_classes=CLASSES, img_size=size)
    except TypeError:  # most take images of any size
        network = timm.create_model(name, num_classes=CLASSES)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean
    with torch.no_grad():
        for _ in range(CALIBRATION):
            network.train()(torch.randn(16, 3, size, size))
    return network.eval()


def deployed(network: nn.Module, shape: ImageShape, scheme: Scheme) -> fx.GraphModule:
    """Return the network as integers."""
    quantized = quantize(network, shape, scheme)
    calibrate(quantized, [torch.randn(16, *shape) for _ in range(CALIBRATION)], Group())
    return deploy(quantized)


@torch.no_grad()
def in_batches(network: Callable[[Tensor], Tensor], options: argparse.Namespace) -> Tensor:
    """Return the logits of images which are the same every time."""
    generator = torch.Generator().manual_seed(1)
    counts = torch.ones(options.images).split(16)
    size = options.size
    return torch.cat([network(torch.randn(len(part), 3, size, size, generator=generator)) for part in counts])


def row(figures: Figures) -> str:
    """Return a line of the Markdown table."""
    low, high = figures.quartiles
    cells = (
        figures.network,
        figures.convolutions,
        figures.products,
        f"{100 * figures.agreement:.1f} %",
        f"{figures.largest:.1e}, {figures.mean:.1e}",
        f"{figures.float_mb:.2f}, {figures.int8_mb:.2f}, {figures.int4_mb:.2f}",
        f"{figures.float_mb / figures.int4_mb:.1f}",
        f"{figures.float_ms:.1f} → {figures.quantized_ms:.1f}",
        f"{figures.faster:.2f}× ({low:.2f}–{high:.2f})",
        listing(figures.floats),
    )
    return f"| {' | '.join(cells)} |"


def listing(names: list[str], most: int = 4) -> str:
    more = f", … {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def compare_ranges(options: argparse.Namespace) -> None:
    for number, name in enumerate(options.networks):
        with TemporaryDirectory() as folder:
            speeds = range_speeds(name, options, Path(folder))
        if number == 0:
            print(f"| network | {' | '.join(speeds)} |\n|---|{'---|' * len(speeds)}")
        print(f"| {name} | {' | '.join(f'{speed:.2f}×' for speed in speeds.values())} |", flush=True)


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    print(f"{options.bits}, {options.size} px, batch {options.batch}, {options.threads} threads, {platform.machine()}")
    print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, nayer {__version__}\n")
    (compare_ranges if options.compare_ranges else compare_files)(options)


def compare_files(options: argparse.Namespace) -> None:
    titles = [
        *("network", "integer convolutions", "integer products", "agreement", "largest, mean difference of range"),
        *("MB float32, int8, int4", "float32 / int4", "ms float → quantized", "faster", "stay float"),
    ]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    found = []
    for name in options.networks:
        try:
            with TemporaryDirectory() as folder:
                found.append(measure(name, options, Path(folder)))
            print(row(found[-1]), flush=True)
        except NayerError as fault:
            print(f"| {name} | {fault} |{' |' * (len(titles) - 2)}", flush=True)
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        document = {"settings": settings, "figures": [asdict(one) for one in found]}
        options.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
