"""A map that a function returns with its attention: made, with its causal mask, for callers that need it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence

from ..edits import rewrite
from ..reading.attention import Attention, Call
from ..reading.frames import Reading
from ..reading.masked import Unread
from ..reading.nodes import walk
from ..task import Edit
from ..tree import SourceTree
from .apart import asked_at_times, condition_of, without_none

NEEDED = "need_weights"


def needed(reading: Reading, found: Attention, uses: Sequence[ast.Name], own: Sequence[ast.AST]) -> dict[ast.Call, str]:
    """When the calls that return a map need it. Raises Unread where one does at times, and it cannot say when.

    `own` is what reads its mask for the weights alone.
    """
    returns = [each for each in walk(reading.node) if isinstance(each, ast.Return)]
    place = _place(returns[0].value, uses) if len(returns) == 1 else -1
    inside, texts = {inner for outer in own for inner in walk(outer)}, dict[ast.Call, str]()
    reads_alone = not found.asked or inside.issuperset(_loads(reading, found.masks[0].mask.data[2]))
    for each in found.calls if place >= 0 else ():
        statement = each.reading.file.statement(each.node)
        made = statement.targets[0] if isinstance(statement, ast.Assign) and statement.value is each.node else None
        names = [getattr(one, "id", "") for one in made.elts] if isinstance(made, ast.Tuple) else []
        name = names[place] if len(names) == len(returns[0].value.elts) and "" not in names else ""  # type: ignore[union-attr]
        loads = [use for use in _loads(each.reading, name) if not _is_asked_for(each.reading, use)]
        conditions = {condition_of(each.reading, use, statement) for use in loads}
        last = asked_at_times(each.reading, loads, statement)
        if len(conditions) == 1 and "" not in conditions:
            texts[each.node] = conditions.pop()
        elif each.is_causal and last is not None:
            at = f"{each.reading.file.path}:{last.lineno}:{last.col_offset + 1}"
            raise Unread(found.softmax, f"its map is read at times alone, when {at} says so: ask that above the call")
        if each in found.asked and each.node in texts and not (reads_alone and _choice(each, texts[each.node])):
            at = f"{each.reading.file.path}:{each.node.lineno}:{each.node.col_offset + 1}"
            raise Unread(
                found.softmax, f"its causal mask is made for a map, and {at} may need none: make it under that"
            )
    return texts if any(each.is_causal and each.node in texts for each in found.calls) else {}


def at_need(
    tree: SourceTree, reading: Reading, found: Attention, uses: Sequence[ast.Name], texts: Mapping[ast.Call, str]
) -> Iterator[Edit]:
    """Return a map, or None where it is not needed, and hand in no causal mask for it then."""
    if texts:
        source, returned = tree.source(reading.file.path), reading.file.statement(uses[0]).value  # type: ignore[attr-defined]
        own = returned.elts[_place(returned, uses)]
        yield rewrite(source, source.at(own), lambda _: f"{reading.file.text(own)} if {NEEDED} else None")  # type: ignore[arg-type]
    for each in found.asked:
        if each.node in texts and (test := _choice(each, texts[each.node])) is not None:
            caller, text = tree.source(each.reading.file.path), texts[each.node]
            text = f"({text})" if isinstance(ast.parse(text, mode="eval").body, (ast.BoolOp, ast.IfExp)) else text
            text = f"{each.reading.file.text(test)} and {text}"
            yield rewrite(caller, caller.at(test), lambda _, text=text: text)  # type: ignore[misc, arg-type]


def _choice(call: Call, text: str) -> ast.expr | None:
    """The condition under which a causal mask is made for a call alone, where a text means there what it means here."""
    reading, file, key = call.reading, call.reading.file, call.masks[0].mask.key
    bound = file.scopes[reading.node].bound
    for node in walk(reading.node):
        match node:
            case ast.IfExp(body=made, orelse=ast.Constant(value=None)):
                holder: ast.AST = file.parents[node]
            case ast.If(body=[ast.Assign(value=made) as holder], orelse=[]):
                pass
            case _:
                continue
        is_plain = isinstance(node.test, (ast.Name, ast.Attribute, ast.Compare))
        if made not in reading.values or reading.values[made].key != key or not is_plain:
            continue
        before = [reading.before.get(each, {}) for each in (file.statement(node), file.statement(call.node))]
        own = [each.id for each in walk(ast.parse(text)) if isinstance(each, ast.Name) and each.id in bound]
        if not all(each in env and env[each].key == before[1][each].key for each in own for env in before):
            continue
        match holder:
            case ast.Assign(targets=[ast.Name(id=name)]) if len(loads := _loads(reading, name)) == 1:
                holder = file.parents[loads[0]]
        if holder in (call.node, *(each for each in call.node.keywords)):
            return node.test
    return None


def _place(returned: ast.expr | None, uses: Sequence[ast.Name]) -> int:
    """Which of the values that are returned the one use of a map is, as it is or detached; or -1."""
    for place, each in enumerate(returned.elts if isinstance(returned, ast.Tuple) else ()):
        is_detached = isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr == "detach"
        if [each.func.value if is_detached else each] == uses:  # type: ignore[attr-defined]
            return place
    return -1


def _loads(reading: Reading, name: str) -> list[ast.Name]:
    names = [each for each in walk(reading.node) if isinstance(each, ast.Name) and each.id == name]
    return [each for each in names if isinstance(each.ctx, ast.Load)]


def _is_asked_for(reading: Reading, use: ast.Name) -> bool:
    """Whether a use asks only whether there is anything, beside what else is asked."""
    test = reading.file.parents[reading.file.parents[use]]
    return isinstance(test, ast.BoolOp) and without_none(test, use.id) is not test
