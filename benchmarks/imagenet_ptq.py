"""What quantizing an ImageNet network costs and keeps on one core, without its data: paired differences to float.

python benchmarks/imagenet_sample.py FOLDER IMAGES
OMP_NUM_THREADS=1 python benchmarks/imagenet_ptq.py --images IMAGES --weights FILE w8a8:analytic w8a8 w4a8:reconstruct

A row is BITS, then `:` and what is asked for: analytic, images, reconstruct, dfq-nagel or nothing. `--set KEY=VALUE`
holds for all rows, `--keep FOLDER` keeps the runs. Minutes are those of the processor, user and system, without the
measurement, which is of model.onnx in ONNX Runtime where that was written.
"""

import argparse
import math
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nayer_cli.classifiers.model import Classifier, Normalized, load_classifier
from nayer_cli.config import ModelConfig
from nayer_cli.images.labelled import open_images
from nayer_cli.onnx.runner import OnnxNetwork
from nayer_cli.runs.quantize import quantize
from nayer_cli.storage.toml import parse_assignment

ASKED = {
    "": {},
    "analytic": {"method.name": "analytic"},
    "images": {"quantizer.mode": "ptq"},
    "dfq-nagel": {"method.name": "dfq-nagel"},
    "reconstruct": {"quantizer.mode": "ptq", "quantizer.reconstruct": True},
}


def right(classifier: Classifier, images: str, file: Path | None = None) -> Tensor:
    """Say of each image whether it is named rightly, by a classifier or a file that was made of it."""
    data = open_images(
        images, split="validation", shape=classifier.shape, class_names=None, num_classes=classifier.num_classes
    )
    network = OnnxNetwork(file, threads=1) if file and file.exists() else classifier.network
    model = Normalized(network, classifier.normalization).eval().to(memory_format=torch.channels_last)
    return torch.cat(list(_outcomes(model, data.batches(25))))


@torch.no_grad()
def _outcomes(model: Normalized, batches: Any) -> Iterator[Tensor]:
    for images, labels in batches:
        x = images.float().div(255).contiguous(memory_format=torch.channels_last)
        yield (model(x).argmax(1) == labels).double()


def row(text: str, args: argparse.Namespace, model: dict[str, Any], reference: Tensor) -> str:
    bits, _, asked = text.partition(":")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(args.keep or folder) / text.replace(":", "-")
        settings = {**model, "quantizer.bits": bits, **ASKED[asked], "output.out": str(out), "device": "cpu"}
        start = time.process_time()
        result = quantize({**settings, "seed": args.seed, **dict(map(parse_assignment, args.set))})
        seconds = time.process_time() - start
        found = right(load_classifier(ModelConfig(name=str(out))), args.images, out / "model.onnx")
    onnx = result["quantization"]["onnx"] or {}
    difference = 100 * (found - reference)
    error = 1.96 * float(difference.std()) / math.sqrt(len(difference))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    convolutions = onnx.get("integer_convolutions", "no file")
    kept = len(result["quantization"]["kept_float"])
    return (
        f"| {bits} {asked} | {100 * float(found.mean()):.1f} | {float(difference.mean()):+.1f} ± {error:.1f} "
        f"| {seconds / 60:.1f} | {memory:.1f} | {convolutions} | {kept} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+")
    parser.add_argument("--images", required=True)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--weights")
    parser.add_argument("--keep")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    model = {"teacher.name": args.model, "teacher.weights": args.weights, "teacher.match": "order"}
    spec = ModelConfig(name=args.model, weights=args.weights, match="order")
    reference = right(load_classifier(spec), args.images)
    print(f"float: {100 * float(reference.mean()):.1f} of {len(reference)} images", flush=True)
    print("| | top-1 | difference | core-minutes | GB so far | integer convolutions | float operations |", flush=True)
    for text in args.rows:
        print(row(text, args, model, reference), flush=True)


if __name__ == "__main__":
    main()
