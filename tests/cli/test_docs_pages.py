import runpy
from pathlib import Path

import pytest

PAGES = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "write_docs.py"))["pages"]()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_says_what_the_program_does(path):
    assert path.read_text(encoding="utf-8") == PAGES[path], "write it anew: python tools/write_docs.py"
