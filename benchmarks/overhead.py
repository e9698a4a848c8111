"""What the engine adds to the bare networks: time, memory, host reads, start-up, an epoch's fixed costs; and floors.

    python benchmarks/overhead.py --threads 1 --clock cpu --json overhead.json
    python benchmarks/overhead.py steps --teacher resnet34_cifar --student resnet18_cifar --student-batch 128

Engine and bare networks take turns in one process (A B, B A, …), and the median of the ratios is reported: on a machine
that others use too, the times of a single run may be off by a factor, ratios of neighbours hardly are.
"""

import argparse
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from speed.common import Figure, use_threads

from nayer_cli import __version__
from nayer_cli.machine.device import resolve_device

SECTIONS = {
    "steps": "time of a student and a generator step over the bare networks",
    "memory": "peak memory over the bare networks",
    "reads": "host reads in a steady step",
    "start": "time to the first step",
    "epochs": "an epoch's fixed costs: display, log, checkpoint, grid",
    "checkpoint": "how a checkpoint grows with the bank",
    "bank": "sampling and augmentation from a large bank",
    "floor": "operations and bytes over what the machine can do",
    "ways": "what each way to be faster gives, on and off",
}


def parse() -> argparse.Namespace:
    listing = "\n".join(f"  {name:<12}{text}" for name, text in SECTIONS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nsections:\n{listing}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="what to measure; default: everything")
    parser.add_argument("--teacher", default="wrn_40_2")
    parser.add_argument("--student", default="wrn_16_2")
    parser.add_argument("--size", type=int, default=32, help="image side in pixels")
    parser.add_argument("--student-batch", type=int, nargs="*", default=[128, 512], metavar="B")
    parser.add_argument("--generator-batch", type=int, nargs="*", default=[100, 400], metavar="B")
    parser.add_argument("--steps", type=int, default=3, help="steps a turn; on a GPU take 50")
    parser.add_argument("--repeats", type=int, default=9, help="turns of each side")
    parser.add_argument("--bank", type=int, default=20_000, help="images in the memory bank during steps")
    parser.add_argument("--amp", default="auto", help="this and the next two as in nayer distill")
    parser.add_argument("--compile", default="auto")
    parser.add_argument("--channels-last", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="processor threads; default: all")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: less disturbed by other programs; GPUs: wall"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args()
    unknown = set(options.sections) - SECTIONS.keys()
    if unknown:
        parser.error(f"no such section: {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return options


def measure(options: argparse.Namespace) -> Iterator[tuple[str, Figure]]:
    """Yield each figure with the name of its section, as soon as it is known."""
    for section in options.sections or SECTIONS:
        for figure in import_module(f"speed.{section}").figures(options):
            yield section, figure


def row(figure: Figure) -> str:
    """Return a line of the Markdown table."""
    spread = " ({:.2f}–{:.2f})".format(*figure.quartiles) if figure.quartiles else ""
    unit = figure.unit if figure.unit in ("", "×") else f" {figure.unit}"
    reach = "" if figure.reach is None else f"≤ {figure.reach:g}"
    detail = ", ".join(f"{key} {_short(value)}" for key, value in figure.detail.items())
    return f"| {figure.name} | {_short(figure.value)}{unit}{spread} | {reach} | {detail} |"


def _short(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """Tell where the figures come from."""
    device = resolve_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "nayer": __version__,
    }


def main() -> None:
    options = parse()
    use_threads(options)
    print(f"{options.teacher} → {options.student}, {options.size} px, amp {options.amp}, {options.clock} clock")
    print("| figure | measured | reach | of which |\n|---|---|---|---|")
    found = []
    for section, figure in measure(options):
        found.append({"section": section, **asdict(figure)})
        print(row(figure), flush=True)
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        document = {"settings": settings, "machine": machine(options), "figures": found}
        options.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
