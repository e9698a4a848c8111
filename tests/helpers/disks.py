"""Small and read-only disks, for whoever may mount some."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Within the block a disk in memory is mounted at `folder`; the test is skipped where that is not allowed."""
    folder.mkdir(exist_ok=True)
    if not mount(folder, options):
        pytest.skip("needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def mount(folder: Path, options: str) -> bool:
    """Mount a disk in memory, or mount it with other options."""
    words = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0
