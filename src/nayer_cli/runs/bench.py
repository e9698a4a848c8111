"""`nayer bench`: memory, operations and time of classifiers on this machine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from nayer_cli import config as configuration
from nayer_cli.classifiers.architecture import find
from nayer_cli.classifiers.model import Classifier, new_network, parameters
from nayer_cli.classifiers.weights import find_weights
from nayer_cli.config import BenchConfig, ModelConfig
from nayer_cli.errors import InputError
from nayer_cli.machine import processor
from nayer_cli.machine.device import resolve_device
from nayer_cli.machine.operations import OperationCounter
from nayer_cli.machine.turns import Now, Step, interval, take_turns
from nayer_cli.onnx import packages
from nayer_cli.runs import models
from nayer_cli.runs.documents import BenchResult, Median, Speed, Timed
from nayer_cli.storage.files import write_json
from nayer_cli.storage.runlog import Listener, RunLog
from nayer_cli.types import ImageShape, Normalization

SCHEMA = "nayer.bench/1"
FLOAT = "float32"
ANY = Normalization((0.0,), (1.0,))
"""Speed does not depend on it."""


def bench(settings: Mapping[str, object], *, listen: Listener | None = None, now: Now = perf_counter) -> BenchResult:
    """Measure classifiers by turns; return the result document, and write it to `out` if given.

    Times are in seconds. A network that is named by its architecture alone has fresh weights: speed does not depend on
    them. ONNX files run in ONNX Runtime, everything else in torch.

    Args:
        settings: keys of `BenchConfig`, such as `{"models": ["resnet18", "RUN/model.onnx"]}`; None is unset.
        listen: called with progress records.
        now: a clock, in seconds.

    Raises:
        InputError: a model cannot be loaded or run.
        ConfigError: a setting is unknown or out of range.
        EnvironmentFault: there is no such device, or a package is missing.

    """
    config = configuration.build(BenchConfig, {key: value for key, value in settings.items() if value is not None})
    if not config.models:
        raise InputError("no model is given", hint="for example: nayer bench resnet18 RUN/model.onnx")
    device, log = resolve_device(config.device), RunLog(None, listen)
    torch.manual_seed(config.seed)
    with _threads(config.threads) as threads, torch.no_grad():
        runners = [_open(name, config, device, threads) for name in config.models]
        latency = _speeds(runners, 1, config, now, log)
        throughput = latency if config.batch == 1 else _speeds(runners, config.batch, config, now, log)
    results = [_timed(runner, *speeds) for runner, *speeds in zip(runners, latency, throughput, strict=True)]
    document: BenchResult = {
        "schema": SCHEMA,
        "processor": processor.name(),
        "threads": threads,
        "batch": config.batch,
        "repeats": config.repeats,
        "results": results,
    }
    if config.out:
        write_json(Path(config.out), document)
    return document


@contextmanager
def _threads(wanted: int | None) -> Iterator[int]:
    """Within the block torch computes with that many threads; yields their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield wanted or before
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Runner:
    """A classifier that is ready to run."""

    model: str
    """As the user wrote it."""
    name: str
    network: Callable[[Tensor], Tensor]
    shape: ImageShape
    device: torch.device
    runtime: str
    numbers: str
    bytes: int
    parameters: int
    macs: int | None
    batch: int | None = None
    """Number of images that it takes at a time; None: any number."""

    def takes(self, count: int) -> bool:
        """Whether it takes that many images at a time."""
        return self.batch in (None, count)

    def step(self, count: int) -> Step:
        """Return what classifies that many images, and waits until that is done."""
        images = torch.randn(count, *self.shape, device=self.device).contiguous(memory_format=torch.channels_last)
        if self.device.type == "cpu":
            return lambda: self.network(images)

        def step() -> None:
            self.network(images)
            torch.cuda.synchronize(self.device)

        return step


