"""Text encoders that sentence-transformers runs."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from nayer_cli.errors import InputError
from nayer_cli.lte.modelfolder import check_folder

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 128


class SentenceEncoder:
    """A sentence-transformers model in a folder; loaded when it first encodes.

    Raises:
        InputError: the folder does not hold a whole model, or one that needs code of its own.

    """

    def __init__(self, name: str, revision: str, folder: Path, device: str) -> None:
        check_folder(folder)
        self.name = name
        self.revision = revision
        self.folder = folder
        self.device = device

    def encode(self, texts: Sequence[str]) -> "Tensor":
        """Return vectors `[K, E]` float32 of K texts, not normalized unless the model itself does so.

        Raises:
            InputError: the files cannot be loaded as a model.

        """
        import torch

        vectors = self._model.encode(list(texts), batch_size=BATCH, show_progress_bar=False)
        return torch.from_numpy(vectors).float()

    @cached_property
    def _model(self) -> Any:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns after every fork
        from safetensors import SafetensorError
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        from nayer_cli.classifiers.sealed import sealed

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            with sealed():
                return SentenceTransformer(str(self.folder), device=self.device, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, UnpicklingError) as error:
            raise InputError(
                f"cannot load text encoder '{self.name}' from {self.folder}: {error}",
                hint="the files may be damaged: remove the folder and fetch or save the model again",
            ) from error
