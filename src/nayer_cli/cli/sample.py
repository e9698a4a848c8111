"""`nayer sample`: flags, help, examples."""

from typing import Any

import typer

from nayer_cli.cli import options, running, settings
from nayer_cli.cli.results import fact_rows
from nayer_cli.config import SampleConfig

SCHEMA = SampleConfig
EXAMPLES = (
    ("nayer sample runs/one --count 100 --out images", "what the student saw: PNG files, one folder a class"),
    ("nayer sample runs/one --classes cat,dog --per-class 8 --grid grid.png --upscale 4", "one picture"),
    ("nayer sample runs/one --source generator", "fresh images"),
)


@options.takes(also=options.of_every_command(options.ImagesOut))
def command(
    ctx: typer.Context,
    run: options.Run,
    count: options.Count = None,
    per_class: options.PerClass = None,
    classes: options.Classes = None,
    source: options.Source = None,
    grid: options.Grid = None,
    upscale: options.Upscale = None,
    **_: Any,
) -> None:
    """Write synthetic images of a run, from its memory bank or fresh from its generator."""
    given = settings.read(ctx, SCHEMA)
    output = running.output(ctx)
    with output.progress():
        from nayer_cli.runs.sample import sample

        result = sample(given)
    output.result(result, fact_rows({**result, "classes": len(result["classes"])}))
