import sys
from importlib import metadata

import pytest

from nayer_cli import plugins
from nayer_cli.errors import InputError
from nayer_cli.runs import info


def test_extras_are_those_of_our_own_metadata():
    assert info.extras()["doc2vec"] == ["gensim"]
    assert "dev" not in info.extras()
    assert set(info.extras()) <= set(metadata.metadata(info.DISTRIBUTION).get_all("Provides-Extra"))


def test_a_package_that_is_absent_has_no_version():
    assert info.version("no-such-package") is None
    assert info.version("torch") == metadata.version("torch")


@pytest.mark.parametrize("folder", info.FOLDERS)
def test_every_plugin_has_a_sentence(folder):
    sentences = info.describe_plugins(folder)
    assert list(sentences) == plugins.names(folder)
    assert all(sentences.values())


def test_a_mismatch_of_torch_and_torchvision_comes_with_its_cure(tmp_path, monkeypatch):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    (problem,) = info.describe_installation()["problems"]
    assert "torchvision::nms" in problem["what"]
    assert problem["mend"] == info.MEND_MISMATCH


def test_a_pattern_that_no_network_matches_is_refused():
    with pytest.raises(InputError, match=r"'wrn_40' \(did you mean 'wrn_40_[12]'\?\)"):
        info.find_models("wrn_40")


def test_what_methods_keep_is_read_in_their_files():
    memory = info.describe_memory()
    assert list(memory) == plugins.names("methods")
    assert memory["nayer"] == {"keeps": "bank", "mb_per_1000_images": 3.1}
    assert memory["zskt"] == {"keeps": "live", "mb_per_1000_images": 0.0}
    assert memory["mb-dfkd"] == {"keeps": "live and bank", "mb_per_1000_images": 6.1}
    assert memory["spaceship"] == {"keeps": "features", "mb_per_1000_images": 213.0}
