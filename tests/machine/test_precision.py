import pytest
import torch

from nayer_cli.machine import precision


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 0), torch.float32), ((7, 5), torch.float32), ((8, 0), torch.bfloat16)]
)
def test_auto_takes_bfloat16_only_where_it_is_native(monkeypatch, capability, dtype):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)  # which counts emulation
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: capability)
    monkeypatch.setattr("torch.version.hip", None)
    assert precision.choose("auto", torch.device("cuda")).dtype == dtype
