"""The table of a study as text: rows for a terminal, Markdown, CSV."""

import csv
import io
from collections.abc import Callable

from nayer_cli.study.table import Column, Difference, Row, Table

Rows = list[tuple[str, ...]]
METRICS = {"top1": "top-1", "agreement": "agreement"}
TITLES = {
    "convergence": "steps to converge",
    "converged": "converged",
    "diversity": "diversity",
    "diversity_round": "in a round",
}


def rows(column: Column, *, plain: bool = False) -> Rows:
    """Return the block of one column: headings, then its rows. Columns that would be empty are left out."""
    fields = _fields(column, plain)
    kept = [title for title, write in fields.items() if any(write(row) for row in column["rows"])]
    table = [tuple(fields[title](row) or ("" if plain else "–") for title in kept) for row in column["rows"]]
    return [(column["title"] or "row", *kept[1:]), *table]


def _fields(column: Column, plain: bool) -> dict[str, Callable[[Row], str]]:
    """Return what there is to write of a row, by heading; an empty text where nothing is known."""
    return {
        "row": lambda row: row["title"],
        METRICS[column["metric"]]: lambda row: _spread(row["mean"], row["sd"]),
        "n": lambda row: str(row["n"]) if row["n"] == row["planned"] else f"{row['n']} of {row['planned']}",
        "to the first row": lambda row: _difference(row["difference"]),
        "best epoch, an oracle": lambda row: percent(row["best"]),
        "paper": lambda row: percent(row["paper"]),
        **{
            title: lambda row, name=name: _number(row["measures"].get(name))  # type: ignore[misc]
            for name, title in TITLES.items()
        },
        "minutes": lambda row: _minutes(row["minutes"]),
        "processor": lambda row: _minutes(row["processor_minutes"]),
        "images made": lambda row: _count(row["synthesized"]),
        "images seen": lambda row: _count(row["seen"]),
    }


def markdown(table: Table) -> str:
    """Write the table as Markdown."""
    blocks = [f"# {table['title']}", *filter(None, [table["note"]])]
    for column in table["columns"]:
        if column["title"]:
            blocks.append(f"## {column['title']}")
        if column["teacher"] is not None:
            blocks.append(f"Teacher: {percent(column['teacher'])} %.")
        blocks.append(as_markdown(rows(column)))
    return "\n\n".join([*blocks, LEGEND]) + "\n"


LEGEND = (
    "Per cent of the last epoch: mean ± sample standard deviation over seeds. Differences are in points, paired by "
    "seed, with a 95 % interval of Student's t."
)


def as_markdown(rows: Rows) -> str:
    """Set rows as a Markdown table, the first of them as its headings."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body])


def as_csv(table: Table) -> str:
    """Write one line for each run that has ended."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fields = ("name", "seed", "value", "best", "minutes", "processor_minutes", "synthesized", "seen")
    writer.writerow(["column", "row", "metric", *fields])
    for column in table["columns"]:
        for row in column["rows"]:
            for run in row["runs"]:
                writer.writerow([column["name"], row["name"], column["metric"], *(run[field] for field in fields)])  # type: ignore[literal-required]
    return text.getvalue()


def percent(value: float | None) -> str:
    """Write a fraction in per cent, without the sign."""
    return "" if value is None else f"{100 * value:.2f}"


def _spread(mean: float | None, sd: float | None) -> str:
    return percent(mean) if sd is None else f"{percent(mean)} ± {percent(sd)}"


def _difference(found: Difference | None) -> str:
    if found is None:
        return ""
    mean = f"{100 * found['mean']:+.2f}"
    if found["low"] is None or found["high"] is None:
        return mean
    return f"{mean} ({100 * found['low']:+.2f} to {100 * found['high']:+.2f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _minutes(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
