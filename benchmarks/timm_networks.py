"""Every module of timm: can its smallest network teach, be quantized, and run as integers in ONNX Runtime?

    python benchmarks/timm_networks.py networks.jsonl --table docs/project/timm-networks.md
    python benchmarks/timm_networks.py networks.jsonl --only vision_transformer densenet
    python benchmarks/timm_networks.py networks.jsonl --again faults --table docs/project/timm-networks.md

Weights are random, so accuracy means nothing; whether the file says what the integers say does. A network gets the
smallest images that it takes. Two rounds of NAYER and one step of a small student show that it can teach. Then it is
quantized on a few random images, written as ONNX and run in ONNX Runtime.

Each network has a process of its own, with so many seconds of the processor. It leaves a line of JSON, and what
is there already is not measured again.
"""

import argparse
import json
import os
import resource
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from torch import Tensor, nn

from nayer_cli.errors import NayerError
from nayer_cli.machine.distributed import Group
from nayer_cli.onnx.graph import Unwritable
from nayer_cli.onnx.runner import OnnxNetwork, integer_share
from nayer_cli.onnx.writer import write_onnx
from nayer_cli.quant.calibrate import calibrate
from nayer_cli.quant.deploy import deploy
from nayer_cli.quant.graph import kept_float, quantize
from nayer_cli.quant.scheme import Scheme, parse_bits
from nayer_cli.runs.distill import distill
from nayer_cli.types import ImageShape

SIZES = (64, 96, 128, 160, 192, 224, 240, 256, 299)
"""Image sides in pixels, tried in this order."""
CLASSES = 10
BITS = ("w8a8", "w4a4")
PARTS = ("distill", *BITS)
IMAGES = 16
"""On which the file is compared with the integers."""
SAME = 0.05
"""Difference of logits that ties of rounding explain, as part of the range of all logits."""
Row = dict[str, Any]


def smallest(module: str) -> str | None:
    """Return the network of a module that has the fewest parameters; None if the module has none."""
    found = {}
    for name in timm.list_models(module=module):
        try:
            with torch.device("meta"):
                network = timm.create_model(name, num_classes=CLASSES)
        except NotImplementedError:  # its constructor computes with weights
            network = timm.create_model(name, num_classes=CLASSES)
        found[name] = sum(parameter.numel() for parameter in network.parameters())
    return min(found, key=found.__getitem__, default=None)


def create(name: str, side: int) -> nn.Module:
    """Make the network; only some architectures must be told the image size."""
    fixed = timm.get_pretrained_cfg(name).fixed_input_size
    return timm.create_model(name, num_classes=CLASSES, **({"img_size": side} if fixed else {}))


def warmed(name: str) -> tuple[nn.Module, int]:
    """Return the network with random weights and statistics of random images, and the side of the images.

    Constants get noise as well: blocks that begin as nothing would hide what is done to them.
    """
    fault: Exception | None = None
    for side in SIZES:
        torch.manual_seed(0)
        try:
            network = create(name, side)
            _disturb(network)
            for module in network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.momentum = None  # a plain mean
            with torch.no_grad():
                network.train()(torch.randn(4, 3, side, side))
                network.eval()(torch.randn(2, 3, side, side))
        except Exception as error:  # networks have as many ways to refuse a size as authors
            fault = error
        else:
            return network, side
    raise ValueError(f"takes images of no size from {SIZES[0]} to {SIZES[-1]}") from fault


@torch.no_grad()
def _disturb(network: nn.Module) -> None:
    for parameter in network.parameters():
        if parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
            parameter.add_(0.1 * torch.randn_like(parameter))


def settings(name: str, side: int, folder: Path) -> Row:
    """Two rounds of two steps, then one student step."""
    return {
        "teacher.name": name,
        "teacher.weights": str(folder / "teacher.pth"),
        "teacher.num_classes": CLASSES,
        "teacher.input_size": side,
        "student.name": "resnet20_cifar_a",
        "lte.labels": "cifar10",
        "lte.encoder": "random",
        "lte.cache_dir": str(folder / "cache"),
        "method.batch": 4,
        "method.g_steps": 2,
        "method.width": 16,
        "method.code_size": 64,
        "schedule.epochs": 1,
        "schedule.warmup_epochs": 0,
        "schedule.rounds": 2,
        "schedule.kd_steps": 1,
        "schedule.batch_size": 4,
        "device": "cpu",
        "amp": "off",
        "output.out": str(folder / "run"),
    }


