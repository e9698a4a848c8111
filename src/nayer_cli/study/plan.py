"""A study: a TOML file of rows, columns and seeds, and its runs.

```toml
title = "Two ways to feed the generator"
seeds = [0, 1, 2]

[base]                    # settings of every run
preset = "digits"

[columns.digits]          # what is compared on; without columns there is one, without a name

[rows.noisy]              # what is compared; differences are to the first row
title = "noisy layer"
[rows.one-hot]
method.codes = "onehot"

[paper.noisy]             # what somebody has printed, in per cent, by row and column
digits = 98.5

[scales.large.base]       # with --scale large, all of this lies over what stands above
preset = "cifar10"
```
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from nayer_cli import config
from nayer_cli.config import DistillConfig, QuantizeConfig, RunConfig, TrainConfig
from nayer_cli.errors import ConfigError, InputError, did_you_mean
from nayer_cli.storage import toml
from nayer_cli.storage.text import printable
from nayer_cli.storage.toml import Layer

SHIPPED = Path(__file__).parents[1] / "studies"
SCHEMAS: dict[str, type[RunConfig]] = {schema.kind: schema for schema in (DistillConfig, TrainConfig, QuantizeConfig)}
"""Commands that a run of a study may be one of."""
PARTS = ("title", "note", "seeds", "base", "rows", "columns", "paper", "scales")
OF_A_LINE = ("title", "command", "paper")
"""Keys of a row or a column that are not settings."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
MOST_RUNS = 10_000
SMALLEST = "digits"
"""The scale of the shipped studies that takes minutes and no data: the default."""


@dataclass(frozen=True)
class Line:
    """A row or a column of the table."""

    name: str
    title: str = ""
    command: str = ""
    paper: str = ""
    """The column of `Study.paper` that a column is compared with."""
    settings: Layer = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One run."""

    row: Line
    column: Line
    seed: int
    command: str
    settings: Layer

    @property
    def name(self) -> str:
        """Its directory below that of the study, such as `lte/digits/seed-0`."""
        return "/".join(filter(None, (self.row.name, self.column.name, f"seed-{self.seed}")))


@dataclass(frozen=True)
class Study:
    """A study at one scale."""

    name: str
    scale: str
    title: str
    note: str
    seeds: tuple[int, ...]
    base: Line
    rows: tuple[Line, ...]
    columns: tuple[Line, ...]
    paper: Mapping[str, Mapping[str, float]]

    @property
    def label(self) -> str:
        """Name and scale, as a folder is called."""
        return "-".join(filter(None, (self.name, self.scale)))

    def cells(self) -> Iterator[Cell]:
        """Yield every run, all of a seed before those of the next: the first table is complete soonest."""
        for seed in self.seeds:
            for column in self.columns:
                for row in self.rows:
                    yield self._cell(row, column, seed)

    def printed(self, row: str, column: Line) -> float | None:
        """Return what the paper prints for a cell, as a fraction."""
        value = self.paper.get(row, {}).get(column.paper or column.name)
        return None if value is None else value / 100

    def _cell(self, row: Line, column: Line, seed: int) -> Cell:
        command = row.command or column.command or self.base.command or "distill"
        common = self.base.settings | column.settings
        own = {key: value for key, value in common.items() if not _is_foreign(key, command)}
        return Cell(row, column, seed, command, own | row.settings | {"seed": seed})


def _is_foreign(key: str, command: str) -> bool:
    """Say whether a setting means something to another command alone: `train` makes no images, others take none."""
    return not _knows(command, key) and any(_knows(other, key) for other in SCHEMAS)


def _knows(command: str, key: str) -> bool:
    return key in _keys(command) or (key.startswith("method.") and issubclass(SCHEMAS[command], DistillConfig))


@cache
def _keys(command: str) -> frozenset[str]:
    return frozenset(config.keys(SCHEMAS[command]))


def names() -> list[str]:
    """Names of the studies that ship with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def read(source: str, scale: str | None, seeds: Sequence[int] | None, changes: Layer) -> Study:
    """Read a study.

    Args:
        source: a shipped name, or a TOML file.
        scale: one of those of the file; by default `digits`, or the only one, or none.
        seeds: instead of the file's.
        changes: dotted keys over the file's: `base.…`, `rows.ROW.…`, `columns.COLUMN.…`; others belong to `base`.

    Raises:
        InputError: there is no such study, row, column or scale, or a part of it is unknown.

    """
    path = _find(source)
    document = toml.read_tables(path)
    _check_parts(document, PARTS, str(path))
    document, scale = _scaled(document, scale, str(path))
    for key, value in changes.items():
        _change(document, key, value)
    if seeds is not None:
        document["seeds"] = list(seeds)
    study = _study(path.stem, scale, document, str(path))
    count = len(study.rows) * len(study.columns) * len(study.seeds)
    if count > MOST_RUNS:
        raise InputError(f"{path} has {count:,} runs, and a study at most {MOST_RUNS:,}", hint="give fewer --seeds")
    for cell in study.cells():
        _check(cell, str(path))
    return study


def _find(source: str) -> Path:
    if source in names():
        return SHIPPED / f"{source}.toml"
    if Path(source).is_file():
        return Path(source)
    raise InputError(
        f"there is no study '{source}'{did_you_mean(source, names())}",
        hint=f"give a TOML file, or one of: {', '.join(names())}",
    )


