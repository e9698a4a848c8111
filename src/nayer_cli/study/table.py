"""The table of a study, from its finished runs: nothing but statistics is computed here."""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from typing_extensions import TypedDict

from nayer_cli.errors import InputError
from nayer_cli.storage.runlog import read_metrics
from nayer_cli.storage.text import parse_json
from nayer_cli.study.plan import Cell, Line, Study

TABLE_FORMAT = "nayer.table/1"
MEASURES = {
    "convergence": ("synthesis", "convergence", "student", "steps"),
    "converged": ("synthesis", "convergence", "student", "share"),
    "diversity": ("synthesis", "diversity", "features"),
    "diversity_round": ("synthesis", "diversity", "features_round"),
}
"""Further figures of a result, and their places."""
PARTS = ("student", "teacher", "best_oracle", "seconds", "processor_seconds", "images")
NEEDED = (("seconds", "total"), ("images", "synthesized"), ("images", "seen"))
"""Figures that every result has."""


class Difference(TypedDict):
    """A row less the first one, by seed: mean and 95 % interval of Student's t, null with fewer than two seeds."""

    n: int
    mean: float
    low: float | None
    high: float | None


class Run(TypedDict):
    """One run that has ended."""

    name: str
    seed: int
    value: float | None
    best: float | None
    minutes: float
    processor_minutes: float | None
    synthesized: int
    seen: int
    curve: list[list[float]]
    """Seconds of work so far, on processors where they are known, and what was measured then."""


class Row(TypedDict):
    """The figures of a row in a column; accuracies are fractions of 1, or null if there are none."""

    name: str
    title: str
    n: int
    planned: int
    mean: float | None
    sd: float | None
    best: float | None
    difference: Difference | None
    paper: float | None
    minutes: float | None
    processor_minutes: float | None
    synthesized: float | None
    seen: float | None
    measures: dict[str, float]
    runs: list[Run]


class Column(TypedDict):
    """A block of the table."""

    name: str
    title: str
    teacher: float | None
    metric: str
    rows: list[Row]


class Table(TypedDict):
    """The document that `nayer study --table --json` prints."""

    schema: str
    study: str
    scale: str
    title: str
    note: str
    columns: list[Column]


def collect(study: Study, folder: Path) -> Table:
    """Read the results below `folder`."""
    results = {cell.name: found for cell in study.cells() if (found := _result(folder / cell.name)) is not None}
    return tabulate(study, results, folder)


def tabulate(study: Study, results: Mapping[str, Mapping[str, Any]], folder: Path | None = None) -> Table:
    """Make the table of `results`, by the name of their run; with the folder of the runs, their curves come along."""
    return {
        "schema": TABLE_FORMAT,
        "study": study.name,
        "scale": study.scale,
        "title": study.title,
        "note": study.note,
        "columns": [_column(study, column, folder, results) for column in study.columns],
    }


def _result(run: Path) -> dict[str, Any] | None:
    try:
        found = parse_json((run / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it has not ended
        return None
    if not isinstance(found, dict) or "student" not in found:
        return None
    if not _has_figures(found):
        raise InputError(f"{run / 'result.json'} is damaged", hint="resume the run, which writes it again")
    return found


def _has_figures(result: Mapping[str, Any]) -> bool:
    """Say whether what a table takes from a result is a number, or is missing where it may be."""
    parts = [result.get(name) or {} for name in PARTS]
    if not all(isinstance(part, dict) for part in parts) or None in [_at(result, path) for path in NEEDED]:
        return False
    figures = [part.get(key) for part in parts for key in ("top1", "agreement", "total")]
    return all(figure is None or isinstance(figure, (int, float)) for figure in figures)


def _column(study: Study, column: Line, folder: Path | None, results: Mapping[str, Mapping[str, Any]]) -> Column:
    cells = [cell for cell in study.cells() if cell.column == column]
    here = [results[cell.name] for cell in cells if cell.name in results]
    metric = "top1" if any("top1" in result["student"] for result in here) else "agreement"
    rows = [_row(study, column, row, [c for c in cells if c.row == row], folder, results, metric) for row in study.rows]
    for row in rows[1:]:
        row["difference"] = difference(rows[0]["runs"], row["runs"])
    teachers = [result["teacher"]["top1"] for result in here if (result.get("teacher") or {}).get("top1") is not None]
    return {
        "name": column.name,
        "title": column.title or column.name,
        "teacher": teachers[0] if teachers else None,
        "metric": metric,
        "rows": rows,
    }


def _row(
    study: Study,
    column: Line,
    row: Line,
    cells: Sequence[Cell],
    folder: Path | None,
    results: Mapping[str, Mapping[str, Any]],
    metric: str,
) -> Row:
    ended = [cell for cell in cells if cell.name in results]
    runs = [_run(cell, folder, results[cell.name], metric) for cell in ended]
    values = [run["value"] for run in runs if run["value"] is not None]
    return {
        "name": row.name,
        "title": row.title or row.name,
        "n": len(runs),
        "planned": len(cells),
        "mean": _mean(values),
        "sd": stdev(values) if len(values) > 1 else None,
        "best": _mean([run["best"] for run in runs]),
        "difference": None,
        "paper": study.printed(row.name, column),
        "minutes": _mean([run["minutes"] for run in runs]),
        "processor_minutes": _mean([run["processor_minutes"] for run in runs]),
        "synthesized": _mean([run["synthesized"] for run in runs]),
        "seen": _mean([run["seen"] for run in runs]),
        "measures": dict(_measures([results[cell.name] for cell in ended])),
        "runs": runs,
    }


def _run(cell: Cell, folder: Path | None, result: Mapping[str, Any], metric: str) -> Run:
    on_processors = result.get("processor_seconds", {}).get("total")
    return {
        "name": cell.name,
        "seed": cell.seed,
        "value": result["student"].get(metric),
        "best": (result.get("best_oracle") or {}).get("top1"),
        "minutes": result["seconds"]["total"] / 60,
        "processor_minutes": None if on_processors is None else on_processors / 60,
        "synthesized": result["images"]["synthesized"],
        "seen": result["images"]["seen"],
        "curve": _curve(folder / cell.name / "metrics.jsonl", metric) if folder else [],
    }


def _curve(path: Path, metric: str) -> list[list[float]]:
    records = [record for record in read_metrics(path) if metric in record.get("student", {})]
    return [[record.get("worked_processor", 0.0), record["student"][metric]] for record in records]


def _measures(results: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    for name, path in MEASURES.items():
        mean = _mean([_at(result, path) for result in results])
        if mean is not None:
            yield name, mean


def _at(document: object, path: Sequence[str]) -> float | None:
    found = reduce(lambda node, key: node.get(key) if isinstance(node, Mapping) else None, path, document)
    return float(found) if isinstance(found, (int, float)) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def difference(first: Sequence[Run], runs: Sequence[Run]) -> Difference | None:
    """Compare runs with those of the first row that have the same seed; None where there is no such pair."""
    before = {run["seed"]: run["value"] for run in first}
    pairs = [(run["value"], before.get(run["seed"])) for run in runs]
    found = [value - reference for value, reference in pairs if value is not None and reference is not None]
    if not found:
        return None
    mean = fmean(found)
    if len(found) < 2:
        return {"n": 1, "mean": mean, "low": None, "high": None}
    from scipy.special import stdtrit  # takes a moment

    half = float(stdtrit(len(found) - 1, 0.975)) * stdev(found) / sqrt(len(found))
    return {"n": len(found), "mean": mean, "low": mean - half, "high": mean + half}