def measure(name: str, parts: Iterable[str]) -> Row:
    """Distill, or quantize, write, run and compare, one network."""
    network, side = warmed(name)
    row: Row = {"network": name, "side": side, "parameters": sum(one.numel() for one in network.parameters())}
    with TemporaryDirectory() as place:
        folder = Path(place)
        for part in parts:
            attempt = partial(taught, name, network, side, folder)
            row[part] = outcome(partial(quantized, network, side, part, folder) if part in BITS else attempt)
    return row


def taught(name: str, network: nn.Module, side: int, folder: Path) -> Row:
    torch.save(network.state_dict(), folder / "teacher.pth")  # safetensors refuses shared weights
    return {"seconds": distill(settings(name, side, folder))["seconds"]["total"]}


def outcome(attempt: Callable[[], Row]) -> Row:
    """Return what an attempt found, or its fault: in one sentence, or as the traceback that it must never be."""
    try:
        return attempt()
    except NayerError as error:
        return {"fault": f"{error} ({error.hint})" if error.hint else str(error)}
    except Exception:  # what the benchmark looks for
        return {"fault": "traceback", "traceback": traceback.format_exc()}


@torch.no_grad()
def quantized(network: nn.Module, side: int, bits: str, folder: Path) -> Row:
    """Round by the largest values of a few images, and compare the file with the integers."""
    shape, path = ImageShape(3, side, side), folder / f"{bits}.onnx"
    images = torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(1))
    rounded = quantize(network, shape, Scheme(*parse_bits(bits)))
    calibrate(rounded, [images[:4].flip(3)], Group(), clip=False)
    integers = deploy(rounded)
    row: Row = {"kept_float": [[one.what, one.reason] for one in kept_float(integers)]}
    try:
        write_onnx(integers, shape, path, facts={})
    except Unwritable as error:
        return row | {"no_file": str(error)}
    share = integer_share(path)
    for kind, found in zip(("convolutions", "products"), share, strict=True):
        row |= {kind: found.total, f"integer_{kind}": found.integers}
    file = OnnxNetwork(path, threads=1)
    said, exact, original = (
        torch.cat([_logits(one(part)) for part in images.split(4)]) for one in (file, integers, network)
    )
    return row | {
        "same_class": int((said.argmax(1) == exact.argmax(1)).sum()),
        "of": IMAGES,
        "largest": _distance(said, exact),
        "from_float": _distance(exact, original),
    }


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / (other.max() - other.min()).clamp_min(1e-30))


def _logits(output: Any) -> Tensor:
    return _logits(output[0]) if isinstance(output, (tuple, list)) else output.flatten(1)


def in_a_process(module: str, row: Row, parts: list[str], seconds: int, path: Path) -> None:
    """Measure in a process of its own, which leaves its line in the file; or leave one that says how it died."""
    started, child = time.perf_counter(), os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        _measure_and_leave(module, row, parts, path)
    _, status, used = os.wait4(child, 0)
    spent = used.ru_utime + used.ru_stime
    if status:
        death = f"died of signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"ended with {status >> 8}"
        fault = {"fault": f"{death} after {spent:.0f} s of the processor"}
        append(path, row | {"module": module} | _for_all(parts, fault))
    print(f"{module:<28}{spent:>7.1f} s, {time.perf_counter() - started:.0f} s on the clock", flush=True)


def _measure_and_leave(module: str, row: Row, parts: list[str], path: Path) -> None:
    name = row.get("network") or smallest(module)
    try:
        found = measure(name, parts) if name else {"network": None}
    except Exception:  # what the benchmark looks for, too
        found = {"network": name} | _for_all(parts, {"fault": "traceback", "traceback": traceback.format_exc()})
    append(path, row | {"module": module} | found)
    os._exit(0)


def _for_all(parts: list[str], found: Row) -> Row:
    return dict.fromkeys(parts, found)


