"""Text in columns and lines that fit a terminal: words are never broken, and a path can be copied whole."""

import textwrap
from collections.abc import Sequence

from rich.cells import cell_len

from nayer_cli.cli.results import Rows

GAP = 3
NARROWEST = 22
"""Characters of a column of figures; the widest figure is a confidence interval."""


def table(rows: Rows, width: int | None = None) -> list[str]:
    """Set a table: the headings, if there are any, then the rows.

    Args:
        rows: as `Rows` says. Where every column has a heading, each row is about one thing.
        width: characters of the terminal; None for a pipe, where each row stays on one line.

    """
    each_is_one_thing = all(rows[0])
    rows = rows if any(rows[0]) else rows[1:]
    if width is None or _width(rows) <= width:
        return _align(rows)
    return _transposed(rows, width) if each_is_one_thing else _align(rows, width)


def flow(parts: Sequence[str], width: int | None = None, separator: str = " · ") -> str:
    """Join parts; where a line would be wider than `width` it ends between two of them, and the next is indented."""
    lines, line = [], ""
    for part in filter(None, parts):
        longer = f"{line}{separator}{part}" if line.strip() else f"{line}{part}"
        if width and line.strip() and cell_len(longer) > width:
            lines.append(line)
            longer = f"  {part}"
        line = longer
    return "\n".join([*lines, line])


def shorten(name: str, width: int) -> str:
    """Cut a long name or path at its beginning: its end says more."""
    if len(name) <= width:
        return name
    tail = name[-(width - 1) :]
    cut = tail.find("/", 0, len(tail) // 2)  # at the next folder, if that leaves enough
    return f"…{tail[max(cut, 0) :]}"


def _width(rows: Rows) -> int:
    return max(map(cell_len, _align(rows)), default=0)


def _align(rows: Rows, width: int | None = None) -> list[str]:
    """Pad each column to its widest cell; the last cell of a row may be longer, and is wrapped at its words."""
    columns = [
        max((cell_len(row[i]) for row in rows if any(row[i + 1 :])), default=0) for i in range(max(map(len, rows)))
    ]
    lines = []
    for row in rows:
        last = max((i for i, cell in enumerate(row) if cell), default=0)
        before = "".join(cell + " " * (columns[i] - cell_len(cell) + GAP) for i, cell in enumerate(row[:last]))
        lines += _hanging(before, row[last], width)
    return lines


def _hanging(before: str, text: str, width: int | None) -> list[str]:
    if not width or cell_len(before + text) <= width:
        return [before + text]
    room = max(width - cell_len(before), NARROWEST)
    first, *rest = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    return [before + first, *(" " * cell_len(before) + line for line in rest)]


def _transposed(rows: Rows, width: int) -> list[str]:
    """Set a column for each row, as many side by side as fit."""
    headings, *things = rows
    left = max(map(cell_len, headings))
    side_by_side = max((width - left) // (NARROWEST + GAP), 1)
    room = (width - left) // min(side_by_side, len(things)) - GAP
    lines: list[str] = []
    for start in range(0, len(things), side_by_side):
        some = [(shorten(name, room), *cells) for name, *cells in things[start : start + side_by_side]]
        block = list(zip(headings, *some, strict=True))
        lines += ["", *_align(block)] if lines else _align(block)
    return lines
