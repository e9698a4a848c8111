"""The common course of `nayer distill`, `quantize` and `train`: settings, run, result, gates."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

import typer

from nayer_cli.cli import settings
from nayer_cli.cli.results import Document, Rows, check_gates
from nayer_cli.config import RunConfig

if TYPE_CHECKING:
    from nayer_cli.cli.output import Output


def output(ctx: typer.Context) -> "Output":
    """Return where a command shows things, as its options want it."""
    from nayer_cli.cli.output import Output  # rich takes a moment

    return Output(json=ctx.params["json"], quiet=ctx.params["quiet"])


def run(
    ctx: typer.Context, schema: type[RunConfig], renamed: Mapping[str, str], rows: Callable[[Document], Rows]
) -> None:
    """Carry out the recipe that has the name of the command.

    Args:
        ctx: context of the command.
        schema: the configuration class of the command.
        renamed: settings of parameters that mean something else in this command.
        rows: makes the table from the result.

    """
    given, resume = settings.read(ctx, schema, renamed), ctx.params["resume"]
    shown = output(ctx)
    with shown.progress() as listen:
        recipe = getattr(import_module(f"nayer_cli.runs.{schema.kind}"), schema.kind)
        resumed = str(resume) if resume else None
        result: Document = recipe(given, listen=listen, resume=resumed, dry_run=ctx.params["dry_run"])
    shown.result(result, rows(result))
    check_gates(result)
