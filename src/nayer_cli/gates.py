"""Judge whether a measurement is good enough. Every command does it here, by counts of images: floats are not exact."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NotRequired

from typing_extensions import TypedDict


class Gate(TypedDict):
    """A threshold and the value found, as in results; `stage` and `model` say what was judged."""

    metric: str
    op: str
    threshold: float
    value: float
    passed: bool
    stage: NotRequired[str]
    model: NotRequired[str]


LEAST_AGREEMENT = 0.995
"""Least agreement of the integers with another runtime, which computes the same."""
LEAST_AFTER_ROUNDING = 0.98
"""Least agreement of a fake-quantized network with its integers, whose rounded biases change single images."""


@dataclass(frozen=True)
class Count:
    """`hits` of `n` images."""

    hits: int
    n: int

    @property
    def exact(self) -> Fraction:
        """The share of hits."""
        return Fraction(self.hits, self.n)

    @property
    def rate(self) -> float:
        """The share of hits as the nearest float."""
        return self.hits / self.n

    @staticmethod
    def of(scores: Mapping[str, Any]) -> "Count":
        """Return the number of right answers in scores."""
        return Count(scores["hits"], scores["n"])


@dataclass(frozen=True)
class Limits:
    """The thresholds of a user; None means no threshold."""

    min_top1: float | None = None
    max_drop: float | None = None

    def __bool__(self) -> bool:
        """Say whether there is any."""
        return self.min_top1 is not None or self.max_drop is not None


@dataclass(frozen=True)
class Pair:
    """Two stages that should give the same classes.

    Args:
        reference: the earlier stage.
        stage: what was made of it.
        same: on how many images both give the same class.
        least: the share that is expected.
        spare: images that may differ in any case: of a few images, one says little.

    """

    reference: str
    stage: str
    same: Count
    least: float
    spare: int = 0

    @property
    def agrees(self) -> bool:
        """Whether the stages are as alike as expected."""
        return self.same.n - self.same.hits <= self.spare or self.same.exact >= typed(self.least)

    @property
    def gate(self) -> Gate:
        """The pair as a gate."""
        gate = _gate("agreement", ">=", self.least, self.same.exact, self.stage)
        gate["passed"] = self.agrees
        return gate


def typed(number: float) -> Fraction:
    """Return the decimal that a user typed: the shortest one that this float is nearest to."""
    return Fraction(repr(float(number)))


def drop(reference: Count, count: Count) -> Fraction:
    """Return how much less than `reference` a model gets right."""
    return reference.exact - count.exact


def judge(
    shipped: Mapping[str, Count], reference: Count | None, limits: Limits, pairs: Sequence[Pair] = ()
) -> list[Gate]:
    """Return a gate for each limit, which judges the worst stage that is shipped, and one for each pair that disagrees.

    Args:
        shipped: by stage, what each gets right. A lone model may have the name ``""``: its gates name no stage.
        reference: what the reference gets right; only `max_drop` needs it.
        limits: the thresholds. Without any there are no gates, whatever disagrees.
        pairs: stages that should agree.

    """
    gates = []
    worst = min(shipped, key=lambda stage: shipped[stage].exact, default="")
    if limits.min_top1 is not None:
        gates.append(_gate("top1", ">=", limits.min_top1, shipped[worst].exact, worst))
    if limits.max_drop is not None:
        assert reference is not None
        gates.append(_gate("drop", "<=", limits.max_drop, drop(reference, shipped[worst]), worst))
    return gates + [pair.gate for pair in pairs if limits and not pair.agrees]


def _gate(metric: str, op: str, threshold: float, value: Fraction, stage: str) -> Gate:
    passed = value >= typed(threshold) if op == ">=" else value <= typed(threshold)
    gate: Gate = {"metric": metric, "op": op, "threshold": threshold, "value": float(value), "passed": passed}
    if stage:
        gate["stage"] = stage
    return gate
