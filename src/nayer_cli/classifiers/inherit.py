"""A student that begins with its teacher's layers: find those that fit, and choose among many alike.

Layers are told by where they are in the tree of modules, and by names and shapes of what they hold. An element of a
sequence, such as a block of a stage, is taken whole or not at all, since half a block computes nothing sensible.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from operator import itemgetter

import torch
from torch import Tensor, nn

Named = tuple[str, nn.Module | Tensor]
"""A module, or a tensor that one holds itself, and its path in the network."""
Pair = tuple[Named, Named]
"""A piece of the student, and the piece of the teacher that fits there."""
Chosen = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Inherited:
    """The layers that a network took over from another one."""

    layers: dict[str, str] = field(default_factory=dict)
    """The path of each piece taken over, and where it was, in the student's order."""
    parameters: int = 0
    """Parameters in them."""


@torch.no_grad()
def inherit(student: nn.Module, teacher: nn.Module) -> Inherited:
    """Copy weights and running statistics of the teacher's layers into those of the student that they fit.

    Where a sequence of the teacher has more elements alike than the student's, those taken are `spread` over it.
    """
    taken = list(_fitting(("", student), ("", teacher)))
    parameters: set[nn.Parameter] = set()
    for (_, mine), (_, its) in taken:
        for (_name, tensor), (_, other) in zip(_tensors(mine), _tensors(its), strict=True):
            tensor.copy_(other)
            parameters |= {tensor} if isinstance(tensor, nn.Parameter) else set()
    layers = {path: origin for (path, _), (origin, _) in taken}
    return Inherited(layers, sum(parameter.numel() for parameter in parameters))


def spread(count: int, among: int) -> list[int]:
    """Choose `count` of the indices below `among`: the middle of each of that many equal parts."""
    return [among * (2 * number + 1) // (2 * count) for number in range(count)]


def _fitting(mine: Named, its: Named) -> Iterator[Pair]:
    """Yield what of two modules or tensors fits, in the largest pieces."""
    if _is_alike(mine, its):
        yield mine, its
    elif _is_sequence(mine) and _is_sequence(its):
        yield from _fitting_elements(_parts(mine), _parts(its))
    else:
        named = {_last(path): (path, part) for path, part in _parts(its)}
        for part in _parts(mine):
            if _last(part[0]) in named:
                yield from _fitting(part, named[_last(part[0])])


def _fitting_elements(ours: Sequence[Named], its: Sequence[Named]) -> Iterator[Pair]:
    """Yield what of the elements of two sequences fits, aligned so that it is as much as possible, in order."""
    matches = [[_matches(mine, other) for other in its] for mine in ours]
    chosen = _aligned([[_size(pairs) for pairs in row] for row in matches])
    for mine, other in _respaced(chosen, its):
        yield from matches[mine][other]


def _matches(mine: Named, other: Named) -> list[Pair]:
    """Return what of two elements fits: all or nothing, unless they are sequences themselves."""
    if not _is_alike(mine, other) and not _is_stage(mine):
        return []
    return list(_fitting(mine, other))


def _aligned(worth: Sequence[Sequence[int]]) -> Chosen:
    """Choose pairs (row, column), both rising, with the largest sum of `worth`."""
    best: list[tuple[int, Chosen]] = [(0, ())] * (len(worth[0]) + 1 if worth else 1)
    for row, values in enumerate(worth):
        line: list[tuple[int, Chosen]] = [(0, ())]
        for column, value in enumerate(values):
            total, pairs = best[column]
            both = (total + value, (*pairs, (row, column))) if value else (0, ())
            line.append(max(best[column + 1], line[-1], both, key=itemgetter(0)))
        best = line
    return best[-1][1]


def _respaced(chosen: Chosen, its: Sequence[Named]) -> Iterator[tuple[int, int]]:
    """Spread the columns chosen among neighbours that are alike over all of these."""
    bounds = [0, *(place for place in range(1, len(its)) if not _is_alike(its[place - 1], its[place])), len(its)]
    for start, end in pairwise(bounds):
        rows = [row for row, column in chosen if start <= column < end]
        yield from ((row, start + place) for row, place in zip(rows, spread(len(rows), end - start), strict=True))


def _is_alike(one: Named, other: Named) -> bool:
    """Whether two pieces hold tensors of the same names, shapes and kinds of number, and any at all."""
    kinds = [
        [(name, each.shape, each.is_floating_point()) for name, each in _tensors(part)] for _, part in (one, other)
    ]
    return kinds[0] == kinds[1] != []


def _tensors(part: nn.Module | Tensor) -> list[tuple[str, Tensor]]:
    """Return what a piece holds, by the name within it."""
    if isinstance(part, Tensor):
        return [("", part)]
    return [(name, value) for name, value in part.state_dict(keep_vars=True).items() if isinstance(value, Tensor)]


def _parts(named: Named) -> list[Named]:
    """Return the modules in a module, and its own tensors besides; a layer has no parts."""
    path, module = named
    if isinstance(module, Tensor) or next(module.children(), None) is None:
        return []
    own: Iterator[Named] = chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
    return [(f"{path}.{name}".lstrip("."), part) for name, part in chain(own, module.named_children())]


def _size(pairs: Sequence[Pair]) -> int:
    return sum(tensor.numel() for (_, part), _ in pairs for _, tensor in _tensors(part))


def _is_sequence(named: Named) -> bool:
    """Whether a module's parts are one after the other: by its class, or by names such as `block1`, `block2`."""
    if isinstance(named[1], (nn.Sequential, nn.ModuleList)):
        return True
    stems = [re.fullmatch(r"(.*?)\d+", _last(path)) for path, _ in _parts(named)]
    return None not in stems and len({stem[1] for stem in stems if stem}) == 1


def _is_stage(named: Named) -> bool:
    """Whether a module is a sequence of blocks: one of layers may be the inside of a block, and is taken whole."""
    return _is_sequence(named) and all(_parts(part) for part in _parts(named) if _tensors(part[1]))


def _last(path: str) -> str:
    return path.rpartition(".")[2]
