import errno
import pickle

import pytest
import torch
import typer
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import CppCompileError, InductorError, InvalidCxxCompiler
from torch.distributed import DistBackendError

from nayer_cli.cli import faults
from nayer_cli.errors import GateMissed, RunFailed, Terminated

AcceleratorError = getattr(torch, "AcceleratorError", RuntimeError)
COMPLAINT = "In file included from m.cpp:1:\nm.cpp:1:10: fatal error: no omp.h\n"
COMPILER_FAILED = InductorError(CppCompileError(["g++", "m.cpp"], COMPLAINT), None)


def torch_cannot_allocate():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    return caught.value


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (GateMissed("top1 is low"), 1, "top1 is low"),
        (typer.BadParameter("no number"), 2, "no number"),
        (torch_cannot_allocate(), 3, "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory."), 3, "CUDA out of memory."),
        (MemoryError(), 3, "out of memory"),
        (AcceleratorError("CUDA error: out of memory"), 3, "out of memory"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
            3,
            "out of memory",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), 3, "out of memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), 3, "out of memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), 3, "the GPU stopped working"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ARCH_MISMATCH"), 3, "no kernels for this GPU"),
        (AcceleratorError("CUDA error: no kernel image is available for execution"), 3, "no kernels for this GPU"),
        (AcceleratorError("CUDA error: CUDA driver version is insufficient"), 3, "the driver of the GPU"),
        (RuntimeError("The NVIDIA driver on your system is too old (found version 11040)"), 3, "the driver of the GPU"),
        (DistBackendError("NCCL error: Cuda failure 2 'out of memory'"), 3, "out of memory"),
        (DistBackendError("NCCL error: Duplicate GPU detected : rank 1 and rank 0"), 3, "have the same GPU"),
        (DistBackendError("NCCL error: remote process exited"), 4, "another process of this job has ended"),
        (AcceleratorError("CUDA error: an illegal memory access was encountered"), 70, "illegal memory access"),
        (COMPILER_FAILED, 3, "torch.compile does not work on this machine: m.cpp:1:10: fatal error: no omp.h"),
        (BackendCompilerFailed("inductor", InvalidCxxCompiler("g++"), None), 3, "torch.compile does not work"),
        (BackendCompilerFailed("inductor", torch.OutOfMemoryError("CUDA out of memory."), None), 3, "out of memory:"),
        (ModuleNotFoundError("No module named 'gensim'", name="gensim"), 3, "'gensim' is not installed"),
        (OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl"), 3, "metrics.jsonl"),
        (RuntimeError("operator torchvision::nms does not exist"), 3, "different builds"),
        (RunFailed("diverged"), 4, "diverged"),
        (KeyError("x"), 70, "KeyError"),
        (ModuleNotFoundError("No module named 'nayer_cli.x'", name="nayer_cli.x"), 70, "nayer_cli.x"),
        (caused(typer.Abort(), EOFError("cut off")), 70, "cut off"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated(143), 143, "terminated"),
    ],
)
def test_every_fault_has_its_code_and_a_sentence(error, code, words):
    fault = faults.explain(error)
    assert fault.exit_code == code
    assert words in str(fault)
    assert fault.exit_code in (1, 4, 70, 130, 143) or fault.hint


def test_a_bug_leaves_its_traceback_in_a_file_and_says_where(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(pickle.UnpicklingError) as caught:
        pickle.loads(b"x")
    assert faults.report(caught.value, debug=False) == 70
    (file,) = tmp_path.iterdir()
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: UnpicklingError:")
    assert str(file) in hint
    assert "Traceback" in file.read_text()


def test_debug_shows_the_traceback(capsys):
    assert faults.report(RunFailed("diverged"), debug=True) == 4
    err = capsys.readouterr().err
    assert "nayer_cli.errors.RunFailed: diverged" in err
    assert err.endswith("error: diverged\n")
