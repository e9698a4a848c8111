"""Checks of settings before torch is imported: names, ranges, files and the device.

The recipes check everything again, where they use it. This is only so that a typo is told at once.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nayer_cli import config, plugin_settings, plugins
from nayer_cli.budget import parse_budget
from nayer_cli.classifiers import names
from nayer_cli.config import DistillConfig, OnnxConfig, QuantizeConfig, SampleConfig, TrainConfig
from nayer_cli.errors import ConfigError, EnvironmentFault, InputError
from nayer_cli.live_settings import EMBEDDINGS
from nayer_cli.lte import encoder
from nayer_cli.machine import cuda
from nayer_cli.onnx import packages
from nayer_cli.quant.scheme import parse_bits
from nayer_cli.runs import sampling
from nayer_cli.storage import inputs
from nayer_cli.storage.toml import Layer

LEAST_MEMORY = 3_200_000_000
"""Bytes of address space that torch takes with its libraries, before there is a network."""
WITHOUT_IMAGES = ("dfq-nagel", "analytic")
"""Values of `--method` that `nayer quantize` takes, and that are not methods."""
MODELS = ("model", "model.name", "teacher.name", "student.name", "reference.name", "reference")
WEIGHTS = ("teacher.weights", "student.weights", "reference.weights", "model.weights", "weights")
DATA = ("eval.data", "data")
LABELS = ("lte.labels", "model.labels", "labels")
ENCODERS = ("lte.encoder", "encoder")
RUNS = ("run", "reuse", "resume")


def check(schema: type[Any], settings: Layer) -> None:
    """Check settings of a command as far as that goes without torch.

    Args:
        schema: the configuration class of the command.
        settings: dotted keys, merged; `resume` may be one.

    Raises:
        InputError: a name, a file or a value is wrong.
        EnvironmentFault: there is no such device.

    """
    for run in _given(settings, RUNS):
        if run != "auto":
            inputs.require_run(run)
    if issubclass(schema, DistillConfig):
        _check_method(schema, settings)
    if issubclass(schema, SampleConfig):
        _check_images(settings)
    _check_init(schema, settings)
    if settings.get("schedule.budget"):
        parse_budget(str(settings["schedule.budget"]))
    if "quantizer.bits" in settings:
        parse_bits(settings["quantizer.bits"])
    if issubclass(schema, QuantizeConfig) and not any(_given(settings, ("teacher.name", "resume"))):
        inputs.require_finished_run()
    if issubclass(schema, OnnxConfig):
        inputs.require_onnx_name(settings.get("model"), settings.get("out"))
    for model in (*_given(settings, MODELS), *settings.get("models", ())):
        names.check(model)
        if Path(model).suffix == ".onnx" and "models" in settings:
            inputs.require_onnx(model)
            packages.require()
    for spec in _given(settings, ENCODERS):
        encoder.check(spec, is_used=_uses_text(schema, settings))
    _check_files(settings)
    cuda.check(str(settings.get("device", "auto")))
    _check_memory()


def _check_images(settings: Layer) -> None:
    """Check what images are asked for, and settings against the method's own."""
    asked, method = config.build(SampleConfig, settings), method_of(SampleConfig, settings)
    sampling.check(asked)
    if asked.model.name and method in plugins.own("methods"):
        own = {key: value for key, value in settings.items() if key.startswith("method.")}
        _check_own(method, own | {"method.name": method})


def _check_memory() -> None:
    """Refuse a limit of address space in which torch cannot even be imported: its libraries would end the process."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limits
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_MEMORY:
        raise EnvironmentFault(
            f"this process may have {limit / 1e9:.1f} GB of address space, and torch needs {LEAST_MEMORY / 1e9:.1f} GB",
            hint="lift the limit: ulimit -v unlimited",
        )


def method_of(schema: type[Any], settings: Layer) -> str:
    """Return the name of the method that settings are for; empty where a command has none."""
    if issubclass(schema, SampleConfig):
        name = str(settings.get("method.name", sampling.AUTO))
        return sampling.USUAL if name == sampling.AUTO else name
    return str(settings.get("method.name", config.DEFAULT_METHOD)) if issubclass(schema, DistillConfig) else ""


def method_keys(method: str) -> list[str]:
    """Return the settings of a method, such as `method.g_steps`; none of one from outside, which is not imported."""
    if method not in plugins.own("methods"):
        return []
    return config.keys(plugin_settings.config_class("methods", method), "method.")


def _check_init(schema: type[Any], settings: Layer) -> None:
    """Refuse a student that begins with a teacher's layers where there is no teacher, or with two kinds of weights."""
    if settings.get("init") != "teacher" or issubclass(schema, QuantizeConfig):
        return
    if issubclass(schema, TrainConfig) and not settings.get("teacher.name") and not settings.get("resume"):
        raise ConfigError("--init teacher copies layers from a teacher, but no teacher is named", hint="add --teacher")
    if settings.get("student.weights"):
        raise ConfigError(
            "the student cannot begin with both its teacher's weights and those of a file",
            hint="leave out --init teacher, or the weight file",
        )


