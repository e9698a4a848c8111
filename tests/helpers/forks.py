"""Processes that are forked from one that has torch and the package loaded and has computed nothing.

Starting one takes no time, where a new interpreter imports for seconds. There is one such server in each process of the
suite.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "nayer_cli.__main__",
        "nayer_cli.cli.output",
        "nayer_cli.cli.distill",
        "nayer_cli.cli.train",
        "nayer_cli.cli.quantize",
        "nayer_cli.methods.nayer",
        "nayer_cli.generators.deep",
        "nayer_cli.lte.encoders.random",
        "nayer_cli.images.sources.npz",
        "nayer_cli.images.datasets.digits",
        "nayer_cli.onnx.writer",
        "nayer_cli.onnx.runner",
        "nayer_cli.runs.distill",
        "nayer_cli.runs.train",
        "nayer_cli.runs.quantize",
        "onnxruntime",
        "onnx",
        "nayer_cli.classifiers.models",
        "rich.live",
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "sklearn.datasets",
        "torch.distributed.run",
    ]
)


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `work(*arguments)` returns in a process of its own, or raise what it raises."""
    with ProcessPoolExecutor(1, FORKS) as pool:
        return pool.submit(work, *arguments).result()