def _scaled(document: dict[str, Any], scale: str | None, where: str) -> tuple[dict[str, Any], str]:
    """Lay the part of one scale over the rest."""
    scales = _tables(document.pop("scales", {}), "scales", where)
    if not scales:
        if scale:
            raise InputError(f"{where} has no scales", hint="leave out --scale")
        return document, ""
    chosen = scale or (SMALLEST if SMALLEST in scales else next(iter(scales)))
    if chosen not in scales:
        raise InputError(
            f"{where} has no scale '{chosen}'{did_you_mean(chosen, scales)}", hint=f"choose one of: {', '.join(scales)}"
        )
    _check_parts(_tables(scales[chosen], chosen, where), PARTS[:-1], f"scale {chosen} of {where}")
    return _merged(document, scales[chosen]), chosen


def _merged(one: object, other: object) -> Any:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other
    return one | {key: _merged(one.get(key), value) for key, value in other.items()}


def _change(document: dict[str, Any], key: str, value: object) -> None:
    """Set one value of the document; a row or a column that it names must be there."""
    parts = key.split(".")
    if parts[0] in ("rows", "columns"):
        known = document.get(parts[0], {})
        if len(parts) < 3 or parts[1] not in known:
            raise InputError(
                f"cannot set {key}: the {parts[0]} are {', '.join(known)}", hint=f"write {parts[0]}.NAME.KEY=VALUE"
            )
    elif parts[0] != "base":
        parts.insert(0, "base")
    node = document
    for part in parts[:-1]:
        node = node.setdefault(part, {})
    node[parts[-1]] = value


def _study(name: str, scale: str, document: dict[str, Any], where: str) -> Study:
    rows = tuple(_lines(document.get("rows", {}), "row", where))
    columns = tuple(_lines(document.get("columns", {}), "column", where)) or (Line(""),)
    if not rows:
        raise InputError(f"{where} has no rows", hint="add a table [rows.NAME] for each thing to compare")
    return Study(
        name=name,
        scale=scale,
        title=str(document.get("title", name)),
        note=str(document.get("note", "")),
        seeds=_seeds(document.get("seeds", [0]), where),
        base=_line("base", document.get("base", {}), where),
        rows=rows,
        columns=columns,
        paper=_paper(document.get("paper", {}), where),
    )


def _tables(found: object, name: str, where: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise InputError(
            f"'{name}' of {where} must be a table, not {printable(repr(found))}",
            hint=f"write [{name}], and its settings below",
        )
    return found


def _paper(found: object, where: str) -> dict[str, dict[str, float]]:
    """Return printed figures by row and column."""
    rows = {row: _tables(figures, f"paper.{row}", where) for row, figures in _tables(found, "paper", where).items()}
    for row, figures in rows.items():
        for column, figure in figures.items():
            if type(figure) not in (int, float):
                raise InputError(
                    f"paper.{row}.{column} of {where} must be a number, not {printable(repr(figure))}",
                    hint="give it in per cent, such as 98.5",
                )
    return rows


def _lines(tables: object, kind: str, where: str) -> Iterator[Line]:
    if not isinstance(tables, dict):
        raise InputError(f"{kind}s of {where} must be tables", hint=f"write [{kind}s.one], and its settings below")
    for name, table in tables.items():
        if not NAME.fullmatch(name):
            raise InputError(f"{kind} '{name}' of {where} cannot name a folder", hint="use letters, digits, _ and -")
        yield _line(name, table, where)


def _line(name: str, table: object, where: str) -> Line:
    if not isinstance(table, dict):
        raise InputError(f"'{name}' of {where} must be a table of settings", hint="write KEY = VALUE for each")
    own = {key: str(table[key]) for key in OF_A_LINE if key in table}
    if own.get("command", "distill") not in SCHEMAS:
        raise InputError(
            f"'{name}' of {where} has an unknown command '{own['command']}'", hint=f"one of: {', '.join(SCHEMAS)}"
        )
    settings = dict(toml.flatten({key: value for key, value in table.items() if key not in OF_A_LINE}))
    return Line(name, settings=settings, **own)


def _seeds(value: object, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(seed) is int and seed >= 0 for seed in value):
        raise InputError(f"seeds of {where} must be whole numbers from 0, not {value!r}", hint="for example: 0,1,2")
    return tuple(dict.fromkeys(value))


def _check_parts(document: Any, known: Sequence[str], where: str) -> None:
    for key in document:
        if key not in known:
            raise InputError(
                f"unknown part '{key}' of {where}{did_you_mean(key, known)}",
                hint=f"there are {', '.join(known)}; settings belong under [base], [rows.NAME] or [columns.NAME]",
            )


def _check(cell: Cell, where: str) -> None:
    """Check the settings of a run, except those of its method, which is not imported here."""
    reserved = [key for key in cell.settings if key.startswith("output.out")]
    if reserved:
        raise ConfigError(f"{reserved[0]} of {where} is given by the study", hint="leave it out, and use --out")
    config.check(SCHEMAS[cell.command], cell.settings, f"{cell.name} of {where}")
