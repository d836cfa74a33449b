"""Let torch compute attention.

Scores, softmax and weighted sum are written out, and each keeps a [T, T] tensor for the backward
pass. `F.scaled_dot_product_attention` computes the same in one kernel; causal attention is asked for
with is_causal, and a mask is passed only where windows need one. Where attention maps are logged,
they are computed apart, from the statements that were there, and take no part in the output.

Contract: equivalent. Output and gradients are the same.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

import libcst as cst

from .editing.apart import kept_apart, makers_and_uses, may_move
from .editing.attention import dropout, mask, operand, order, scale
from .editing.spent import names_in, spent
from .edits import insert_before, rewrite
from .reading.attention import Attention, Unread, attentions, handed_a_causal_mask, hides_more_at_times, other_mode
from .reading.frames import Reading
from .reading.values import Graph
from .source import Source
from .task import Contract, Edit, Finding, Task, mend, mended, near_miss
from .tree import SourceTree

SDPA = "torch.nn.functional.scaled_dot_product_attention"
WIDTH = 120  # columns of a line


def find(tree: SourceTree) -> Iterator[Finding]:
    """The attentions that are written out, and those that torch computes."""
    for source, readings in tree.readings(having=rb"(?i)softmax|scaled_dot_product_attention"):
        found = {reading.node: list(attentions(tree.code.graph, reading)) for reading in readings}
        for reading in readings:
            for node, value in reading.values.items():
                if value.op == "scaled_dot_product_attention" and value.at is not None and value.at.node is node:
                    yield mended(source.site(node, "attention that torch computes"))  # type: ignore[arg-type]
            weighed = Counter(each.softmax.key for each in found[reading.node] if isinstance(each, Attention))
            for each in found[reading.node]:
                called = reading.calls.get(each.node) if isinstance(each, Attention) else None  # type: ignore[call-overload]
                if called is None or not found.get(called):
                    yield _finding(tree.code.graph, source, reading, _judged(each, weighed, reading, readings))


def _judged(
    found: Attention | Unread, weighed: Counter[int], reading: Reading, readings: list[Reading]
) -> Attention | Unread:
    """The same, unless what is around it forbids to patch it."""
    if not isinstance(found, Attention):
        return found
    if any(isinstance(each, ast.NamedExpr) for each in ast.walk(found.node)):
        return Unread(found.softmax, "its weights are named on the way (:=): name them in a statement of their own")
    if found.node in reading.doing:
        return Unread(found.softmax, "the call that weighs does something else too: write it here")
    if other_mode(reading, found):
        return Unread(found.softmax, "its weights are made in another mode than their sum (no_grad, autocast)")
    if weighed[found.softmax.key] > 1:
        return Unread(found.softmax, "its weights weigh several values: make one product of them")
    if any(not mask.is_causal and hides_more_at_times(mask.mask) for mask in found.masks):
        return Unread(
            found.softmax, "its mask hides just the future at times, and more at others: ask torch by is_causal"
        )
    caller = "" if any(mask.is_causal for mask in found.masks) else handed_a_causal_mask(readings, found)
    return Unread(found.softmax, f"{caller} hands it a causal mask: ask torch by is_causal") if caller else found


def _finding(graph: Graph, source: Source, reading: Reading, found: Attention | Unread) -> Finding:
    try:
        if isinstance(found, Unread):
            raise found
        return _computed_by_torch(graph, source, reading, found)
    except Unread as unread:
        at = unread.value.at
        node = at.node if at is not None and at.file is reading.file else reading.node
        return near_miss(source.site(node, f"attention that is written out, but {unread}"))  # type: ignore[arg-type]


def _computed_by_torch(graph: Graph, source: Source, reading: Reading, found: Attention) -> Finding:
    node, statement = found.node, reading.file.statement(found.node)
    function, no_grad = source.names.spelled(SDPA), source.names.spelled("torch.no_grad")
    if function is None or no_grad is None:
        raise Unread(found.softmax, "torch is not imported by a name: import torch")
    for name in (function.split(".")[0], no_grad.split(".")[0]):
        if name in reading.file.scopes[reading.node].bound:
            raise Unread(found.softmax, f"the name {name} stands for something else here: rename yours")
    operands = [operand(reading, found, each) for each in (found.queries, found.keys, found.values)]
    masked, edits, probability = mask(reading, found), list[Edit](), ""
    if found.dropout is not None:
        if reading.file.scopes[reading.node].is_taken("dropout_p"):
            raise Unread(found.dropout, "the name dropout_p is taken: rename yours")
        probability = dropout(reading, found)
        edits.append(insert_before(source, source.at(statement), f"dropout_p = {probability}"))
    dropped = ["dropout_p=dropout_p"] if probability else []
    arguments = [*operands, *masked, *dropped, *scale(graph, reading, found)]
    text = _call(source, node, statement, function, arguments, order(found))
    gone = spent(reading, [node], found.result, [*arguments, probability or "0"])
    edits += [Edit(source, source.at(each), lambda _: cst.RemoveFromParent()) for each in gone]
    edits += _map_apart(source, reading, found, gone, f"{no_grad}()", names_in(f"f({', '.join(arguments)})"))
    site = found.softmax.at if found.softmax.at is not None and found.softmax.at.file is reading.file else None
    place = site.node if site is not None else node
    return mend(
        source.site(place, "attention that is written out"),  # type: ignore[arg-type]
        [*edits, rewrite(source, source.at(node), lambda _: text)],  # type: ignore[arg-type]
    )


def _call(source: Source, node: ast.expr, statement: ast.stmt, function: str, arguments: list[str], order: str) -> str:
    """The call in one line, or, where that is too long, with its arguments in a line of their own."""
    line, own = source.code(source.at(statement)), source.code(source.at(node))
    around = line.splitlines()[-1].strip().replace(own, "")
    text = f"{function}({', '.join(arguments)}){order}"
    if statement.col_offset + len(around) + len(text) <= WIDTH:
        return text
    return f"{function}(\n    {', '.join(arguments)}\n){order}"


def _map_apart(
    source: Source, reading: Reading, found: Attention, gone: list[ast.stmt], no_grad: str, kept: set[str]
) -> Iterator[Edit]:
    """Keep the statements that make the weights for who else reads them: under the same condition, if there is one."""
    made = {each.key for each in found.made}
    makers, uses = makers_and_uses(reading, made, found.node, gone)
    read = [reading.values[use].key for use in uses if use in reading.values]
    if found.dropout is not None and found.dropout.key in read:
        raise Unread(found.dropout, "the weights are read once they are dropped out: read them before")
    parts = {each.key for each in found.softmax.walk()} | made
    if makers and uses and may_move(reading, makers, uses, (parts, made), kept):
        yield from kept_apart(source, reading, makers, uses, no_grad)


task = Task(
    number=9,
    slug="sdpa",
    title="Scaled-dot-product attention",
    contract=Contract.EQUIVALENT,
    summary="F.scaled_dot_product_attention computes attention; logged maps are computed apart",
    why=__doc__,
    sought="a softmax of scaled scores whose result, dropped out or not, weighs values",
    find=find,
)
