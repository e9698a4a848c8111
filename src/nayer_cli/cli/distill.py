"""`nayer distill`: flags, help, examples."""

import typer

from nayer_cli.cli import options, running
from nayer_cli.cli.results import run_rows
from nayer_cli.config import DistillConfig

SCHEMA = DistillConfig
EXAMPLES = (
    ("nayer distill", "the demonstration: handwritten digits"),
    ("nayer distill --teacher resnet50 --student resnet18 --epochs 300", "from ImageNet weights of timm"),
    (
        "nayer distill -t wrn_40_2 --teacher-weights teacher.pth -s wrn_16_2 --labels cifar10 --eval-data test.npz",
        "your own checkpoint, measured on your own images",
    ),
    ("nayer distill --config runs/one/config.toml --seed 1 --set method.adv=1.0", "an earlier run, varied"),
    ("nayer distill --resume runs/one", "continue where a run stopped"),
)
MODELS = (
    options.ModelOptions(
        *("teacher", "teacher", "the network to learn from", "t", ("", "teacher-")),
        shown=("--teacher-weights",),
        labels="lte.labels",
    ),
    options.ModelOptions(
        *("student", "student", "the network that learns", "s", ("student-",)),
        facts=("weights", "match", "mean", "std"),
    ),
)
OF_THE_MODEL = options.settings_of(*MODELS)


@options.takes(*MODELS, also=options.of_learning_without_data(options.Method))
def command(ctx: typer.Context, init: options.Init = None, **_: object) -> None:
    """Teach a small student what a teacher knows, without its training data.

    Needs the teacher's weights and its class names. Without any option it runs the demonstration. Data is used only to
    measure, and only if you name some with --eval-data.
    """
    running.run(ctx, SCHEMA, OF_THE_MODEL, run_rows)
