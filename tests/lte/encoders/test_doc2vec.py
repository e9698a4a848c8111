import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nayer_cli.errors import InputError
from nayer_cli.lte import encoder

HUGE = b"\x80\x04\x8e" + (2**42).to_bytes(8, "little")
"""A pickle of four terabytes, but for these."""
WORDS = ["cat", "dog", "truck", "bird", "horse", "frog"]


def trained(path: Path, sep_limit: int = 10 * 1024**2) -> str:
    """Save a Doc2Vec model of six words to `path`; arrays above `sep_limit` bytes lie beside it."""
    doc2vec = pytest.importorskip("gensim.models.doc2vec", reason="needs the extra doc2vec")
    texts = [doc2vec.TaggedDocument(["a", "photo", "of", word], [i]) for i, word in enumerate(WORDS * 20)]
    model = doc2vec.Doc2Vec(texts, vector_size=8, min_count=1, epochs=5, workers=1, seed=0)
    model.save(str(path), sep_limit=sep_limit)
    return f"doc2vec:{path}"


def test_texts_become_vectors_of_the_models_width(tmp_path: Path) -> None:
    vectors = encoder.find(trained(tmp_path / "m")).encode([f"a photo of a {word}" for word in WORDS])
    assert vectors.shape == (6, 8) and vectors.dtype == torch.float32
    assert torch.pdist(vectors).min() > 1e-4


def test_every_process_infers_the_same(tmp_path: Path) -> None:
    spec = trained(tmp_path / "m")
    code = "import sys; from nayer_cli.lte import encoder; print(encoder.find(sys.argv[1]).encode(['a cat']).tolist())"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}  # gensim's own start depends on it
    there = subprocess.check_output([sys.executable, "-c", code, spec], env=environment, text=True)
    assert there.strip() == str(encoder.find(spec).encode(["a cat"]).tolist())


def test_the_revision_covers_arrays_beside_the_file(tmp_path: Path) -> None:
    spec = trained(tmp_path / "m", sep_limit=0)
    before = encoder.find(spec).revision
    encoder.find(spec).encode(["cat"])
    arrays = sorted(tmp_path.glob("m.*.npy"))
    arrays[0].write_bytes(arrays[0].read_bytes() + b"x")
    assert encoder.find(spec).revision != before


def test_a_pickle_with_code_in_it_does_not_run(tmp_path: Path) -> None:
    pytest.importorskip("gensim", reason="needs the extra doc2vec")

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "it-ran"),))

    (tmp_path / "evil").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="mkdir, which no model needs"):
        encoder.find(f"doc2vec:{tmp_path / 'evil'}").encode(["cat"])
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([1, 2]), pickle.dumps({})[:-1], HUGE])
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("gensim", reason="needs the extra doc2vec")
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(InputError, match="is not a Doc2Vec model"):
        encoder.find(f"doc2vec:{tmp_path / 'm'}").encode(["cat"])


def test_a_text_of_unknown_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="knows no word of 'zebra'"):
        encoder.find(trained(tmp_path / "m")).encode(["zebra"])


@pytest.mark.parametrize("spec", ["doc2vec", "doc2vec:no-such-file"])
def test_a_missing_file_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match=r"Doc2Vec|needs a model"):
        encoder.find(spec)
