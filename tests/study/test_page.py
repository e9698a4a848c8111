import io
import os
import re
import shutil
from html.parser import HTMLParser

import pytest
from PIL import Image

from nayer_cli.study.page import page
from nayer_cli.study.report import markdown
from nayer_cli.study.table import Table

RUN = {"name": "a/seed-0", "seed": 0, "value": 0.9, "best": 0.91, "minutes": 1.0, "processor_minutes": None}
ROW = {
    "name": "a",
    "title": "<b>A</b> & co",
    "n": 1,
    "planned": 2,
    "mean": 0.9,
    "sd": None,
    "best": 0.91,
    "difference": None,
    "paper": 0.93,
    "minutes": 1.0,
    "processor_minutes": None,
    "synthesized": 10,
    "seen": 20,
    "measures": {},
    "runs": [{**RUN, "synthesized": 10, "seen": 20, "curve": [[30.0, 0.5], [60.0, 0.9]]}],
}
TABLE: Table = {
    "schema": "nayer.table/1",
    "study": "mine",
    "scale": "",
    "title": "Mine",
    "note": "",
    "columns": [{"name": "", "title": "", "teacher": 0.95, "metric": "top1", "rows": [ROW, {**ROW, "runs": []}]}],
}


class Strict(HTMLParser):
    """Notes tags, and that each is closed in its turn."""

    VOID = ("meta", "img", "line", "circle", "polyline")

    def __init__(self) -> None:
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in self.VOID or self.open.pop() == tag


def test_the_page_is_whole_asks_for_nothing_and_takes_names_as_words():
    text = page(TABLE, {"a/seed-0": b"\x89PNG"})
    parser = Strict()
    parser.feed(text)
    tags = [tag for tag, _ in parser.seen]
    assert not parser.open and tags.count("svg") == tags.count("img") == tags.count("polyline") == 1
    assert not re.findall(r"(?:src|href|url)\W+(?!data:)\w+:", text) and "script" not in tags
    assert "<b>A" not in text and "&lt;b&gt;A&lt;/b&gt; &amp; co" in text


def test_columns_that_are_empty_are_left_out():
    text = markdown(TABLE)
    assert "| row | top-1 | n | best epoch, an oracle | paper | minutes | images made | images seen |" in text
    assert "1 of 2" in text


def test_a_browser_shows_pictures_and_lines_and_asks_for_no_more(tmp_path):
    """Needs playwright, and in CHROMIUM or on PATH a browser of its kind."""
    api = pytest.importorskip("playwright.sync_api")
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("there is no browser")
    picture = io.BytesIO()
    Image.new("RGB", (4, 4), (255, 0, 255)).save(picture, "PNG")
    (tmp_path / "table.html").write_text(page(TABLE, {"a/seed-0": picture.getvalue()}), encoding="utf-8")
    asked, faults = [], []
    with api.sync_playwright() as played:
        flags = ["--no-sandbox", "--no-zygote", "--single-process", "--disable-gpu"]
        shown = played.chromium.launch(executable_path=browser, args=flags).new_page()
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("console", lambda message: faults.append(message.text))
        shown.goto((tmp_path / "table.html").as_uri())
        assert shown.evaluate("[...document.images].map(image => image.naturalWidth)") == [4]
        assert shown.evaluate("document.querySelector('polyline').getBoundingClientRect().width") > 100
        assert shown.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        picture = Image.open(io.BytesIO(shown.screenshot(full_page=True))).convert("RGB")
    colors = {color for _, color in picture.getcolors(2**24)}
    assert {(255, 0, 255), (0x25, 0x63, 0xEB)} <= colors and len(asked) == 1 and not faults
