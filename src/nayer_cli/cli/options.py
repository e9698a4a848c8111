"""Every option described once: flags, variable, panel, and the setting that it stands for.

An option that stands for a setting takes its sentence and its default from `nayer_cli.config`. Every option is also
read from a variable, `NAYER_` and its name. Commands declare their parameters with the aliases below, so that a flag
reads and means the same everywhere.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from nayer_cli import config
from nayer_cli.cli import completion
from nayer_cli.config import DistillConfig, EmbedConfig, EvaluateConfig, QuantizeConfig, SampleConfig, TrainConfig

MODELS, NAMES, METHOD = "Models", "Class names", "Method"
EVALUATION, IMAGES, RUNTIME, OUTPUT = "Evaluation", "Images", "Runtime", "Output"
QUANTIZATION = "Quantization"

SETTING_OF: dict[str, str] = {"run": "run", "models": "models"}
"""The setting of each parameter, such as `teacher.weights` for `teacher_weights`; see `setting_in`."""
VARIABLES = {"NAYER_SET"}
"""Every environment variable that is read."""

describe = cache(lambda schema: dict(config.describe(schema)))


def setting_in(schema: type[Any], key: str) -> str:
    """Return `key`, or its last word where `schema` is flat: `labels` is `lte.labels` of `distill` in `embed`."""
    section, _, last = key.rpartition(".")
    return key if not section or section in schema.__dataclass_fields__ else last


def _flag(flags: str, panel: str, help: str, **more: Any) -> Any:
    """Describe an option, its variable included; `flags` are separated by blanks, the long one first."""
    variable = f"NAYER_{_parameter(flags)}".upper()
    VARIABLES.add(variable)
    more = {"metavar": "", "show_default": False, "show_envvar": False, **more}
    return typer.Option(*flags.split(), envvar=variable, rich_help_panel=panel, help=help, **more)


def _setting(
    key: str, flags: str, panel: str, metavar: str, lead: str = "", schema: type = DistillConfig, **more: Any
) -> Any:
    """Describe an option that stands for setting `key` of `schema`; `lead` goes before the setting's sentence."""
    SETTING_OF[_parameter(flags)] = key
    about = describe(schema).get(setting_in(schema, key), {})
    help = ": ".join(filter(None, (lead, about.get("help"))))
    metavar = "|".join(map(str, about.get("choices") or (metavar,)))
    default = "preset" if _is_preset(key, schema) else about.get("default")
    shown = {"metavar": metavar, "show_default": False if default in (None, "") else str(default)}
    more = {"autocompletion": completion.of(key, about.get("choices")), **more}
    return _flag(flags, panel, help, **shown, **more)


def _parameter(flags: str) -> str:
    return flags.split()[0].removeprefix("--").replace("-", "_")


def _is_preset(key: str, schema: type) -> bool:
    return schema is DistillConfig and key.startswith(("schedule.", "optimizer."))


Text = str | None
Int = int | None
Float = float | None
File = Path | None

Teacher = Annotated[Text, _setting("teacher.name", "--teacher -t", MODELS, "MODEL", "the network to learn from")]
TeacherWeights = Annotated[File, _setting("teacher.weights", "--teacher-weights", MODELS, "FILE", "the teacher's")]
Student = Annotated[Text, _setting("student.name", "--student -s", MODELS, "MODEL", "the network that learns")]
StudentWeights = Annotated[
    File, _setting("student.weights", "--student-weights", MODELS, "FILE", "the student's, to start from")
]
Model = Annotated[Text, _setting("student.name", "--model -m", MODELS, "MODEL", "the network to train or to quantize")]
Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL",
        help="as --teacher of nayer distill; several are compared",
        show_default=False,
        autocompletion=completion.models,
    ),
]
Weights = Annotated[File, _setting("weights", "--weights", MODELS, "FILE", schema=EvaluateConfig)]
Reference = Annotated[Text, _setting("reference", "--reference -r", MODELS, "MODEL", schema=EvaluateConfig)]
NumClasses = Annotated[Int, _setting("teacher.num_classes", "--num-classes", MODELS, "N")]
InputSize = Annotated[Int, _setting("teacher.input_size", "--input-size", MODELS, "PIXELS")]
Channels = Annotated[Int, _setting("teacher.channels", "--channels", MODELS, "N")]
Mean = Annotated[Text, _setting("teacher.mean", "--mean", MODELS, "X,X,X")]
Std = Annotated[Text, _setting("teacher.std", "--std", MODELS, "X,X,X")]

