"""`nayer export`: flags, help, examples."""

from typing import Any

import typer

from nayer_cli.cli import options, settings
from nayer_cli.cli.results import export_rows
from nayer_cli.config import OnnxConfig

SCHEMA = OnnxConfig
EXAMPLES = (
    ("nayer export resnet18 --out resnet18.onnx", "a float file with ImageNet weights of timm"),
    ("nayer export runs/one --out student.onnx --normalization inside", "a run's student, which takes images in [0, 1]"),
    ("nayer export runs/digits-w8a7 --target tensorrt --out digits.onnx", "integers as TensorRT reads them"),
)
MODELS = (options.ModelOptions("", "", prefixes=("", "model-")),)
OF_THE_MODEL = options.settings_of(*MODELS)


@options.takes(*MODELS)
def command(
    ctx: typer.Context,
    model: options.Model = None,
    normalization: options.NormalizationPlace = None,
    target: options.Target = None,
    storage: options.ExportStorage = None,
    config: options.ConfigFile = None,
    set: options.Set = None,
    seed: options.Seed = None,
    trust_code: options.TrustCode = False,
    debug: options.Debug = False,
    out: options.OnnxOut = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    **_: Any,
) -> None:
    """Write any classifier as an ONNX file: float, or the integers of a quantized one for the runtime that you name.

    The file takes any number of images. Its metadata tells how they are prepared, and the names of the classes. ONNX
    Runtime runs it before it is put in place, and what it says must be what the network says.
    """
    from nayer_cli.cli.output import Output

    given = settings.read(ctx, SCHEMA, OF_THE_MODEL)
    output = Output(json=json, quiet=quiet)
    with output.progress():
        from nayer_cli.runs.onnx_file import export_onnx

        result = export_onnx(given)
    output.result(result, export_rows(result))
