"""Match the outputs of a model with the classes of the data.

The costliest silent mistake of an evaluation: torchvision sorts class folders as text (1, 10, 2), timm
naturally (1, 2, 10), and a model may follow neither. So names decide where both sides have them, and a
mismatch is an error.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from nayer_cli.errors import InputError

Names = Sequence[str]
GLOSSES = {"n02012849": "bird", "n03126707": "machine"}
"""Words that tell the two cranes of ImageNet apart, to which timm gives the same name."""
HINT = "give the data's classes the names of the model's, or name its folders by class index, 0 to K-1"


def match_classes(own: Names, wanted: Names | None, num_classes: int | None, where: str) -> list[int]:
    """Return the model's class index for each of the data's own classes.

    Names match as they are, else without case, `_`, `-` and white space, else by the first of several
    comma-separated synonyms; WordNet ids stand for ImageNet's names. Whole numbers are class indices. Where
    the model has no names, the order of `own` counts.

    Args:
        own: the data's class names, in the order of its own labels.
        wanted: the model's class names, by index, if it carries any.
        num_classes: outputs of the model, if known.
        where: the data's name, for messages.

    Raises:
        InputError: the numbers of classes differ, or the names do not match.

    """
    if wanted is not None and (order := _by_name(own, wanted)):
        return order
    count = len(wanted) if wanted is not None else num_classes
    _check_count(own, wanted, len(own) if count is None else count, where)
    if all(re.fullmatch(r"\d+", name) for name in own):
        return _by_number(own, where)
    if all(re.fullmatch(r"n\d{8}", name) for name in own) and (order := _by_wordnet_id(own, wanted)):
        return order
    if wanted is None:
        return list(range(len(own)))
    difference = _difference(own, wanted)
    raise InputError(f"the classes of {where} do not match the model's: {difference}", hint=HINT)


def is_assumed(own: Names | None, wanted: Names | None) -> bool:
    """Tell whether only the order says which output stands for which class: one side has names, the other has none.

    Args:
        own: the data's class names; None if its labels are bare numbers.
        wanted: the model's class names, if it carries any.

    """
    if own is None or wanted is None:
        return (wanted is not None) if own is None else not _tells_indices(own)
    return False


def _tells_indices(own: Names) -> bool:
    """Tell whether names are class indices or WordNet ids, whose order is known."""
    return any(all(re.fullmatch(kind, name) for name in own) for kind in (r"\d+", r"n\d{8}"))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def _first_synonym(name: str) -> str:
    return _plain(name.partition(",")[0])


VIEWS: tuple[Callable[[str], str], ...] = (str, _plain, _first_synonym)


def _by_name(own: Names, wanted: Names) -> list[int] | None:
    """Match by the strictest view under which both lists agree, in the same order or without equal names."""
    for view in VIEWS:
        index = {view(name): i for i, name in enumerate(wanted)}
        keys = [view(name) for name in own]
        if keys == [view(name) for name in wanted]:  # ImageNet has two classes called "crane"
            return list(range(len(own)))
        if len(index) == len(wanted) == len(set(keys)) == len(own) and set(keys) == set(index):
            return [index[key] for key in keys]
    return None


def _by_number(own: Names, where: str) -> list[int]:
    order = [int(name) for name in own]
    if sorted(order) != list(range(len(own))):
        raise InputError(
            f"the numbered classes of {where} go from {min(order)} to {max(order)}, "
            f"but class indices go from 0 to {len(own) - 1}",
            hint=HINT,
        )
    return order


def _by_wordnet_id(own: Names, wanted: Names | None) -> list[int] | None:
    """Match folders such as `n01440764`, through the lists that timm carries."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": len(own)})
    if wanted is None:
        return _by_name(own, list(ImageNetInfo(subset).label_descriptions(as_dict=True))) if subset else None
    info = ImageNetInfo(subset or "imagenet-22k")
    if not set(own) <= set(info.label_descriptions(as_dict=True)):
        return None
    lemmas = [info.label_name_to_description(wnid) for wnid in own]
    times = Counter(lemmas)
    # A model may tell its two cranes apart by their definitions, or by ours.
    distinct = [
        info.label_name_to_description(wnid, detailed=times[lemma] > 1) for wnid, lemma in zip(own, lemmas, strict=True)
    ]
    glossed = [glossed_name(wnid, lemma) for wnid, lemma in zip(own, lemmas, strict=True)]
    return _by_name(lemmas, wanted) or _by_name(distinct, wanted) or _by_name(glossed, wanted)


def glossed_name(wnid: str, lemma: str) -> str:
    """Return the name of an ImageNet class, with a word that tells it from another of the same name."""
    return f"{lemma} ({GLOSSES[wnid]})" if wnid in GLOSSES else lemma


def _check_count(own: Names, wanted: Names | None, count: int, where: str) -> None:
    if len(own) == count:
        return
    absent = _missing(wanted, own) if wanted is not None else []
    # If no name matches at all, the names are of another kind and the first one says nothing.
    first = f"; the first without data is '{absent[0]}'" if 0 < len(absent) < count else ""
    raise InputError(f"{where} has {len(own)} classes, but the model has {count}{first}", hint=HINT)


def _missing(names: Names, among: Names) -> list[str]:
    """Names that have no counterpart in `among` under any view."""
    present = {view(name) for name in among for view in VIEWS}
    return [name for name in names if not any(view(name) in present for view in VIEWS)]


def _difference(own: Names, wanted: Names) -> str:
    absent, unknown = _missing(wanted, own), _missing(own, wanted)
    if not absent and not unknown:
        return "several classes have the same name"
    sides = (("it has no", absent), ("the model has no", unknown))
    return ", and ".join(f"{words} {_some(names)}" for words, names in sides if names)


def _some(names: Names) -> str:
    """Quote the first three names."""
    quoted = ", ".join(f"'{name}'" for name in names[:3])
    return quoted + (f" and {len(names) - 3} more" if len(names) > 3 else "")
