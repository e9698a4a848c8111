"""`nayer export`: flags, help, examples."""

import typer

from nayer_cli.cli import options, running, settings
from nayer_cli.cli.results import export_rows
from nayer_cli.config import OnnxConfig

SCHEMA = OnnxConfig
EXAMPLES = (
    ("nayer export resnet50 --out resnet50.onnx", "a float file with ImageNet weights of timm"),
    (
        "nayer export runs/one --out student.onnx --normalization inside",
        "a student that takes images in [0, 1]",
    ),
    ("nayer export runs/w4a4 --target tensorrt --out student.onnx", "integers as TensorRT reads them"),
)
MODELS = (options.ModelOptions("", "", prefixes=("", "model-")),)
OF_THE_MODEL = options.settings_of(*MODELS)


@options.takes(*MODELS, also=options.of_every_command(options.OnnxOut))
def command(
    ctx: typer.Context,
    classifier: options.Model = None,
    normalization: options.NormalizationPlace = None,
    target: options.Target = None,
    storage: options.ExportStorage = None,
    **_: object,
) -> None:
    """Write any classifier as an ONNX file: float, or the integers of a quantized one for the runtime that you name.

    The file takes any number of images. Its metadata says how to prepare them, and names the classes. Before the
    file is put in place, ONNX Runtime runs it, and its answers must be those of the network.
    """
    given = settings.read(ctx, SCHEMA, OF_THE_MODEL)
    output = running.output(ctx)
    with output.progress():
        from nayer_cli.runs.onnx_file import export_onnx

        result = export_onnx(given)
    output.result(result, export_rows(result))
