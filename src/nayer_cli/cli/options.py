"""Every option described once: flags, variable, panel, and the setting that it stands for.

An option that stands for a setting takes its sentence and its default from `nayer_cli.config`. Every option is also
read from a variable, `NAYER_` and its name. Commands declare their parameters with the aliases below, so that a flag
reads and means the same everywhere.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

import typer

from nayer_cli import config
from nayer_cli.cli import completion
from nayer_cli.config import (
    BenchConfig,
    DistillConfig,
    EmbedConfig,
    EvaluateConfig,
    ModelConfig,
    OnnxConfig,
    QuantizeConfig,
    SampleConfig,
    TrainConfig,
)

MODELS, NAMES, METHOD = "Models", "Class names", "Method"
EVALUATION, IMAGES, RUNTIME, OUTPUT = "Evaluation", "Images", "Runtime", "Output"
QUANTIZATION, TIMING = "Quantization", "Timing"

SETTING_OF: dict[str, str] = {"run": "run", "models": "models", "classifier": "model"}
"""The setting of each parameter, such as `teacher.weights` for `teacher_weights`; see `setting_in`."""
VARIABLES = {"NAYER_SET"}
"""Every environment variable that is read."""

Group = Mapping[str, Any]
"""Options by the names of their parameters."""

describe = cache(lambda schema: dict(config.describe(schema)))


def setting_in(schema: type[Any], key: str) -> str:
    """Return `key`, or its last word where `schema` is flat: `labels` is `lte.labels` of `distill` in `embed`."""
    section, _, last = key.rpartition(".")
    return key if not section or section in schema.__dataclass_fields__ else last


def flag(flags: str, panel: str, help: str, **more: Any) -> Any:
    """Describe an option, its variable included; `flags` are separated by blanks, the long one first."""
    variable = f"NAYER_{_parameter(flags)}".upper()
    VARIABLES.add(variable)
    more = {"metavar": "", "show_default": False, "show_envvar": False, **more}
    return typer.Option(*flags.split(), envvar=variable, rich_help_panel=panel, help=help, **more)


def _setting(
    key: str, flags: str, panel: str, metavar: str, lead: str = "", schema: type = DistillConfig, **more: Any
) -> Any:
    """Describe an option that stands for setting `key` of `schema` in every command; see `_option`."""
    SETTING_OF[_parameter(flags)] = key
    return _option(key, flags, panel, metavar, lead, schema, **more)


def _method(lead: str) -> Any:
    """Describe the option that names a method; each command says what it is for."""
    return _setting("method.name", "--method", METHOD, "NAME", lead)


def _option(key: str, flags: str, panel: str, metavar: str, lead: str, schema: type, **more: Any) -> Any:
    """Describe an option that stands for setting `key` of `schema`; `lead` goes before the setting's sentence."""
    about = describe(schema).get(setting_in(schema, key), {})
    help = ": ".join(filter(None, (lead, about.get("help"))))
    metavar = "|".join(map(str, about.get("choices") or (metavar,)))
    default = "preset" if _is_preset(key, schema) else about.get("default")
    shown = {"metavar": metavar, "show_default": False if default in (None, "") else str(default)}
    more = {"autocompletion": completion.of(key, about.get("choices")), **more}
    return flag(flags, panel, help, **shown, **more)


def _parameter(flags: str) -> str:
    return flags.split()[0].removeprefix("--").replace("-", "_")


def _is_preset(key: str, schema: type) -> bool:
    return schema is DistillConfig and key.startswith(("schedule.", "optimizer."))


Text = str | None
Int = int | None
Float = float | None
File = Path | None

OF_A_MODEL = {
    "weights": (File, "FILE"),
    "match": (Text, "name|order"),
    "num_classes": (Int, "N"),
    "input_size": (Int, "PIXELS"),
    "channels": (Int, "N"),
    "mean": (Text, "X,X,X"),
    "std": (Text, "X,X,X"),
    "preparation": (Text, "model|nayer"),
    "interpolation": (Text, "NAME"),
    "crop_pct": (Float, "X"),
    "crop_mode": (Text, "NAME"),
    "labels": (Text, "FILE|SET"),
}
"""The facts of a model that have options, each with its type and the placeholder in help."""
PREPARATION = ("preparation", "interpolation", "crop_pct", "crop_mode")
EVERY_FACT = tuple(OF_A_MODEL)
FACTS = tuple(fact for fact in OF_A_MODEL if fact not in PREPARATION)
"""Facts with options in every command. The preparation of pictures is a setting, except in `nayer eval`."""


