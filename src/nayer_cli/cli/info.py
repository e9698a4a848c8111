"""`nayer info`: flags, help, examples."""

from typing import Annotated

import typer

from nayer_cli.cli import options
from nayer_cli.cli.results import Document, Rows, fact_rows, installation_rows
from nayer_cli.errors import InputError

EXAMPLES = (
    ("nayer info", "versions, extras, devices, caches: paste it into a report"),
    ("nayer info --methods", "the ways to make images"),
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
        raise InputError("--methods and --models exclude each other", hint="ask for one list at a time")
    output = Output(json=json, quiet=quiet)
    with output.progress():
        document, rows = _look_up(methods, models)
    output.result(document, rows)


def _look_up(methods: bool, models: str | None) -> tuple[Document, Rows]:
    from nayer_cli.runs import info

    if methods:
        sentences = info.describe_plugins("methods")
        return {"methods": sentences}, fact_rows(sentences)
    if models is not None:
        names = info.find_models(models)
        return {"models": names}, [("",), *((name,) for name in names)]
    document = info.describe_installation()
    return document, installation_rows(document)
