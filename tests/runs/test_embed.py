import hashlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from forks import FORKS, apart
from nayer_cli.config import LteConfig
from nayer_cli.errors import ConfigError, EnvironmentFault, InputError
from nayer_cli.lte.pool import load_pool, save_pool
from nayer_cli.runs.embed import embed, find_or_build_pool
from tiny_clip import COMMIT, REPO, WIDTH, fill_hub_cache


def settings(tmp_path: Path, **changes: object) -> dict[str, object]:
    base = {"labels": "cifar10", "encoder": "onehot", "device": "cpu", "cache_dir": str(tmp_path / "cache")}
    return {**base, **changes}


def test_the_result_describes_the_file(tmp_path: Path) -> None:
    result = embed(settings(tmp_path))
    assert (result.classes, result.dim, result.cached) == (10, 10, False)
    assert (result.encoder, result.prompt) == ("onehot", None)  # it reads no text
    assert result.path.parent == tmp_path / "cache" / "lte"
    assert result.sha256 == hashlib.sha256(result.path.read_bytes()).hexdigest()
    assert load_pool(result.path).names[3] == "cat"


def test_the_second_call_answers_from_the_cache(tmp_path: Path) -> None:
    first, second = embed(settings(tmp_path)), embed(settings(tmp_path, prompt="a photo of a {name}"))
    assert second.cached
    assert (second.path, second.sha256) == (first.path, first.sha256)


@pytest.mark.parametrize("change", [{"prompt": "p1"}, {"encoder": "random"}, {"labels": "digits"}])
def test_another_question_gets_another_pool(change: dict[str, object], tmp_path: Path) -> None:
    first = embed(settings(tmp_path))
    other = embed(settings(tmp_path, **change))
    assert not other.cached and other.path != first.path


def test_clip_from_the_cache_of_the_hub(tmp_path: Path, hub_cache: Path, tiny_clip: Path) -> None:
    fill_hub_cache(hub_cache, REPO, tiny_clip)
    result = embed(settings(tmp_path, encoder="clip"))
    assert (result.dim, result.encoder, result.revision) == (WIDTH, "clip", f"{REPO}@{COMMIT}")
    assert embed(settings(tmp_path, encoder="clip")).cached


def test_a_pool_in_the_cache_needs_no_encoder_library(tmp_path: Path, tiny_clip: Path) -> None:
    arguments = settings(tmp_path, encoder=str(tiny_clip))
    embed(arguments)
    code = (
        "import sys; from nayer_cli.runs.embed import embed; "
        f"assert embed({arguments!r}).cached; "
        "assert not {'sentence_transformers', 'transformers'} & set(sys.modules)"
    )
    apart(exec, code, {})


def test_out_names_the_file(tmp_path: Path) -> None:
    result = embed(settings(tmp_path, out=str(tmp_path / "new" / "pool.safetensors")))
    assert result.path == tmp_path / "new" / "pool.safetensors"
    assert result.sha256 == embed(settings(tmp_path)).sha256


def test_a_damaged_entry_of_the_cache_is_made_again(tmp_path: Path) -> None:
    path = embed(settings(tmp_path)).path
    path.write_bytes(path.read_bytes()[:50])
    assert not embed(settings(tmp_path)).cached
    assert embed(settings(tmp_path)).cached


def test_builders_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, FORKS) as pool:
        built = list(pool.map(embed, [settings(tmp_path)] * 2))
    assert built[0].sha256 == built[1].sha256
    assert [path.suffix for path in (tmp_path / "cache" / "lte").iterdir()] == [".safetensors"]


def test_equal_names_are_refused_or_told_apart(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("crane\ncat\ncrane\n")
    names = str(tmp_path / "names")
    with pytest.raises(InputError, match="'crane' \\(line 1, line 3\\)"):
        embed(settings(tmp_path, labels=names))
    result = embed(settings(tmp_path, labels=names, encoder="sbert", dedupe="index"))
    assert load_pool(result.path).names == ("crane", "cat", "crane")


def test_a_ready_made_pool_is_checked_and_copied(tmp_path: Path) -> None:
    made = embed(settings(tmp_path, encoder="random"))
    copied = embed(settings(tmp_path, file=str(made.path), out=str(tmp_path / "copy")))
    assert (copied.cached, copied.sha256, copied.encoder) == (True, made.sha256, "random")
    with pytest.raises(InputError, match="other classes"):
        embed(settings(tmp_path, file=str(made.path), labels="digits"))


def test_published_clip_table_with_the_names_of_cifar10(tmp_path: Path, shared: Path) -> None:
    table = shared / "lte" / "cifar10.clip-vit-b-32.safetensors"
    result = embed(settings(tmp_path, file=str(table), out=str(tmp_path / "ours")))
    assert load_pool(result.path).names[:2] == ("airplane", "automobile")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "no class names"),
        ({"prompt": "a photo"}, "neither {name} nor {index}"),
        ({"dedupe": "never"}, "dedupe"),
        ({"encodr": "clip"}, "did you mean 'encoder'"),
        ({"device": "gpu"}, "device 'gpu'"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        embed(settings(tmp_path, **change))


def test_a_cache_that_cannot_be_written_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(EnvironmentFault) as fault:
        embed(settings(tmp_path))
    assert fault.value.hint is not None and "--cache-dir" in fault.value.hint


def test_distill_asks_with_the_names_that_it_has(tmp_path: Path) -> None:
    lte = LteConfig(encoder="random", cache_dir=str(tmp_path))
    pool, path, cached = find_or_build_pool(lte, ["cat", "dog"], "cpu")
    again, same_path, found = find_or_build_pool(lte, ("cat", "dog"), "cpu")
    assert (cached, found, path) == (False, True, same_path)
    assert torch.equal(pool.embeddings, again.embeddings)


def test_an_entry_for_other_names_is_never_taken(tmp_path: Path) -> None:
    lte = LteConfig(encoder="random", cache_dir=str(tmp_path))
    pool, path, _ = find_or_build_pool(lte, ["cat", "dog"], "cpu")
    save_pool(path, pool.__class__(pool.embeddings, ("dog", "cat"), "random", "1", pool.prompt))
    assert find_or_build_pool(lte, ["cat", "dog"], "cpu")[0].names == ("cat", "dog")


def test_what_is_no_pool_is_not_replaced(tmp_path: Path):
    out = tmp_path / "labels.txt"
    out.write_text("cat\ndog\n")
    settings = {"labels": str(out), "encoder": "random", "cache_dir": str(tmp_path / "cache"), "device": "cpu"}
    with pytest.raises(InputError, match="already exists and is not an LTE pool"):
        embed(settings | {"out": str(out)})
    assert out.read_text() == "cat\ndog\n"
    assert (
        embed(settings | {"out": str(tmp_path / "pool")}).sha256
        == embed(settings | {"out": str(tmp_path / "pool")}).sha256
    )
