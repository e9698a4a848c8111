"""Files of strangers: pickled code never runs, and what a small file declares is not believed."""

import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hostile
from hostile import TERA, Payload
from nayer_cli.__main__ import main
from nayer_cli.classifiers.weights import NO_CODE, read_weights, refusing_code
from nayer_cli.errors import InputError
from nayer_cli.images.labelled import open_images
from nayer_cli.types import ImageShape
from tiny_clip import fill_hub_cache

WEIGHTS = {"weight": torch.ones(2, 3)}
MIB = 2**20


def with_optimizer(payload: Payload) -> dict[str, Any]:
    return {"state_dict": WEIGHTS, "optimizer": {"state": {0: {"momentum_buffer": payload}}, "param_groups": []}}


def save_zip(path: Path, content: object) -> None:
    torch.save(content, path)


def save_legacy(path: Path, content: object) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_pickle(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "ckpt"])
@pytest.mark.parametrize("save", [save_zip, save_legacy, save_pickle])
@pytest.mark.parametrize("content", [lambda payload: payload, with_optimizer], ids=["bare", "optimizer-state"])
def test_code_in_a_teacher_is_never_run(
    suffix: str,
    save: Callable[[Path, object], None],
    content: Callable[[Payload], object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / f"teacher.{suffix}"
    save(path, content(Payload(tmp_path / "it-ran")))
    assert main(["distill", "--teacher-weights", str(path), "--device", "cpu", "--out", str(tmp_path / "run")]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert f"teacher.{suffix} " in err and "save its weights alone: safetensors" in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == [path]


def embedding_pt(path: Path, payload: Payload) -> None:
    torch.save({"embeddings": payload}, path)


def embedding_npy(path: Path, payload: Payload) -> None:
    np.save(path, np.array([payload], dtype=object))
    path.with_name(f"{path.name}.npy").rename(path)


def embedding_npz(path: Path, payload: Payload) -> None:
    with path.open("wb") as file:
        np.savez(file, embeddings=np.array([payload], dtype=object))


def embedding_pickle(path: Path, payload: Payload) -> None:
    path.write_bytes(pickle.dumps(payload))


@pytest.mark.parametrize("save", [embedding_pt, embedding_npy, embedding_npz, embedding_pickle])
def test_code_in_an_embedding_is_never_run(
    save: Callable[[Path, Payload], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "pool", Payload(tmp_path / "it-ran"))
    assert main(["distill", "--lte", str(tmp_path / "pool"), "--device", "cpu", "--out", str(tmp_path / "run")]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "pool is not a valid safetensors file: it is a" in err and "save_file({'embeddings': table}, FILE)" in err
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]


class Build:
    """Calls the constructor of a class when it is unpickled."""

    def __init__(self, kind: type, **options: object) -> None:
        self.kind, self.options = kind, options

    def __reduce__(self) -> tuple[Any, ...]:
        return self.kind, (), self.options


def test_a_doc2vec_file_calls_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doc2vec = pytest.importorskip("gensim.models.doc2vec", reason="needs the extra doc2vec")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    for content, word in ((Payload(tmp_path / "it-ran"), "mkdir"), (Build(doc2vec.Doc2Vec), "constructor of Doc2Vec")):
        (tmp_path / "model").write_bytes(pickle.dumps(content))
        arguments = ["--labels", tmp_path / "names.txt", "--encoder", f"doc2vec:{tmp_path / 'model'}"]
        assert main(["embed", *map(str, arguments), "--cache-dir", str(tmp_path / "cache")]) == 2
        err = " ".join(capsys.readouterr().err.split())
        assert word in err and "safetensors" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "names.txt"]


@pytest.mark.parametrize("file", ["pytorch_model.bin", "evil.pt"])
@pytest.mark.parametrize("save", [save_zip, save_legacy])
def test_code_in_a_model_of_the_hub_is_never_run(
    file: str, save: Callable[[Path, object], None], hub_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    facts = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": 3, "hf_hub_filename": file}
    document = {"architecture": "wrn_16_1", "num_classes": 3, "pretrained_cfg": facts}
    (repository / "config.json").write_text(json.dumps(document))
    save(repository / file, with_optimizer(Payload(tmp_path / "it-ran")))
    fill_hub_cache(hub_cache, "mylab/evil", repository)
    code = main(["eval", "hf-hub:mylab/evil", "--data", "digits", "--device", "cpu"])
    told = " ".join(capsys.readouterr().err.split())
    if file == "evil.pt":  # which file holds the weights is not for a stranger to say: there are none by our names
        assert code == 3 and "model.safetensors of mylab/evil" in told
    else:
        assert code == 2 and "hold pickled code, which nayer never executes" in told and "safetensors" in told
    assert not (tmp_path / "it-ran").exists()


def test_no_library_reads_code_while_nayer_loads(tmp_path: Path) -> None:
    torch.save(Payload(tmp_path / "it-ran"), tmp_path / "x.pt")
    with refusing_code(), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "x.pt", weights_only=False)
    assert not (tmp_path / "it-ran").exists() and NO_CODE not in os.environ


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")  # which torch says before it refuses
@pytest.mark.parametrize("save", [save_zip, save_legacy, save_pickle])
def test_code_in_a_text_encoder_is_never_run(
    save: Callable[[Path, object], None], tiny_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny_clip, tmp_path / "clip"))
    (folder / "0_CLIPModel" / "model.safetensors").unlink()
    save(folder / "0_CLIPModel" / "pytorch_model.bin", {"weight": Payload(tmp_path / "it-ran")})
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    arguments = ["--labels", tmp_path / "names.txt", "--encoder", folder, "--cache-dir", tmp_path / "cache"]
    assert main(["embed", *map(str, arguments)]) == 2
    assert "cannot load text encoder" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "it-ran").exists()


def legacy_terabyte(path: Path) -> None:
    save_legacy(path, WEIGHTS)
    content = path.read_bytes()
    # In the pickle a storage of six elements (K\x06) becomes one of a tera.
    path.write_bytes(content.replace(b"X\x03\x00\x00\x00cpuq\x06K\x06", b"X\x03\x00\x00\x00cpuq\x06\x8a\x06" + _tera()))


def _tera() -> bytes:
    return TERA.to_bytes(6, "little")


def overlapping_zip(path: Path) -> None:
    """Write an archive whose many records are all the same bytes."""
    torch.save(WEIGHTS, path)
    with zipfile.ZipFile(path, "a") as archive:
        record = next(record for record in archive.infolist() if record.filename.endswith("data.pkl"))
        for number in range(1000):
            twin = copy(record)
            twin.filename, twin.file_size, twin.compress_size = f"archive/data/{number + 1}", MIB, MIB
            archive.filelist.append(twin)
        archive._didModify = True  # type: ignore[attr-defined]


def huge_image(path: Path) -> None:
    """Write an archive whose image is a hole in the file."""
    hostile.lying_tar(path, "cat/1.png", 129 * MIB)
    os.truncate(path, 130 * MIB)


LIES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "storage-of-a-tera.pth": ("weights", lambda path: hostile.checkpoint(path, (TERA,), (1,), TERA), "cannot be read"),
    "tensor-of-a-tera.pth": ("weights", lambda path: hostile.checkpoint(path, (TERA,), (1,)), "cannot be read"),
    "one-row-a-tera-times.pth": (
        "weights",
        lambda path: hostile.checkpoint(path, (TERA, 3), (0, 1)),
        "tensor 'weight' declares 12,000,000,000,000 bytes, but the file has",
    ),
    "bomb.pth": (
        "weights",
        lambda path: hostile.checkpoint(path, (2**22,), (1,), 2**22, packed=True),
        "not an archive that torch.save made: '",
    ),
    "overlapping.pth": ("weights", overlapping_zip, "bytes declare 1,0"),
    "legacy-of-a-tera.pth": ("weights", legacy_terabyte, "cannot be read as a torch checkpoint"),
    "sparse.pth": (
        "weights",
        lambda path: save_zip(path, {"weight": torch.ones(1).to_sparse()}),
        "tensor 'weight' is sparse",
    ),
    "without-data.pth": (
        "weights",
        lambda path: save_zip(path, {"weight": torch.ones(TERA, device="meta")}),
        "tensor 'weight' is without data",
    ),
    "a-tera.npz": (
        "npz",
        lambda path: hostile.npz(path, {"images": hostile.npy((TERA, 8, 8)), "labels": hostile.npy((TERA,))}),
        "'images' in",
    ),
    "product-overflows.npz": (
        "npz",
        lambda path: hostile.npz(path, {"images": hostile.npy((2**32, 2**32))}),
        "'images' in",
    ),
    "bomb.npz": (
        "npz",
        lambda path: hostile.npz(path, {"images": hostile.npy((150 * MIB, 1, 1)) + bytes(150 * MIB)}, packed=True),
        "'images' in",
    ),
    "a-tera.tar": ("tar", lambda path: hostile.lying_tar(path, "cat/1.png", TERA), "it declares 1,000,000,00"),
    "hole-of-a-tera.tar": (
        "tar",
        lambda path: hostile.lying_tar(path, "cat/1.png", TERA, sparse=True),
        "'cat/1.png' in",
    ),
    "bomb.tar.gz": (
        "tar",
        lambda path: hostile.tar(path, {f"cat/{i}.png": 100 * MIB for i in range(2)}),
        "bytes and more, but has",
    ),
    "huge-image.tar": ("tar", huge_image, "'cat/1.png' in"),
    "huge-name.tar.gz": (
        "tar",
        lambda path: hostile.tar(path, {"cat/1.png": 129 * MIB}, tarfile.GNUTYPE_LONGNAME),
        "it has a header of 135,",
    ),
}  # fmt: skip
READERS = {
    "weights": "nayer_cli.classifiers.weights:read_weights",
    "npz": "nayer_cli.images.sources.npz:read_npz",
    "tar": "hostile:read_tar",
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, hostile.Refusal]:
    """Let a process with little memory read every lying file."""
    folder = tmp_path_factory.mktemp("lies")
    for name, (_, write, _) in LIES.items():
        write(folder / name)
    files = {str(folder / name): READERS[reader] for name, (reader, _, _) in LIES.items()}
    return {Path(path).name: found for path, found in hostile.read_all(files).items()}