def append(path: Path, row: Row) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read(path: Path) -> dict[str, Row]:
    """Return the last line of each module."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = [json.loads(line) for line in lines]
    return {row["module"]: row for row in rows}


def is_wanted(part: Row, again: str | None) -> bool:
    return not part or again == "all" or (again == "faults" and verdict(part) != "works")


def verdict(part: Row) -> str:
    """Say how one attempt went: `works`, or what is wrong."""
    if not part:
        return "not reached"
    if "fault" in part:
        return str(part["fault"])
    if "no_file" in part:
        return str(part["no_file"])
    if "largest" in part and part["largest"] > SAME and part["same_class"] < part["of"]:
        return f"the file differs from the integers by {part['largest']:.0%} of the range of logits"
    return "works"


def table(rows: Iterable[Row]) -> str:
    """Return the page."""
    found = [row for row in rows if any(row.get(part) for part in PARTS)]
    tracebacks = sum("traceback" in json.dumps(row).lower() for row in found)
    counts = ", ".join(map(partial(_count, found), PARTS))
    return "\n".join(
        [
            "# The networks of timm",
            "",
            f"The smallest network of each module of timm {timm.__version__}; random weights, {CLASSES} classes."
            " Written by `python benchmarks/timm_networks.py networks.jsonl --table docs/project/timm-networks.md`.",
            "",
            f"What works, of those that were measured: {counts}; {tracebacks} tracebacks. A dash was not measured.",
            "",
            "*Integers* are convolutions and matrix products that ONNX Runtime computes as integers, of all (w8a8)."
            f" *Same* is the number of {IMAGES} random images of which the file says the same class as the integers"
            " (w8a8, w4a4). What stays float is counted by kind.",
            "",
            "| network | px | distill | w8a8, w4a4 | convolutions | products | same | what stays float |",
            "|---|---|---|---|---|---|---|---|",
            *(line(row) for row in found),
            "",
            "## Why not",
            "",
            *(f"- `{row['network']}`, {part}: {verdict(row.get(part, {}))}" for row in found for part in failures(row)),
            "",
            "## Why float",
            "",
            *reasons(found),
            "",
        ]
    )


def _count(rows: list[Row], part: str) -> str:
    measured = [row for row in rows if row.get(part)]
    works = sum(verdict(row[part]) == "works" for row in measured)
    return f"{part} {works} of {len(measured)}"


def failures(row: Row) -> list[str]:
    """Return the parts that did not work; of two alike the first."""
    found: dict[str, str] = {}
    for part in PARTS:
        if row.get(part) and (said := verdict(row[part])) != "works":
            found.setdefault(said, part)
    return list(found.values())


def line(row: Row) -> str:
    first, second = (row.get(bits, {}) for bits in BITS)
    cells = (
        row["network"],
        row.get("side", "–"),
        _mark(row.get("distill", {})),
        ", ".join(map(_mark, (first, second))),
        _share(first, "convolutions"),
        _share(first, "products"),
        ", ".join(f"{one['same_class']}" if "of" in one else "–" for one in (first, second)),
        _floats(first),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _mark(part: Row) -> str:
    return "yes" if verdict(part) == "works" else "no" if part else "–"


def _share(part: Row, kind: str) -> str:
    return f"{part[f'integer_{kind}']}/{part[kind]}" if kind in part else "–"


def _floats(part: Row) -> str:
    counts = Counter(what for what, _ in part.get("kept_float", []))
    return ", ".join(f"{count} {what}" for what, count in counts.most_common())


def reasons(rows: list[Row]) -> list[str]:
    """Return the reasons why operations stay float, each with the kinds that it is given for."""
    found: dict[str, set[str]] = {}
    for what, reason in (pair for row in rows for pair in row.get(BITS[0], {}).get("kept_float", [])):
        found.setdefault(reason, set()).add(what)
    return [f"- {reason}: {', '.join(sorted(kinds))}" for reason, kinds in sorted(found.items())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a line of JSON for each network; read first, and continued")
    parser.add_argument("--only", nargs="+", metavar="MODULE", help="modules of timm; default: all")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--again", choices=("faults", "all"), help="measure again what did not work, or all")
    parser.add_argument("--seconds", type=int, default=90, help="of the processor, for each network; default: 90")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the page from what the file then has")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for module in options.only or timm.list_modules():
        row = read(options.file).get(module, {})
        again = [part for part in options.parts if is_wanted(row.get(part, {}), options.again)]
        if again:
            in_a_process(module, row, again, options.seconds, options.file)
    if options.table:
        options.table.write_text(table(read(options.file).values()), encoding="utf-8")


if __name__ == "__main__":
    main()
