"""`nayer eval`: how good classifiers are on labelled images, against thresholds and against a reference."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nayer_cli import config as configuration
from nayer_cli.classifiers.model import Classifier, Normalized, load_classifier, parameters
from nayer_cli.config import EvaluateConfig, ModelConfig
from nayer_cli.errors import ConfigError, InputError
from nayer_cli.evaluate import Evaluation, Outcomes, evaluate, measure, scores
from nayer_cli.gates import Count, Limits, judge
from nayer_cli.images.class_order import match_classes
from nayer_cli.images.labelled import LabelledImages, open_images
from nayer_cli.machine.device import resolve_device
from nayer_cli.storage.files import write_json

SCHEMA = "nayer.eval/1"


def evaluate_models(settings: Mapping[str, object]) -> dict[str, Any]:
    """Measure one or more classifiers; return the result document, and write it to `out` if given.

    The document has `schema`, `results` (one object a model), `reference` (such an object, or None), `gates`
    and `passed`. Accuracies, `ece`, `agreement` and `drop` are fractions of 1; `loss` is in nats. The caller
    decides what a missed gate means.

    Args:
        settings: keys of `EvaluateConfig`, such as `{"models": ["RUN/student"], "data": "digits"}`; None is
            unset.

    Raises:
        InputError: a model or the data cannot be read, or they do not fit each other.
        ConfigError: a setting is unknown or out of range.
        EnvironmentFault: there is no such device, or a package is missing.

    """
    given = {key: value for key, value in settings.items() if value is not None}
    config = configuration.build(EvaluateConfig, given)
    _check(config)
    bench = Bench(config, resolve_device(config.device))
    torch.manual_seed(config.seed)
    reference = bench.reference(config.reference) if config.reference else None
    results = [bench.result(name, reference) for name in config.models]
    gates = [gate for result in results for gate in _gates(config, result, reference)]
    document = {
        "schema": SCHEMA,
        "results": results,
        "reference": None if reference is None else reference.document,
        "gates": gates,
        "passed": all(gate["passed"] for gate in gates),
    }
    if config.out:
        write_json(Path(config.out), document)
    return document


@dataclass(frozen=True)
class Reference:
    """A measured reference."""

    classifier: Classifier
    outcomes: Outcomes
    document: dict[str, Any]


class Bench:
    """Loads models, and the data as each wants it, and measures."""

    def __init__(self, config: EvaluateConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self._data: dict[object, LabelledImages] = {}

    def reference(self, name: str) -> Reference:
        """Measure the reference once, for all models; mean and std are those of its own checkpoint."""
        config = self.config
        wanted = ModelConfig(name=name, num_classes=config.num_classes, input_size=config.input_size)
        classifier = _load(wanted)
        data, network = self._images(classifier), self._network(classifier)
        outcomes = measure(network, data, device=self.device, batch_size=config.batch_size)
        evaluation = Evaluation(scores(outcomes), data.skipped, outcomes.seconds)
        return Reference(classifier, outcomes, self._document(name, classifier, evaluation, data))

    def result(self, name: str, reference: Reference | None) -> dict[str, Any]:
        """Measure one model."""
        classifier = _load(_model_config(self.config, name))
        if reference is not None:
            _check_comparable(classifier, reference.classifier)
        data = self._images(classifier)
        evaluation = evaluate(
            self._network(classifier),
            data,
            device=self.device,
            batch_size=self.config.batch_size,
            reference=None if reference is None else reference.outcomes,
        )
        return self._document(name, classifier, evaluation, data)

    def _network(self, classifier: Classifier) -> Normalized:
        network = Normalized(classifier.network, classifier.normalization).to(self.device)
        return network.to(memory_format=torch.channels_last)  # 1.2 to 1.5 times the images a second on a CPU

    def _images(self, classifier: Classifier) -> LabelledImages:
        """Open the data for a model, once for all models that want it alike."""
        names = classifier.labels
        key = (classifier.shape, classifier.num_classes, names and tuple(names))
        if key not in self._data:
            self._data[key] = open_images(
                self.config.data,
                split=self.config.split,
                shape=classifier.shape,
                class_names=names,
                num_classes=classifier.num_classes,
                limit=self.config.limit,
            )
        return self._data[key]

    def _document(
        self, name: str, classifier: Classifier, evaluation: Evaluation, data: LabelledImages
    ) -> dict[str, Any]:
        return {
            "model": name,
            "name": classifier.name,
            "data": self.config.data,
            "split": self.config.split,
            "skipped": evaluation.skipped,
            "unreadable": list(data.unreadable)[:3],
            **vars(evaluation.scores),
            "ci95": list(evaluation.scores.ci95),
            "agreement": evaluation.agreement,
            "drop": evaluation.drop,
            "parameters": parameters(classifier.network) or None,  # those of an ONNX file are not counted
            "images_per_s": evaluation.scores.n / evaluation.seconds,
            "device": str(self.device),
        }


def _check(config: EvaluateConfig) -> None:
    if not config.models:
        raise InputError("no model is given", hint="for example: nayer eval RUN/student --data digits")
    if not config.data:
        raise InputError("--data is missing", hint=f"for example: nayer eval {config.models[0]} --data ./images/val")
    if config.weights and len(config.models) > 1:
        raise ConfigError(
            f"--weights names one file, but there are {len(config.models)} models",
            hint="measure them one at a time",
        )
    if config.max_drop is not None and config.reference is None:
        raise ConfigError("--max-drop needs something to compare with", hint="add --reference MODEL")


def _load(wanted: ModelConfig) -> Classifier:
    """Load a classifier of any kind, ONNX files included."""
    path = Path(wanted.name).expanduser()
    if path.suffix != ".onnx":
        return load_classifier(wanted)
    from nayer_cli.classifiers.onnx_file import load_onnx  # what runs it need not be installed

    return load_onnx(path)


def _model_config(config: EvaluateConfig, name: str) -> ModelConfig:
    return ModelConfig(
        name=name,
        weights=config.weights,
        num_classes=config.num_classes,
        input_size=config.input_size,
        mean=config.mean,
        std=config.std,
    )


def _check_comparable(model: Classifier, reference: Classifier) -> None:
    """Agreement is about class indices: it means nothing where these stand for different classes."""
    if model.num_classes != reference.num_classes:
        raise InputError(
            f"'{model.name}' has {model.num_classes} classes, but the reference '{reference.name}' has "
            f"{reference.num_classes}",
            hint="compare models of the same classes",
        )
    if model.labels is None or reference.labels is None:
        return
    order = match_classes(model.labels, reference.labels, None, f"'{model.name}'")
    if order != list(range(model.num_classes)):
        raise InputError(
            f"'{model.name}' has its classes in another order than the reference '{reference.name}'",
            hint="compare models whose outputs stand for the same classes",
        )


def _gates(config: EvaluateConfig, result: Mapping[str, Any], reference: Reference | None) -> list[dict[str, Any]]:
    """Compare one result with the thresholds that are set."""
    limits = Limits(config.min_top1, config.max_drop)
    of_reference = Count.of(reference.document) if reference else None
    return [{"model": result["model"], **gate} for gate in judge({"": Count.of(result)}, of_reference, limits)]
