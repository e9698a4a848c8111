import shutil
from pathlib import Path

import pytest
import torch

from nayer_cli.errors import InputError
from nayer_cli.lte.sentence import BATCH, SentenceEncoder
from tiny_clip import WIDTH

TEXTS = ["a photo of a cat", "a photo of a dog", "a photo of a maple tree"]


def test_embeddings_are_raw_and_tell_texts_apart(tiny_clip: Path) -> None:
    vectors = SentenceEncoder("tiny", "1", tiny_clip, "cpu").encode(TEXTS)
    assert vectors.shape == (3, WIDTH) and vectors.dtype == torch.float32
    assert torch.pdist(vectors).min() > 0.01
    assert (vectors.norm(dim=1) - 1).abs().min() > 0.1


def test_they_can_take_part_in_training(tiny_clip: Path) -> None:
    vectors = SentenceEncoder("tiny", "1", tiny_clip, "cpu").encode(TEXTS)
    weight = torch.ones(WIDTH, requires_grad=True)
    (vectors @ weight).sum().backward()  # tensors made in inference mode would refuse
    assert weight.grad is not None


def test_a_batch_boundary_changes_nothing(tiny_clip: Path) -> None:
    encoder = SentenceEncoder("tiny", "1", tiny_clip, "cpu")
    names = [f"class {index}" for index in range(BATCH + 3)]
    assert torch.allclose(encoder.encode(names)[-1:], encoder.encode(names[-1:]), atol=1e-5)


def test_nothing_is_printed(tiny_clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    SentenceEncoder("tiny", "1", tiny_clip, "cpu").encode(TEXTS)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_damaged_weights_are_an_input_error(tiny_clip: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_clip, tmp_path / "model"))
    weights = folder / "0_CLIPModel" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    encoder = SentenceEncoder("tiny", "1", folder, "cpu")
    with pytest.raises(InputError, match="cannot load text encoder 'tiny'"):
        encoder.encode(TEXTS)
