"""NAYER's released code, imported unmodified from a clone of github.com/tmtuan1307/nayer, with or without a GPU."""

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import nn

UNUSED = ("pandas", "termcolor", "wandb", "xlsxwriter")
KORNIA = ("kornia", "kornia.geometry", "kornia.geometry.transform", "kornia.geometry.transform.affwarp")


def add_checkout(parser: argparse.ArgumentParser) -> None:
    """Add the option `--upstream`."""
    parser.add_argument("--upstream", type=_checkout, required=True, metavar="DIR", help="clone of tmtuan1307/nayer")


def _checkout(text: str) -> Path:
    if not (Path(text) / "datafree").is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no clone of tmtuan1307/nayer")
    return Path(text)


def read_commit(checkout: Path) -> str:
    return subprocess.check_output(["git", "-C", checkout, "rev-parse", "HEAD"], text=True).strip()


def import_upstream(checkout: Path, augmentation: Any = None, workers: int = 0) -> ModuleType:
    """Import the package `datafree`, with stand-ins for what it imports and a comparison does not use.

    Args:
        checkout: clone of the repository.
        augmentation: takes the place of `kornia.augmentation`; without it kornia must be installed.
        workers: processes of its image loaders, which ask for four; 0 reads in this process.

    """
    sys.modules.update({name: MagicMock() for name in UNUSED if find_spec(name) is None})
    if augmentation is not None:
        sys.modules.update({name: MagicMock() for name in KORNIA})
        sys.modules["kornia"].augmentation = augmentation
    sys.path.insert(0, str(checkout))
    loader, pinned = torch.utils.data.DataLoader, torch.cuda.is_available()
    torch.utils.data.DataLoader = lambda dataset, **options: loader(
        dataset, **options | {"num_workers": workers, "pin_memory": pinned}
    )
    if not pinned:
        nn.Module.cuda = lambda self, *_: self
    import datafree
    import datafree.models.classifiers.wresnet
    import datafree.models.generator
    import datafree.synthesis

    return datafree
