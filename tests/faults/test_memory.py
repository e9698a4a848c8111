"""When memory runs out the run ends with what to make smaller, and goes on from its checkpoint where there is more."""

from pathlib import Path

import pytest
import torch

from nayer_cli.__main__ import main
from quick import command, few_images, quick

FAULTS = {
    "of the host": MemoryError(),
    "of torch on the host": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    "of an accelerator": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", ["methods.nayer.Method.draw", "method.distillation_kl"])
def test_exit_code_3_with_what_to_try_and_the_state_intact(
    where: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = quick(tmp_path, {"eval.data": few_images(tmp_path)})

    def full(*arguments: object) -> torch.Tensor:
        if list((tmp_path / "run").glob("checkpoints/epoch-000002.json")):
            raise FAULTS[fault]
        return right(*arguments)

    import nayer_cli.method
    import nayer_cli.methods.nayer

    owner = nayer_cli.methods.nayer.Method if where.endswith("draw") else nayer_cli.method
    name = where.rpartition(".")[2]
    right = getattr(owner, name)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, full)
        assert main(command(settings, "--quiet")) == 3
    error = " ".join(capsys.readouterr().err.split())
    assert "out of memory" in error and "--batch-size" in error and f"--resume {tmp_path / 'run'}" in error
    assert main(["distill", "--resume", str(tmp_path / "run"), "--quiet"]) == 0
