"""Every command on a GPU that is not there: nothing is refused, and the host waits for it only where that is listed."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import virtual_commands
from device_cases import cases
from forks import apart

ROUND, EPOCH, NOW_AND_THEN = 3, 2, 10_000
"""Rounds and epochs of the runs that are tried, none of which has as few steps; and what no step leads to."""
WAITS = {
    "engine.py:_remember": (ROUND, "losses of a round and steps left out, in one read"),
    "bank.py:_bring": (ROUND, "the images of a round, for a bank on the host or on disk"),
    "meter.py:read": (EPOCH, "losses of an epoch and steps left out, in one read"),
    "evaluate.py:measure": (6, "evaluation, once a network and once an epoch"),
    "evaluate.py:count_same": (EPOCH, "evaluation, once an epoch and at the end"),
    "runs/diversity.py:__call__": (EPOCH, "how many classes there are, once an evaluation"),
    "runs/diversity.py:_compare": (NOW_AND_THEN, "diversity, where it is asked for, once an evaluation"),
    "runs/recorder.py:check_finite": (EPOCH, "saving: whether the student is finite, in one read"),
    "runs/snapshot.py:_moved": (NOW_AND_THEN, "saving"),
    "runs/shards.py:<dictcomp>": (NOW_AND_THEN, "saving"),
    "storage/tensors.py:_bytes_of": (NOW_AND_THEN, "saving"),
    "runs/recorder.py:_draw": (NOW_AND_THEN, "a grid of images is drawn"),
    "runs/pictures.py:newest_of_each": (NOW_AND_THEN, "a grid of images is drawn"),
    "runs/rounds.py:make": (NOW_AND_THEN, "images are sampled"),
    "runs/rounds.py:_is_sound": (NOW_AND_THEN, "images are sampled"),
    "storage/checkpoint.py:digest": (NOW_AND_THEN, "the start of a run"),
    "runs/assemble.py:model": (NOW_AND_THEN, "the start of a run"),
    "runs/makers.py:parts": (NOW_AND_THEN, "the start of a run"),
    "runs/train.py:_fingerprint": (NOW_AND_THEN, "the start of a run"),
    "runs/reuse.py:lend": (NOW_AND_THEN, "the start of a run: images of another one"),
    "runs/quantize.py:_batches": (NOW_AND_THEN, "steps are chosen, once a run"),
    "quant/calibrate.py:_scale_of": (NOW_AND_THEN, "steps are chosen, once a run"),
    "quant/calibrate.py:_spread": (NOW_AND_THEN, "steps are chosen, once a run"),
    "quant/calibrate.py:recalibrate_statistics": (NOW_AND_THEN, "steps are chosen, once a run"),
    "quant/calibrate.py:best_scale": (NOW_AND_THEN, "steps are chosen, once a run"),
    "quant/compensate.py:round_in_turn": (NOW_AND_THEN, "weights are rounded, once a run"),
    "quant/compensate.py:_places": (NOW_AND_THEN, "weights are rounded, once a run"),
    "quant/analytic.py:_share": (NOW_AND_THEN, "weights are rounded, once a run"),
    "quant/reconstruct.py:<listcomp>": (NOW_AND_THEN, "blocks are fitted, once each"),
    "quant/reconstruct.py:_error": (NOW_AND_THEN, "blocks are fitted, once each"),
    "quant/moments.py:<dictcomp>": (NOW_AND_THEN, "steps are chosen, once a run"),
    "quant/moments.py:_of_pixels": (NOW_AND_THEN, "steps are chosen, once a run"),
    "quant/deploy.py:deploy": (NOW_AND_THEN, "a learner becomes integers, once a run"),
    "runs/quantize.py:finish": (NOW_AND_THEN, "a learner becomes integers, once a run"),
    "quant/integers.py:largest_byte": (NOW_AND_THEN, "a learner becomes integers, once a run"),
    "quant/lanes.py:<genexpr>": (NOW_AND_THEN, "a learner becomes integers, once a run"),
    "onnx/graph.py:constant": (NOW_AND_THEN, "a file is written, once a run"),
    "onnx/layers.py:<genexpr>": (NOW_AND_THEN, "a file is written, once a run"),
    "runs/export.py:_written": (NOW_AND_THEN, "a file is written, once a run"),
    "onnx/runner.py:_array": (NOW_AND_THEN, "a file is tried, on the host"),
    "onnx/runner.py:forward": (NOW_AND_THEN, "a file is tried, on the host"),
    "runs/evaluate.py:_network": (NOW_AND_THEN, "the start of a measurement"),
    "critic.py:__init__": (NOW_AND_THEN, "the start of a run"),
    "variational.py:__init__": (NOW_AND_THEN, "the start of a run"),
    "methods/spaceship.py:__init__": (NOW_AND_THEN, "the start of a run"),
    "methods/mad.py:__init__": (NOW_AND_THEN, "the start of a run"),
    "live.py:__init__": (NOW_AND_THEN, "the start of a run"),
    "methods/cmi.py:__init__": (NOW_AND_THEN, "the start of a run"),
    "methods/fm.py:__init__": (NOW_AND_THEN, "the start of a run"),
    "methods/nayer.py:_fresh_generator": (NOW_AND_THEN, "a generator's life begins"),
    "student.py:load_state_dict": (NOW_AND_THEN, "a run is continued"),
    "descent.py:load_state_dict": (NOW_AND_THEN, "a run is continued"),
    "runs/snapshot.py:_restore_own": (NOW_AND_THEN, "a run is continued"),
}
"""Where the host may wait for the device: how often a command may do so, and what for."""
PLANTED = {
    "mixed_devices": "fault",
    "network_on_the_host": "fault",
    "generator_of_the_host": "fault",
    "numpy": "fault",
    "index_on_the_device": "fault",
    "item_in_every_step": "wait",
    "list": "wait",
    "mask": "wait",
    "nonzero": "wait",
    "copy_to_the_host": "wait",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What happened on the device; one process runs all commands."""
    found: dict[str, Any] = apart(virtual_commands.report, list(cases(tmp_path_factory.mktemp("device"))))
    return found


