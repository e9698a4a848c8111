import pytest
import torch

from nayer_cli.errors import ConfigError, EnvironmentFault
from nayer_cli.machine.device import resolve_device


def test_auto_takes_cuda_where_there_is_one():
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == torch.device("cpu")


def test_a_device_that_is_absent_is_a_fault_of_the_machine():
    with pytest.raises(EnvironmentFault, match="no device cuda:99") as caught:
        resolve_device("cuda:99")
    assert caught.value.exit_code == 3
    assert "--device auto" in caught.value.hint


@pytest.mark.parametrize("word", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cudo", ""])
def test_an_unknown_word_is_refused(word):
    with pytest.raises(ConfigError, match="not known"):
        resolve_device(word)


def test_a_typing_error_is_understood():
    with pytest.raises(ConfigError, match="did you mean 'cuda'"):
        resolve_device("cudaa")


def test_several_processes_on_a_machine_have_a_device_each(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert resolve_device("cuda") == torch.device("cuda", 1)
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="cuda:0 is a single device, but 2 processes"):
        resolve_device("cuda:0")


def test_more_processes_than_devices_are_told_so(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "100")
    monkeypatch.setenv("LOCAL_RANK", "99")
    with pytest.raises(EnvironmentFault, match="no device cuda:99") as caught:
        resolve_device("cuda")
    assert "--nproc-per-node gpu" in caught.value.hint


def test_a_process_that_sees_its_own_device_alone_takes_it(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert resolve_device("cuda") == torch.device("cuda", 0)


def test_float32_is_exact():
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    resolve_device("cpu")
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