Labels = Annotated[Text, _setting("lte.labels", "--labels -l", NAMES, "FILE|SET")]
Encoder = Annotated[Text, _setting("lte.encoder", "--encoder", NAMES, "NAME")]
Prompt = Annotated[Text, _setting("lte.prompt", "--prompt", NAMES, "TEXT")]
Lte = Annotated[File, _setting("lte.file", "--lte", NAMES, "FILE")]
Dedupe = Annotated[Text, _setting("lte.dedupe", "--dedupe", NAMES, "")]
CacheDir = Annotated[File, _setting("lte.cache_dir", "--cache-dir", NAMES, "DIR")]

Preset = Annotated[Text, _setting("preset", "--preset -p", METHOD, "NAME")]
Method = Annotated[
    Text,
    _setting("method.name", "--method", METHOD, "NAME", "how images are made"),
]
Epochs = Annotated[Int, _setting("schedule.epochs", "--epochs -e", METHOD, "N")]
BatchSize = Annotated[Int, _setting("schedule.batch_size", "--batch-size -b", METHOD, "N")]
Lr = Annotated[Float, _setting("optimizer.lr", "--lr", METHOD, "X", "the student's")]
BankSize = Annotated[Int, _setting("bank.capacity", "--bank-size", METHOD, "N", "memory bank")]

Bits = Annotated[Text, _setting("quantizer.bits", "--bits", QUANTIZATION, "wNaM", schema=QuantizeConfig)]
FirstLastBits = Annotated[
    Int, _setting("quantizer.first_last_bits", "--first-last-bits", QUANTIZATION, "N", schema=QuantizeConfig)
]
EdgeBits = Annotated[Int, _setting("quantizer.edge_bits", "--edge-bits", QUANTIZATION, "N", schema=QuantizeConfig)]
Mode = Annotated[Text, _setting("quantizer.mode", "--mode", QUANTIZATION, "", schema=QuantizeConfig)]
Calibration = Annotated[
    Text, _setting("quantizer.calibration", "--calibration", QUANTIZATION, "", schema=QuantizeConfig)
]
Bn = Annotated[Text, _setting("quantizer.bn", "--bn", QUANTIZATION, "", schema=QuantizeConfig)]
Onnx = Annotated[Text, _setting("export.onnx", "--onnx", QUANTIZATION, "", schema=QuantizeConfig)]
Storage = Annotated[Text, _setting("export.storage", "--storage", QUANTIZATION, "", schema=QuantizeConfig)]
FromRun = Annotated[File, _setting("reuse", "--generator", QUANTIZATION, "RUN", schema=QuantizeConfig)]
QuantizeMethod = Annotated[
    Text,
    _setting(
        "method.name",
        "--method",
        METHOD,
        "NAME",
        "how images are made, or dfq-nagel, which needs none",
    ),
]

TrainEpochs = Annotated[Int, _setting("schedule.epochs", "--epochs -e", METHOD, "N", schema=TrainConfig)]
TrainBatchSize = Annotated[Int, _setting("schedule.batch_size", "--batch-size -b", METHOD, "N", schema=TrainConfig)]
TrainLr = Annotated[Float, _setting("optimizer.lr", "--lr", METHOD, "X", schema=TrainConfig)]