def events(report: dict[str, Any], kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield by command what happened of one kind."""
    for name, command in report["commands"].items():
        yield from ((name, event) for event in command["events"] if event["kind"] == kind)


def test_the_virtual_device_finds_what_is_planted(report: dict[str, Any]) -> None:
    found = {name: {event["kind"] for event in seen} for name, seen in report["planted"].items()}
    assert all(kind in found[name] for name, kind in PLANTED.items())
    assert [event["count"] for event in report["planted"]["item_in_every_step"] if event["what"] == "item"] == [3]
    assert {event["what"] for event in report["planted"]["sound_step"]} == {"copy to the device"}


def test_every_command_runs_whole_on_a_device(report: dict[str, Any]) -> None:
    assert list(events(report, "fault")) == []
    assert {name: command["said"] for name, command in report["commands"].items() if command["code"]} == {}


def test_the_host_waits_for_the_device_only_where_it_is_listed(report: dict[str, Any]) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    lines: dict[tuple[str, str], set[str]] = {}
    for name, event in events(report, "wait"):
        counts[name, event["place"]] += event["count"]
        lines.setdefault((name, event["place"]), set()).add(f"line {event['line']}: {event['what']}")
    often = {
        key: (count, lines[key]) for key, count in counts.items() if count > WAITS.get(key[1], (0, "not listed"))[0]
    }
    assert often == {}


def test_nothing_is_listed_that_does_not_happen(report: dict[str, Any]) -> None:
    assert WAITS.keys() <= {event["place"] for _, event in events(report, "wait")}


def test_no_pageable_memory_is_copied(report: dict[str, Any]) -> None:
    assert list(events(report, "copy")) == []
