"""The commands that are tried on a virtual device, and where the host may wait for it."""

import json
from collections.abc import Iterator
from dataclasses import fields
from itertools import cycle
from pathlib import Path
from typing import Any

from nayer_cli import plugins
from quick import QUICK, few_images

PLACES, POLICIES, PRECISIONS = ("device", "host", "disk"), ("reservoir", "fifo"), ("bf16", "fp16", "off")
SMALL = {"batch": 20, "g_steps": 4, "width": 4, "code_size": 16}
"""Settings of methods, where they have them; the first steps in float16 only find the scale of the loss."""
SHORT: dict[str, Any] = {
    "device": "cuda",
    "schedule.epochs": 1,
    "schedule.warmup_epochs": 1,
    "schedule.warmup_rounds": 2,
    "schedule.kd_steps": 4,
    "schedule.batch_size": 16,
    "schedule.cycles": 1,
    "schedule.rounds": 1,
    "output.save_every": 2,
    "output.sample_every": 2,
}

Words = list[str]


def words(command: str, settings: dict[str, Any], *options: str) -> Words:
    """Return a command line with these settings."""
    given = [f"{key}={json.dumps(value)}" for key, value in settings.items() if value is not None]
    return [command, *options, *(word for assignment in given for word in ("--set", assignment))]


def cases(folder: Path) -> Iterator[tuple[str, Words]]:
    """Yield every command by a name; later ones use what earlier ones have written."""
    data = few_images(folder)
    yield from _distill(folder, data)
    yield from _quantize(folder, data)
    yield from _train(folder, data)
    run, student = str(folder / "nayer"), str(folder / "nayer/student")
    cuda = ("--device", "cuda")
    yield "eval", ["eval", student, "--data", data, "--reference", "builtin:digits", *cuda]
    yield "sample bank", ["sample", run, "--count", "10", "--out", str(folder / "images"), *cuda]
    fresh = ["--source", "generator", "--count", "10", "--grid", str(folder / "grid.png")]
    yield "sample generator", ["sample", run, *fresh, *cuda]


def _distill(folder: Path, data: str) -> Iterator[tuple[str, Words]]:
    """Every method; over them every place of the bank, policy and precision; and one that is continued."""
    choices = zip(cycle(PLACES), cycle(POLICIES), cycle(PRECISIONS), strict=False)
    for method, (place, policy, amp) in zip(plugins.names("methods"), choices, strict=False):
        settings = QUICK | SHORT | _small(method) | {"amp": amp, "output.out": str(folder / method)}
        settings |= {"bank.place": place, "bank.policy": policy, "bank.capacity": 30, "eval.data": data}
        settings |= {"lte.cache_dir": str(folder / "cache")}
        if method in ("fm", "nayer"):
            settings |= {"eval.synthesis": True}
        if method == "zskt":  # agreement on images that are held back
            settings |= {"preset": "cifar10", "teacher.name": "builtin:digits", "student.name": "resnet8_digits"}
            settings |= {"eval.data": None}
        yield f"distill {method}", words("distill", settings)
    yield "resume", ["distill", "--resume", str(folder / "nayer"), "--epochs", "2", "--device", "cuda"]


def _small(method: str) -> dict[str, Any]:
    known = {field.name for field in fields(plugins.load("methods", method).Config)}
    return {"method.name": method} | {f"method.{key}": value for key, value in SMALL.items() if key in known}


def _quantize(folder: Path, data: str) -> Iterator[tuple[str, Words]]:
    common = {**SHORT, "quantizer.bits": "w4a4", "eval.data": data, "quantizer.images": 20}
    run = common | {"teacher.name": str(folder / "nayer")}
    yield "quantize qat", words("quantize", run | {"output.out": str(folder / "qat")})
    ptq = {"quantizer.mode": "ptq", "quantizer.bn": "recalibrate", "output.out": str(folder / "ptq")}
    yield "quantize ptq", words("quantize", run | ptq)
    teacher = common | {"teacher.name": "builtin:digits", "preset": "digits", "lte.encoder": "random"}
    for method in ("zaq", "zeroq"):
        own = {"amp": "fp16", "export.onnx": "off", "output.out": str(folder / f"q-{method}")}
        yield f"quantize {method}", words("quantize", teacher | _small(method) | own)
    for method in ("dfq-nagel", "analytic"):
        own = {"output.out": str(folder / method)}
        yield f"quantize {method}", words("quantize", teacher | own, "--method", method)
    learned = {"quantizer.mode": "ptq", "quantizer.reconstruct": True, "quantizer.reconstruct_steps": 2}
    yield "quantize reconstruct", words("quantize", run | learned | {"output.out": str(folder / "learned")})


def _train(folder: Path, data: str) -> Iterator[tuple[str, Words]]:
    common = {
        "student.name": "resnet8_digits",
        "data": data,
        "eval.data": data,
        "device": "cuda",
        "augment.flip": False,
        "schedule.epochs": 1,
        "schedule.batch_size": 10,
    }
    yield "train", words("train", common | {"amp": "fp16", "output.out": str(folder / "train")})
    teacher = {"teacher.name": "builtin:digits", "output.out": str(folder / "train-teacher")}
    yield "train with a teacher", words("train", common | teacher)
