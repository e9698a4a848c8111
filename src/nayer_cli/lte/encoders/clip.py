"""CLIP ViT-B/32 (Radford et al. 2021), the text tower that NAYER uses: projected, 512 numbers."""

from nayer_cli.lte import download
from nayer_cli.lte.encoder import Encoder, refuse_argument
from nayer_cli.lte.sentence import SentenceEncoder

REPO = "sentence-transformers/clip-ViT-B-32"


def check(argument: str | None, is_used: bool = True) -> None:
    """Refuse an argument; make sure that the model can be had if it is used."""
    refuse_argument("clip", argument)
    if is_used:
        download.require(REPO, "clip")


def open_encoder(argument: str | None, device: str) -> Encoder:
    """Find CLIP in the Hugging Face cache, or on the hub."""
    refuse_argument("clip", argument)
    folder = download.snapshot(REPO, "clip")
    return SentenceEncoder("clip", f"{REPO}@{folder.name}", folder, device)
