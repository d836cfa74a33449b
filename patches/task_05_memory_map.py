"""Stream rows of bits from a file that is mapped into memory.

The schedule turns its whole text into Python lists of bits, 8 bytes a bit, each time it asks for rows.
`BitRows` encodes a text once, keeps the rows packed in a file, and reads each row when it is asked for.

Contract: extends. The rows are the same bits, in whole codewords; what trains on them stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import libcst as cst

from .donor import definitions, donor, has_definition
from .edits import rewrite
from .matchers import is_inside, is_method
from .members import assignments, seen_from, shipped, without_imports
from .source import Source
from .task import Contract, Edit, Finding, Task, mend, mended, near_miss
from .text_rows import CUT, bits_origin, known, opened_by, row_cuts, text_file_of
from .tree import SourceTree

ROWS, ENCODE = "BitRows", "text_to_bits"
NEEDED = ("BITS_PER_BYTE", "CODEWORDS")
MAPS = ("of_text", "memmap", "mmap", "from_file")
KEPT = ("split", "shape")  # what BitRows has of a tensor
HARMLESS = {ENCODE, CUT, "open", "read", "read_text", "extend", "len", "range", "tensor", "as_tensor", "min", "max"}


def find(tree: SourceTree) -> Iterator[Finding]:
    """The rows that a schedule makes of a text file's bits, in memory."""
    homes = list(tree.files(having=rb"(?m)^def text_to_bits\b"))
    found = list(shipped(tree, having=rb"text_to_bits|of_text|memmap|\bmmap\b|from_file"))
    named = [source for source in found if "wikitext" in source.path.rsplit("/", 1)[-1]]
    for source in named or [each for each in found if each.path != tree.training_path and each not in homes]:
        maps = [call for call in source.walk(cst.Call, having=MAPS) if is_method(call, *MAPS)]
        for call in maps:
            yield mended(source.site(call, "rows that are mapped into memory"))
        calls = [call for call in source.walk(cst.Call, having=(ENCODE,)) if not maps and _encodes(source, call)]
        sites = [site for call in calls for site in _sites(source, call, sure=bool(named))]
        yield from sites
        if named and not sites:
            for call in calls:
                yield near_miss(source.site(call, "bits in memory, but not those of a text file"))
        gone = [edit.node for site in sites for edit in site.edits]
        if gone:
            yield from _bring(tree, source, homes, gone)


def _encodes(source: Source, call: cst.Call) -> bool:
    return (source.names.qualified(call.func) or "").split(".")[-1] == ENCODE and bool(call.args)


@dataclass(frozen=True, slots=True)
class _Rows:
    """`bits_to_rows(bits, length)`, in whatever words, where the bits are those of a text file."""

    source: Source
    encode: cst.Call
    node: cst.BaseExpression
    path: str
    length: cst.BaseExpression

    @property
    def function(self) -> cst.FunctionDef | None:
        return self.source.function(self.node)


def _sites(source: Source, call: cst.Call, *, sure: bool) -> Iterator[Finding]:
    path, problem = text_file_of(source, call.args[0].value)
    cuts = [cut for cut in row_cuts(source) if path and bits_origin(source, cut[1]) is call]
    if not cuts:
        if path and sure:
            problem = problem or "how rows are cut from them cannot be read: use bits_to_rows"
            yield near_miss(source.site(call, f"bits of a text file in memory, but {problem}"))
        return
    node, _, length = cuts[0]
    rows = _Rows(source, call, node, path, length)
    spent = _spent(rows)
    problem = problem or _misuse(rows, spent)
    if problem:
        yield near_miss(source.site(node, f"rows of a text file's bits in memory, but {problem}"))
        return
    yield mend(source.site(node, "rows of a text file's bits in memory"), _mapped(rows, spent))


def _spent(rows: _Rows) -> list[cst.CSTNode]:
    """The statements that do nothing but make what the rows are cut from."""
    source, function = rows.source, rows.function
    around = [
        each for each in source.ancestors(rows.node) if function is not None and is_inside(source, each, function.body)
    ]
    blocks = [each for each in around if isinstance(each, cst.IndentedBlock)]
    units = [unit for block in blocks for unit in block.body if unit not in around and _only_makes(source, unit)]
    kept = set(re.findall(r"\w+", f"{rows.path} {source.code(rows.length)}"))
    uses = [use for use in source.uses(function) if not is_inside(source, use, rows.node)]
    changed = True
    while changed:
        outer = {use.value for use in uses if not any(is_inside(source, use, unit) for unit in units)} | kept
        left = [unit for unit in units if not _made(source, unit) & outer]
        changed, units = len(left) != len(units), left
    wanted, before = {use.value for use in source.uses(rows.node)}, None
    while wanted != before:
        before = set(wanted)
        wanted |= {use.value for unit in units if _made(source, unit) & wanted for use in source.uses(unit)}
    return [unit for unit in units if _made(source, unit) & wanted]


def _only_makes(source: Source, unit: cst.CSTNode) -> bool:
    calls = [source.names.qualified(call.func) or source.code(call.func) for call in source.walk(cst.Call, inside=unit)]
    kinds = (cst.Return, cst.Raise, cst.Yield, cst.Global, cst.Nonlocal)
    leaves = any(isinstance(node, kinds) for node in source.walk(cst.CSTNode, inside=unit))  # type: ignore[type-abstract]
    return not leaves and {name.split(".")[-1] for name in calls} <= HARMLESS


