"""docs/benchmarks.md: one section a benchmark, each replaced in place, and its pictures beside it."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from trees import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
PICTURES = ROOT / "docs" / "benchmarks"
HEAD = "# Benchmarks\n\nEach section is written by the command that it names; `make bench` runs most of them.\n"


def write_section(name: str, lines: Iterable[str]) -> None:
    """Put a section between its markers, at the end of the page where it has none yet."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    section = "\n".join([begin, *lines, end])
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else HEAD
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    text = pattern.sub(lambda _: section, text) if pattern.search(text) else f"{text.rstrip()}\n\n{section}\n"
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown; all columns but the first are flush right."""
    return [row(head), row(["---", *["---:"] * (len(head) - 1)]), *map(row, rows)]


def row(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def new_picture(width: float = 7.0, height: float = 4.0) -> tuple[Any, Any]:
    """A figure and its axes."""
    import matplotlib as mpl  # noqa: PLC0415 - processes that measure go without

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "bitpatch", "axes.spines.top": False, "axes.spines.right": False})
    from matplotlib import pyplot as plt  # noqa: PLC0415

    return plt.subplots(figsize=(width, height), layout="constrained")


def save_picture(figure: Any, name: str, describes: str) -> str:
    """Save a figure, and return the line that shows it on the page."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None})
    return f"![{describes}](benchmarks/{name}.svg)"


def verdict(claim: str, holds: bool, measured: str) -> str:
    """A line that says whether a claim holds."""
    return f"- {claim}: {'holds' if holds else '**does not hold**'}, {measured}"
