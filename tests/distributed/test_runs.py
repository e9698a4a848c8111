"""Whole runs of several processes: they agree, survive each other, and go on in other numbers."""

import json
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import numpy as np
import pytest
import torch

import jobs
from nayer_cli.images.datasets import digits
from nayer_cli.runs.folder import RunFolder
from nayer_cli.runs.sample import sample
from peers import Ended, Fault, command, job, together
from quick import WITHOUT_DATA, checkpoint, few_images, metrics, quick, same, write

OF_ONE_PROCESS = {"seconds": 0, "processor_seconds": 0, "peak_memory": 0}
"""What differs by process: its time, and its memory."""


def faults(ended: list[Ended]) -> list[str]:
    """What all processes together said of faults."""
    assert not any("Traceback" in one.err for one in ended)
    return [line for one in ended for line in one.err.splitlines() if line.startswith("error: ")]


def training(folder: Path) -> dict[str, Any]:
    """Settings of `nayer train` on 161 digits, which two processes cannot share evenly."""
    images, labels = digits.load("train")
    np.savez(folder / "digits.npz", images=images[:161], labels=labels[:161], class_names=digits.FACTS.class_names)
    return {
        "data": str(folder / "digits.npz"),
        "student.name": "resnet8_digits",
        "eval.data": str(folder / "digits.npz"),
        "device": "cpu",
        "amp": "off",
        "schedule.epochs": 3,
        "schedule.batch_size": 40,
        "output.out": str(folder / "run"),
    }


@pytest.mark.parametrize(
    ("what", "number"),
    [
        ("nayer", SIGTERM),
        ("nayer", SIGKILL),
        ("zskt", SIGTERM),
        ("deepinv", SIGKILL),
        ("zaq", SIGTERM),
        ("spaceship", SIGTERM),
        ("mad", SIGTERM),
        ("train", SIGTERM),
        ("quantize", SIGTERM),
    ],
)
def test_a_run_that_one_process_ended_goes_on_as_if_it_had_not(what, number, tmp_path):
    name = what if what in ("train", "quantize") else "distill"
    few = {"eval.data": few_images(tmp_path)}
    if what == "train":
        settings = training(tmp_path)
    elif what == "quantize":
        settings = quick(tmp_path, few | {"teacher.name": "builtin:digits", "quantizer.bits": "w4a4"})
    else:
        settings = quick(tmp_path, few, what)
    first, second = together(jobs.run, name, settings | {"output.out": str(tmp_path / "whole")})
    assert (first["student"], first["method"]) == (second["student"], second["method"])
    assert {**first["result"], **OF_ONE_PROCESS} == {**second["result"], **OF_ONE_PROCESS}
    assert first["result"]["processes"] == 2
    assert first["bank"] != second["bank"]

    words = write(name, settings)
    ended = job(command, words, Fault(rank=1, step=5, signal=number))  # inside an epoch
    assert [one.code for one in ended] == ([143, 143] if number == SIGTERM else [4, -SIGKILL])
    assert len(faults(ended)) == 1
    assert "--resume" in "".join(one.err for one in ended)
    inside = checkpoint(tmp_path / "run")["loop"]["step"] > 0
    assert inside == (number == SIGTERM)  # who is killed cannot save
    assert [one.code for one in job(command, words)] == [0, 0]
    assert same(checkpoint(tmp_path / "run"), checkpoint(tmp_path / "whole"))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_processes_agree_whatever_the_method(tmp_path):
    names = ["dfq", "cmi", "fm", "pre-dfkd", "mb-dfkd", "kakr"]  # the others are run above
    data = few_images(tmp_path)
    several = {name: quick(tmp_path / name, {"eval.synthesis": True, "eval.data": data}, name) for name in names}
    generative = {"method.memory": "generative", "output.out": str(tmp_path / "generative")}
    several["generative"] = several["kakr"] | generative
    first, second = together(jobs.run_each, several)
    for name in several:
        one, other = first[name], second[name]
        assert (one["student"], one["method"]) == (other["student"], other["method"]), name
        assert {**one["result"], **OF_ONE_PROCESS} == {**other["result"], **OF_ONE_PROCESS}, name
        assert one["result"]["processes"] == 2 and one["bank"] != other["bank"], name
        assert one["result"]["synthesis"]["diversity"]["features"] > 0, name


def continued(settings: dict[str, Any], size: int) -> dict[str, Any]:
    """What so many processes would go on from; images of all of them together, sorted."""
    found = together(jobs.restored, settings["output.out"], {}, size=size)
    for one in found:
        assert one["common"] == found[0]["common"]
        assert all(one["images"].values())
    images = {name: sorted(row for one in found for row in one["images"][name]) for name in ("bank", "holdout")}
    # Inside an epoch each process has its own; they meet at the end of it.
    statistics = torch.stack([one["statistics"] for one in found]).mean(0)
    return {**found[0]["common"], **images, "statistics": statistics.tolist()}


def test_a_run_goes_on_in_another_number_of_processes(tmp_path):
    settings = quick(tmp_path, {**WITHOUT_DATA, "schedule.epochs": 3, "schedule.warmup_rounds": 4})
    words = write("distill", settings)
    for size, step in ((1, 2), (2, 3)):
        ended = job(command, words, Fault(rank=size - 1, step=step, signal=SIGTERM), size=size)
        assert [one.code for one in ended] == [143] * size
        assert continued(settings, 1) == continued(settings, 2) == continued(settings, 4)
    drawn = sample({"run": settings["output.out"], "count": 20, "source": "generator"})
    assert drawn["images"] == 20
    assert [one.code for one in job(command, words, size=1)] == [0]
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["images"] == {"synthesized": 140, "seen": 144} and result["processes"] == 1
    assert [record["epoch"] for record in metrics(tmp_path / "run")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("wrong", "message", "codes"),
    [
        (["--out", "full"], "full is not empty", [2, 4]),
        (["--teacher", "resnet999"], "resnet999", [2, 2]),
        (["--batch-size", "15"], "schedule.batch_size = 15 cannot be divided among 2 processes", [2, 2]),
        (["--epohcs", "3"], "--epohcs", [2, 2]),
        (["--device", "cuda:0"], "cuda:0 is a single device, but 2 processes", [2, 2]),
        (["--min-top1", "1"], "top1 is", [1, 0]),
    ],
)
def test_a_fault_of_several_processes_is_told_once(wrong, message, codes, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    words = write("distill", quick(tmp_path))
    words = [str(tmp_path / "full") if word == "full" else word for word in [*words[:-2], *wrong]]
    ended = job(command, words)
    assert [one.code for one in ended] == codes
    assert len(faults(ended)) == 1 and message in faults(ended)[0]
    assert RunFolder(tmp_path / "run").result.is_file() == (codes == [1, 0])
    assert ended[1].out == ""
