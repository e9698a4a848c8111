"""The memory that a run takes at most, and what it gives up to stay within a limit: arithmetic on counted sizes.

The same sizes give the same choice on every machine. Settings are named by their dotted keys. Nothing imports torch.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from nayer_cli import live_settings

LIBRARIES = 800_000_000
"""Bytes of a process that has imported everything."""
COPIES = 8
"""Copies of a batch of images: drawn, augmented, kept as the best, and the gradients of each."""
PASSING = 3
"""Tensors as large as the largest one that exist at once, in a pass without gradients or on the way back."""
LEARNS = 4
"""Copies of the weights of a learning network: weights, gradients and two moments."""
KEPT = 1
"""One more copy of its state, to undo a round."""
ENOUGH = 8
"""Least images of a round; rather than fewer, the generator becomes narrower."""
LEVELS = 3
"""Number of widths that the generator may have, each half of the one before."""
FOUR = 4
"""Batches are multiples of this if they are large enough."""

STUDENT, EVALUATION = "schedule.batch_size", "eval.batch_size"
BATCH, WIDTH, CODES = (f"method.{name}" for name in (live_settings.BATCH, live_settings.WIDTH, live_settings.CODE_SIZE))
PHASE = {STUDENT: "student", EVALUATION: "evaluation"}
Numbers = Mapping[str, int]


class Part(NamedTuple):
    """A network, in bytes."""

    weights: int = 0
    saved: int = 0
    """Bytes that a pass keeps for the gradient of one image."""
    largest: int = 0
    """The largest tensor among it."""


@dataclass(frozen=True)
class Sizes:
    """The counted parts of a run.

    Attributes:
        image: bytes of one, in float32.
        teacher, student: the networks; a run from labels alone has a teacher of nothing.
        generator: what makes images, noisy layers included, for a batch, a width and a code size; None: pixels learn.
        bank: bytes of images in the host's memory.
        makes_images: whether there are rounds.
        learns: whether the student does; if not, rounds do not go through it either.

    """

    image: int
    teacher: Part
    student: Part
    generator: Callable[[int, int, int], Part] | None = None
    bank: int = 0
    makes_images: bool = True
    learns: bool = True


def peaks(sizes: Sizes, chosen: Numbers) -> dict[str, int]:
    """Return the bytes that each phase takes at most."""
    least = LIBRARIES + sizes.bank + sizes.teacher.weights + LEARNS * sizes.student.weights
    large = PASSING * max(sizes.teacher.largest, sizes.student.largest)
    learning = sizes.student.saved + large + COPIES * sizes.image
    found = {"evaluation": least + chosen[EVALUATION] * (large + sizes.image)}
    if sizes.learns:
        found["student"] = least + chosen[STUDENT] * learning
    if sizes.makes_images:
        found["synthesis"] = least + _synthesis(sizes, chosen)
    return found


def _synthesis(sizes: Sizes, chosen: Numbers) -> int:
    """Return what a round takes: images go through teacher and student, and gradients all the way back."""
    batch = chosen[_images_of(chosen)]
    each = sizes.teacher.saved + sizes.learns * sizes.student.saved + COPIES * sizes.image
    if sizes.generator is None:
        return batch * (each + LEARNS * sizes.image)
    made = sizes.generator(batch, chosen[WIDTH], chosen[CODES])
    return (LEARNS + KEPT) * made.weights + batch * (each + made.saved)


def _images_of(chosen: Numbers) -> str:
    """Return the setting that says how many images a round has: methods without one make as many as are learned."""
    return BATCH if BATCH in chosen else STUDENT


def peak(sizes: Sizes, chosen: Numbers) -> int:
    """Return the bytes that a run takes at most."""
    return max(peaks(sizes, chosen).values())


def fit(sizes: Sizes, wanted: Numbers, given: Collection[str], limit: int) -> dict[str, int]:
    """Return settings that keep a run within `limit` bytes if possible, as near to `wanted` as that allows.

    Args:
        sizes: what was counted.
        wanted: settings by key: `STUDENT`, `EVALUATION`, and what the method has of `BATCH`, `WIDTH`, `CODES`.
        given: those that must stay as they are.
        limit: bytes.

    """
    chosen = dict(wanted)
    for key in [key for key in (EVALUATION, STUDENT) if key not in given and (sizes.learns or key == EVALUATION)]:
        chosen[key] = _largest(chosen, key, partial(_fits, sizes, PHASE[key], limit))
    return _fit_synthesis(sizes, chosen, given, limit) if sizes.makes_images else chosen


def _fits(sizes: Sizes, phase: str, limit: int, chosen: Numbers) -> bool:
    return peaks(sizes, chosen)[phase] <= limit


def _fit_synthesis(sizes: Sizes, wanted: Numbers, given: Collection[str], limit: int) -> dict[str, int]:
    """Make rounds smaller, and the generator narrower where they would have hardly an image."""
    key, fits = _images_of(wanted), partial(_fits, sizes, "synthesis", limit)
    chosen = dict(wanted)
    for level in range(LEVELS):
        chosen = {**wanted, **{one: max(wanted[one] >> level, 1) for one in (WIDTH, CODES) if _may(one, wanted, given)}}
        if key not in given:
            chosen[key] = _largest(chosen, key, fits)
        if fits(chosen) and chosen[key] >= min(ENOUGH, wanted[key]):
            break
    return chosen


def _may(key: str, wanted: Numbers, given: Collection[str]) -> bool:
    return key in wanted and key not in given


def _largest(chosen: Numbers, key: str, fits: Callable[[Numbers], bool]) -> int:
    """Return the largest value of a setting, up to what it is, that fits; the least there is if none does."""
    low, high = min(2, chosen[key]), chosen[key]
    if fits(chosen):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits({**chosen, key: middle}) else (low, middle)
    return low - low % FOUR if low >= 4 * FOUR else low
