"""Report a run in progress: one JSON object a line in `metrics.jsonl`, and records for listeners."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from nayer_cli.errors import EnvironmentFault, InputError
from nayer_cli.storage.disk import cannot_write
from nayer_cli.storage.files import append_line, write_text
from nayer_cli.storage.text import parse_json

Listener = Callable[[dict[str, Any]], None]

MEND = "remove that line: it only records what an epoch measured"


class RunLog:
    """Appends epoch records to a file and passes every record on.

    Args:
        path: `metrics.jsonl`; None writes nothing.
        listen: receives every record.
        tensorboard: a folder for TensorBoard events, which then hold the numbers of every epoch, too.

    Raises:
        EnvironmentFault: TensorBoard is asked for and not installed, or the disk is full.
    """

    def __init__(self, path: Path | None, listen: Listener | None = None, *, tensorboard: Path | None = None) -> None:
        self.path = path
        self._listen = listen
        self._writer: Any = _open_writer(tensorboard) if tensorboard else None

    def __call__(self, record: dict[str, Any]) -> None:
        """Pass a record on; nothing is written."""
        if self._listen is not None:
            self._listen(record)

    def note(self, message: str, level: str = "info") -> None:
        """Tell the user something once."""
        self({"event": "note", "level": level, "message": message})

    def epoch(self, record: dict[str, Any]) -> None:
        """Append an epoch's record to the file, and pass it on."""
        if self.path is not None:
            append_line(self.path, json.dumps(record, allow_nan=False))
        self._add_events("add_scalar", _numbers(record), record["epoch"])
        self(record)

    def picture(self, name: str, pixels: object, epoch: int) -> None:
        """Show a picture, uint8 `[H, W, 3]`, in TensorBoard."""
        self._add_events("add_image", [(name, pixels)], epoch, dataformats="HWC")

    def level(self, name: str, value: float, epochs: int) -> None:
        """Show what does not change in a run, such as the teacher's accuracy, as a line in TensorBoard."""
        for epoch in (1, epochs):
            self._add_events("add_scalar", [(name, value)], epoch)

    def _add_events(self, kind: str, events: Iterable[tuple[str, Any]], epoch: int, **options: Any) -> None:
        if self._writer is None:
            return
        try:
            for name, value in events:
                getattr(self._writer, kind)(name, value, epoch, **options)
            self._writer.flush()
        except OSError as error:
            raise cannot_write(Path(self._writer.log_dir) / "events", error, 0) from error

    def rewind(self, epoch: int) -> None:
        """Drop records after `epoch`, left by a run that was interrupted after its last checkpoint."""
        if self.path is None or not self.path.exists():
            return
        kept = [line for line in read_metrics(self.path) if line["epoch"] <= epoch]
        write_text(self.path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Epoch records of a run, in order; none before the first epoch, and a last line that was cut off is left out.

    Raises:
        InputError: another line is no record of an epoch.

    """
    if not path.exists():
        return []
    *lines, last = path.read_bytes().split(b"\n")
    records = [_record(line, f"line {number} of {path}") for number, line in enumerate(lines, 1)]
    with suppress(InputError):  # a whole line ends with a line feed, and nothing follows it
        records.append(_record(last, str(path)))
    return records


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        found = parse_json(line.decode("utf-8"))
    except ValueError as error:
        raise InputError(f"{where} is damaged: {error}", hint=MEND) from error
    parts = [found.get(key, {}) for key in ("losses", "student")] if isinstance(found, dict) else [None]
    if not all(isinstance(part, dict) for part in parts) or type(found.get("epoch")) is not int:
        raise InputError(f"{where} is not the record of an epoch", hint=MEND)
    return dict(found)


def _numbers(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield an epoch's numbers: losses as `losses/ce`, what was measured as `student/top1`, `learning_rate`.

    The loss that is measured, on evaluation data, is `student/cross_entropy`: `losses/student` is that of its steps.
    """
    for name, value in record.get("losses", {}).items():
        yield f"losses/{name}", value
    for name, value in record.get("student", {}).items():
        if isinstance(value, (int, float)):
            yield f"student/{'cross_entropy' if name == 'loss' else name}", value
    if "lr" in record:
        yield "learning_rate", record["lr"]


def _open_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise EnvironmentFault(
            "TensorBoard is not installed", hint="pip install 'nayer-cli[tensorboard]', or leave output.tensorboard off"
        ) from error
    _leave_faults_to_who_waits()
    try:
        return SummaryWriter(str(folder))
    except OSError as error:
        raise cannot_write(folder / "events", error, 0) from error


def _leave_faults_to_who_waits() -> None:
    """Print no traceback if a thread cannot write its file: TensorBoard raises the error again when it is flushed."""
    usual = threading.excepthook

    def hook(fault: threading.ExceptHookArgs) -> None:
        if not isinstance(fault.exc_value, OSError):
            usual(fault)

    threading.excepthook = hook
