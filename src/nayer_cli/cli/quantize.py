"""`nayer quantize`: flags, help, examples."""

import typer

from nayer_cli.cli import options, running
from nayer_cli.cli.results import quantization_rows
from nayer_cli.config import QuantizeConfig

SCHEMA = QuantizeConfig
EXAMPLES = (
    ("nayer quantize --bits w4a4", "the student of the newest run, with the images that it learned from"),
    (
        "nayer quantize --model runs/one --bits w8a8 --mode ptq",
        "no learning: only the steps of the rounding are chosen",
    ),
    ("nayer quantize --model runs/one --bits w4a4 --mode ptq --reconstruct", "roundings are learned block by block"),
    ("nayer quantize --model resnet50 --bits w4a4 --epochs 50", "from ImageNet weights of timm"),
    ("nayer quantize --model runs/one --bits w4a8 --eval-data images/val --max-drop 0.01", "a gate in a pipeline"),
    ("nayer quantize --resume runs/w4a4", "continue where a run stopped"),
)

MODELS = (
    options.ModelOptions("model", "teacher", "the network to quantize", "m", ("", "model-"), labels="lte.labels"),
)
OF_THE_MODEL = options.settings_of(*MODELS)


@options.takes(*MODELS, also=options.of_learning_without_data(options.QuantizeMethod))
def command(
    ctx: typer.Context,
    bits: options.Bits = None,
    first_last_bits: options.FirstLastBits = None,
    edge_bits: options.EdgeBits = None,
    weight_range: options.WeightRange = None,
    mode: options.Mode = None,
    calibration: options.Calibration = None,
    reconstruct: options.Reconstruct = None,
    bn: options.Bn = None,
    onnx: options.Onnx = None,
    storage: options.Storage = None,
    generator: options.FromRun = None,
    **_: object,
) -> None:
    """Turn a classifier into a copy of 2 to 8 bits that runs on integers, without its training data.

    The float model teaches its rounded copy on synthetic images. RUN/student is the network of integers, and
    RUN/model.onnx the same for ONNX Runtime. Accuracies of all stages are shown side by side, if there is data to
    measure on.
    """
    running.run(ctx, SCHEMA, OF_THE_MODEL, quantization_rows)
