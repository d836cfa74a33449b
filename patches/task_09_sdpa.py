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

from .editing.apart import kept_apart
from .editing.spelling import spelled, written
from .editing.spent import spent
from .edits import insert_before, rewrite
from .reading.attention import Attention, Masking, Unread, attentions, handed_a_causal_mask, is_default_scale
from .reading.frames import Reading
from .reading.values import Graph, Value
from .source import Source
from .task import Contract, Edit, Finding, Task, mend, mended, near_miss
from .tree import SourceTree

SDPA = "torch.nn.functional.scaled_dot_product_attention"
WIDTH = 120  # columns of a line


def find(tree: SourceTree) -> Iterator[Finding]:
    """The attentions that are written out, and those that torch computes."""
    for source in tree.package(having=rb"(?i)softmax|scaled_dot_product_attention"):
        file = tree.code.files.file(source.path)
        if file is None:
            continue
        readings = [tree.code.reading(file, *each) for each in file.functions()]
        found = {reading.node: list(attentions(tree.code.graph, reading)) for reading in readings}
        for reading in readings:
            for node, value in reading.values.items():
                if value.op == "scaled_dot_product_attention" and value.at is not None and value.at.node is node:
                    yield mended(source.site(node, "attention that torch computes"))  # type: ignore[arg-type]
            weighed = Counter(each.softmax.key for each in found[reading.node] if isinstance(each, Attention))
            for each in found[reading.node]:
                called = reading.calls.get(each.node) if isinstance(each, Attention) else None  # type: ignore[call-overload]
                if isinstance(each, Attention) and weighed[each.softmax.key] > 1:
                    each = Unread(each.softmax, "its weights weigh several values: make one product of them")
                if called is not None and found.get(called):
                    continue
                if isinstance(each, Attention) and not any(mask.is_causal for mask in each.masks):
                    caller = handed_a_causal_mask(readings, each)
                    each = (
                        Unread(each.softmax, f"{caller} hands it a causal mask: ask torch by is_causal")
                        if caller
                        else each
                    )
                yield _finding(tree.code.graph, source, reading, each)


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
    operands = [_operand(reading, found, each) for each in (found.queries, found.keys, found.values)]
    arguments = [*operands, *_mask(reading, found), *_scale(graph, reading, found)]
    edits: list[Edit] = []
    if found.dropout is not None:
        if reading.file.scopes[reading.node].is_taken("dropout_p"):
            raise Unread(found.dropout, "the name dropout_p is taken: rename yours")
        edits.append(insert_before(source, source.at(statement), f"dropout_p = {_dropout(reading, found)}"))
        arguments.insert(3 + len(_mask(reading, found)), "dropout_p=dropout_p")
    text = _call(source, node, statement, function, arguments, _order(found))
    gone = spent(reading, [node], found.result, arguments)
    edits += [Edit(source, source.at(each), lambda _: cst.RemoveFromParent()) for each in gone]
    edits += _map_apart(source, reading, found, gone, f"{no_grad}()")
    site = found.softmax.at if found.softmax.at is not None and found.softmax.at.file is reading.file else None
    place = site.node if site is not None else node
    return mend(
        source.site(place, "attention that is written out"),  # type: ignore[arg-type]
        [*edits, rewrite(source, source.at(node), lambda _: text)],  # type: ignore[arg-type]
    )


def _operand(reading: Reading, found: Attention, value: Value) -> str:
    text = written(value, reading, found.node)
    if text is None:
        raise Unread(value, "what is attended to has no name where the weighted sum stands: name it there")
    return text


def _mask(reading: Reading, found: Attention) -> list[str]:
    """The mask as a keyword argument."""
    if not found.masks:
        return []
    if len(found.masks) > 1:
        raise Unread(found.softmax, "its scores are masked twice: make one mask of them")
    mask = found.masks[0]
    condition = _condition(reading, found, mask)
    if mask.is_causal:
        return [f"is_causal={condition or True}"]
    where = (mask.condition, mask.is_asked_for) if mask.condition is not None else None
    text = spelled(mask.mask, reading, found.node, where)
    if text is None:
        raise Unread(mask.mask, "what its mask hides cannot be told: set it for all cases, above the scores")
    text = text if text.isidentifier() or mask.kind != "hides" else f"({text})"
    text = f"~{text}" if mask.kind == "hides" else text
    if text == f"{condition.partition(' is not None')[0]}":
        return [f"attn_mask={text}"]  # which may be None
    return [f"attn_mask={text} if {condition} else None" if condition else f"attn_mask={text}"]


