"""Stream rows of bits from a file that is mapped into memory.

The schedule turns its whole text into Python lists of bits, 8 bytes a bit, each time it asks for rows.
`BitRows` encodes a text once, keeps the rows packed in a file, and reads each row when it is asked for.

Contract: extends. The rows are the same bits, in whole codewords; what trains on them stays as it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import replace

from .editing.donor import definitions, donor, has_definition
from .editing.edits import rewrite
from .editing.feeding import Feeding
from .editing.imports import above, seen_from, without_imports
from .editing.spent import names_in
from .reading.files import File
from .reading.flows import ANY, DONE, misuses
from .reading.mapped import MAPPING, mapped_rows
from .reading.rows import OPENING, Rows, rows_of_texts
from .reading.source import Source
from .reading.tree import SourceTree
from .task import Contract, Finding, Task, mend, mended, near_miss

ROWS, NEEDED = "BitRows", ("BITS_PER_BYTE", "CODEWORDS")
WHAT = "rows of a text file's bits in memory"
BUILTINS = {"len", "list", "tuple", "enumerate", "iter", "zip", "range", "print", "bool", "id", "repr", "str", "type"}
BUILTINS |= {"reversed", "sum", "map", "filter", "any", "all", "collections.deque", "random.choice"}


def find(tree: SourceTree) -> Iterator[Finding]:
    """The rows that a schedule makes of a text file's bits, in memory."""
    files, others = _schedules(tree)
    by_hand = list(mapped_rows(tree.code, files))
    for each in by_hand:
        note = f"rows that are mapped into memory{each.why and ', but '}{each.why}"
        yield (near_miss if each.why else mended)(tree.source(each.file.path).site(each.node, note))
    done = {each.file for each in by_hand}
    starts = [file for file in (*files, *others) if file not in done]
    for found in rows_of_texts(tree.code, starts) if {*files} - done else ():
        source = tree.source(found.file.path)
        if found.file not in files:
            continue
        if isinstance(found, Rows):
            yield from _mapped(tree, source, found)
        else:
            yield near_miss(source.site(found.node, f"bits of a text file in memory, but {found.why}"))


def _schedules(tree: SourceTree) -> tuple[list[File], list[File]]:
    """The files that a schedule may stand in, those that are named for one if there are any; and all others."""
    pattern = b"|".join(word.encode() for word in (*OPENING, *MAPPING, "wikitext"))
    sources = list(tree.shipped(having=pattern))
    every = [file for source in sources if (file := tree.code.files.file(source.path)) is not None]
    every += [file for file in tree.code.files.holding("") if "wikitext" in file.path and file not in every]
    named = [file for file in every if "wikitext" in file.path.rsplit("/", 1)[-1]]
    found = named or [file for file in every if file.path != tree.training_path]
    return found, [file for file in every if file not in found]


def gives(kind: str, how: str, name: str) -> str | None:
    """What comes of the rows that are mapped, of few of them, or of their batches; None of what they do not have."""
    match kind, how, name:
        case (("rows" | "few"), ("slice" | "few"), _):
            return "few" if how == "few" else kind
        case (("rows" | "few"), "method", "split"):
            return "batches"
        case ("few", "method", "to") | (_, ("index" | "loop"), _):
            return DONE
        case (("rows" | "few"), ("some" | "method" | "attribute"), ("" | "size" | "dim" | "shape" | "ndim" | "dtype")):
            return DONE
        case _, "call", ("next" | "isinstance"):
            return None
        case _, "call", "itertools.repeat":
            return f"({ANY}){kind}"
        case _, "call", _ if name in BUILTINS or name.startswith(("torch.utils.data.", "itertools.")):
            return DONE
    return None


def _mapped(tree: SourceTree, source: Source, rows: Rows) -> Iterator[Finding]:
    """Ask for the rows in the file; what made them goes."""
    file, own = rows.file, rows.machine.own
    kept = names_in(rows.path) | names_in(rows.length)
    feeding = Feeding(file, rows.function, rows.node, rows.machine, kept)
    gone = feeding.settle([node for node in own if isinstance(node, ast.Call) and rows.is_count(node)])
    made = [node for node in own if isinstance(node, ast.Call) and rows.makes(node)]
    obstacles = [
        (use.file, use.node, f"a data set {use.lack}") for use in misuses(tree.code, [(file, rows.node)], "rows", gives)
    ]
    if (other := feeding.kept_by(made, gone)) is not None:
        obstacles.append((file, other, "what they are made of is used for something else too: read it apart"))
    home = _home(tree, rows)
    if home is None:
        obstacles.append((file, rows.node, "no function of another module encodes them: move it to one"))
    for where, node, why in obstacles:
        yield near_miss(tree.source(where.path).site(node, f"{WHAT}, but {why}"))  # type: ignore[arg-type]
    if obstacles or home is None:
        return
    path = rows.path if rows.is_path else f"Path({rows.path})"
    texts: list[tuple[ast.expr, str]] = [(rows.node, f"{ROWS}.of_text({path}, {rows.length})")]
    texts += [(each, f"{path}.stat().st_size * {NEEDED[0]}") for each in feeding.counts]
    returns = [each for each in ast.walk(rows.function) if isinstance(each, ast.Return)]
    if rows.function.returns is not None and returns and all(rows.is_given_by(each.value) for each in returns):
        texts.append((rows.function.returns, ROWS))
    edits = [rewrite(source, source.at(node), lambda _, text=text: text) for node, text in texts]  # type: ignore[arg-type, misc]
    yield mend(source.site(rows.node, WHAT), [*edits, *feeding.without(source, gone)])
    heads = [item for each in feeding.idle(gone) for item in each.items]
    yield from _bring(tree, source, home, rows, [rows.node, *gone, *heads])


def _home(tree: SourceTree, rows: Rows) -> Source | None:
    """The module of the function that encodes bytes, or would."""
    homes = [rows.home] if rows.home is not None else [each.path for each in tree.files(rb"(?m)^def text_to_bits\b")]
    return tree.source(homes[0]) if len(homes) == 1 and homes[0] != rows.file.path else None


def _bring(tree: SourceTree, source: Source, home: Source, rows: Rows, gone: Sequence[ast.AST]) -> Iterator[Finding]:
    """The data set, above what asks for it, and in place of what nothing else uses any more."""
    lacking = [name for name in NEEDED if not has_definition(home, name)]
    if lacking:
        yield definitions(home, donor("bit_transformer/bit_io.py"), *lacking)
    given = seen_from(tree, source, donor("data/wikitext_schedule.py"), "bit_io", home.path)
    found = definitions(source, given, ROWS)
    yield replace(found, edits=tuple(above(source, edit, source.at(rows.node)) for edit in found.edits))
    inside = {id(each) for node in gone for each in ast.walk(node)}
    names = [each for each in rows.file.nodes if isinstance(each, ast.Name)]
    spent = {each.id for each in names if id(each) in inside} - {each.id for each in names if id(each) not in inside}
    edits = list(without_imports(source, spent - {each.value for each in given.uses()}))  # what is brought needs
    if edits:
        yield mend(source.site(edits[0].node, f"import of {', '.join(sorted(spent))}"), edits)


task = Task(
    number=5,
    slug="memory-map",
    title="Memory-mapped, streaming bit data set",
    contract=Contract.EXTENDS,
    seam="rows",
    summary="BitRows encodes a text once and reads its rows from a memory-mapped file",
    why=__doc__,
    sought="a wikitext_schedule that cuts a text file's bits into rows in memory",
    find=find,
)
