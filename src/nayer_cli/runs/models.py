"""Load models with the facts that the user gives, and ask for missing facts by the names of their options."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from nayer_cli.classifiers.model import Classifier, load_classifier
from nayer_cli.classifiers.model_facts import UntoldFacts
from nayer_cli.config import ModelConfig
from nayer_cli.errors import ConfigError, InputError
from nayer_cli.images.class_order import match_classes
from nayer_cli.images.labelled import LabelledImages
from nayer_cli.lte.labels import check_fit, check_names, read_labels
from nayer_cli.storage.text import printable

EXAMPLES = {
    "input_size": "32",
    "mean": "0.485,0.456,0.406",
    "std": "0.229,0.224,0.225",
    "labels": "classes.txt",
}
"""A value for each fact that a network of one's own does not tell."""


class Role(NamedTuple):
    """The part that a model plays in a command, and the options that name it."""

    command: str
    flag: str
    """The option that names it; empty where it is an argument."""
    prefix: str = ""
    """Prefix of the options for its facts."""
    weights: str = "weights"

    def option(self, fact: str) -> str:
        """Return the option that says a fact, such as `--reference-mean`."""
        return f"--{self.prefix}{self.weights if fact == 'weights' else fact.replace('_', '-')}"

    def line(self, spec: ModelConfig, missing: Sequence[str], rest: str) -> str:
        """Return a command line that says all there is to say; facts that are `missing` have a value as an example."""
        words = ["nayer", self.command, self.flag, spec.name]
        for fact in ("weights", "num_classes", "channels", *EXAMPLES):
            value = getattr(spec, fact)
            if value is not None or fact in missing:
                words += [self.option(fact), EXAMPLES[fact] if value is None else _written(value)]
        return " ".join(filter(None, (*words, rest)))


TEACHERS = {
    "distill": Role("distill", "--teacher", weights="teacher-weights"),
    "quantize": Role("quantize", "--model"),
    "train": Role("train", "--teacher", "teacher-"),
}
"""The network to learn from, by command."""
TRAINED = Role("train", "--model")
MEASURED = Role("eval", "")
EXPORTED = Role("export", "")
BENCHED = Role("bench", "")
SAMPLED = Role("sample", "--model")
REFERENCE = Role("eval", "--reference", "reference-")


def load(spec: ModelConfig, role: Role, *, rest: str = "", needs_names: bool = False) -> Classifier:
    """Load a classifier of any kind, ONNX files included; `spec` overrides its checkpoint.

    Args:
        spec: the model.
        role: what it is to the command.
        rest: what else the command line needs, for a hint that can be typed as it is.
        needs_names: whether the command cannot do without class names.

    Raises:
        InputError: there is no such model, it does not fit its options, or facts are missing: all are named.
        EnvironmentFault: its weights are on a hub that cannot be reached, or a package is missing.

    """
    with told(role, spec, rest, needs_names=needs_names):
        classifier = _onnx(spec, role) if Path(spec.name).suffix == ".onnx" else _network(spec, role)
    return named(classifier, spec.labels)


@contextmanager
def told(role: Role, spec: ModelConfig, rest: str, *, needs_names: bool = False) -> Iterator[None]:
    """Within the block, facts that a model leaves open are asked for with a whole command line; see `load`."""
    try:
        yield
    except UntoldFacts as error:
        missing = [*error.facts, *(["labels"] if needs_names and not spec.labels else [])]
        names = ", nor the names of its classes" if "labels" in missing else ""
        raise InputError(f"{error}{names}", hint=role.line(spec, missing, rest)) from error


def named(classifier: Classifier, labels: str | None) -> Classifier:
    """Give a classifier the names in `labels`, a file or a known set, instead of those that it carries.

    Raises:
        InputError: there is no such file or set, it names more or fewer classes than there are outputs, or what the
            classifier carries are no names.

    """
    if not labels:
        check_fit(classifier.labels or (), f"the checkpoint of '{classifier.name}'")
        return classifier
    names = read_labels(labels, dedupe="index")
    check_names(names, classifier.num_classes, classifier.name, labels)
    return replace(classifier, labels=names)


def are_same_classes(names: Sequence[str], others: Sequence[str]) -> bool:
    """Tell whether two lists of class names mean the same classes in the same order."""
    try:
        return match_classes(names, others, None, "") == list(range(len(others)))
    except InputError:
        return False


def assumption(classifier: Classifier, data: LabelledImages) -> str:
    """Say what is assumed where either the model or the data has no class names; empty if nothing is."""
    if not data.order_is_assumed:
        return ""
    some = ", ".join(f"'{printable(name)}'" for name in list(data.class_names or ())[:3])
    if classifier.labels is None:
        return (
            f"'{classifier.name}' does not name its classes, so its outputs are taken to be the classes of "
            f"{data.where} in their order: {some} … If the order is different, give the names with --labels"
        )
    return f"{data.where} has no class names, so its labels 0, 1, 2 … are taken to mean {some} … of '{classifier.name}'"


def _network(spec: ModelConfig, role: Role) -> Classifier:
    """Load a network; where it is measured it takes images of the size that timm validates it with."""
    return load_classifier(spec, validating=role.command == MEASURED.command)


def _onnx(spec: ModelConfig, role: Role) -> Classifier:
    """Open an ONNX file, which says everything about itself: only its normalization and its names can be overridden."""
    if role.command != "eval":
        return load_classifier(spec)  # which says what can be done with it
    from nayer_cli.classifiers.onnx_file import load_onnx  # what runs it need not be installed

    classifier = load_onnx(Path(spec.name).expanduser(), spec)
    if spec.weights:
        raise ConfigError(f"'{spec.name}' already holds its weights", hint=f"leave out {role.option('weights')}")
    own = {
        "num_classes": classifier.num_classes,
        "input_size": max(classifier.shape.height, classifier.shape.width),
        "channels": classifier.shape.channels,
    }
    for fact, value in own.items():
        given = getattr(spec, fact)
        if given is not None and given != value:
            raise ConfigError(
                f"'{spec.name}' has {fact.replace('_', ' ')} {value}, not {given}",
                hint=f"leave out {role.option(fact)}",
            )
    return classifier


def _written(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