def _condition(reading: Reading, found: Attention, mask: Masking) -> str:
    """When a mask is asked for, as the bool that torch insists on; nothing where it always is."""
    if mask.condition is None:
        return ""
    text = spelled(mask.condition, reading, found.node)
    if text is None:
        raise Unread(mask.mask, "when it is masked cannot be told where the weighted sum stands")
    is_bool = mask.condition.op in ("gt", "ge", "lt", "le", "eq", "ne", "not", "is", "isnot") or _says_bool(
        mask.condition
    )
    if mask.condition.op == "is" and not mask.is_asked_for and text.endswith(" is None"):
        return text.replace(" is None", " is not None")
    if not mask.is_asked_for:
        return f"not {text}" if text.isidentifier() else f"not ({text})"
    return text if is_bool else f"bool({text})"


def _says_bool(value: Value) -> bool:
    """Whether a parameter is annotated as a bool, or has one as its default, or says nothing at all."""
    if value.op != "parameter":
        return False
    arguments = value.data[1].args
    placed = [*arguments.posonlyargs, *arguments.args]
    defaults = dict(zip([each.arg for each in reversed(placed)], reversed(arguments.defaults), strict=False))
    defaults |= {each.arg: default for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)}
    own = next(each for each in (*placed, *arguments.kwonlyargs) if each.arg == value.data[2])
    default = defaults.get(own.arg)
    is_bool = default is None or (isinstance(default, ast.Constant) and isinstance(default.value, bool))
    return is_bool and (own.annotation is None or ast.unparse(own.annotation) == "bool")


def _scale(graph: Graph, reading: Reading, found: Attention) -> list[str]:
    """The scale as a keyword argument, where it is not torch's own."""
    if is_default_scale(graph, found):
        return []
    texts = []
    for factor, divides in found.factors:
        text = spelled(factor, reading, found.node)
        if text is None:
            raise Unread(factor, "its scale has no name where the weighted sum stands: name it there")
        is_atom = isinstance(ast.parse(text, mode="eval").body, (ast.Name, ast.Attribute, ast.Call, ast.Constant))
        text = text if is_atom or (not divides and len(found.factors) == 1) else f"({text})"
        texts.append(f"1 / {text}" if divides else text)
    return [f"scale={' * '.join(sorted(texts, key=lambda each: not each.startswith('1 /'))) or '1.0'}"]


def _dropout(reading: Reading, found: Attention) -> str:
    """The probability with which weights are dropped, while training only."""
    assert found.dropout is not None
    module, p, training = (found.dropout.get(name) for name in ("module", "p", "training"))
    if module is not None:
        text = spelled(module, reading, found.node)
        if text is None:
            raise Unread(found.dropout, "its dropout has no name where the weighted sum stands")
        return f"{text}.p if self.training else 0.0"
    texts = [spelled(each, reading, found.node) if each is not None else None for each in (p, training)]
    if None in texts:
        raise Unread(found.dropout, "its dropout does not say p and training")
    return texts[0] or "" if texts[1] == "True" else f"{texts[0]} if {texts[1]} else 0.0"


def _order(found: Attention) -> str:
    """How the result is laid out, where that is not as torch lays it out."""
    if found.result.op != "permute":
        return ""
    moved = [place for place, each in enumerate(found.result.data) if place != each]
    is_swap = len(moved) == 2  # noqa: PLR2004 - two dimensions
    return f".transpose({moved[0]}, {moved[1]})" if is_swap else f".permute{found.result.data}"


def _call(source: Source, node: ast.expr, statement: ast.stmt, function: str, arguments: list[str], order: str) -> str:
    """The call in one line, or, where that is too long, with its arguments in a line of their own."""
    line, own = source.code(source.at(statement)), source.code(source.at(node))
    around = line.splitlines()[-1].strip().replace(own, "")
    text = f"{function}({', '.join(arguments)}){order}"
    if statement.col_offset + len(around) + len(text) <= WIDTH:
        return text
    return f"{function}(\n    {', '.join(arguments)}\n){order}"


def _map_apart(
    source: Source, reading: Reading, found: Attention, gone: list[ast.stmt], no_grad: str
) -> Iterator[Edit]:
    """Keep the statements that make the weights for who else reads them: under the same condition, if there is one."""
    file, made = reading.file, {each.key for each in found.made}
    block = file.parents[file.statement(found.node)]
    assigned = [node for node in ast.walk(reading.node) if isinstance(node, ast.Assign) and node not in gone]
    explicit = []
    for node in assigned:
        top = next((each for each in (node, *file.ancestors(node)) if file.parents.get(each) is block), None)
        if reading.values[node.value].key in made and isinstance(top, ast.stmt) and top not in explicit:
            explicit.append(top)
    own = {id(each) for each in (*explicit, *gone, found.node)}
    loads = [node for node in ast.walk(reading.node) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    uses = [
        node
        for node in loads
        if node in reading.values
        and reading.values[node].key in made
        and not any(id(e) in own for e in file.ancestors(node))
    ]
    if found.dropout is not None and any(reading.values[use].key == found.dropout.key for use in uses):
        raise Unread(found.dropout, "the weights are read once they are dropped out: read them before")
    if explicit and uses:
        explicit.sort(key=lambda each: each.lineno)
        yield from kept_apart(source, reading, explicit, uses, no_grad)


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
