from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from nayer_cli.classifiers.model import Classifier, load_classifier, new_classifier, new_network, save_classifier
from nayer_cli.classifiers.pretrained import from_cache
from nayer_cli.config import ModelConfig
from nayer_cli.errors import EnvironmentFault, InputError
from tiny_clip import fill_hub_cache
from tiny_hub import hub_of, serve, use_hub

REPO = "mylab/wrn"
CLOSED = "http://127.0.0.1:9"


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, Classifier]:
    """A model as it lies on the hub."""
    classifier = new_network(ModelConfig("wrn_16_1"), 3, ("a", "b", "c"))
    save_classifier(tmp_path / "repository", classifier, card="", extra={})
    return tmp_path / "repository", classifier


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that is not switched off, but does not answer."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", CLOSED)


@pytest.mark.usefixtures("hub_cache", "unreachable")
@pytest.mark.parametrize("name", ["resnet50", f"hf-hub:{REPO}"])
def test_an_unreachable_hub_is_told(name: str) -> None:
    with pytest.raises(EnvironmentFault, match="cannot be reached") as fault:
        load_classifier(ModelConfig(name))
    assert "--teacher-weights" in str(fault.value.hint)
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.usefixtures("unreachable")
def test_a_cached_model_needs_no_hub(hub_cache: Path, repository: tuple[Path, Classifier]) -> None:
    folder, classifier = repository
    fill_hub_cache(hub_cache, REPO, folder)
    loaded = load_classifier(ModelConfig(f"hf-hub:{REPO}"))
    assert (loaded.name, loaded.labels, loaded.key) == ("wrn_16_1", ("a", "b", "c"), "wrn_16_1")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded.network(images), classifier.network.eval()(images))
    student = new_classifier(ModelConfig(f"hf-hub:{REPO}"), loaded)
    assert torch.equal(student.network.eval()(images), loaded.network(images))


@pytest.mark.usefixtures("hub_cache")
def test_a_model_is_downloaded_and_an_unknown_one_is_not(
    repository: tuple[Path, Classifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(hub_of(REPO, repository[0])) as endpoint:
        use_hub(monkeypatch, endpoint)
        assert load_classifier(ModelConfig(f"hf-hub:{REPO}")).labels == ("a", "b", "c")
        with pytest.raises(InputError, match="the hub has no model 'hf-hub:mylab/other', or not for you"):
            load_classifier(ModelConfig("hf-hub:mylab/other"))


def test_what_timm_cannot_load_is_explained(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="timm cannot load 'resnet50': first") as fault,
        from_cache("resnet50", tmp_path),
    ):
        assert constants.HF_HUB_OFFLINE is True
        raise ValueError("first\nsecond")
    assert str(tmp_path) in str(fault.value.hint)


@pytest.mark.usefixtures("unreachable")
def test_old_names_mean_todays_models(hub_cache: Path) -> None:
    with pytest.warns(UserWarning, match="deprecated"), pytest.raises(EnvironmentFault) as fault:
        load_classifier(ModelConfig("mobilenetv3_large_100_miil"))
    assert "'mobilenetv3_large_100.miil_in21k_ft_in1k' (model.safetensors of timm/" in str(fault.value)
