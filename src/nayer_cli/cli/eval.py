"""`nayer eval`: flags, help, examples."""

import typer

from nayer_cli.cli import options, running, settings
from nayer_cli.cli.results import check_gates, evaluation_rows
from nayer_cli.config import EvaluateConfig

SCHEMA = EvaluateConfig
EXAMPLES = (
    ("nayer eval runs/one --data images/val", "accuracy of a run's student on a folder of images"),
    ("nayer eval runs/one runs/two runs/teacher --data test.npz", "several models in one table"),
    ("nayer eval peer.onnx --mean 0.5 --std 0.25 --data images/val", "a file that another tool wrote"),
    ("nayer eval runs/digits --data digits --reference builtin:digits --max-drop 0.02 --json", "a gate in a pipeline"),
)
MODELS = (
    options.ModelOptions("", "", prefixes=("", "model-"), facts=options.EVERY_FACT),
    options.ModelOptions(
        "reference",
        "reference",
        "what the models are compared with, for agreement and drop",
        "r",
        ("reference-",),
        facts=options.EVERY_FACT,
    ),
)
OF_THE_MODEL = options.settings_of(*MODELS)


@options.takes(*MODELS, also=options.of_every_command(options.ReportOut))
def command(
    ctx: typer.Context,
    models: options.Models = None,
    data: options.Data = None,
    split: options.Split = None,
    limit: options.Limit = None,
    batch_size: options.EvalBatchSize = None,
    min_top1: options.EvalMinTop1 = None,
    max_drop: options.EvalMaxDrop = None,
    **_: object,
) -> None:
    """Measure classifiers on labelled images, against thresholds and against a reference.

    Fractions, not percentages: --min-top1 0.9. A gate that is not met gives exit code 1, after the result is printed.
    """
    given = settings.read(ctx, SCHEMA, OF_THE_MODEL)
    output = running.output(ctx)
    with output.progress() as listen:
        from nayer_cli.runs.evaluate import evaluate_models

        result = evaluate_models(given, listen=listen)
    output.result(result, evaluation_rows(result))
    check_gates(result)
