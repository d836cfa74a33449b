"""Stitch attention windows without negative indices.

Window s is written to the columns s - overlap .. s + chunk of the T x T map. For the first windows
s - overlap is negative, and the write wraps round to the end of the map, silently. The patch clamps
the columns to the sequence and writes the columns of the window that stand for them; where windows
are left-padded it also hides the padding, which took part in the first windows' softmax.

Contract: fixes. The first windows' map and output change: they lose what leaked to the padding.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product

import libcst as cst

from .editing.donor import definitions, donor
from .editing.edits import apply_edits
from .editing.padding import hidden
from .editing.windows import Unwritten, laid_right, own_write
from .reading.frames import Reading
from .reading.maps import is_counted
from .reading.source import Source
from .reading.tree import SourceTree
from .reading.windows import Seen, examined, innermost
from .task import BitpatchError, Contract, Edit, Finding, Task, mend, mended, near_miss

PADDING, ORIGIN = "window_padding", "origin"
HAVING = rb"(?i)softmax|scaled_dot_product_attention|\bexp\(|multihead"


def find(tree: SourceTree) -> Iterator[Finding]:
    """The square maps that windows are written to, and the attentions over padded windows."""
    functions = (reading for _, some in tree.readings(HAVING) for reading in some)
    every = [each for reading in functions for each in examined(tree.code.graph, reading)]
    edits: list[Edit] = []
    for places in dict.fromkeys(each.places for each in every if each.places):
        for finding in _stitched(tree, innermost([each for each in every if each.places == places])[0], edits):
            edits += finding.edits
            yield finding
    padded = innermost([each for each in every if each.judged is not None and each.judged.is_padded])
    for node in dict.fromkeys(each.reading.node for each in padded):
        yield from _padded(tree, [each for each in every if each.reading.node is node])


def _stitched(tree: SourceTree, seen: Seen, done: Sequence[Edit]) -> Iterator[Finding]:
    """A map: right, or to be mended where it is written to."""
    at, judged = seen.at, seen.judged
    is_other = not any(map(is_counted, seen.writes)) if judged is None else not (judged.is_windowed and judged.is_laid)
    if at is None or (is_other and (judged is not None or seen.writes)):
        return
    source = tree.source(at.file.path)
    if judged is not None and not judged.wrong:
        yield mended(source.site(at.node, "map that windows are written to"))  # type: ignore[arg-type]
        return
    try:
        if judged is None:
            raise Unwritten(f"what its windows are, and whether they are padded, cannot be told{seen.lost}")
        edits = _first_right(tree, seen.reading, _ways(tree, source, seen, done), partial(_is_laid, seen.number))
        edits = [each for each in edits if each not in done]
        yield mend(source.site(at.node, f"map that windows are written to: {judged.wrong}"), edits)  # type: ignore[arg-type]
    except Unwritten as unwritten:
        wrong = f": {judged.wrong}" if judged is not None else ""
        yield near_miss(source.site(at.node, f"map that windows are written to{wrong}, but {unwritten}"))  # type: ignore[arg-type]


def _ways(tree: SourceTree, source: Source, seen: Seen, done: Sequence[Edit]) -> Iterator[list[Edit]]:
    """The edits that may put a map right, those of each write together."""
    known, every = dict[cst.CSTNode, Edit](), []
    for write in seen.writes:
        clamps, ways = laid_right(source, seen, own_write(tree.code, write), write, ORIGIN)
        known |= {each.node: each for each in clamps if all(each.node is not other.node for other in done)}
        every.append(ways)
    if not every:
        raise Unwritten("it is written by no index: write each window to the columns of its keys")
    for chosen in product(*every):
        yield [*done, *known.values(), *(edit for way in chosen for edit in way)]


def _padded(tree: SourceTree, some: Sequence[Seen]) -> Iterator[Finding]:
    """An attention over padded windows: hidden, or to be hidden."""
    reading, source = some[0].reading, tree.source(some[0].reading.file.path)
    leaks = {key: softmax for each in some if each.judged is not None for key, softmax in each.judged.leaks.items()}
    is_known = all(each.judged is not None for each in some)
    node = next((e.at.node for e in leaks.values() if e.at is not None and e.at.node in reading.values), reading.node)
    if not leaks and is_known:
        yield mended(source.site(node, "padding of the windows hidden"))  # type: ignore[arg-type]
        return
    site = source.site(node, "softmax over windows whose padding is not hidden")  # type: ignore[arg-type]
    brought = definitions(source, donor("bit_transformer/model.py"), PADDING)
    try:
        if not is_known:
            raise Unwritten("there is attention beside it that cannot be computed")
        cases = [case for each in some if each.judged is not None for case in each.judged.cases]
        ways = ([*brought.edits, *way] for way in hidden(source, reading, list(leaks.values()), cases, PADDING))
        edits = _first_right(
            tree, reading, ways, lambda after: all(e.judged is not None and not e.judged.leaks for e in after)
        )
        yield mend(site, [each for each in edits if each not in brought.edits])
        yield brought
    except Unwritten as unwritten:
        yield near_miss(replace(site, note=f"{site.note}, but {unwritten}"))


def _is_laid(number: int, after: Sequence[Seen]) -> bool:
    found = [each.judged for each in after if each.of is not None and each.number == number]
    return bool(found) and all(each is not None and each.is_laid and not each.wrong for each in found)


def _first_right(
    tree: SourceTree, reading: Reading, ways: Iterable[list[Edit]], is_right: Callable[[list[Seen]], bool]
) -> list[Edit]:
    """The first edits of some with which a function computes what it should. Raises Unwritten."""
    for edits in ways:
        sources = {edit.source.path: edit.source for edit in edits}.values()
        try:
            after = tree.trying(*(apply_edits(own, [each for each in edits if each.source is own]) for own in sources))
        except (BitpatchError, cst.CSTValidationError):
            continue
        file = after.code.files.file(reading.file.path)
        assert file is not None
        same = [each for each in file.functions if _named(*each) == _named(reading.node, reading.owner)]
        found = [each for one in same for each in examined(after.code.graph, after.code.reading(file, *one))]
        if found and is_right(found):
            return edits
    raise Unwritten("no edit that is known puts it right")


def _named(function: ast.AST, owner: ast.ClassDef | None) -> tuple[str, str]:
    return getattr(function, "name", ""), owner.name if owner is not None else ""


task = Task(
    number=11,
    slug="stitched-attention",
    title="Stitched attention without negative indices",
    contract=Contract.FIXES,
    seam="attention",
    summary="windows are written to the columns they stand for, and their padding is hidden",
    why=__doc__,
    sought="a square map of all positions that windows of attention are written to, from column s - overlap",
    find=find,
)
