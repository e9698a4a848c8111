"""Doc2Vec (Le & Mikolov 2014): a gensim model that the user trained, `doc2vec:FILE`.

Gensim saves models as pickles, and a pickle can run any code. Only the few types of which a Doc2Vec model
consists are admitted here; a file that asks for anything else is refused before that is even imported.
"""

import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from hashlib import file_digest, sha256
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from nayer_cli.errors import EnvironmentFault, InputError
from nayer_cli.lte.encoder import Encoder
from nayer_cli.storage.text import printable, user_path

if TYPE_CHECKING:
    from torch import Tensor

ADMITTED = {
    ("builtins", "hash"),
    ("builtins", "int"),
    ("collections", "defaultdict"),
    ("gensim.models.doc2vec", "Doc2Vec"),
    ("gensim.models.keyedvectors", "KeyedVectors"),
    ("gensim.utils", "call_on_class_only"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.random._mt19937", "MT19937"),
    ("numpy.random._pickle", "__bit_generator_ctor"),
    ("numpy.random._pickle", "__randomstate_ctor"),
}

OTHER_WAYS = "save it with gensim's Doc2Vec.save, or make the pool yourself, as safetensors, and pass it with --lte"


class Doc2VecEncoder:
    """Infers the vector of each text as if it were a new document; the same on every call and machine."""

    def __init__(self, file: Path) -> None:
        self.name = f"doc2vec:{file}"
        self.revision = f"sha256:{_digest(file)}"
        self.file = file

    def encode(self, texts: Sequence[str]) -> "Tensor":
        """Return vectors `[K, E]` float32 of K texts. Words that the model has never seen are left out.

        Raises:
            EnvironmentFault: gensim is not installed.
            InputError: the file is not a Doc2Vec model; a text has no word that the model knows.

        """
        import torch

        return torch.from_numpy(np.stack([self._infer(text) for text in texts])).float()

    def _infer(self, text: str) -> Any:
        from gensim.models import doc2vec

        words = [word for word in re.findall(r"\w+", text.lower()) if word in self._model.wv.key_to_index]
        if not words:
            raise InputError(
                f"{self.file} knows no word of '{text}'", hint="train the model on a text with these words"
            )
        self._model.random.seed(0)
        # Gensim starts from Python's hash of the words, which is another one in every process.
        start = partial(doc2vec.pseudorandom_weak_vector, hashfxn=lambda text: crc32(text.encode()))
        with _replaced(doc2vec, "pseudorandom_weak_vector", start):
            return self._model.infer_vector(words)

    @cached_property
    def _model(self) -> Any:
        try:
            from gensim import utils
            from gensim.models import Doc2Vec
        except ImportError as error:
            raise EnvironmentFault(
                "encoder 'doc2vec' needs gensim, which is not installed",
                hint="pip install 'nayer-cli[doc2vec]' (Python 3.13 or older)",
            ) from error
        try:
            with _replaced(utils, "unpickle", _unpickle):
                return Doc2Vec.load(str(self.file))
        except Exception as error:  # damaged pickles bring about whatever their instructions run into
            reason = printable(str(error)) or type(error).__name__
            raise InputError(f"{self.file} is not a Doc2Vec model of gensim 4: {reason}", hint=OTHER_WAYS) from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which no model needs")
        found = super().find_class(module, name)
        return _unbuilt(found) if module.startswith("gensim.models") else found


def _unbuilt(model: type) -> type:
    """Return `model` without its constructor: loading needs none, and Doc2Vec's would open any file."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise pickle.UnpicklingError(f"it calls the constructor of {model.__name__}, which no model needs")

    return type(model.__name__, (model,), {"__init__": refuse})


def check(argument: str | None, is_used: bool = True) -> None:
    """Make sure that the file is there."""
    _file(argument)


def open_encoder(argument: str | None, device: str) -> Encoder:
    """Open the gensim model in file `argument`; `device` does not matter.

    Raises:
        InputError: no file is named, or it is not there.

    """
    return Doc2VecEncoder(_file(argument))


def _file(argument: str | None) -> Path:
    if argument is None:
        raise InputError("encoder 'doc2vec' needs a model", hint="--encoder doc2vec:FILE, saved by gensim's Doc2Vec")
    file = user_path(argument)
    if not file.is_file():
        raise InputError(
            f"there is no Doc2Vec model {file}",
            hint="name a file that gensim's Doc2Vec.save wrote: --encoder doc2vec:FILE",
        )
    return file


def _unpickle(path: str) -> Any:
    with Path(path).open("rb") as file:
        return _Unpickler(file, encoding="latin1").load()


def _digest(file: Path) -> str:
    """SHA-256 of the model: its file, and the large arrays that gensim saved next to it."""
    total = sha256()
    for part in [file, *sorted(file.parent.glob(f"{file.name}.*.npy"))]:
        with part.open("rb") as stream:
            total.update(file_digest(stream, "sha256").digest())
    return total.hexdigest()


@contextmanager
def _replaced(module: ModuleType, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Within the block `module.name` is `function`: gensim offers no other way in."""
    original = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, original)
