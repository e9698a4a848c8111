"""Give a student its first weights: its own, or layers of its teacher."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from nayer_cli.classifiers.architecture import HUB, find
from nayer_cli.classifiers.inherit import Inherited, inherit
from nayer_cli.classifiers.model import Classifier, parameters
from nayer_cli.config import ModelConfig, OptimizerConfig
from nayer_cli.errors import ConfigError, InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")

SHOWN = 12
"""Layers that a message names."""


def begin_with(init: str, student: Classifier, spec: ModelConfig, teacher: Classifier | None) -> Inherited | None:
    """Give the student's network those layers of its teacher that fit, if `init` asks for it.

    Args:
        init: `own`, `teacher`, or `auto`.
        student: a network that was just made.
        spec: what it was made from.
        teacher: its teacher, if it has one.

    Returns:
        What was taken, or None where the student keeps what it has.

    Raises:
        InputError: `init` is `teacher`, and no layer fits.
        ConfigError: `init` is `teacher`, but there is none, or the student has weights of its own.

    """
    is_needed = init == "teacher"
    if init == "own" or (not is_needed and (teacher is None or _has_weights(spec))):
        return None
    if teacher is None:
        raise ConfigError("--init teacher copies layers from a teacher, but no teacher is named", hint="add --teacher")
    if _has_weights(spec):
        raise ConfigError(
            f"the student '{student.name}' comes with weights of its own, so it cannot begin with its teacher's",
            hint="leave out --init teacher, or name an architecture",
        )
    taken = inherit(student.network, teacher.network)
    if taken.parameters == 0 and is_needed:
        raise InputError(
            f"no layer of the teacher '{teacher.name}' fits into the student '{student.name}'",
            hint="layers fit by their place, their name and their shape: leave out --init teacher, or choose a student "
            "of the teacher's family and width",
        )
    return taken if taken.parameters else None


def sentence(student: Classifier, taken: Inherited | None) -> str:
    """Say what a student that may begin with its teacher's layers begins with."""
    if taken is None:
        return f"the student '{student.name}' begins with weights of its own, and with no layer of its teacher"
    share = f"{taken.parameters:,} of {parameters(student.network):,} parameters"
    return f"the student begins with {share} of its teacher: {_listed(taken.layers)}"


def paced(optimizer: OptimizerConfig, student: Classifier, taken: Inherited | None) -> OptimizerConfig:
    """Lower the learning rate where most of a student is its teacher's: large steps would undo that."""
    if taken is None or 2 * taken.parameters < parameters(student.network):
        return optimizer
    return replace(optimizer, lr=optimizer.lr * optimizer.inherited)


def fitting(settings: C, init: str, taken: Inherited | None) -> C:
    """Leave features out of a method's settings where `auto` found no layer that fits.

    Activations of a network with weights of its own have another scale than its teacher's, and a weight of features
    that holds the teacher's layers in place then makes the student diverge.
    """
    follows = isinstance(getattr(settings, "features", None), float)
    return replace(settings, features=0.0) if follows and init == "auto" and taken is None else settings


def _listed(layers: Mapping[str, str]) -> str:
    """Name layers in the student's order, with their places in the teacher where these are others."""
    words = list(_words(layers.items()))
    return ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")


def _words(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for mine, its in pairs:
        yield "all layers" if not mine else mine if mine == its else f"{mine} (from {its})"


def _has_weights(spec: ModelConfig) -> bool:
    return bool(spec.weights) or find(spec.name).folder is not None or spec.name.startswith(HUB)
