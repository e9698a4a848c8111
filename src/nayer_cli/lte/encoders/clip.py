"""CLIP ViT-B/32 (Radford et al. 2021), the text tower that NAYER uses: projected, 512 numbers."""

from nayer_cli.lte import download
from nayer_cli.lte.encoder import Encoder, refuse_argument
from nayer_cli.lte.sentence import SentenceEncoder

REPO = "sentence-transformers/clip-ViT-B-32"


def open_encoder(argument: str | None, device: str) -> Encoder:
    """Find CLIP in the Hugging Face cache, or on the hub."""
    refuse_argument("clip", argument)
    folder = download.snapshot(REPO, "clip")
    return SentenceEncoder("clip", f"{REPO}@{folder.name}", folder, device)