EvalData = Annotated[Text, _setting("eval.data", "--eval-data", EVALUATION, "DATA", "measure on")]
EvalMinTop1 = Annotated[Float, _setting("eval.min_top1", "--min-top1", EVALUATION, "X", schema=EvaluateConfig)]
EvalMaxDrop = Annotated[Float, _setting("eval.max_drop", "--max-drop", EVALUATION, "X", schema=EvaluateConfig)]
Split = Annotated[Text, _setting("eval.split", "--split", EVALUATION, "NAME")]
EvalEvery = Annotated[Int, _setting("eval.every", "--eval-every", EVALUATION, "N")]
MinTop1 = Annotated[Float, _setting("eval.min_top1", "--min-top1", EVALUATION, "X")]
MaxDrop = Annotated[Float, _setting("eval.max_drop", "--max-drop", EVALUATION, "X")]

TrainData = Annotated[Text, _setting("data", "--data -d", MODELS, "DATA", schema=TrainConfig)]
Data = Annotated[Text, _setting("data", "--data -d", EVALUATION, "DATA", schema=EvaluateConfig)]
Limit = Annotated[Int, _setting("limit", "--limit", EVALUATION, "N", schema=EvaluateConfig)]
EvalBatchSize = Annotated[
    Int, _setting("schedule.batch_size", "--batch-size -b", EVALUATION, "N", schema=EvaluateConfig)
]

Device = Annotated[Text, _setting("device", "--device", RUNTIME, "NAME")]
Seed = Annotated[Int, _setting("seed", "--seed", RUNTIME, "N")]
Amp = Annotated[Text, _setting("amp", "--amp", RUNTIME, "")]
Compile = Annotated[Text, _setting("compile", "--compile", RUNTIME, "")]
ChannelsLast = Annotated[Text, _setting("channels_last", "--channels-last", RUNTIME, "")]
ConfigFile = Annotated[
    File,
    _flag("--config -c", RUNTIME, "settings from a TOML file, such as a run's config.toml", metavar="FILE"),
]
Set = Annotated[
    list[str] | None,
    # NAYER_SET is read below: it may hold quoted blanks, and --set adds to it.
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        rich_help_panel=RUNTIME,
        help="any setting of docs/reference/settings.md; repeatable",
        autocompletion=completion.settings,
    ),
]
Debug = Annotated[bool, _flag("--debug", RUNTIME, "show the traceback of a fault")]

Out = Annotated[File, _setting("output.out", "--out -o", OUTPUT, "DIR")]
PoolOut = Annotated[File, _setting("output.out", "--out -o", OUTPUT, "FILE", schema=EmbedConfig)]
ReportOut = Annotated[File, _setting("output.out", "--out -o", OUTPUT, "FILE", schema=EvaluateConfig)]
ImagesOut = Annotated[File, _setting("output.out", "--out -o", OUTPUT, "DIR", schema=SampleConfig)]
Resume = Annotated[
    File,
    _flag(
        "--resume",
        OUTPUT,
        "continue the run in this directory, exactly; auto: the one in --out, or a new one there",
        metavar="RUN|auto",
    ),
]
DryRun = Annotated[bool, _flag("--dry-run", OUTPUT, "load everything, do one step of each phase, keep nothing")]
Json = Annotated[bool, _flag("--json", OUTPUT, "print the result as one JSON document")]
Quiet = Annotated[bool, _flag("--quiet -q", OUTPUT, "show no progress, only warnings and errors")]

Run = Annotated[Path, typer.Argument(metavar="RUN", help="run directory", show_default=False)]
Count = Annotated[Int, _setting("count", "--count -n", IMAGES, "N", schema=SampleConfig)]
PerClass = Annotated[Int, _setting("per_class", "--per-class", IMAGES, "N", schema=SampleConfig)]
Classes = Annotated[Text, _setting("classes", "--classes", IMAGES, "A,B", schema=SampleConfig)]
Source = Annotated[Text, _setting("source", "--source", IMAGES, "", schema=SampleConfig)]
Grid = Annotated[File, _setting("grid", "--grid", IMAGES, "FILE.png", schema=SampleConfig)]
Upscale = Annotated[Int, _setting("upscale", "--upscale", IMAGES, "N", schema=SampleConfig)]
