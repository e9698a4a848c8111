"""Read our Markdown: commands to be run, files to be written, links to be followed."""

import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^```([\w{}-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"# (\S+\.\w+)\n")
COMMAND = re.compile(r"^(?:- run: )?(nayer .*)$", re.MULTILINE)
EXAMPLE = re.compile(r"^- `(nayer [^`]*)`: ", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


class Line(NamedTuple):
    """A command and where it stands."""

    page: Path
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.number}"


class Block(NamedTuple):
    """A fenced block: its language, its text, and the line on which the text begins."""

    language: str
    text: str
    number: int


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        yield Block(match[1], match[2], _line_number(text, match.start(2)))


def commands(page: Path) -> Iterator[Line]:
    """Yield every fenced command of ours, and every example of the command reference; a backslash joins lines."""
    for block in blocks(page):
        joined = re.sub(r"\\\n *", "", block.text)  # later lines of this block then seem to stand higher
        for match in COMMAND.finditer(joined):
            yield Line(page, block.number + joined.count("\n", 0, match.start()), match[1])
    text = page.read_text(encoding="utf-8")
    for match in EXAMPLE.finditer(text):
        yield Line(page, _line_number(text, match.start()), match[1])


def named_files(page: Path) -> Iterator[tuple[str, str]]:
    """Yield path and content of each fenced block that begins with a comment that is a path."""
    for block in blocks(page):
        if (match := NAMED.match(block.text)) and block.language in ("python", "toml"):
            yield match[1], block.text


def snippets(page: Path) -> Iterator[Line]:
    """Yield each Python block that is no file."""
    for block in blocks(page):
        if block.language == "python" and not NAMED.match(block.text):
            yield Line(page, block.number, block.text)


def table(page: Path) -> list[list[str]]:
    """Return the cells of the first table of a page, its headings first."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = takewhile(lambda line: line.startswith("|"), lines[start:])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if not row.startswith("|---")]


def broken_links(page: Path) -> Iterator[str]:
    """Yield each link to a file or heading that does not exist."""
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if "://" not in link and (not target.exists() or (anchor and anchor not in _anchors(target))):
            yield link


def _anchors(page: Path) -> set[str]:
    headings = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _line_number(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
