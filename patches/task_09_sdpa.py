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

from .editing.apart import NEEDED, at_need, kept_apart, makers_and_uses, may_move, needed
from .editing.attention import asked, called, dropout, mask, operands, order, scale
from .editing.edits import insert_before, rewrite
from .editing.spent import names_in, spent
from .reading.attention import Attention, attentions
from .reading.callers import faults, judged
from .reading.frames import Reading
from .reading.masked import Unread, is_multihead
from .reading.source import Source
from .reading.tree import SourceTree
from .task import Contract, Edit, Finding, Task, apart, mend, mended, near_miss, opaque

SDPA = "torch.nn.functional.scaled_dot_product_attention"


def find(tree: SourceTree) -> Iterator[Finding]:
    """The attentions that are written out, and those that torch computes."""
    for source, readings in tree.readings(having=rb"(?i)softmax|scaled_dot_product_attention|\bexp\(|multihead"):
        found = {reading.node: list(attentions(tree.code.graph, reading)) for reading in readings}
        for reading in readings:
            for node, value in reading.values.items():
                is_torchs = value.op == "scaled_dot_product_attention" or is_multihead(value)
                if is_torchs and value.at is not None and value.at.node is node:
                    wrong = next(faults(tree.code.graph, reading, value), None)
                    said = f"attention that torch computes{f', but {wrong}' if wrong else ''}"
                    yield (near_miss if wrong else mended)(source.site(node, said))  # type: ignore[arg-type]
            weighed = Counter(each.softmax.key for each in found[reading.node] if isinstance(each, Attention))
            for place, each in enumerate(found[reading.node]):
                called = reading.calls.get(each.node) if isinstance(each, Attention) else None  # type: ignore[call-overload]
                if called is None or not found.get(called):
                    finding = _finding(tree, source, reading, each, weighed)
                    yield from apart([(reading.node, place)], [finding])


def _finding(
    tree: SourceTree, source: Source, reading: Reading, found: Attention | Unread, weighed: Counter[int]
) -> Finding:
    try:
        if isinstance(found, Unread):
            raise found
        found = judged(tree.code, reading, found, weighed[found.softmax.key])
        if found.asked and weighed.total() > 1:
            raise Unread(found.softmax, "its callers hand a causal mask to more than one attention: make one of them")
        return _computed_by_torch(tree, source, reading, found)
    except Unread as unread:
        value = unread.value
        branches = value.items if value.op == "phi" else [value]
        lost = next((each for each in branches if each.op in ("opaque", "call")), None)
        at = (lost or value).at
        node = at.node if at is not None and at.file is reading.file else reading.node
        missed = near_miss if lost is None else opaque
        return missed(source.site(node, f"attention that is written out, but {unread}"))  # type: ignore[arg-type]


def _computed_by_torch(tree: SourceTree, source: Source, reading: Reading, found: Attention) -> Finding:
    node, statement = found.node, reading.file.statement(found.node)
    function, no_grad = source.names.spelled(SDPA), source.names.spelled("torch.no_grad")
    if function is None or no_grad is None:
        raise Unread(found.softmax, "torch is not imported by a name: import torch")
    for name in (function.split(".")[0], no_grad.split(".")[0]):
        if name in reading.file.scopes[reading.node].bound:
            raise Unread(found.softmax, f"the name {name} stands for something else here: rename yours")
    given = list(operands(reading, found))
    masked, edits, probability = mask(reading, found), list[Edit](), ""
    if found.dropout is not None:
        if reading.file.scopes[reading.node].is_taken("dropout_p"):
            raise Unread(found.dropout, "the name dropout_p is taken: rename yours")
        probability = dropout(reading, found)
        edits.append(insert_before(source, source.at(statement), f"dropout_p = {probability}"))
    dropped = ["dropout_p=dropout_p"] if probability else []
    arguments = [*given, *masked, *dropped, *scale(tree.code.graph, reading, found)]
    text = called(source, node, statement, function, arguments) + order(found)
    gone = spent(reading, [node], [found.result], [*arguments, probability or "0"])
    edits += [Edit(source, source.at(each), lambda _: cst.RemoveFromParent()) for each in gone]
    edits += _map_apart(tree, source, reading, found, gone, f"{no_grad}()", names_in(f"f({', '.join(arguments)})"))
    site = found.softmax.at if found.softmax.at is not None and found.softmax.at.file is reading.file else None
    place = site.node if site is not None else node
    return mend(
        source.site(place, "attention that is written out"),  # type: ignore[arg-type]
        [*edits, rewrite(source, source.at(node), lambda _: text)],  # type: ignore[arg-type]
    )


def _map_apart(
    tree: SourceTree,
    source: Source,
    reading: Reading,
    found: Attention,
    gone: list[ast.stmt],
    no_grad: str,
    kept: set[str],
) -> Iterator[Edit]:
    """Keep the statements that make the weights for who else reads them: under the same condition, if there is one."""
    made, texts = {each.key for each in found.made}, dict[ast.Call, str]()
    makers, uses = makers_and_uses(reading, made, found.node, gone)
    read = [reading.values[use].key for use in uses if use in reading.values]
    if found.dropout is not None and found.dropout.key in read:
        raise Unread(found.dropout, "the weights are read once they are dropped out: read them before")
    parts = {each.key for each in found.softmax.walk()} | made
    if makers and uses and may_move(reading, makers, uses, (parts, made), kept):
        texts = needed(reading, found, uses, [*makers, *gone, found.node])
        block = reading.file.parents[makers[0]]
        feeding = spent(reading, [found.node, *makers], [found.softmax], kept)
        feeding = [each for each in feeding if each not in (*gone, *makers) and reading.file.parents[each] is block]
        yield from kept_apart(source, reading, makers, uses, no_grad, feeding, NEEDED if texts else "")
        yield from at_need(tree, reading, found, uses, texts)
    yield from asked(tree, source, reading, found, texts)


task = Task(
    number=9,
    slug="sdpa",
    title="Scaled-dot-product attention",
    contract=Contract.EQUIVALENT,
    seam="attention",
    summary="F.scaled_dot_product_attention computes attention; logged maps are computed apart",
    why=__doc__,
    sought="a softmax of scaled scores whose result, dropped out or not, weighs values",
    find=find,
)
