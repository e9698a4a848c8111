import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nayer_cli.errors import InputError
from nayer_cli.lte import encoder
from nayer_cli.lte.labels import read_labels
from nayer_cli.lte.pool import Pool, build_pool, cache_folder, cache_key, load_pool, save_pool

NAMES = ("cat", "dog", "maple_tree")


def pool(**changes: object) -> Pool:
    generator = torch.Generator().manual_seed(0)
    parts = {"embeddings": torch.randn(3, 8, generator=generator), "names": NAMES, "encoder": "sbert"}
    return Pool(**{**parts, "revision": "7", "prompt": "a {name}", **changes})  # type: ignore[arg-type]


def saved(path: Path, **changes: object) -> Path:
    save_pool(path, pool(**changes))
    return path


def test_a_pool_comes_back_as_it_was(tmp_path: Path) -> None:
    found = load_pool(saved(tmp_path / "p.safetensors"), NAMES)
    assert torch.equal(found.embeddings, pool().embeddings)
    assert (found.names, found.encoder, found.revision, found.prompt) == (NAMES, "sbert", "7", "a {name}")
    assert load_pool(tmp_path / "p.safetensors").names == NAMES


def test_equal_pools_give_equal_files_that_safetensors_reads(tmp_path: Path) -> None:
    files = [saved(tmp_path / f"{index}.safetensors") for index in range(5)]
    assert len({file.read_bytes() for file in files}) == 1
    assert torch.equal(load_file(files[0])["embeddings"], pool().embeddings)


def test_the_header_says_how_the_pool_was_made(tmp_path: Path) -> None:
    content = saved(tmp_path / "p.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    assert json.loads(header.pop("names")) == list(NAMES)
    assert len(header.pop("names_sha256")) == 64
    origin = {"encoder": "sbert", "revision": "7", "prompt": "a {name}"}
    assert header == {"format": "nayer.lte/1", "dtype": "float32", **origin}


def test_names_may_be_spelt_another_way(tmp_path: Path) -> None:
    assert len(load_pool(saved(tmp_path / "p"), ("Cat", "dog ", "maple tree")).embeddings) == 3


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cat", "dog"), "has 3 embeddings, but there are 2 classes"),
        (("cat", "dog", "car"), "for other classes: class 2 is 'maple_tree' there, and 'car' here"),
        (("dog", "cat", "maple_tree"), "a different order of the classes: class 0 is 'cat' there, and 'dog' here"),
    ],
)
def test_other_classes_are_refused(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_pool(saved(tmp_path / "p"), names)


def test_rows_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    embeddings = pool().embeddings
    embeddings[1, 3] = torch.nan
    with pytest.raises(InputError, match=r"'dog' \(class 1\) is not finite"):
        load_pool(saved(tmp_path / "p", embeddings=embeddings))


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e6])
def test_equal_rows_are_refused(scale: float, tmp_path: Path) -> None:
    embeddings = pool().embeddings * scale
    embeddings[2] = embeddings[0] * (1 + 1e-7)
    with pytest.raises(InputError, match=r"'cat' \(class 0\) and '.*' \(class .\) have equal embeddings"):
        load_pool(saved(tmp_path / "p", embeddings=embeddings))


def test_near_rows_with_a_large_common_part_are_kept(tmp_path: Path) -> None:
    embeddings = torch.full((3, 8), 10.0)
    embeddings[1, 0] += 0.01
    embeddings[2, 0] -= 0.01
    assert torch.equal(load_pool(saved(tmp_path / "p", embeddings=embeddings)).embeddings, embeddings)


def test_equal_rows_are_found_far_apart(tmp_path: Path) -> None:
    embeddings = torch.randn(2100, 4, generator=torch.Generator().manual_seed(0))
    embeddings[2099] = embeddings[1030]
    names = tuple(map(str, range(2100)))
    with pytest.raises(InputError, match=r"'1030' \(class 1030\) and '2099' \(class 2099\)"):
        load_pool(saved(tmp_path / "p", embeddings=embeddings, names=names))


