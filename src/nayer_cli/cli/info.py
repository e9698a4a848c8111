"""`nayer info`: flags, help, examples."""

from typing import TYPE_CHECKING, Annotated

import typer

from nayer_cli.cli import options
from nayer_cli.cli.results import Document, Rows, installation_rows, method_rows
from nayer_cli.errors import InputError

if TYPE_CHECKING:
    from nayer_cli.cli.output import Output

EXAMPLES = (
    ("nayer info", "versions, extras, devices, caches: paste it into a report"),
    ("nayer info --methods", "the ways to make images, and the memory that they take"),
    ("nayer info --models 'wrn*'", "networks for --teacher and --student"),
)

Methods = Annotated[bool, typer.Option("--methods", help="list the methods", metavar="", show_default=False)]
Models = Annotated[
    str | None,
    typer.Option("--models", help="list the networks whose names match, such as 'resnet*'", metavar="PATTERN"),
]


def command(
    methods: Methods = False,
    models: Models = None,
    debug: options.Debug = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show versions, extras, devices and caches; or list methods or networks."""
    from nayer_cli.cli.output import Output

    if methods and models is not None:
        raise InputError("--methods and --models cannot be combined", hint="ask for one list at a time")
    output = Output(json=json, quiet=quiet)
    if methods or models is not None:
        output.result(*_look_up(methods, models))
    else:
        _show_installation(output)


def _show_installation(output: "Output") -> None:
    """Show what needs no torch first: importing it takes many seconds on a slow machine."""
    from nayer_cli.runs import info

    known = info.describe_packages()
    if not output.json:
        output.result(known, installation_rows(known))
    with output.progress():
        machine = info.describe_machine()
    if output.json:
        output.result(known | machine, [])
    else:
        output.result(machine, installation_rows(machine))


def _look_up(methods: bool, models: str | None) -> tuple[Document, Rows]:
    from nayer_cli.runs import info

    if methods:
        sentences, memory = info.describe_plugins("methods"), info.describe_memory()
        return {"methods": sentences, "memory": memory}, method_rows(sentences, memory)
    names = info.find_models(models or "*")
    return {"models": names}, [("",), *((name,) for name in names)]
