"""The table of a study as files beside its runs."""

from collections.abc import Iterator
from pathlib import Path

from nayer_cli.storage.files import write_json, write_text
from nayer_cli.study.page import page
from nayer_cli.study.report import as_csv, markdown
from nayer_cli.study.table import Table


def write(table: Table, folder: Path) -> None:
    """Write the table into the study's folder: `table.md`, `table.csv`, `table.json` and `table.html`."""
    write_json(folder / "table.json", table)
    write_text(folder / "table.md", markdown(table))
    write_text(folder / "table.csv", as_csv(table))
    write_text(folder / "table.html", page(table, dict(_pictures(table, folder))))


def _pictures(table: Table, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the newest sample grid of each row's first run, by the run's name."""
    for column in table["columns"]:
        for row in column["rows"]:
            for run in row["runs"][:1]:
                grids = sorted((folder / run["name"] / "samples").glob("epoch-*.png"))
                if grids:
                    yield run["name"], grids[-1].read_bytes()
