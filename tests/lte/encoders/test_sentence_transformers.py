from pathlib import Path

import pytest

from nayer_cli.errors import EnvironmentFault, InputError
from nayer_cli.lte import encoder
from tiny_clip import COMMIT, WIDTH, fill_hub_cache


def test_a_folder_is_a_model(tiny_clip: Path) -> None:
    found = encoder.find(str(tiny_clip))
    assert found.name == str(tiny_clip)
    assert found.encode(["a cat", "a dog"]).shape == (2, WIDTH)


@pytest.mark.parametrize(
    ("spec", "repo"),
    [("lab/tiny", "lab/tiny"), ("tiny", "sentence-transformers/tiny"), ("sentence-transformers:lab/tiny", "lab/tiny")],
)
def test_a_name_is_a_model_of_the_hub(spec: str, repo: str, hub_cache: Path, tiny_clip: Path) -> None:
    fill_hub_cache(hub_cache, repo, tiny_clip)
    assert encoder.find(spec).revision == f"{repo}@{COMMIT}"


def test_a_misspelt_alias_is_suggested(hub_cache: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"did you mean 'clip'\?"):
        encoder.find("clpi")


@pytest.mark.parametrize("spec", ["./no-such-model", "/no/such/model", "sentence-transformers", "a b"])
def test_what_is_neither_a_folder_nor_a_name(spec: str, hub_cache: Path) -> None:
    with pytest.raises(InputError):
        encoder.find(spec)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"modules\.json is missing"):
        encoder.find(str(tmp_path))
