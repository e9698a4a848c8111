"""The command line: parses words, calls a recipe of `nayer_cli.runs`, prints its result.

Nothing here imports torch before a command runs, so that `nayer --help` answers at once.
"""

from collections.abc import Iterable
from typing import Annotated

import typer

from nayer_cli import __version__
from nayer_cli.cli import bench, compare, distill, embed, export, info, quantize, sample, study, train
from nayer_cli.cli import eval as evaluate


def _flow(text: str) -> str:
    """Return `text` with each paragraph on one line: old and new Typer treat line breaks differently."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))


def _examples(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the foot of a help page: each command line under what it does."""
    return "\n\n".join(["[b]Examples[/b]", *(f"[dim]# {what}[/dim]\n\n[cyan]{line}[/cyan]" for line, what in pairs)])


EPILOG = """
[b]Start here[/b]

[cyan]nayer distill[/cyan]  learns handwritten digits from a teacher, without data, in minutes

[cyan]nayer COMMAND --help[/cyan]  shows all options of a command, with examples

Every option is also read from a variable: NAYER_TEACHER is --teacher. Exit codes: 0 done, 1 a gate was not met,
2 wrong input, 3 the machine lacks something, 4 the run failed.
"""

app = typer.Typer(
    help="Make small or low-bit copies of image classifiers, without their training data.",
    epilog=_flow(EPILOG),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS = {
    "distill": distill,
    "embed": embed,
    "eval": evaluate,
    "export": export,
    "bench": bench,
    "quantize": quantize,
    "sample": sample,
    "train": train,
    "study": study,
    "compare": compare,
    "info": info,
}
for _name, _module in COMMANDS.items():
    _help = _flow(_module.command.__doc__ or "")
    app.command(_name, help=_help, epilog=_examples(_module.EXAMPLES))(_module.command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nayer {__version__}")
        raise typer.Exit


@app.callback()
def _nayer(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
