"""`nayer train`: flags, help, examples."""

from typing import Any

import typer

from nayer_cli.cli import options, settings
from nayer_cli.cli.results import check_gates, run_rows
from nayer_cli.config import TrainConfig

SCHEMA = TrainConfig
EXAMPLES = (
    ("nayer train --model wrn_40_2 --data train.tar --eval-data test.tar", "a teacher from scratch"),
    (
        "nayer train --model wrn_16_2 --data train.tar --teacher runs/teacher --epochs 200",
        "distillation on real images: what data-free runs are measured against",
    ),
    ("nayer train --resume runs/teacher", "go on where a run stopped"),
)

MODELS = (
    options.ModelOptions("model", "student", "the network to train", "m", ("", "model-", "student-")),
    options.ModelOptions("teacher", "teacher", "a network to learn from besides", "t", ("teacher-",)),
)
OF_THE_MODEL = options.settings_of(*MODELS)


@options.takes(*MODELS)
def command(
    ctx: typer.Context,
    data: options.TrainData = None,
    init: options.Init = None,
    epochs: options.TrainEpochs = None,
    batch_size: options.TrainBatchSize = None,
    lr: options.TrainLr = None,
    eval_data: options.EvalData = None,
    split: options.Split = None,
    eval_every: options.EvalEvery = None,
    min_top1: options.MinTop1 = None,
    max_drop: options.MaxDrop = None,
    config: options.ConfigFile = None,
    set: options.Set = None,
    device: options.Device = None,
    amp: options.Amp = None,
    compile: options.Compile = None,
    channels_last: options.ChannelsLast = None,
    seed: options.Seed = None,
    trust_code: options.TrustCode = False,
    debug: options.Debug = False,
    out: options.Out = None,
    resume: options.Resume = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    **_: Any,
) -> None:
    """Train a network on real, labelled images; with --teacher, distill on them.

    Makes teachers, and the upper bound that a data-free student is compared with. The run directory is that of
    nayer distill.
    """
    from nayer_cli.cli.output import Output

    given = settings.read(ctx, SCHEMA, OF_THE_MODEL)
    output = Output(json=json, quiet=quiet)
    with output.progress() as listen:
        from nayer_cli.runs.train import train

        result = train(given, listen=listen, resume=str(resume) if resume else None, dry_run=dry_run)
    output.result(result, run_rows(result))
    check_gates(result)
