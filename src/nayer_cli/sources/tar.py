"""A tar archive of an image folder, compressed or not."""

import gzip
import lzma
import re
import tarfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path

from nayer_cli.errors import InputError
from nayer_cli.image_tree import ImageTree, arrange, is_image
from nayer_cli.pictures import decode
from nayer_cli.source import Picture, Sample


def recognizes(spec: str) -> bool:
    """Tell whether `spec` is a file with a name like `x.tar`, `x.tar.gz` or `x.tgz`."""
    return re.search(r"\.(tar(\.\w+)?|t[gbx]z2?)$", spec) is not None and Path(spec).expanduser().is_file()


def open_source(spec: str, split: str) -> "TarSource":
    """List the images of archive `spec`."""
    return TarSource(Path(spec).expanduser(), split)


class TarSource:
    """An archive that is read from end to end and never unpacked to disk."""

    def __init__(self, path: Path, split: str) -> None:
        self.path = path
        with self._opened() as tar:
            members = list(tar)
        # Device files and links are no images. Names are only split at slashes: none can point anywhere.
        files = ((member.name, member) for member in members if member.isreg() and is_image(member.name))
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
                yield Sample(member.name, partial(self._load, file.read(), label))

    @staticmethod
    def _load(data: bytes, label: int) -> tuple[Picture, int]:
        return decode(BytesIO(data)), label

    @contextmanager
    def _opened(self) -> Iterator[tarfile.TarFile]:
        try:
            with tarfile.open(self.path, "r:*") as tar:
                yield tar
        except (tarfile.TarError, OSError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
            # After the first line tarfile goes on with one for each compression that it tried.
            reason = str(error).partition(":\n")[0]
            raise InputError(f"cannot read archive {self.path}: {reason}") from error
