"""`nayer study`: flags, help, examples."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nayer_cli import trust
from nayer_cli.cli import checks, completion, options
from nayer_cli.cli.results import speaks
from nayer_cli.errors import InputError, RunFailed, did_you_mean
from nayer_cli.runs import words
from nayer_cli.storage.toml import Layer, flatten, parse_assignment
from nayer_cli.study import plan
from nayer_cli.study.plan import SCHEMAS, Line, Study

if TYPE_CHECKING:
    from nayer_cli.cli.output import Output
    from nayer_cli.study.work import Outcome

EXAMPLES = (
    ("nayer study table4", "eleven ways to feed the generator, on digits, without data or network"),
    ("nayer study table4 --seeds 0,1,2 --table", "the table of the finished runs, at any time"),
    ("nayer study widths.toml --set schedule.epochs=2 --rows wide,narrow", "a study of your own, varied"),
    ("nayer study table1 --scale paper --print", "one command line per run, for a scheduler"),
)
STUDIES = Path("studies")
"""Default folder of studies."""

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE.toml",
        help=f"{', '.join(plan.names())}, or a TOML file of your own",
        show_default=False,
        autocompletion=completion.studies,
    ),
]
STUDY = "Study"
Scale = Annotated[
    str | None, options.flag("--scale", STUDY, "digits (minutes), laptop (hours), or paper", metavar="NAME")
]
Seeds = Annotated[str | None, options.flag("--seeds", STUDY, "instead of the study's own", metavar="N,N")]
Some = Annotated[str | None, options.flag("--rows", STUDY, "only these rows, by name", metavar="A,B")]
Columns = Annotated[str | None, options.flag("--columns", STUDY, "only these columns, by name", metavar="A,B")]
Out = Annotated[Path | None, options.flag("--out -o", options.OUTPUT, "folder of the runs", metavar="DIR")]
Print = Annotated[
    bool, options.flag("--print", options.OUTPUT, "print a command line for each unfinished run, and run nothing")
]
Table = Annotated[
    bool, options.flag("--table", options.OUTPUT, "write the table of the finished runs, and run nothing")
]
Record = Annotated[
    Path | None,
    options.flag("--record", options.OUTPUT, "also write a JSON file for each finished run", metavar="DIR"),
]


def command(
    ctx: typer.Context,
    name: Name,
    scale: Scale = None,
    seeds: Seeds = None,
    rows: Some = None,
    columns: Columns = None,
    set: options.Set = None,
    trust_code: options.TrustCode = False,
    debug: options.Debug = False,
    out: Out = None,
    print: Print = False,
    table: Table = False,
    record: Record = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare methods or settings over seeds: the tables of the paper, or one of your own.

    Runs what is missing, one run after another, even if one fails. The table goes to the screen, and
    into the study's folder as table.md, .csv, .json and .html. --set changes a setting of all runs, or of some with
    rows.ROW. or columns.COLUMN. before its name.
    """
    if print and table:
        raise InputError("--print and --table cannot be combined", hint="leave out one of them")
    if os.environ.get("WORLD_SIZE", "1") != "1" and not (print or table):
        raise InputError("a study runs in one process", hint="start each line of --print with torchrun instead")
    ctx.with_resource(trust.trusting_code(trust_code))
    study = _study(name, scale, seeds, rows, columns, dict(flatten(dict(map(parse_assignment, set or [])))))
    folder = out or STUDIES / study.label
    from nayer_cli.cli.output import Output
    from nayer_cli.study import work

    output = Output(json=json, quiet=quiet)
    if print:
        output.lines(work.lines(study, folder))
        return
    outcome = None
    if not table:
        _check(study)
        with output.progress() as listen:
            outcome = work.run(study, folder, listen, debug=debug)
    _show(study, folder, record, output)
    if outcome:
        _tell(outcome, study, output)


def _study(
    name: str, scale: str | None, seeds: str | None, rows: str | None, columns: str | None, changes: Layer
) -> Study:
    study = plan.read(name, scale, _numbers(seeds), changes)
    if name not in plan.names():
        for cell in study.cells():
            words.check(cell.settings, changes, name)
    return replace(study, rows=_some(study.rows, rows, "row"), columns=_some(study.columns, columns, "column"))


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"cannot read --seeds {text}", hint="for example: --seeds 0,1,2") from None


def _some(lines: tuple[Line, ...], wanted: str | None, kind: str) -> tuple[Line, ...]:
    if wanted is None:
        return lines
    known, names = {line.name: line for line in lines}, [word.strip() for word in wanted.split(",")]
    for name in names:
        if name not in known:
            raise InputError(
                f"there is no {kind} '{name}'{did_you_mean(name, known)}", hint=f"choose among: {', '.join(known)}"
            )
    return tuple(line for line in lines if line.name in names)


def _check(study: Study) -> None:
    """Check everything about each run that can be checked before torch is imported."""
    for cell in study.cells():
        if cell.seed == study.seeds[0]:
            try:
                checks.check(SCHEMAS[cell.command], cell.settings)
            except InputError as error:
                raise InputError(f"{cell.name}: {error}", hint=error.hint) from error


def _show(study: Study, folder: Path, record: Path | None, output: "Output") -> None:
    """Write and print the table."""
    from nayer_cli.study import ledger, publish, report
    from nayer_cli.study.table import collect

    found = collect(study, folder)
    has_ended = any(row["n"] for column in found["columns"] for row in column["rows"])
    if has_ended and speaks():
        publish.write(found, folder)
        if record:
            ledger.write(study, folder, record)
    output.tables(found, [report.rows(column) for column in found["columns"]])


def _tell(outcome: "Outcome", study: Study, output: "Output") -> None:
    """Say what is not done.

    Raises:
        RunFailed: a run failed.

    """
    if outcome.busy:
        output.note(f"another process is working on {', '.join(outcome.busy)}")
    if outcome.failed:
        named = "; ".join(f"{name} ({why})" for name, why in outcome.failed.items())
        raise RunFailed(
            f"{len(outcome.failed)} of {len(list(study.cells()))} runs failed: {named}",
            hint="fix the cause, then run the same command again: finished runs are kept",
        )
