"""The documentation as a site: `make docs` builds it from these pages, without a connection."""

import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]

project = "nayer"
copyright = "the nayer developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "nayer"
exclude_patterns = ["_site"]
myst_heading_anchors = 4
man_pages = [("reference/commands", "nayer", "small or low-bit copies of image classifiers, without their data", "", 1)]
autodoc_typehints = "description"
autodoc_member_order = "bysource"

ADOPTED = {
    "index": "README.md",
    "project/contributing": "CONTRIBUTING.md",
    "project/security": "SECURITY.md",
    "project/changes": "CHANGELOG.md",
}
"""Pages whose text lies at the top of the repository, where people look for it first."""


def adopt(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the text of an adopted page before its own, and let links to such texts lead to their pages."""
    up = "../" * page.count("/")
    if page in ADOPTED:
        text = (ROOT / ADOPTED[page]).read_text(encoding="utf-8")
        source[0] = re.sub(r"\]\((?:\./)?docs/", f"]({up}", text) + "\n" + source[0]
    for name, file in ADOPTED.items():
        source[0] = re.sub(rf"\]\((?:\.\./)*{re.escape(file)}", f"]({up}{name}.md", source[0])


def setup(app: Sphinx) -> None:
    """Let Sphinx call `adopt` on each page that it reads."""
    app.connect("source-read", adopt)
