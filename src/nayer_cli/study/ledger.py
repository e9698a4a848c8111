"""The ledger: one JSON file for each run, with everything that its figures depend on."""

import hashlib
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nayer_cli.config import read_file
from nayer_cli.errors import InputError
from nayer_cli.storage.files import make_folder, write_json
from nayer_cli.storage.text import read_json
from nayer_cli.study import plan, report
from nayer_cli.study.plan import Cell, Study
from nayer_cli.study.table import tabulate
from nayer_cli.study.work import words

RECORD_FORMAT = "nayer.record/1"
FIGURES = (
    "student",
    "best_oracle",
    "images",
    "budget",
    "seconds",
    "processor_seconds",
    "peak_memory",
    "synthesis",
    "quantization",
)
"""The fields of a result that are kept unchanged."""
OF_A_START = ("nayer", "python", "torch", "platform", "gpu", "threads")
PATHS = ("teacher.weights", "student.weights", "eval.data", "data", "lte.file", "reuse")
"""Settings that may be paths of one machine: of a file its name is kept, and its SHA-256 besides."""


def write(study: Study, folder: Path, ledger: Path) -> None:
    """Write a record of every run of a study that has ended."""
    make_folder(ledger)
    for cell in study.cells():
        run = folder / cell.name
        if (run / "result.json").is_file():
            write_json(ledger / f"{study.label}.{cell.name.replace('/', '.')}.json", record(study, cell, run))


def record(study: Study, cell: Cell, run: Path) -> dict[str, Any]:
    """Return what is written of one run."""
    result, about = _read(run / "result.json"), _read(run / "run.json")
    layer, starts = read_file(run / "config.toml"), about.get("starts") or [{}]
    plain = {key: _plain(key, value) for key, value in cell.settings.items()}
    return {
        "schema": RECORD_FORMAT,
        "study": study.name,
        "scale": study.scale,
        "row": cell.row.name,
        "column": cell.column.name,
        "seed": cell.seed,
        "command": shlex.join(words(replace(cell, settings=plain), Path("studies") / study.label)),
        "starts": len(starts),
        "commit": commit(),
        "machine": {key: starts[-1].get(key) for key in OF_A_START},
        "config": {key: _plain(key, value) for key, value in layer.items() if key != "lte.cache_dir"},
        "sha256": {
            "teacher": (result.get("teacher") or {}).get("sha256"),
            "names": _digest_of_names(result.get("label_names")),
            **{key: _digest(about, key) for key in ("eval.data", "data") if _digest(about, key)},
        },
        "method": result.get("method"),
        "encoder": result.get("encoder"),
        "teacher": result.get("teacher"),
        **{key: result[key] for key in FIGURES if result.get(key) is not None},
    }


def read(ledger: Path) -> list[dict[str, Any]]:
    """Read all records, in the order of their names."""
    return [_read(path) for path in sorted(ledger.glob("*.json"))]


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """Write the tables of all recorded runs as Markdown, for the studies that ship with the package."""
    blocks = [INTRODUCTION]
    for name, scale in dict.fromkeys((record["study"], record["scale"]) for record in records):
        blocks += _section([record for record in records if (record["study"], record["scale"]) == (name, scale)])
    if not records:
        blocks.append("Nothing is recorded yet.")
    return "\n\n".join(blocks) + "\n"


INTRODUCTION = """\
# Results

Each figure on this page comes from a file in `results/`, one for each run: its command line, resolved settings, commit,
versions, machine, seed, SHA-256 of teacher, class names and data, all scores, time and memory.
`nayer study NAME --record results` writes them, and `python tools/write_docs.py` writes this page."""


def _section(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield heading, circumstances and tables of one study."""
    first = records[0]
    study = plan.read(first["study"], first["scale"], sorted({record["seed"] for record in records}), {})
    rows = {record["row"] for record in records}
    study = replace(study, rows=tuple(row for row in study.rows if row.name in rows))
    names = {cell.name: cell for cell in study.cells()}
    found = {"/".join(filter(None, (r["row"], r["column"], f"seed-{r['seed']}"))): r for r in records}
    table = tabulate(study, {name: found[name] for name in names if name in found})
    yield f"## {table['title']}: {study.scale}"
    if study.note:
        yield study.note
    for column in table["columns"]:
        teacher = "" if column["teacher"] is None else f" Teacher: {report.percent(column['teacher'])} %."
        yield f"{column['title']}.{teacher}"
        yield report.as_markdown(report.rows(column))
    yield report.LEGEND
    yield _circumstances(records)


def _circumstances(records: Sequence[Mapping[str, Any]]) -> str:
    machines = dict.fromkeys(record["machine"].get("gpu") or record["machine"].get("platform") for record in records)
    commits = dict.fromkeys(str(record["commit"])[:10] for record in records)
    torches = dict.fromkeys(record["machine"].get("torch") for record in records)
    said = {"commit": commits, "torch": torches, "machine": machines}
    return "; ".join(f"{name} {', '.join(map(str, values))}" for name, values in said.items()) + "."


def commit() -> str | None:
    """Return the commit of the source that runs, with a `+` where it was changed; None where there is no repository."""
    try:
        found = [
            subprocess.run(
                ["git", "-C", str(Path(__file__).parent), *words],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "."))
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return found[0] + ("+" if found[1] else "")


def _plain(key: str, value: object) -> Any:
    return Path(value).name if key in PATHS and isinstance(value, str) else value


def _digest(about: dict[str, Any], key: str) -> str | None:
    """Return the SHA-256 of a file that a setting names; None where it is a folder, or a set that is built in."""
    path = Path(str(about.get("paths", {}).get(key, "")))
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of_names(names: list[str] | None) -> str | None:
    return hashlib.sha256("\n".join(names).encode()).hexdigest() if names else None


def _read(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one if there is none.

    Raises:
        InputError: something else is in it.

    """
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged: it is not an object", hint="remove it, or restore it from a backup")
    return found
