"""`nayer eval`: measure classifiers on labelled images, against thresholds and a reference."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import torch

from nayer_cli import config as configuration
from nayer_cli.classifiers.model import Classifier, Normalized, parameters
from nayer_cli.config import EvaluateConfig, ModelConfig, ModelFacts
from nayer_cli.errors import ConfigError, InputError
from nayer_cli.evaluate import Evaluation, Outcomes, evaluate, measure, scores
from nayer_cli.gates import Count, Gate, Limits, judge
from nayer_cli.images.class_order import match_classes
from nayer_cli.images.labelled import LabelledImages, open_images
from nayer_cli.images.pictures import described, sentence
from nayer_cli.machine.device import resolve_device
from nayer_cli.runs import models
from nayer_cli.runs.documents import EvalResult, Measured
from nayer_cli.storage.files import write_json
from nayer_cli.storage.runlog import Listener, RunLog

SCHEMA = "nayer.eval/1"


def evaluate_models(settings: Mapping[str, object], *, listen: Listener | None = None) -> EvalResult:
    """Measure one or more classifiers; return the result document, and write it to `out` if given.

    The document has `schema`, `results` (one object a model), `reference` (such an object, or None), `gates`,
    `passed` and `warnings` (what had to be assumed). Accuracies, `ece`, `agreement` and `drop` are fractions of 1;
    `loss` is in nats. The caller decides what a missed gate means.

    Args:
        settings: keys of `EvaluateConfig`, such as `{"models": ["RUN/student"], "data": "digits"}`; None is
            unset.
        listen: called with a record for each model, before it is measured, and for each warning.

    Raises:
        InputError: a model or the data cannot be read, or they do not fit each other.
        ConfigError: a setting is unknown or out of range.
        EnvironmentFault: there is no such device, or a package is missing.

    """
    given = {key: value for key, value in settings.items() if value is not None}
    config = configuration.build(EvaluateConfig, given)
    _check(config)
    bench = Bench(config, resolve_device(config.device), RunLog(None, listen))
    torch.manual_seed(config.seed)
    reference = bench.reference(config.reference) if config.reference.name else None
    results = [bench.result(name, reference) for name in config.models]
    gates = [gate for result in results for gate in _gates(config, result, reference)]
    document: EvalResult = {
        "schema": SCHEMA,
        "results": results,
        "reference": None if reference is None else reference.document,
        "gates": gates,
        "passed": all(gate["passed"] for gate in gates),
        "warnings": bench.warnings,
    }
    if config.out:
        write_json(Path(config.out), document)
    return document


@dataclass(frozen=True)
class Reference:
    """A measured reference."""

    classifier: Classifier
    outcomes: Outcomes
    document: Measured


class Bench:
    """Loads models, and the data as each wants it, and measures."""

    def __init__(self, config: EvaluateConfig, device: torch.device, log: RunLog) -> None:
        self.config, self.device, self.log = config, device, log
        self.warnings: list[str] = []
        self._data: dict[object, LabelledImages] = {}

    def reference(self, spec: ModelConfig) -> Reference:
        """Measure the reference once, for all models."""
        self.log.note(f"measuring the reference {spec.name}")
        classifier = models.load(spec, models.REFERENCE, rest=f"{' '.join(self.config.models)} {self._rest}")
        data, network = self._images(classifier), self._network(classifier)
        outcomes = measure(network, data, device=self.device, batch_size=self.config.batch_size)
        evaluation = Evaluation(scores(outcomes), data.skipped, outcomes.seconds)
        return Reference(classifier, outcomes, self._document(spec.name, classifier, evaluation, data))

    def result(self, name: str, reference: Reference | None) -> Measured:
        """Measure one model."""
        self.log.note(f"measuring {name}")
        classifier = models.load(_model_config(self.config, name), models.MEASURED, rest=self._rest)
        if reference is not None:
            self._warn(_check_comparable(classifier, reference.classifier))
            self._warn(_seen_otherwise(classifier, reference.classifier))
        data = self._images(classifier)
        evaluation = evaluate(
            self._network(classifier),
            data,
            device=self.device,
            batch_size=self.config.batch_size,
            reference=None if reference is None else reference.outcomes,
        )
        return self._document(name, classifier, evaluation, data)

    @property
    def _rest(self) -> str:
        """Return the rest of a command line for a hint."""
        return f"--data {self.config.data}"

    def _warn(self, message: str) -> None:
        if message and message not in self.warnings:
            self.warnings.append(message)
            self.log.note(message, level="warning")

    def _network(self, classifier: Classifier) -> Normalized:
        network = Normalized(classifier.network, classifier.normalization).to(self.device)
        return network.to(memory_format=torch.channels_last)  # 1.2 to 1.5 times the images a second on a CPU

    def _images(self, classifier: Classifier) -> LabelledImages:
        """Open the data for a model, once for all models that want it alike."""
        names = classifier.labels
        key = (classifier.shape, classifier.preparation, classifier.num_classes, names and tuple(names))
        if key not in self._data:
            self._data[key] = open_images(
                self.config.data,
                split=self.config.split,
                shape=classifier.shape,
                class_names=names,
                num_classes=classifier.num_classes,
                limit=self.config.limit,
                preparation=classifier.preparation,
            )
        self._warn(models.assumption(classifier, self._data[key]))
        return self._data[key]

    def _document(self, name: str, classifier: Classifier, evaluation: Evaluation, data: LabelledImages) -> Measured:
        document = {
            "model": name,
            "name": classifier.name,
            "data": self.config.data,
            "split": self.config.split,
            "input_size": list(classifier.shape),
            "preparation": described(classifier.preparation),
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
        return cast(Measured, document)


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
    if config.max_drop is not None and not config.reference.name:
        raise ConfigError("--max-drop needs something to compare with", hint="add --reference MODEL")


def _model_config(config: EvaluateConfig, name: str) -> ModelConfig:
    return ModelConfig(name=name, **{fact.name: getattr(config, fact.name) for fact in fields(ModelFacts)})


def _check_comparable(model: Classifier, reference: Classifier) -> str:
    """Agreement is about class indices: it means nothing where these stand for different classes.

    Returns:
        What has to be assumed, because one of them has no class names; empty if nothing is.

    Raises:
        InputError: they are known to have other classes, or another order of them.

    """
    if model.num_classes != reference.num_classes:
        raise InputError(
            f"'{model.name}' has {model.num_classes} classes, but the reference '{reference.name}' has "
            f"{reference.num_classes}",
            hint="compare models that have the same classes",
        )
    if model.labels is None or reference.labels is None:
        if model.labels == reference.labels:
            return ""
        unnamed, option = (model, "--labels") if model.labels is None else (reference, "--reference-labels")
        return (
            f"'{unnamed.name}' does not name its classes. They are taken to be the other model's, in the same order: "
            f"if they are not, give them with {option}"
        )
    order = match_classes(model.labels, reference.labels, None, f"'{model.name}'")
    if order != list(range(model.num_classes)):
        raise InputError(
            f"'{model.name}' has its classes in a different order from the reference '{reference.name}'",
            hint="compare models whose outputs stand for the same classes",
        )
    return ""


def _seen_otherwise(model: Classifier, reference: Classifier) -> str:
    """Say where two models do not see the same pixels, which is then part of their drop; empty if they do."""
    seen, other = (f"{_size(each)}, {sentence(each.preparation)}" for each in (model, reference))
    if seen == other:
        return ""
    return (
        f"'{model.name}' sees pictures as {seen}, and the reference '{reference.name}' as {other}: part of the drop "
        "may come from that. To change it, use --input-size, --crop-pct and so on, or --reference-input-size for the"
        " reference"
    )


def _size(model: Classifier) -> str:
    return f"{model.shape.height}×{model.shape.width}"


def _gates(config: EvaluateConfig, result: Measured, reference: Reference | None) -> list[Gate]:
    """Compare one result with the thresholds that are set."""
    limits = Limits(config.min_top1, config.max_drop)
    of_reference = Count.of(reference.document) if reference else None
    gates = judge({"": Count.of(result)}, of_reference, limits)
    for gate in gates:
        gate["model"] = result["model"]
    return gates