@pytest.mark.parametrize("keep", [0, 5, 100, -4])
def test_a_truncated_file_is_refused(keep: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "p")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="not a valid safetensors file"):
        load_pool(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no LTE pool"):
        load_pool(tmp_path / "p")
    with pytest.raises(InputError, match="there is no LTE pool"):
        load_pool(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "nayer.lte/2"}, "has format nayer.lte/2, but this nayer reads nayer.lte/1"),
        ({"format": "nayer.checkpoint/1"}, "not an LTE pool: it holds nayer.checkpoint/1"),
        ({"names": '["cat", "dog", "car"]'}, "the header has been changed"),
        ({"names": "["}, "the header lacks class names"),
    ],
)
def test_a_header_that_is_not_ours_is_refused(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    content = saved(tmp_path / "p").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    save_file({"embeddings": pool().embeddings}, tmp_path / "q", metadata={**header, **changes})
    with pytest.raises(InputError, match=message):
        load_pool(tmp_path / "q")


@pytest.mark.parametrize(
    "tensors",
    [
        {"weight": torch.ones(3, 8)},
        {"embeddings": torch.eye(3), "more": torch.ones(1)},
        {"embeddings": torch.ones(3)},
        {"embeddings": torch.eye(3).long()},
        {"embeddings": torch.ones(3, 0)},
    ],
)
def test_other_tensors_are_refused(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "p")
    with pytest.raises(InputError, match=r"not an LTE pool|embeddings must be \[classes, width\]"):
        load_pool(tmp_path / "p")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_table_from_elsewhere_takes_the_callers_names(
    metadata: dict[str, str] | None, dtype: torch.dtype, tmp_path: Path
) -> None:
    save_file({"embeddings": pool().embeddings.to(dtype)}, tmp_path / "p", metadata=metadata)
    found = load_pool(tmp_path / "p", NAMES)
    assert found.embeddings.dtype == torch.float32
    assert (found.names, found.encoder) == (NAMES, "unknown")
    assert load_pool(tmp_path / "p").names == ("0", "1", "2")
    with pytest.raises(InputError, match="3 embeddings, but there are 4 classes"):
        load_pool(tmp_path / "p", (*NAMES, "car"))


@pytest.mark.parametrize(("data", "classes"), [("cifar10", 10), ("cifar100", 100), ("tiny_imagenet", 200)])
def test_published_clip_tables_are_read(data: str, classes: int, shared: Path) -> None:
    found = load_pool(shared / "lte" / f"{data}.clip-vit-b-32.safetensors")
    assert found.embeddings.shape == (classes, 512)
    assert 6 < found.embeddings.norm(dim=1).min() < found.embeddings.norm(dim=1).max() < 14


@pytest.mark.parametrize("own", [False, True])
def test_the_published_imagenet_table_is_taken_though_it_has_two_equal_cranes(shared: Path, own: bool) -> None:
    names = read_labels(str(shared / "lte" / "imagenet.labels.txt") if own else "imagenet", "index")
    assert load_pool(shared / "lte" / "imagenet.clip-vit-b-32.safetensors", names).same == ((134, 517),)


def test_equal_rows_are_taken_for_equal_names_alone(tmp_path: Path) -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    save_file({"embeddings": rows}, tmp_path / "table.safetensors")
    assert load_pool(tmp_path / "table.safetensors", ("bat (animal)", "cow", "bat (club)")).same == ((0, 2),)
    with pytest.raises(InputError, match=r"'bat' \(class 0\) and 'owl' \(class 2\) have equal embeddings"):
        load_pool(tmp_path / "table.safetensors", ("bat", "cow", "owl"))


def test_building_keeps_the_names_and_dedupes_only_the_prompts() -> None:
    class Lengths:
        name, revision = "lengths", "1"

        def encode(self, texts: list[str]) -> torch.Tensor:
            return torch.tensor([[float(len(text)), ord(text[-1])] for text in texts])

    built = build_pool(Lengths(), ["crane", "crane"], "a {name}", "index")
    assert built.embeddings.tolist() == [[9.0, ord("0")], [9.0, ord("1")]]
    assert built.names == ("crane", "crane")


def test_names_that_the_encoder_cannot_tell_apart_are_an_error() -> None:
    with pytest.raises(InputError, match="names are equal"):
        build_pool(encoder.find("onehot"), ["cat", "Cat"], "p2")

    class Blind:
        name, revision = "blind", "1"

        def encode(self, texts: list[str]) -> torch.Tensor:
            return torch.ones(len(texts), 4)

    with pytest.raises(InputError, match=r"encoder 'blind'.*'cat' \(class 0\) and 'dog' \(class 1\)"):
        build_pool(Blind(), ["cat", "dog"], "p2")


def test_an_encoder_that_does_not_give_a_row_each_is_named() -> None:
    class Short:
        name, revision = "short", "1"

        def encode(self, texts: list[str]) -> torch.Tensor:
            return torch.ones(len(texts) - 1, 4)

    with pytest.raises(InputError, match=r"encoder 'short' made \[2, 4\] of 3 names, not one row for each"):
        build_pool(Short(), NAMES, "p2")


def test_the_key_depends_on_all_that_the_pool_depends_on() -> None:
    base = (("a", "b"), "clip", "1", "{name}")
    others = [(("b", "a"), *base[1:]), (base[0], "sbert", *base[2:]), (*base[:2], "2", base[3]), (*base[:3], "{index}")]
    assert len({cache_key(*arguments) for arguments in [base, *others]}) == 5
    assert cache_key(*base) == cache_key(*base)


def test_the_cache_folder_follows_option_then_xdg_then_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/me/.cache/nayer/lte")
    assert cache_folder("~/c") == Path("/home/me/c/lte")
    monkeypatch.setenv("XDG_CACHE_HOME", "/tmp/x")
    assert cache_folder() == Path("/tmp/x/nayer/lte")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path("/home/me/.cache/nayer/lte")
