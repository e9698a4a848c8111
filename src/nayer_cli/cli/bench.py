"""`nayer bench`: flags, help, examples."""

import typer

from nayer_cli.cli import options, running, settings
from nayer_cli.cli.results import bench_rows, machine_rows
from nayer_cli.config import BenchConfig

SCHEMA = BenchConfig
EXAMPLES = (
    ("nayer bench runs/one runs/w4a4/model.onnx", "a student in torch, and its integers in ONNX Runtime"),
    (
        "nayer bench resnet56_cifar_a resnet20_cifar_a --num-classes 10 --threads 1",
        "two architectures, with random weights",
    ),
    ("nayer bench runs/w4a4/model.onnx --repeats 51 --json --out speed.json", "a narrower interval, as a document"),
)
MODELS = (options.ModelOptions("", "", prefixes=("", "model-"), facts=("num_classes", "input_size", "channels")),)
OF_THE_MODEL = options.settings_of(*MODELS)


@options.takes(*MODELS, also=options.of_every_command(options.BenchOut))
def command(
    ctx: typer.Context,
    models: options.Models = None,
    batch: options.Batch = None,
    repeats: options.Repeats = None,
    threads: options.Threads = None,
    **_: object,
) -> None:
    """Compare classifiers on this machine: file size, parameters, operations, latency and throughput.

    The models take turns (A B A B), after a warm-up that does not count. Figures are medians. Each model is compared
    with the first one turn by turn, with a 95 % interval. ONNX files run in ONNX Runtime,
    everything else in torch. An architecture alone, such as resnet18, gets random weights.
    """
    given = settings.read(ctx, SCHEMA, OF_THE_MODEL)
    output = running.output(ctx)
    with output.progress() as listen:
        from nayer_cli.runs.bench import bench

        result = bench(given, listen=listen)
    output.tables(result, [bench_rows(result), machine_rows(result)])
