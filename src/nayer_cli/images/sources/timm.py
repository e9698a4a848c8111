"""Data sets of timm's own factory: `torch/NAME@ROOT`, `hfds/NAME`, `wds/NAME@ROOT`, or `timm:NAME@ROOT`.

What follows `@` is the root folder; by default `data`, none for `hfds/` and `hfids/`, where it is a cache.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial
from io import BytesIO
from threading import Lock
from typing import Any

from nayer_cli.errors import EnvironmentFault, InputError
from nayer_cli.images.pictures import decode
from nayer_cli.images.source import Picture, Sample
from nayer_cli.storage.inputs import OF_LIBRARIES


def recognizes(spec: str) -> bool:
    """Tell whether `spec` begins like one of timm's names."""
    return spec.lower().startswith(OF_LIBRARIES)


def open_source(spec: str, split: str) -> "TimmSource":
    """Let timm open what `spec` names."""
    name, _, root = spec.removeprefix("timm:").partition("@")
    return TimmSource(name, root or (None if name.lower().startswith("hf") else "data"), split)


class TimmSource:
    """A data set that timm's factory makes, with random access or as a stream."""

    def __init__(self, name: str, root: str | None, split: str) -> None:
        self.name = name
        self.dataset = _timm_dataset(name, root, split)
        self.classes: Sequence[str] | None = _timm_classes(self.dataset)
        self._lock = Lock()  # readers share a file handle

    def __len__(self) -> int:
        return len(self.dataset)

    def samples(self, chosen: Collection[int]) -> Iterator[Sample]:
        """Yield images in timm's order."""
        if hasattr(self.dataset, "__getitem__"):
            for i in chosen:
                yield Sample(f"{self.name} {i}", partial(self._load, i))
            return
        wanted = frozenset(chosen)
        for i, item in enumerate(self._stream()):
            if i in wanted:
                yield Sample(f"{self.name} {i}", partial(tuple, item))

    def _stream(self) -> Iterator[Any]:
        """Yield what a stream decodes itself; it ends with its first damaged image."""
        count = 0
        try:
            for item in self.dataset:
                yield item
                count += 1
        except Exception as error:  # its many back ends raise whatever they meet
            raise InputError(
                f"data '{self.name}' cannot be read beyond image {count:,}: {error}", hint="download the data again"
            ) from error

    def _load(self, i: int) -> tuple[Picture, int]:
        # timm's own datasets hide a damaged image behind the next one: ask their reader.
        reader = getattr(self.dataset, "reader", None)
        with self._lock:
            if reader is None:
                picture, label = self.dataset[i]
                return picture, label
            file, label, *_ = reader[i]
            with file:
                data = file.read()
        return decode(BytesIO(data)), label


def _timm_dataset(name: str, root: str | None, split: str) -> Any:
    """Call timm's factory; what it prints goes to stderr, because stdout is for results."""
    from timm.data.dataset_factory import create_dataset

    try:
        with redirect_stdout(sys.stderr):
            return create_dataset(name, root=root, split=split, download=False)
    except ImportError as error:
        raise EnvironmentFault(
            f"data '{name}' needs a package that is not installed: {error.name}",
            hint=f"pip install {error.name}",
        ) from error
    except Exception as error:  # the factory asserts, and passes on what its many back ends raise
        text = str(error) or type(error).__name__
        fault = EnvironmentFault if "install" in text else InputError  # "Please install webdataset …"
        raise fault(
            f"timm cannot open data '{name}' (root {root or 'not given'}, split {split}): {text}",
            hint="write NAME@ROOT, for example torch/cifar10@./data; nothing is downloaded",
        ) from error


def _timm_classes(dataset: object) -> Sequence[str] | None:
    """Return class names by label if the data set knows them, in torchvision's way or a timm reader's."""
    names = getattr(dataset, "classes", None)
    if names is None:
        index = getattr(getattr(dataset, "reader", None), "class_to_idx", None) or {}
        names = sorted(index, key=index.__getitem__)
    # torchvision's ImageNet has a tuple of synonyms for each class.
    return [name if isinstance(name, str) else ", ".join(name) for name in names] or None
