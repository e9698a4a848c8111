"""`nayer sample`: flags, help, examples."""

import typer

from nayer_cli.cli import options, running, settings
from nayer_cli.cli.results import fact_rows
from nayer_cli.config import SampleConfig

SCHEMA = SampleConfig
EXAMPLES = (
    ("nayer sample runs/one --count 100 --out images", "what the student saw: PNG files, one folder for each class"),
    ("nayer sample runs/one --classes cat,dog --per-class 8 --grid grid.png --upscale 4", "one picture"),
    ("nayer sample runs/one --source generator", "fresh images"),
    ("nayer sample --model resnet50 --count 512 --out calibration", "a calibration set for any tool, without a run"),
)
MODELS = (options.ModelOptions("model", "model", "to make images for", "m", ("", "model-")),)
OF_THE_MODEL = options.settings_of(*MODELS)


@options.takes(*MODELS, also=options.of_every_command(options.ImagesOut))
def command(
    ctx: typer.Context,
    run: options.RunOfImages = None,
    method: options.SampleMethod = None,
    count: options.Count = None,
    per_class: options.PerClass = None,
    classes: options.Classes = None,
    source: options.Source = None,
    grid: options.Grid = None,
    format: options.ImageFormat = None,
    values: options.Values = None,
    layout: options.AxesOrder = None,
    upscale: options.Upscale = None,
    **_: object,
) -> None:
    """Write synthetic images of a run, from its memory bank or fresh from its generator, or images for a model alone.

    With --model there is no run and no student: images are made from the network's own statistics, for tools that
    calibrate with images. manifest.json beside them describes them. Either everything is written, or nothing.
    """
    given = settings.read(ctx, SCHEMA, OF_THE_MODEL)
    output = running.output(ctx)
    with output.progress() as listen:
        from nayer_cli.runs.sample import sample

        result = sample(given, listen=listen)
    output.result(result, fact_rows({**result, "classes": len(result["classes"])}))
