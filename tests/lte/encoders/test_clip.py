import os
import subprocess
import sys
from pathlib import Path

import pytest

from nayer_cli.errors import EnvironmentFault
from nayer_cli.lte import encoder
from tiny_clip import COMMIT, REPO, WIDTH, fill_hub_cache


def test_clip_comes_from_the_hugging_face_cache(hub_cache: Path, tiny_clip: Path) -> None:
    fill_hub_cache(hub_cache, REPO, tiny_clip)
    clip = encoder.find("clip")
    assert (clip.name, clip.revision) == ("clip", f"{REPO}@{COMMIT}")
    assert clip.encode(["a photo of a cat"]).shape == (1, WIDTH)


@pytest.mark.parametrize(("variable", "below"), [("HF_HOME", "hub"), ("HF_HUB_CACHE", "")])
def test_the_cache_is_where_the_environment_says(variable: str, below: str, tmp_path: Path, tiny_clip: Path) -> None:
    fill_hub_cache(tmp_path / below, REPO, tiny_clip)
    environment = {key: value for key, value in os.environ.items() if key not in ("HF_HOME", "HF_HUB_CACHE")}
    command = [
        sys.executable,
        "-c",
        f"from nayer_cli.lte import download; print(download.snapshot('{REPO}', 'clip').name)",
    ]
    output = subprocess.check_output(command, env={**environment, variable: str(tmp_path)}, text=True)
    assert output.strip() == COMMIT


def test_without_it_the_fault_names_the_model(hub_cache: Path) -> None:
    with pytest.raises(EnvironmentFault, match=f"'clip' \\({REPO}\\) is not in the Hugging Face cache"):
        encoder.find("clip")