@pytest.mark.parametrize("name", LIES)
def test_what_a_small_file_declares_is_refused_before_room_is_made(
    name: str, refusals: dict[str, hostile.Refusal]
) -> None:
    refusal = refusals[name]
    assert (refusal.kind, refusal.message.count("\n")) == ("InputError", 0)
    assert name in refusal.message and LIES[name][2] in refusal.message
    assert refusal.grown_mb < 32


@pytest.mark.parametrize("name", ["labels", "class_names"])
def test_objects_in_an_npz_are_never_unpickled(name: str, tmp_path: Path) -> None:
    arrays = {"images": np.zeros((1, 4, 4), np.uint8), "labels": np.zeros(1, int), "class_names": np.array(["a"])}
    np.savez(tmp_path / "x.npz", **{**arrays, name: np.array([Payload(tmp_path / "it-ran")], dtype=object)})
    with pytest.raises(InputError, match=r"x\.npz: Object arrays cannot be loaded") as fault:
        open_images(str(tmp_path / "x.npz"), shape=ImageShape(1, 4, 4))
    assert "numpy.savez" in str(fault.value.hint)
    assert not (tmp_path / "it-ran").exists()


def test_a_picture_that_declares_gigapixels_is_named(tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "images" / "cat" / "1.png").write_bytes(hostile.png(50_000, 50_000))
    images = open_images(str(tmp_path / "images"), shape=ImageShape(1, 4, 4))
    with pytest.raises(InputError, match=r"cat/1\.png: .*pixels"):
        list(images.batches(8))


