"""`nayer distill`: flags, help, examples."""

from typing import Any

import typer

from nayer_cli.cli import options, settings
from nayer_cli.cli.results import check_gates, run_rows
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
    ("nayer distill --resume runs/one", "go on where a run stopped"),
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


@options.takes(*MODELS)
def command(
    ctx: typer.Context,
    encoder: options.Encoder = None,
    prompt: options.Prompt = None,
    dedupe: options.Dedupe = None,
    lte: options.Lte = None,
    cache_dir: options.CacheDir = None,
    preset: options.Preset = None,
    method: options.Method = None,
    init: options.Init = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    lr: options.Lr = None,
    bank_size: options.BankSize = None,
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
    """Teach a small student what a teacher knows, without its training data.

    Needs the teacher's weights and its class names. Nothing given at all runs the demonstration. Data is used only to
    measure, and only if you name some with --eval-data.
    """
    from nayer_cli.cli.output import Output

    given = settings.read(ctx, SCHEMA, OF_THE_MODEL)
    output = Output(json=json, quiet=quiet)
    with output.progress() as listen:
        from nayer_cli.runs.distill import distill

        result = distill(given, listen=listen, resume=str(resume) if resume else None, dry_run=dry_run)
    output.result(result, run_rows(result))
    check_gates(result)