def _given(settings: Layer, keys: tuple[str, ...]) -> Iterator[str]:
    return (str(settings[key]) for key in keys if settings.get(key))


def _check_method(schema: type[Any], settings: Layer) -> None:
    """Check the names of method and preset, and settings against the method's own."""
    own, method = _of_the_method(settings), _method(schema, settings)
    is_none = issubclass(schema, QuantizeConfig) and method in WITHOUT_IMAGES
    if method and not is_none:
        plugins.check("methods", method, extra=WITHOUT_IMAGES if issubclass(schema, QuantizeConfig) else ())
    preset = str(settings.get("preset", "auto"))
    if preset != "auto":
        config.read_preset(preset, method or config.DEFAULT_METHOD)
    if method in plugins.own("methods"):
        _check_own(method, own)
    elif method is None:
        _check_some(own)


def _of_the_method(settings: Layer) -> Layer:
    return {key: value for key, value in settings.items() if key.startswith("method.")}


def _method(schema: type[Any], settings: Layer) -> str | None:
    """Return the name of the method; a run that goes on or is used again has its own, and the newest is not known."""
    if "method.name" in settings:
        return str(settings["method.name"])
    quantizes = issubclass(schema, QuantizeConfig)
    for run in _given(settings, ("resume", "reuse", "teacher.name") if quantizes else ("resume",)):
        if (file := Path(run, "config.toml")).is_file():
            return str(config.read_file(file).get("method.name", config.DEFAULT_METHOD))
    return None if quantizes and not settings.get("teacher.name") else config.DEFAULT_METHOD


def _check_some(settings: Layer) -> None:
    """Refuse a value that none of our methods with such a setting takes: which method it is, is not known yet."""
    for key, value in settings.items():
        faults = [_fault(name, {key: value}) for name in plugins.own("methods") if key in method_keys(name)]
        if faults and all(faults):
            raise next(filter(None, faults))


def _fault(method: str, settings: Layer) -> InputError | None:
    try:
        _check_own(method, settings)
    except InputError as error:
        return error
    return None


def _uses_text(schema: type[Any], settings: Layer) -> bool:
    """Say whether texts are embedded for sure: with some methods an encoder that is named changes nothing."""
    if not issubclass(schema, DistillConfig):
        return True
    method = settings.get("method.name", "" if issubclass(schema, QuantizeConfig) else config.DEFAULT_METHOD)
    if settings.get("resume") or method not in plugins.own("methods"):
        return False
    return plugin_settings.uses_names(method, _built(method, _of_the_method(settings))) == EMBEDDINGS


def _check_own(method: str, settings: Layer) -> None:
    """Check settings against those of the method; name the methods that have a setting which this one lacks."""
    for key in settings.keys() - set(method_keys(method)):
        owners = [name for name in plugins.own("methods") if key in method_keys(name)]
        if owners:
            raise ConfigError(
                f"the method '{method}' has no setting '{key}'; {_have(owners)}",
                hint=f"leave it out, or choose --method {owners[0]}",
            )
    _built(method, settings)


def _built(method: str, settings: Layer) -> Any:
    own = {key.removeprefix("method."): value for key, value in settings.items()}
    return config.build(plugin_settings.config_class("methods", method), own, "method.")


def _have(owners: list[str]) -> str:
    *others, last = owners
    return f"{', '.join(others)} and {last} have" if others else f"{last} has"


def _check_files(settings: Layer) -> None:
    for file in _given(settings, WEIGHTS):
        inputs.require_weights(file)
    for file in _given(settings, ("lte.file", "file")):
        inputs.require_pool(file)
    for spec in _given(settings, LABELS):
        inputs.require_names(spec)
    for spec in _given(settings, DATA):
        inputs.require_data(spec)
        from nayer_cli.images.source import recognized  # numpy and Pillow take a moment

        recognized(spec)