def test_an_encrypted_archive_and_an_unknown_compression_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((1, 4, 4), np.uint8), labels=np.zeros(1, int))
    content = (tmp_path / "x.npz").read_bytes()
    start = content.index(b"PK\x01\x02")
    for offset, value, message in ((8, 1, "encrypted"), (10, 77, "compression method")):
        changed = bytearray(content)
        changed[start + offset] |= value
        changed[offset - 2] |= value
        (tmp_path / "x.npz").write_bytes(changed)
        with pytest.raises(InputError, match=rf"x\.npz: .*{message}"):
            open_images(str(tmp_path / "x.npz"), shape=ImageShape(1, 4, 4))


def test_a_checkpoint_with_keys_that_never_end_is_read(tmp_path: Path) -> None:
    key: Any = ()
    for _ in range(12):
        key = (key, key)
    torch.save({"state_dict": WEIGHTS, key: 1}, tmp_path / "x.pth")
    assert read_weights(tmp_path / "x.pth").keys() == WEIGHTS.keys()


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {"epoch": 1}
    content["model"] = content
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match="holds no weights, only: epoch, model"):
        read_weights(tmp_path / "x.pth")


def test_a_run_directory_of_a_stranger_names_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 8, 8]}})
    )
    torch.save(Payload(tmp_path / "it-ran"), tmp_path / "pytorch_model.bin")
    assert main(["eval", str(tmp_path), "--data", "digits", "--device", "cpu"]) == 2
    assert "holds pickled code" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "it-ran").exists()
