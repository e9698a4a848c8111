"""The table of a study as one HTML page that contains figures, curves and pictures."""

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from nayer_cli.study import report
from nayer_cli.study.table import Column, Row, Run, Table

COLORS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#65a30d", "#92400e", "#475569")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 900, 340, 48, 42, 12
"""Size and margins of a plot, in pixels."""
STEPS, LINES = (0.01, 0.02, 0.05, 0.1, 0.2), 6
"""Between two lines of a plot, as fractions; and how many there are at most."""
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; } .note, figcaption { opacity: .75; }
.wide { overflow-x: auto; } table { border-collapse: collapse; white-space: nowrap; }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid var(--line); }
td { font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } tr:hover td { background: var(--soft); }
svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: currentColor; }
.axis { stroke: currentColor; stroke-opacity: .25; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .5em; }
.grids { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem; }
.grids img { width: 100%; image-rendering: pixelated; border-radius: 4px; } figure { margin: 0; }
"""


def page(table: Table, pictures: Mapping[str, bytes]) -> str:
    """Write the page.

    Args:
        table: what `collect` found.
        pictures: a PNG file by the name of the run that it is of.

    """
    name = " · ".join(filter(None, (table["study"], table["scale"])))
    body = "".join(_column(column, pictures) for column in table["columns"])
    note = f'<p class="note">{escape(table["note"])}</p>' if table["note"] else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(table['title'])}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{escape(table["title"])}</h1>\n<p class="note">{escape(name)}</p>\n{note}\n{body}'
        f'<p class="note">{escape(report.LEGEND)}</p>\n</body>\n</html>\n'
    )


def _column(column: Column, pictures: Mapping[str, bytes]) -> str:
    title = f"<h2>{escape(column['title'])}</h2>\n" if column["title"] else ""
    teacher = "" if column["teacher"] is None else f"<p>Teacher: {report.percent(column['teacher'])} %</p>\n"
    grids = "".join(_grids(column, pictures))
    shown = f'<h3>What the students saw</h3>\n<div class="grids">{grids}</div>\n' if grids else ""
    return f"<section>\n{title}{teacher}{_table(column)}{_plot(column)}{shown}</section>\n"


def _table(column: Column) -> str:
    head, *body = report.rows(column)
    headings = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "".join(
        f'<tr><td><span class="swatch" style="background:{_color(i)}"></span>{escape(row[0])}</td>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for i, row in enumerate(body)
    )
    return f'<div class="wide"><table>\n<thead><tr>{headings}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table></div>\n'


def _plot(column: Column) -> str:
    """Draw what was measured over the time of work, a line for each run, in the color of its row."""
    runs = [(i, row, run) for i, row in enumerate(column["rows"]) for run in row["runs"] if run["curve"]]
    if not runs:
        return ""
    longest = max(seconds for _, _, run in runs for seconds, _ in run["curve"]) or 1.0
    lowest = min(value for _, _, run in runs for _, value in run["curve"])
    step = next(size for size in STEPS if (1 - lowest) / size <= LINES or size == STEPS[-1])
    low = math.floor(lowest / step) * step
    metric = report.METRICS[column["metric"]]
    return (
        f"<h3>{escape(metric)} over time</h3>\n"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(metric)} over minutes of work">'
        + "".join(_axes(low, step, longest))
        + "".join(_line(i, row, run, low, longest) for i, row, run in runs)
        + "</svg>\n"
    )


def _axes(low: float, step: float, longest: float) -> Iterator[str]:
    for k in range(round((1 - low) / step) + 1):
        value = low + step * k
        y = _y(value, low)
        yield f'<line class="axis" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * value:.0f} %</text>'
    for k in range(6):
        seconds = longest * k / 5
        anchor = "end" if k == 5 else "middle"
        x = _x(seconds, longest)
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="{anchor}">{seconds / 60:.2g}</text>'
    yield f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 4}" text-anchor="middle">minutes of work</text>'


def _line(i: int, row: Row, run: Run, low: float, longest: float) -> str:
    points = " ".join(f"{_x(seconds, longest):.1f},{_y(value, low):.1f}" for seconds, value in run["curve"])
    seconds, value = run["curve"][-1]
    about = escape(f"{row['title']}, seed {run['seed']}: {100 * value:.2f} %")
    return (
        f'<g fill="none" stroke="{_color(i)}" stroke-width="1.8"><title>{about}</title><polyline points="{points}"/>'
        f'<circle cx="{_x(seconds, longest):.1f}" cy="{_y(value, low):.1f}" r="2.5" fill="{_color(i)}"/></g>'
    )


def _x(seconds: float, longest: float) -> float:
    return LEFT + (WIDTH - LEFT - 6) * seconds / longest


def _y(value: float, low: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value) / (1 - low if low < 1 else 1)


def _grids(column: Column, pictures: Mapping[str, bytes]) -> Iterator[str]:
    for row in column["rows"]:
        for run in _shown(row["runs"], pictures):
            data = base64.b64encode(pictures[run["name"]]).decode()
            title = escape(row["title"])
            yield (
                f'<figure><img src="data:image/png;base64,{data}" alt="images of {title}">'
                f"<figcaption>{title}, seed {run['seed']}</figcaption></figure>\n"
            )


def _shown(runs: Sequence[Run], pictures: Mapping[str, bytes]) -> list[Run]:
    return [run for run in runs if run["name"] in pictures][:1]


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]