class ModelOptions(NamedTuple):
    """The options of one model of a command: its name, and what can be said of it. They are the same everywhere."""

    role: str
    """Its name on the command line: `teacher` for `--teacher`; empty where models are arguments."""
    section: str
    """The settings that they stand for: `teacher` for `teacher.weights`; empty where the schema is flat."""
    about: str = ""
    """The purpose of the network."""
    letter: str = ""
    prefixes: tuple[str, ...] = ("",)
    """Prefixes of the names of facts: `teacher-` for `--teacher-mean`. Help shows only the first spelling."""
    facts: tuple[str, ...] = FACTS
    shown: tuple[str, ...] = ()
    """Flags that help shows though they are a second spelling, which then is the first."""
    labels: str = ""
    """The setting of the class names, if it is not in the section."""

    def settings(self) -> dict[str, str]:
        """Return the setting of each parameter."""
        return {_parameter(flags): key for flags, key, _, _ in self._described()}

    def parameters(self) -> Iterator[inspect.Parameter]:
        """Yield the parameters of a command."""
        for flags, key, fact, hidden in self._described():
            kind, metavar = OF_A_MODEL.get(fact, (Text, "MODEL"))
            panel = NAMES if fact == "labels" and not self.prefixes[0] else MODELS
            lead = self.about if fact == "name" else f"of the {self.role}" if self.prefixes[0] else ""
            option = _option(key, flags, panel, metavar, lead, ModelConfig, hidden=hidden)
            yield _keyword(_parameter(flags), Annotated[kind, option])

    def _described(self) -> Iterator[tuple[str, str, str, bool]]:
        """Yield flags, setting and fact of each option, and whether help leaves it out."""
        if self.role:
            yield f"--{self.role} -{self.letter}", self._key("name"), "name", False
        for fact in self.facts:
            spellings = [f"--{prefix}{_dashed(fact)}" for prefix in self.prefixes]
            first = next((flag for flag in spellings if flag in self.shown), spellings[0])
            for flag in spellings:
                letter = " -l" if flag == "--labels" else ""
                yield f"{flag}{letter}", self._key(fact), fact, flag != first

    def _key(self, fact: str) -> str:
        if fact == "labels" and self.labels:
            return self.labels
        return f"{self.section}.{fact}" if self.section else fact


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _keyword(name: str, annotation: object) -> inspect.Parameter:
    default = False if get_args(annotation)[0] is bool else None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def takes(*models: ModelOptions, also: Group) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of its models before its own, and those that it shares with others after them."""
    for name, key in settings_of(*models).items():
        SETTING_OF.setdefault(name, key)

    def add(command: Callable[..., None]) -> Callable[..., None]:
        context, *own = inspect.signature(command).parameters.values()
        added = [parameter for model in models for parameter in model.parameters()]
        named = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own if each.kind is not each.VAR_KEYWORD]
        first = [each for each in named if each.name in FIRST]
        last = [each for each in named if each.name not in FIRST]
        shared = [_keyword(name, option) for name, option in also.items()]
        parameters = [context, *first, *added, *last, *shared]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return add


def settings_of(*models: ModelOptions) -> dict[str, str]:
    """Return the setting of each parameter that `takes` adds."""
    return {name: key for model in models for name, key in model.settings().items()}


FIRST = ("run", "classifier", "models", "data")
"""Parameters of a command that come before those of its models."""

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL",
        help="any model that --teacher of nayer distill takes; several are compared",
        show_default=False,
        autocompletion=completion.models,
    ),
]
Model = Annotated[
    Text,
    typer.Argument(
        metavar="MODEL",
        help="any model that --teacher of nayer distill takes",
        show_default=False,
        autocompletion=completion.models,
    ),
]
Labels = Annotated[Text, _setting("lte.labels", "--labels -l", NAMES, "FILE|SET")]
Encoder = Annotated[Text, _setting("lte.encoder", "--encoder", NAMES, "NAME")]
Prompt = Annotated[Text, _setting("lte.prompt", "--prompt", NAMES, "TEXT")]
Lte = Annotated[File, _setting("lte.file", "--lte", NAMES, "FILE")]
Dedupe = Annotated[Text, _setting("lte.dedupe", "--dedupe", NAMES, "")]
CacheDir = Annotated[File, _setting("lte.cache_dir", "--cache-dir", NAMES, "DIR")]

Preset = Annotated[Text, _setting("preset", "--preset -p", METHOD, "NAME")]
Method = Annotated[Text, _method("how images are made")]
Epochs = Annotated[Int, _setting("schedule.epochs", "--epochs -e", METHOD, "N")]
Budget = Annotated[Text, _setting("schedule.budget", "--budget", METHOD, "AMOUNT", schema=TrainConfig)]
BatchSize = Annotated[Int, _setting("schedule.batch_size", "--batch-size -b", METHOD, "N")]
Lr = Annotated[Float, _setting("optimizer.lr", "--lr", METHOD, "X", "student")]
BankSize = Annotated[Int, _setting("bank.capacity", "--bank-size", METHOD, "N", "memory bank")]

Init = Annotated[Text, _setting("init", "--init", MODELS, "")]

Bits = Annotated[Text, _setting("quantizer.bits", "--bits", QUANTIZATION, "wNaM", schema=QuantizeConfig)]
FirstLastBits = Annotated[
    Int, _setting("quantizer.first_last_bits", "--first-last-bits", QUANTIZATION, "N", schema=QuantizeConfig)
]
EdgeBits = Annotated[Int, _setting("quantizer.edge_bits", "--edge-bits", QUANTIZATION, "N", schema=QuantizeConfig)]
WeightRange = Annotated[
    Text, _setting("quantizer.weight_range", "--weight-range", QUANTIZATION, "", schema=QuantizeConfig)
]
Mode = Annotated[Text, _setting("quantizer.mode", "--mode", QUANTIZATION, "", schema=QuantizeConfig)]
Calibration = Annotated[
    Text, _setting("quantizer.calibration", "--calibration", QUANTIZATION, "", schema=QuantizeConfig)
]
Reconstruct = Annotated[
    bool | None, _setting("quantizer.reconstruct", "--reconstruct", QUANTIZATION, "", schema=QuantizeConfig)
]
Bn = Annotated[Text, _setting("quantizer.bn", "--bn", QUANTIZATION, "", schema=QuantizeConfig)]
Onnx = Annotated[Text, _setting("export.onnx", "--onnx", QUANTIZATION, "", schema=QuantizeConfig)]
Storage = Annotated[Text, _setting("export.storage", "--storage", QUANTIZATION, "", schema=QuantizeConfig)]
ExportStorage = Annotated[Text, _setting("export.storage", "--storage", QUANTIZATION, "", schema=OnnxConfig)]
Target = Annotated[Text, _setting("target", "--target", QUANTIZATION, "", schema=OnnxConfig)]
NormalizationPlace = Annotated[Text, _setting("normalization", "--normalization", OUTPUT, "", schema=OnnxConfig)]
FromRun = Annotated[File, _setting("reuse", "--generator", QUANTIZATION, "RUN", schema=QuantizeConfig)]
QuantizeMethod = Annotated[Text, _method("how images are made; analytic and dfq-nagel need none")]

TrainEpochs = Annotated[Int, _setting("schedule.epochs", "--epochs -e", METHOD, "N", schema=TrainConfig)]
TrainBatchSize = Annotated[Int, _setting("schedule.batch_size", "--batch-size -b", METHOD, "N", schema=TrainConfig)]
TrainLr = Annotated[Float, _setting("optimizer.lr", "--lr", METHOD, "X", schema=TrainConfig)]

EvalData = Annotated[Text, _setting("eval.data", "--eval-data", EVALUATION, "DATA", "data to measure on")]
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

Batch = Annotated[Int, _setting("batch", "--batch -b", TIMING, "N", schema=BenchConfig)]
Repeats = Annotated[Int, _setting("repeats", "--repeats", TIMING, "N", schema=BenchConfig)]
Threads = Annotated[Int, _setting("threads", "--threads", TIMING, "N", schema=BenchConfig)]

Device = Annotated[Text, _setting("device", "--device", RUNTIME, "NAME")]
Seed = Annotated[Int, _setting("seed", "--seed", RUNTIME, "N")]
Amp = Annotated[Text, _setting("amp", "--amp", RUNTIME, "")]
Compile = Annotated[Text, _setting("compile", "--compile", RUNTIME, "")]
ChannelsLast = Annotated[Text, _setting("channels_last", "--channels-last", RUNTIME, "")]
ConfigFile = Annotated[
    File,
    flag("--config -c", RUNTIME, "settings from a TOML file, such as a run's config.toml", metavar="FILE"),
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
TrustCode = Annotated[
    bool,
    flag(
        "--trust-code",
        RUNTIME,
        "trust a model, a run or a --config file from others: run the code and fetch the downloads that it names",
    ),
]
Debug = Annotated[bool, flag("--debug", RUNTIME, "show the full traceback of an error")]

Out = Annotated[File, _setting("output.out", "--out -o", OUTPUT, "DIR")]
PoolOut = Annotated[File, _setting("output.out", "--out -o", OUTPUT, "FILE", schema=EmbedConfig)]
OnnxOut = Annotated[File, _setting("output.out", "--out -o", OUTPUT, "FILE.onnx", schema=OnnxConfig)]
BenchOut = Annotated[File, _setting("output.out", "--out -o", OUTPUT, "FILE", schema=BenchConfig)]
ReportOut = Annotated[File, _setting("output.out", "--out -o", OUTPUT, "FILE", schema=EvaluateConfig)]
ImagesOut = Annotated[File, _setting("output.out", "--out -o", OUTPUT, "DIR", schema=SampleConfig)]
Resume = Annotated[
    File,
    flag(
        "--resume",
        OUTPUT,
        "continue the run in this directory exactly where it stopped; auto: the run in --out, or a new one there",
        metavar="RUN|auto",
    ),
]
DryRun = Annotated[
    bool, flag("--dry-run", OUTPUT, "check everything: load it all, do one step of each phase, keep nothing")
]
Json = Annotated[bool, flag("--json", OUTPUT, "print the result as one JSON document")]
Quiet = Annotated[bool, flag("--quiet -q", OUTPUT, "show no progress, only warnings and errors")]

Run = Annotated[Path, typer.Argument(metavar="RUN", help="run directory", show_default=False)]
RunOfImages = Annotated[
    Path | None, typer.Argument(metavar="RUN", help="run directory; or --model", show_default=False)
]
SampleMethod = Annotated[Text, _method("how images are made for --model: zeroq, or deepinv without BatchNorm; cmi")]
ImageFormat = Annotated[Text, _setting("format", "--format", IMAGES, "", schema=SampleConfig)]
Values = Annotated[Text, _setting("values", "--values", IMAGES, "", schema=SampleConfig)]
AxesOrder = Annotated[Text, _setting("layout", "--layout", IMAGES, "", schema=SampleConfig)]
Count = Annotated[Int, _setting("count", "--count -n", IMAGES, "N", schema=SampleConfig)]
PerClass = Annotated[Int, _setting("per_class", "--per-class", IMAGES, "N", schema=SampleConfig)]
Classes = Annotated[Text, _setting("classes", "--classes", IMAGES, "A,B", schema=SampleConfig)]
Source = Annotated[Text, _setting("source", "--source", IMAGES, "", schema=SampleConfig)]
Grid = Annotated[File, _setting("grid", "--grid", IMAGES, "FILE.png", schema=SampleConfig)]
Upscale = Annotated[Int, _setting("upscale", "--upscale", IMAGES, "N", schema=SampleConfig)]


def of_every_command(out: object, runtime: Group | None = None, output: Group | None = None) -> Group:
    """Return the options that every command has; `out` differs, and `runtime` and `output` may add some."""
    before = {"config": ConfigFile, "set": Set, "device": Device, **(runtime or {})}
    middle = {"seed": Seed, "trust_code": TrustCode, "debug": Debug, "out": out, **(output or {})}
    return {**before, **middle, "json": Json, "quiet": Quiet}


def of_learning_without_data(method: object) -> Group:
    """Return the options of `distill` and `quantize`; the help of `method` is that of the command."""
    names = {"encoder": Encoder, "prompt": Prompt, "dedupe": Dedupe, "lte": Lte, "cache_dir": CacheDir}
    length = {"epochs": Epochs, "budget": Budget, "batch_size": BatchSize, "lr": Lr, "bank_size": BankSize}
    return {**names, "preset": Preset, "method": method, **length, **OF_A_RUN}


OF_A_RUN: Group = {
    "eval_data": EvalData,
    "split": Split,
    "eval_every": EvalEvery,
    "min_top1": MinTop1,
    "max_drop": MaxDrop,
    **of_every_command(
        Out,
        {"amp": Amp, "compile": Compile, "channels_last": ChannelsLast},
        {"resume": Resume, "dry_run": DryRun},
    ),
}
"""Options that `distill`, `quantize` and `train` share."""