def _open(name: str, config: BenchConfig, device: torch.device, threads: int) -> Runner:
    if Path(name).suffix == ".onnx":
        return _onnx(name, threads)
    classifier = _classifier(name, config)
    network = classifier.network.eval()
    size = _bytes_on_disk(name) or sum(value.nbytes for value in network.state_dict().values())
    network.to(device).to(memory_format=torch.channels_last)
    return Runner(
        model=name,
        name=classifier.name,
        network=network,
        shape=classifier.shape,
        device=device,
        runtime=f"torch {torch.__version__}",
        numbers=str(classifier.scheme or FLOAT),
        bytes=size,
        parameters=parameters(network),
        macs=_macs(network, classifier.shape, device),
    )


def _classifier(name: str, config: BenchConfig) -> Classifier:
    """Load a model, or make one if only its architecture is named."""
    spec = ModelConfig(
        name=name, num_classes=config.num_classes, input_size=config.input_size, channels=config.channels
    )
    with models.told(models.BENCHED, spec, ""):
        classes = spec.num_classes or find(name).facts.get("num_classes")
        return new_network(spec, classes, normalization=ANY)


def _bytes_on_disk(name: str) -> int:
    """Return the size of the file that a model's weights are in; 0 if it is named by its architecture or by a hub."""
    folder = find(name).folder
    return int(find_weights(folder).stat().st_size) if folder else 0


def _macs(network: nn.Module, shape: ImageShape, device: torch.device) -> int:
    counter = OperationCounter()
    with counter:
        network(torch.zeros(1, *shape, device=device))
    return counter.take() // 2


def _onnx(name: str, threads: int) -> Runner:
    packages.require()
    from nayer_cli.classifiers.onnx_file import scheme_of
    from nayer_cli.onnx.count import count
    from nayer_cli.onnx.runner import OnnxNetwork, read_model

    path = Path(name).expanduser()
    network, counts = OnnxNetwork(path, threads), count(read_model(path))
    scheme = scheme_of(network.facts, path)
    return Runner(
        model=name,
        name=network.facts.get("name") or path.stem,
        network=network,
        shape=network.image_shape,
        device=torch.device("cpu"),
        runtime=f"ONNX Runtime {version('onnxruntime')}",
        numbers=str(scheme) if scheme else "integers" if counts.is_quantized else FLOAT,
        bytes=path.stat().st_size,
        parameters=counts.parameters,
        macs=counts.macs,
        batch=network.batch,
    )


def _speeds(runners: Sequence[Runner], batch: int, config: BenchConfig, now: Now, log: RunLog) -> list[Speed | None]:
    """Let all that take that many images at a time do so by turns; None for the others."""
    ready = [runner for runner in runners if runner.takes(batch)]
    log.note(f"{config.repeats} turns of {len(ready)} models with {batch} image{'s' if batch > 1 else ''} at a time")
    seconds = dict(
        zip(map(id, ready), take_turns([each.step(batch) for each in ready], config.repeats, now), strict=True)
    )
    first = seconds.get(id(runners[0]))
    return [_speed(batch, seconds.get(id(runner)), first) for runner in runners]


def _speed(batch: int, seconds: list[float] | None, first: list[float] | None) -> Speed | None:
    if seconds is None:
        return None
    ratios = [a / b for a, b in zip(first, seconds, strict=True)] if first else []
    return {
        "batch": batch,
        "seconds": _median(seconds),
        "images_per_s": batch / median(seconds),
        "faster": _median(ratios) if ratios else None,
    }


def _median(values: Sequence[float]) -> Median:
    found = interval(values)
    return {"median": found.median, "low": found.low, "high": found.high}


def _timed(runner: Runner, latency: Speed | None, throughput: Speed | None) -> Timed:
    return {
        "model": runner.model,
        "name": runner.name,
        "runtime": runner.runtime,
        "device": str(runner.device),
        "numbers": runner.numbers,
        "input": list(runner.shape),
        "bytes": runner.bytes,
        "parameters": runner.parameters,
        "macs": runner.macs,
        "latency": latency,
        "throughput": throughput,
    }
