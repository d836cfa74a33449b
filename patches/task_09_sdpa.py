"""Let torch compute attention.

Scores, softmax and weighted sum are written out, and each keeps a [T, T] tensor for the backward
pass. `F.scaled_dot_product_attention` computes the same in one kernel; causal attention is asked for
with is_causal, and a mask is passed only where windows need one. Where attention maps are logged,
they are computed apart, from the statements that were there, and take no part in the output.

Contract: equivalent. Output and gradients are the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from .attention import Attention, UnreadError, changed_between, read_attention, weighings
from .edits import insert_before, move_under, rewrite
from .matchers import is_inside, operations
from .source import Source
from .task import Contract, Edit, Finding, Task, mend, mended, near_miss
from .tree import SourceTree

SDPA = "torch.nn.functional.scaled_dot_product_attention"
WIDTH = 120  # columns of a line


def find(tree: SourceTree) -> Iterator[Finding]:
    """The attentions that are written out, and those that torch computes."""
    for source in tree.package(having=rb"softmax|scaled_dot_product_attention"):
        for call in operations(source, "scaled_dot_product_attention"):
            yield mended(source.site(call.call, "attention that torch computes"))
        for softmax, products in weighings(source):
            try:
                attention = read_attention(source, softmax, products)
                yield _computed_by_torch(source, softmax.call, attention)
            except UnreadError as unread:
                yield near_miss(source.site(unread.node, f"attention that is written out, but {unread}"))


def _computed_by_torch(source: Source, softmax: cst.Call, attention: Attention) -> Finding:
    site = source.site(softmax, "attention that is written out")
    function, torch = source.names.spelled(SDPA), source.names.spelled("torch.no_grad")
    if function is None or torch is None:
        raise UnreadError(softmax, "torch is not imported by a name: import torch")
    for name in (function.split(".")[0], torch.split(".")[0]):
        if source.names.bindings(name, softmax) is not source.names.top_level(name):
            raise UnreadError(softmax, f"the name {name} stands for something else here: rename yours")
    statement = source.statement(attention.weighted)
    arguments = [*attention.operands, attention.mask, attention.scale]
    edits = list(_map_apart(source, attention, f"{torch}()"))
    if attention.dropout:
        if source.names.is_bound("dropout_p", softmax):
            raise UnreadError(softmax, "the name dropout_p is taken: rename yours")
        edits.append(insert_before(source, statement, f"dropout_p = {attention.dropout}"))
        arguments.insert(4, "dropout_p=dropout_p")
    text = _call(source, attention.weighted, function, [argument for argument in arguments if argument])
    return mend(site, [*edits, rewrite(source, attention.weighted, lambda _: text)])


def _call(source: Source, node: cst.BaseExpression, function: str, arguments: list[str]) -> str:
    """The call in one line, or, where that is too long, with its arguments in a line of their own."""
    line = source.statement(node)
    indent = 4 * sum(isinstance(each, cst.IndentedBlock) for each in source.ancestors(line))
    around = source.code(line).splitlines()[-1].strip().replace(source.code(node), "")
    text = f"{function}({', '.join(arguments)})"
    if indent + len(around) + len(text) <= WIDTH:
        return text
    return f"{function}(\n    {', '.join(arguments)}\n)"


def _map_apart(source: Source, attention: Attention, no_grad: str) -> Iterator[Edit]:
    """Keep the statements that make the weights for who else reads them: under the same condition, if there is one."""
    names, own = attention.set_names(source), [*attention.explicit, attention.weighted]
    own += [attention.dropped] if attention.dropped is not None else []
    every = [use for use in source.uses(source.function(attention.weights)) if use.value in names]
    uses = [use for use in every if not any(is_inside(source, use, each) for each in own)]
    if attention.dropped is not None:
        yield Edit(source, attention.dropped, lambda _: cst.RemoveFromParent())
    if not uses:
        for statement in attention.explicit:
            yield Edit(source, statement, lambda _: cst.RemoveFromParent())
        return
    conditions = {_condition(source, attention, use) for use in uses}
    heads = [f"if {condition}:" for condition in conditions if condition and len(conditions) == 1]
    if all(_is_detached(source, use) for use in uses):
        heads.append(f"with {no_grad}:")
    if heads:
        yield from move_under(source, heads, attention.explicit)


def _condition(source: Source, attention: Attention, use: cst.Name) -> str:
    """What has to hold for a use to be reached, if known where the weights are made: `x if logged else None`."""
    branch: cst.CSTNode = use
    choice = source.parents.get(branch)
    while choice is not None and not isinstance(choice, (cst.IfExp, cst.If, cst.FunctionDef)):
        branch, choice = choice, source.parents.get(choice)
    if not isinstance(choice, (cst.IfExp, cst.If)) or choice.body is not branch:
        return ""
    first, line = attention.explicit[0], source.statement(choice)
    is_near = source.parents[line] is source.parents[first] and source.order[line] > source.order[first]
    names = list(source.uses(choice.test))
    bound = [binding.node for name in names for binding in source.names.bindings(name.value, name)]
    is_known = is_near and not any(source.walk(cst.Call, inside=choice.test))
    is_known = is_known and all(source.order[node] < source.order[first] for node in bound)
    is_same = changed_between(source, {name.value for name in names}, first, line) is None
    return source.code(choice.test) if is_known and is_same else ""


def _is_detached(source: Source, use: cst.Name) -> bool:
    parent = source.parents[use]
    return isinstance(parent, cst.Attribute) and parent.attr.value in ("detach", "data")


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
