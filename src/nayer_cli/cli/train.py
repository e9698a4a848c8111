"""`nayer train`: flags, help, examples."""

import typer

from nayer_cli.cli import options, running
from nayer_cli.cli.results import run_rows
from nayer_cli.config import TrainConfig

SCHEMA = TrainConfig
EXAMPLES = (
    ("nayer train --model wrn_40_2 --data train.tar --eval-data test.tar", "a teacher from scratch"),
    (
        "nayer train --model wrn_16_2 --data train.tar --teacher runs/teacher --epochs 200",
        "distillation on real images, the yardstick for data-free runs",
    ),
    ("nayer train --resume runs/teacher", "continue where a run stopped"),
)

MODELS = (
    options.ModelOptions("model", "student", "the network to train", "m", ("", "model-", "student-")),
    options.ModelOptions("teacher", "teacher", "a network to learn from as well", "t", ("teacher-",)),
)
OF_THE_MODEL = options.settings_of(*MODELS)


@options.takes(*MODELS, also=options.OF_A_RUN)
def command(
    ctx: typer.Context,
    data: options.TrainData = None,
    init: options.Init = None,
    epochs: options.TrainEpochs = None,
    budget: options.Budget = None,
    batch_size: options.TrainBatchSize = None,
    lr: options.TrainLr = None,
    **_: object,
) -> None:
    """Train a network on real, labelled images; with --teacher, distill on them.

    Makes teachers, and the upper bound that a data-free student is compared with. The run directory is that of
    nayer distill.
    """
    running.run(ctx, SCHEMA, OF_THE_MODEL, run_rows)
