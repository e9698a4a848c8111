"""A tar archive of an image folder, compressed or not."""

import os
import re
import tarfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Self

from nayer_cli.errors import InputError
from nayer_cli.images.image_tree import ImageTree, arrange, is_image
from nayer_cli.images.pictures import decode
from nayer_cli.images.source import Picture, Sample
from nayer_cli.storage.text import escaped, printable, user_path

LARGEST_IMAGE = 128 * 2**20
"""Bytes of an image file."""
PLAUSIBLE = 100
"""Largest ratio of the size of images to that of their archive; they are compressed already, and gzip reaches 1000."""


def recognizes(spec: str) -> bool:
    """Tell whether `spec` is a file with a name like `x.tar`, `x.tar.gz` or `x.tgz`."""
    return re.search(r"\.(tar(\.\w+)?|t[gbx]z2?)$", spec) is not None and user_path(spec).is_file()


def open_source(spec: str, split: str) -> "TarSource":
    """List the images of archive `spec`."""
    return TarSource(user_path(spec), split)


class TarSource:
    """An archive that is read from end to end and never unpacked to disk."""

    def __init__(self, path: Path, split: str) -> None:
        self.path = path
        with self._opened() as tar:
            members = list(tar)
        # Device files and links are no images. Names are only split at slashes: none can point anywhere.
        files = [(member.name, member) for member in members if member.isreg() and is_image(member.name)]
        for name, member in files:
            if member.size > LARGEST_IMAGE or member.issparse():
                raise InputError(
                    f"'{printable(name)}' in {path} is not an image: it declares {member.size:,} bytes",
                    hint="leave it out of the archive",
                )
        leaves = [member.name for member in members if member.isdir()]
        self.tree: ImageTree[tarfile.TarInfo] = arrange(files, leaves, split, str(path))
        self.classes: Sequence[str] | None = self.tree.classes

    def __len__(self) -> int:
        return len(self.tree.images)

    def samples(self, chosen: Collection[int]) -> Iterator[Sample]:
        """Yield images in the order of the archive, the only one that a compressed archive reads fast."""
        with self._opened() as tar:
            for i in chosen:
                member, label = self.tree.images[i]
                file = tar.extractfile(member)
                assert file is not None  # only regular files are listed
                yield Sample(escaped(member.name), partial(self._load, file.read(), label))

    @staticmethod
    def _load(data: bytes, label: int) -> tuple[Picture, int]:
        return decode(BytesIO(data)), label

    @contextmanager
    def _opened(self) -> Iterator[tarfile.TarFile]:
        try:
            with self.path.open("rb") as file, _Archive.open(fileobj=file, mode="r:*") as tar:
                yield tar
        except (InputError, MemoryError):
            raise
        except Exception as error:  # damaged archives bring about whatever their compression runs into
            # After the first line tarfile goes on with one for each compression that it tried.
            reason = printable(str(error).partition(":\n")[0]) or type(error).__name__
            raise InputError(f"cannot read archive {self.path}: {reason}", hint="copy or download it again") from error


class _Archive(tarfile.TarFile):
    """An archive that may not declare far more than it can hold."""

    @classmethod
    def taropen(cls, name: Any, mode: Any = "r", fileobj: Any = None, **options: Any) -> Self:
        return super().taropen(name, mode, _Bounded(fileobj), **options)


class _Bounded:
    """A file, unpacked or not, that refuses to go where it can have no images, and to read very much at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def seek(self, position: int) -> int:
        if position > max(LARGEST_IMAGE, PLAUSIBLE * self._size):
            raise ValueError(f"it declares {position:,} bytes and more, but has {self._size:,}")
        return self._file.seek(position)

    def read(self, count: int) -> bytes:
        if count > LARGEST_IMAGE:
            raise ValueError(f"it has a header of {count:,} bytes")
        return self._file.read(count)
