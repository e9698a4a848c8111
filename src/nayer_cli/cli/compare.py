"""`nayer compare`: flags, help, examples."""

from typing import Annotated

import typer

from nayer_cli.cli import options
from nayer_cli.cli.results import comparison_rows
from nayer_cli.errors import InputError

EXAMPLES = (
    ("nayer compare runs/one runs/two", "which settings differ, and what that changed"),
    ("nayer compare runs/one runs/two --json", "the same for other programs"),
)

Runs = Annotated[list[str], typer.Argument(metavar="RUN RUN…", help="run directories", show_default=False)]


def command(
    runs: Runs,
    debug: options.Debug = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show the settings in which runs differ, and their figures side by side."""
    if len(runs) < 2:
        raise InputError("one run alone cannot be compared", hint="name a second one: nayer compare RUN RUN")
    from nayer_cli.cli.output import Output
    from nayer_cli.study.compare import compare

    found = compare(runs)
    Output(json=json, quiet=quiet).result(found, comparison_rows(found))
