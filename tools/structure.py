"""Measure the shape of the code and the pages: `python tools/structure.py [ROOT]`, of this repository by default."""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

PACKAGE = "nayer_cli"
FENCE = re.compile(r"^```.*?^```$|^\|.*?$|^#.*?$|^<!--.*?-->$", re.MULTILINE | re.DOTALL)
SAME = 6
"""Lines that two places share before they count as repeated."""


def modules(source: Path) -> dict[str, ast.Module]:
    """Return the syntax tree of each module below `source`, by dotted name."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        name = ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def room(module: str) -> str:
    """Return the room of a module: its folder below the package, or itself where it lies flat."""
    return module.partition(".")[0]


def arrows(trees: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """Return which room imports from which."""
    found = set()
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
                base = (node.module or "").removeprefix(PACKAGE).lstrip(".")
                targets = [base] if base else [alias.name for alias in node.names]
                found |= {(room(module), room(target)) for target in targets}
    return {(here, there) for here, there in found if here != there}


def functions(trees: dict[str, ast.Module]) -> Iterator[int]:
    """Yield the length of each function in lines, its docstring left out."""
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                yield (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def repeated(source: Path) -> int:
    """Count lines that stand in a run of `SAME` equal lines somewhere else, too."""
    runs: Counter[tuple[str, ...]] = Counter()
    files = [
        [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if _counts(line)]
        for path in source.rglob("*.py")
    ]
    for lines in files:
        runs.update(tuple(lines[i : i + SAME]) for i in range(len(lines) - SAME + 1))
    marked = 0
    for lines in files:
        hits = {
            i + k for i in range(len(lines) - SAME + 1) if runs[tuple(lines[i : i + SAME])] > 1 for k in range(SAME)
        }
        marked += len(hits)
    return marked


def _counts(line: str) -> bool:
    return bool(line.strip(" \t()[]{},")) and not line.lstrip().startswith(("#", "import ", "from "))


def sentences(pages: list[Path]) -> Iterator[str]:
    """Yield the sentences of the pages' prose; code, tables and headings are left out."""
    for page in pages:
        prose = FENCE.sub("\n\n", page.read_text(encoding="utf-8"))
        for paragraph in re.split(r"\n\s*\n|\n(?=[-*\d])", prose):
            yield from re.split(r"(?<=[.?!:;])\s+", " ".join(paragraph.split()))


def _spread(values: list[int]) -> str:
    return f"median {median(values):g}, 95th percentile {quantiles(values, n=20)[-1]:.0f}, longest {max(values)}"


def main(root: Path) -> None:
    """Print the table."""
    source = root / "src" / PACKAGE
    trees = modules(source)
    between = arrows(trees)
    files = [len(path.read_text(encoding="utf-8").splitlines()) for path in source.rglob("*.py")]
    pages = [*sorted((root / "docs").rglob("*.md")), *root.glob("*.md")]
    words = sum(len(page.read_text(encoding="utf-8").split()) for page in pages)
    longest = max(sentences(pages), key=lambda sentence: len(sentence.split()))
    uses = sum(isinstance(node, ast.Name) and node.id == "Any" for tree in trees.values() for node in ast.walk(tree))
    deepest = max(len(module.split(".")) for module in trees)
    rows = {
        "rooms, and files": f"{len({room(name) for name in trees})}, {len(files)} (at most {deepest} levels)",
        "arrows between rooms": str(len(between)),
        "both ways": str(len({frozenset(arrow) for arrow in between if arrow[::-1] in between})),
        "lines of a file": _spread(files),
        "lines of a function": _spread(list(functions(trees))),
        "lines of a method's file": _spread([len(path.read_text().splitlines()) for path in methods(source)]),
        f"lines in runs of {SAME} that stand twice": str(repeated(source)),
        "`Any`": str(uses),
        "words in the pages": f"{words:,} on {len(pages)} pages",
        "longest sentence": f"{len(longest.split())} words: {longest}",
    }
    for name, value in rows.items():
        sys.stdout.write(f"{name:42} {value}\n")


def methods(source: Path) -> list[Path]:
    """Return the files of the methods."""
    return [path for path in sorted((source / "methods").glob("*.py")) if not path.name.startswith("_")]


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]))