def _made(source: Source, unit: cst.CSTNode) -> set[str]:
    """The names that a statement sets or extends."""
    names = {use.value: source.names.bindings(use.value, use) for use in source.uses(unit)}
    made = {name for name, bound in names.items() if any(is_inside(source, binding.node, unit) for binding in bound)}
    extends = [call for call in source.walk(cst.Call, inside=unit) if is_method(call, "extend", "append")]
    return made | {source.code(call.func.value) for call in extends}  # type: ignore[attr-defined]


def _misuse(rows: _Rows, spent: list[cst.CSTNode]) -> str:
    """What forbids to put a data set in the place of the rows."""
    source, function = rows.source, rows.function
    if function is None:
        return "outside of any function: put them into one"
    if not any(is_inside(source, rows.encode, each) for each in (*spent, rows.node)):
        return "what they are made of is used for something else too: read it apart"
    names = {function.name.value}
    makers = [rows.node, *(call for call in source.walk(cst.Call) if source.code(call.func) in names)]
    for target, value, _ in assignments(source, source.module):
        if (
            isinstance(target, cst.Name)
            and value is not None
            and any(is_inside(source, made, value) for made in makers)
        ):
            names.add(target.value)
    for use in source.walk(cst.Attribute):
        is_rows = use.value in makers or (isinstance(use.value, cst.Name) and use.value.value in names)
        if is_rows and use.attr.value not in KEPT:
            return f"a data set has no {use.attr.value}, which is asked of them: ask for {' or '.join(KEPT)}"
    return ""


def _mapped(rows: _Rows, spent: list[cst.CSTNode]) -> Iterator[Edit]:
    """Ask for the rows in the file; what made them goes."""
    source, function = rows.source, rows.function
    yield rewrite(source, rows.node, lambda _: f"{ROWS}.of_text({rows.path}, {source.code(rows.length)})")
    for unit in spent:
        yield Edit(source, unit, lambda _: cst.RemoveFromParent())
    for block in source.ancestors(rows.node):
        if isinstance(block, cst.With) and _is_idle(rows, block, spent):
            yield Edit(source, block, _body_of)
    given_back = [node.value for node in source.walk(cst.Return, inside=function) if node.value is not None]
    is_returned = [known(source, value) for value in given_back] == [rows.node]
    if function is not None and function.returns is not None and is_returned:
        yield rewrite(source, function.returns.annotation, lambda _: ROWS)


def _is_idle(rows: _Rows, block: cst.With, spent: list[cst.CSTNode]) -> bool:
    """Whether a with opens nothing but the file that is read no more."""
    source, item = rows.source, block.items[0]
    opened = opened_by(source, item.item)
    name = source.code(item.asname.name) if item.asname is not None else ""
    gone = (rows.node, item, *spent)
    left = [use for use in source.uses(block) if use.value == name and not any(is_inside(source, use, g) for g in gone)]
    return len(block.items) == 1 and opened is not None and not left


def _body_of(updated: cst.CSTNode) -> cst.FlattenSentinel[cst.CSTNode]:
    assert isinstance(updated, cst.With)
    first, *others = updated.body.body
    return cst.FlattenSentinel([first.with_changes(leading_lines=updated.leading_lines), *others])


def _bring(tree: SourceTree, source: Source, homes: list[Source], gone: list[cst.CSTNode]) -> Iterator[Finding]:
    """The data set, above what asks for it, and in place of what nothing else uses any more."""
    if len(homes) != 1:
        yield near_miss(source.site(source.module, f"{len(homes)} files that define {ENCODE}, expected one"))
        return
    lacking = [name for name in NEEDED if not has_definition(homes[0], name)]
    if lacking:
        yield definitions(homes[0], donor("bit_transformer/bit_io.py"), *lacking)
    given = seen_from(tree, source, donor("data/wikitext_schedule.py"), "bit_io", homes[0].path)
    found = definitions(source, given, ROWS)
    yield replace(found, edits=tuple(_above(source, edit, gone) for edit in found.edits))
    used = {use for use in source.uses() if source.enclosing(use, cst.Import, cst.ImportFrom) is None}
    left = {use.value for use in used if not any(is_inside(source, use, node) for node in gone)}
    spent = {
        use.value for use in used if (source.names.qualified(use) or "").endswith((f".{ENCODE}", f".{CUT}"))
    } - left
    edits = list(without_imports(source, spent))
    if edits:
        yield mend(source.site(edits[0].node, f"import of {', '.join(sorted(spent))}"), edits)


def _above(source: Source, edit: Edit, users: list[cst.CSTNode]) -> Edit:
    """A definition comes no later than what uses it, whatever the file's order."""
    tops = [top for top in source.module.body if any(is_inside(source, user, top) for user in users)]
    if source.order[edit.node] <= source.order[tops[0]]:
        return edit
    new = [node for node in edit.change(edit.node) if node is not edit.node]  # type: ignore[union-attr]
    return Edit(source, tops[0], lambda updated: cst.FlattenSentinel([*new, updated]))


task = Task(
    number=5,
    slug="memory-map",
    title="Memory-mapped, streaming bit data set",
    contract=Contract.EXTENDS,
    summary="BitRows encodes a text once and reads its rows from a memory-mapped file",
    why=__doc__,
    sought="a wikitext_schedule that cuts a text file's bits into rows in memory",
    find=find,
)
