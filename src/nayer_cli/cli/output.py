"""Output for the user: results on stdout, everything else on stderr. The only user of rich.

A result is a small table or, with `--json`, exactly one document. Progress is a live display on a terminal, and one
line an epoch elsewhere; records of a kind that is not known here are passed over.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nayer_cli.cli import layout
from nayer_cli.cli.results import Document, Rows, clock, percent, speaks
from nayer_cli.errors import NayerError
from nayer_cli.storage.runlog import Listener
from nayer_cli.storage.text import harmless

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Output:
    """The screen: a command shows results and progress through it."""

    json: bool = False
    quiet: bool = False

    @contextmanager
    def progress(self, first: str = "loading torch") -> Iterator[Listener]:
        """Show the records of a run while the block runs; whatever else prints in it goes to stderr.

        The `first` line comes at once: importing torch takes many seconds on a slow machine.
        """
        console = _stderr()
        with redirect_stdout(sys.stderr):
            if not speaks():
                yield lambda record: None
            elif self.quiet:
                yield Lines(console, quiet=True)
            elif sys.stderr.isatty() and not console.is_dumb_terminal:
                with LiveDisplay(console) as display:
                    yield display
            else:
                console.print(Text(first))
                yield Lines(console)

    def result(self, document: Document, rows: Rows) -> None:
        """Print the result: the document as JSON, or the rows as a table."""
        if not speaks():
            return
        if self.json:
            sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
        else:
            _print_table(rows)
        sys.stdout.flush()  # a closed pipe must be noticed here, not when Python ends

    def tables(self, document: Document, blocks: Sequence[Rows]) -> None:
        """Print a result of several tables: the document as JSON, or one after the other."""
        for number, rows in enumerate(blocks[:1] if self.json else blocks):
            if number and speaks():
                sys.stdout.write("\n")
            self.result(document, rows)

    def lines(self, lines: Sequence[str]) -> None:
        """Print lines that other programs read."""
        if speaks():
            sys.stdout.writelines(f"{line}\n" for line in lines)
            sys.stdout.flush()

    def note(self, message: str) -> None:
        """Tell the user something that is not a result."""
        if speaks() and not self.quiet:
            _stderr().print(_text(message))


def show_fault(fault: NayerError) -> None:
    """Print what went wrong, and what to try next."""
    console = _stderr()
    console.print(Text.assemble(("error: ", "bold red"), harmless(str(fault))))
    if fault.hint:
        console.print(Text.assemble(("hint: ", "bold cyan"), harmless(fault.hint)))


class Lines:
    """One line for each thing that is worth a line: for logs and pipes."""

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._begun: set[str] = set()

    def __call__(self, record: Record) -> None:
        """Print the record, if it is of a known kind."""
        line = self._phase(record) or describe(record)
        if line is not None and (not self._quiet or record.get("level") == "warning"):
            self._console.print(line)

    def _phase(self, record: Record) -> Text | None:
        """Return a line for the first step of each phase: an epoch may take long."""
        phase = record.get("phase")
        if record.get("event") != "progress" or not phase or phase in self._begun:
            return None
        self._begun.add(phase)
        return Text(f"{phase}: {record.get('done')} of {record.get('of')} in epoch {record.get('epoch')}")


class LiveDisplay:
    """A few lines at the foot of the terminal that follow the run; what is worth keeping scrolls away above."""

    def __init__(self, console: Console) -> None:
        self._state: dict[str, Any] = {}
        self._finished, self._due = 0, time.monotonic()
        self._live = Live(self, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "LiveDisplay":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, record: Record) -> None:
        """Take a record in."""
        event = record.get("event")
        if event == "run":
            self._state, self._finished = {}, 0
        if event in ("start", "progress", "epoch"):
            self._state.update(record)
        if event in ("start", "epoch"):
            self._finished = record.get("epoch", 0)
            self._due = time.monotonic() + record.get("seconds_left", 0.0)
        if event in ("run", "start", "note") or ("student" in record and event == "epoch"):
            console = self._live.console
            console.print(describe(record, console.width), soft_wrap=False)  # rich then breaks lines between words

    def __rich__(self) -> RenderableType:
        """Render where the run stands; rich calls this from its own thread."""
        state, width = dict(self._state), self._live.console.width
        if "epoch" not in state:
            return Text("loading", style="dim")
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            Text(state.get("phase") or "starting", style="bold"),
            Text(_place(state, self._finished + 1)),
            _bar(state, self._finished),
            Text(f"{state['done']}/{state['of']}" if "of" in state else ""),
        )
        left = max(0.0, self._due - time.monotonic())
        figures = layout.flow(_figures(state | {"seconds_left": left}), width)
        losses = layout.flow(_losses(state), width, "  ")
        return Group(bar, *(Text(line, style="dim") for line in (figures, losses) if line))


def describe(record: Record, width: int | None = None) -> Text | None:
    """Return the line that a record is worth, or None; where it is wider than `width`, it becomes several."""
    match record:
        case {"event": "run", "name": name, "done": done, "of": of}:
            return _text(f"run {done} of {of}: {name}", style="bold")
        case {"event": "start"}:
            return _text(layout.flow(_headline(record), width), style="bold")
        case {"event": "note", "message": message, "level": "warning"}:
            return Text.assemble(("warning: ", "bold yellow"), harmless(message))
        case {"event": "note", "message": message}:
            return _text(message)
        case {"event": "epoch", "epoch": epoch}:
            losses = _losses(record) if width else ["  ".join(_losses(record))]
            words = [_place(record, epoch), record.get("phase") or "", *losses, *_figures(record)]
            return Text(layout.flow(words, width))
    return None


def _headline(record: Record) -> list[str]:
    networks = " → ".join(filter(None, (record.get("teacher"), record.get("student"))))
    preset = record.get("preset") and f"preset {record['preset']}"
    length = f"budget {record['budget']}" if record.get("budget") else f"{record.get('epochs')} epochs"
    words = (networks, record.get("method"), preset, length, record.get("device"), record.get("run"))
    return list(filter(None, words))


def _place(record: Record, epoch: int) -> str:
    """Say where a run is: in which epoch of how many, or how much of its budget it has used."""
    epochs = record.get("epochs")
    if epochs is None:
        return f"epoch {epoch}, {100 * record.get('spent', 0.0):.0f} % of the budget"
    return f"epoch {min(epoch, epochs)}/{epochs}"


def _bar(record: Record, finished: int) -> ProgressBar:
    epochs = record.get("epochs")
    total, completed = (1.0, record.get("spent", 0.0)) if epochs is None else (epochs, finished)
    return ProgressBar(total=total, completed=completed, width=30)


def _losses(record: Record) -> list[str]:
    return [f"{name} {value:.4g}" for name, value in record.get("losses", {}).items()]


def _figures(record: Record) -> list[str]:
    """Return speed, quality of the student and time left, as far as they are known."""
    figures = []
    if "images_per_s" in record:
        figures.append(f"{record['images_per_s']:,.0f} images/s")
    student = record.get("student")
    if isinstance(student, Mapping):  # in the first record it is a name
        figures += [f"student {name} {percent(student[key])}" for key, name in SCORES.items() if key in student][:1]
    if record.get("seconds_left"):
        figures.append(f"{clock(record['seconds_left'])} left")
    return figures


SCORES = {"top1": "top-1", "agreement": "agreement"}


def _stderr() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def _text(text: str, style: str = "") -> Text:
    """Return a text that may hold words of strangers."""
    return Text(harmless(text), style=style)


def _print_table(rows: Rows) -> None:
    width = Console().width if sys.stdout.isatty() else None
    sys.stdout.writelines(f"{harmless(line).rstrip()}\n" for line in layout.table(rows, width))
