import json
import runpy
from pathlib import Path

import pytest

WRITER = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "write_docs.py"))
PAGES = WRITER["pages"]() | WRITER["schemas"]()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_says_what_the_program_does(path):
    assert path.read_text(encoding="utf-8") == PAGES[path], "write it anew: make docs"


def test_settings_are_described_and_bounded_in_the_schema():
    schema = json.loads(next(text for path, text in PAGES.items() if path.name == "distill.config.schema.json"))
    epochs = schema["$defs"]["ScheduleConfig"]["properties"]["epochs"]
    assert epochs["minimum"] == 0 and "epochs" in epochs["description"]
