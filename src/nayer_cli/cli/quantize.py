"""`nayer quantize`: flags, help, examples."""

from typing import Any

import typer

from nayer_cli.cli import options, settings
from nayer_cli.cli.results import check_gates, quantization_rows
from nayer_cli.config import QuantizeConfig

SCHEMA = QuantizeConfig
EXAMPLES = (
    ("nayer quantize --bits w4a4", "the student of the newest run, with the images that it learned from"),
    ("nayer quantize --model runs/one --bits w8a8 --mode ptq", "no learning: the steps are chosen, and that is all"),
    ("nayer quantize --model resnet50 --bits w4a4 --epochs 50", "from ImageNet weights of timm"),
    ("nayer quantize --model runs/one --bits w4a8 --eval-data images/val --max-drop 0.01", "a gate in a pipeline"),
    ("nayer quantize --resume runs/w4a4", "go on where a run stopped"),
)

MODELS = (
    options.ModelOptions("model", "teacher", "the network to quantize", "m", ("", "model-"), labels="lte.labels"),
)
OF_THE_MODEL = options.settings_of(*MODELS)


@options.takes(*MODELS)
def command(
    ctx: typer.Context,
    bits: options.Bits = None,
    first_last_bits: options.FirstLastBits = None,
    edge_bits: options.EdgeBits = None,
    weight_range: options.WeightRange = None,
    mode: options.Mode = None,
    calibration: options.Calibration = None,
    bn: options.Bn = None,
    onnx: options.Onnx = None,
    storage: options.Storage = None,
    generator: options.FromRun = None,
    encoder: options.Encoder = None,
    prompt: options.Prompt = None,
    dedupe: options.Dedupe = None,
    lte: options.Lte = None,
    cache_dir: options.CacheDir = None,
    preset: options.Preset = None,
    method: options.QuantizeMethod = None,
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
    """Turn a classifier into one of few bits, down to integers that run, without its training data.

    The float model teaches its rounded copy on synthetic images. RUN/student is the network of integers, and
    RUN/model.onnx the same for ONNX Runtime. Accuracies of all stages are shown side by side, if there is data to
    measure on.
    """
    from nayer_cli.cli.output import Output

    given = settings.read(ctx, SCHEMA, OF_THE_MODEL)
    output = Output(json=json, quiet=quiet)
    with output.progress() as listen:
        from nayer_cli.runs.quantize import quantize

        result = quantize(given, listen=listen, resume=str(resume) if resume else None, dry_run=dry_run)
    output.result(result, quantization_rows(result))
    check_gates(result)
