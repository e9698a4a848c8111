import io
import json
import re
import sys

import pytest
from rich.console import Console

from nayer_cli.cli.output import Lines, LiveDisplay, Output, show_fault
from nayer_cli.errors import InputError

START = {"event": "start", "teacher": "big", "student": "small", "method": "nayer", "epoch": 0, "epochs": 12}
EPOCH = {
    "event": "epoch",
    "epoch": 3,
    "epochs": 12,
    "phase": "student",
    "losses": {"ce": 0.12345, "adv": -1.5},
    "images_per_s": 1234.5,
    "seconds_left": 3725.0,
    "student": {"top1": 0.5},
}
NOTE = {"event": "note", "level": "info", "message": "a note with [brackets]"}
WARNING = {"event": "note", "level": "warning", "message": "no BatchNorm"}
UNKNOWN = ({"event": "later"}, {"event": "epoch"}, {"event": "saved", "path": "x"}, {})


def lines(*records, quiet=False):
    console = Console(file=io.StringIO(), soft_wrap=True, highlight=False)
    display = Lines(console, quiet=quiet)
    for record in records:
        display(record)
    return console.file.getvalue().splitlines()


def test_an_epoch_is_one_line():
    (line,) = lines(EPOCH)
    assert line == (
        "epoch 3/12 · student · ce 0.1235  adv -1.5 · 1,234 images/s · student top-1 50.00 % · 1:02:05 left"
    )


def test_what_is_not_known_is_passed_over():
    assert lines(*UNKNOWN) == []
    assert lines(START, NOTE, WARNING) == [
        "big → small · nayer · 12 epochs",
        "a note with [brackets]",
        "warning: no BatchNorm",
    ]


def test_without_evaluation_data_the_agreement_is_shown():
    (line,) = lines(EPOCH | {"student": {"agreement": 0.9, "agreement_on": "held-back synthetic images"}})
    assert "student agreement 90.00 %" in line


def test_a_phase_is_told_when_it_begins():
    steps = [{"event": "progress", "epoch": 1, "phase": "synthesis", "done": done, "of": 9} for done in (1, 2)]
    assert lines(*steps) == ["synthesis: 1 of 9 in epoch 1"]


def test_quiet_leaves_warnings():
    assert lines(START, NOTE, WARNING, EPOCH, quiet=True) == ["warning: no BatchNorm"]


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None, legacy_windows=False)


def live(*records):
    """What the display shows after the records, and all that went to the terminal."""
    console, other = terminal(), terminal()
    with LiveDisplay(console) as display:
        for record in records:
            display(record)
        other.print(display)
    return other.file.getvalue(), console.file.getvalue()


def test_the_live_display_follows_the_run():
    progress = {"event": "progress", "epoch": 4, "phase": "synthesis", "done": 3, "of": 8}
    shown, scrolled = live(START, WARNING, EPOCH, progress, *UNKNOWN[2:])
    assert "synthesis  epoch 4/12" in shown
    assert "3/8" in shown
    assert "1,234 images/s · student top-1 50.00 % · 1:02:05 left" in shown
    assert "ce 0.1235  adv -1.5" in shown
    assert "warning: no BatchNorm" in scrolled


LONG = START | {
    "preset": "cifar10 (chosen by classes and image size)",
    "device": "cpu",
    "run": "/home/somebody/experiments/2026-11-27-wrn_40_2-wrn_16_2",
}


def test_nothing_is_broken_inside_at_80_columns():
    shown, scrolled = live(LONG, EPOCH | {"losses": {f"loss{i}": 0.123456 for i in range(9)}})
    for text in (shown, re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", scrolled)):
        assert max(map(len, text.splitlines())) <= 80
    assert LONG["run"] in scrolled
    for whole in ("1,234 images/s", "student top-1 50.00 %", "preset cifar10 (chosen by classes and image size)"):
        assert whole in scrolled
    assert "loss8 0.1235" in shown


def test_after_a_resume_no_line_is_empty_before_the_first_epoch():
    shown, _ = live(START | {"epoch": 7})
    assert shown.splitlines()[0].startswith("starting  epoch 8/12")
    assert all(line.strip() for line in shown.splitlines())


def test_the_live_display_begins_before_anything_is_known():
    shown, _ = live()
    assert shown.strip() == "loading"


def test_a_result_is_one_document_or_a_table(capsys):
    rows = [("", "student"), ("top-1", "80 %")]
    Output(json=True).result({"top1": 0.8, "name": "↑"}, rows)
    assert json.loads(capsys.readouterr().out) == {"top1": 0.8, "name": "↑"}
    Output().result({"top1": 0.8}, rows)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["student"], ["top-1", "80", "%"]]


def test_long_cells_stay_whole_in_a_pipe(capsys):
    Output().result({}, [("", ""), ("path", "x" * 300)])
    assert capsys.readouterr().out.split() == ["path", "x" * 300]


@pytest.mark.parametrize("quiet", [False, True])
def test_stray_prints_of_libraries_do_not_reach_stdout(quiet, capsys):
    with Output(quiet=quiet).progress():
        sys.stdout.write("stray\n")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [*([] if quiet else ["loading torch"]), "stray"]


def test_a_fault_is_two_lines_however_long_and_whatever_is_in_it(capsys):
    show_fault(InputError("cannot read [bold]" + "x" * 200, hint="pip install 'nayer-cli[report]'"))
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: cannot read [bold]" + "x" * 200
    assert hint == "hint: pip install 'nayer-cli[report]'"


def test_no_word_of_a_stranger_is_a_command_to_the_terminal(capsys):
    name, shown = "\x1b[2J\x9b1m\rcat", "\\x1b[2J\\x9b1m\\rcat"
    show_fault(InputError(name, hint=name))
    Output().note(name)
    Output().result({}, [("model", "top-1"), (name, "0.5")])
    out, err = capsys.readouterr()
    assert lines({"event": "run", "name": name, "done": 1, "of": 2}) == [f"run 1 of 2: {shown}"]
    assert lines(WARNING | {"message": name}, NOTE | {"message": name}) == [f"warning: {shown}", shown]
    assert lines(START | {"teacher": name})[0].startswith(shown)
    assert (err.count(shown), out.count(shown)) == (3, 1) and "\x1b" not in err + out
