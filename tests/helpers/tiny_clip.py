"""A CLIP with random weights, in the layout in which clip-ViT-B-32 is published: real code paths, no download."""

import json
import shutil
from pathlib import Path

REPO = "sentence-transformers/clip-ViT-B-32"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WIDTH = 16


def write_tiny_clip(folder: Path) -> Path:
    """Save a randomly initialized CLIP to `folder`; its text embeddings are `[K, 16]`."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = _tokens()
    text = {
        **tower,
        "vocab_size": len(tokens),
        "max_position_embeddings": 77,
        "bos_token_id": tokens["<|startoftext|>"],
        "eos_token_id": tokens["<|endoftext|>"],
        "pad_token_id": tokens["<|endoftext|>"],
    }
    vision = {**tower, "image_size": 32, "patch_size": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))
    part = folder / "0_CLIPModel"
    model.save_pretrained(part)
    (part / "merges.txt").write_text("#version: 0.2\n")
    _write(part / "vocab.json", tokens)
    _write(part / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77})
    _write(part / "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor"})
    kind = "sentence_transformers.models.CLIPModel"
    _write(folder / "modules.json", [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": kind}])
    return folder


def fill_hub_cache(hub_dir: Path, repo_id: str, folder: Path) -> Path:
    """Put the model in `folder` into a Hugging Face cache, as if `repo_id` had been downloaded."""
    repo = hub_dir / f"models--{repo_id.replace('/', '--')}"
    snapshot = repo / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    return snapshot


def _tokens() -> dict[str, int]:
    """Return single bytes only: names need no merges to be told apart."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return {word: index for index, word in enumerate(words)}


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document))
