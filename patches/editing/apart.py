"""Keep what is read only at times apart: under the condition under which it is read, and without gradients.

So is a map that a function returns with its attention: callers say when they need it.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence

from ..reading.attention import Attention, Call
from ..reading.files import File
from ..reading.frames import Reading
from ..reading.masked import Unread
from ..reading.nodes import expression, walk
from ..reading.source import Source
from ..reading.tree import SourceTree
from ..reading.values import Value
from ..task import Edit
from .edits import move_under, rewrite
from .spent import changed_in_place

NEEDED = "need_weights"


def kept_apart(
    source: Source,
    reading: Reading,
    statements: Sequence[ast.stmt],
    uses: Collection[ast.Name],
    no_grad: str,
    feeding: Sequence[ast.stmt],
    needed: str = "",
) -> Iterator[Edit]:
    """Put neighbouring statements under what all uses of their names stand under, refused if not known by then.

    Those that do nothing but feed them go with them, where they stand among or right above them.
    `needed` is a condition that callers hand in, where they do.
    """
    conditions = {needed or condition_of(reading, use, statements[0]) for use in uses}
    heads = [f"if {condition}:" for condition in conditions if condition and len(conditions) == 1]
    if not heads and (last := asked_at_times(reading, uses, statements[0])) is not None:
        place = f"{last.lineno}:{last.col_offset + 1}"
        why = f"its map is read at times alone, and cannot be put under what {place} asks: ask it above the scores"
        raise Unread(reading.values[next(iter(uses))], why)
    if all(getattr(reading.file.parents[use], "attr", "") in ("detach", "data") for use in uses):
        heads.append(f"with {no_grad}:")
    more = sorted([*feeding, *statements], key=lambda each: each.lineno)
    if {needed or condition_of(reading, use, more[0]) for use in uses} == conditions != {""} and _are_neighbours(
        reading, more
    ):
        statements = more if _beside(reading, more) is None else statements
    if heads and _are_neighbours(reading, statements):
        if (other := _beside(reading, statements)) is not None:
            place = f"{other.lineno}:{other.col_offset + 1}"
            why = f"its map is read at times alone, and what makes it shares a line with {place}: give each its own"
            raise Unread(reading.values[next(iter(uses))], why)
        yield from move_under(source, heads, [source.at(each) for each in statements])
    elif needed:
        raise Unread(reading.values[next(iter(uses))], "its map is read at times alone: write what makes it in a row")


def makers_and_uses(
    reading: Reading, made: set[int], at: ast.expr, gone: Collection[ast.stmt]
) -> tuple[list[ast.stmt], list[ast.Name]]:
    """The statements that make values of some keys, in the block of an expression, and the names that read them.

    Neither the expression counts, nor what goes.
    """
    file = reading.file
    block = file.parents[file.statement(at)]
    makers: list[ast.stmt] = []
    names: set[str] = set()
    for node in walk(reading.node):
        change = changed_in_place(reading, node)
        value = reading.values.get(node.value) if isinstance(node, ast.Assign) else None
        value = change[1] if change is not None else value
        if value is not None and node not in gone and value.key in made:
            names |= {each.id for each in walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
            names |= {change[0]} if change is not None else set()
            top = next((each for each in (node, *file.ancestors(node)) if file.parents.get(each) is block), None)
            if isinstance(top, ast.stmt) and top not in makers:
                makers.append(top)
    own = {id(each) for each in (*makers, *gone, at)}
    loads = [node for node in walk(reading.node) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    uses = [node for node in loads if node.id in names and not any(id(each) in own for each in file.ancestors(node))]
    return sorted(makers, key=lambda each: each.lineno), uses


def may_move(
    reading: Reading,
    makers: Sequence[ast.stmt],
    uses: Collection[ast.Name],
    found: Collection[set[int]],
    kept: set[str],
) -> bool:
    """Whether statements do nothing but give parts of something to local names, and all uses read what they make.

    `found` are the keys of the parts, and of those that may be read; `kept` are names that are needed all the same.
    """
    (parts, made), own = found, set[ast.AST]()
    scope = reading.file.scopes[reading.node]
    for node in (each for statement in makers for each in walk(statement)):
        if (change := changed_in_place(reading, node)) is not None:
            own.add(getattr(node, "value", node))
            if change[0] in {*scope.elsewhere, *kept} or change[1].key not in parts:
                return False
        elif isinstance(node, ast.Assign):
            value, target = reading.values.get(node.value), node.targets[0]
            is_local = (
                isinstance(target, ast.Name) and target.id not in {*scope.elsewhere, *kept} and len(node.targets) == 1
            )
            if not is_local or value is None or value.key not in parts:
                return False
        elif (
            (isinstance(node, ast.stmt) and not isinstance(node, ast.If))
            or (node in reading.doing and node not in own)
            or isinstance(node, ast.NamedExpr)
        ):
            return False
    return all(use in reading.values and any(key in made for key in _branches(reading.values[use])) for use in uses)


def _branches(value: Value) -> Iterator[int]:
    """The keys of a value, and of what it is in each branch of a condition."""
    yield value.key
    for each in value.items[1:] if value.op == "phi" else ():
        yield from _branches(each)


def condition_of(reading: Reading, use: ast.Name, first: ast.stmt) -> str:
    """What has to hold for a use to be reached, if it means the same in front of a statement before it; or nothing."""
    file, block = reading.file, reading.file.parents[first]
    test, holds = _choice(reading, use, block) or _left_early(reading, use, first) or (None, True)
    if test is None or any(isinstance(each, ast.Call) for each in walk(test)):
        return ""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) is holds:
        test = without_none(test, use.id)
    env = reading.before.get(first, {})
    names = [each for each in walk(test) if isinstance(each, ast.Name)]
    own = [each for each in names if each.id in file.scopes[reading.node].bound]
    is_same = all(each.id in env and env[each.id].key == reading.values[each].key for each in own)
    asked = {each.attr for each in walk(test) if isinstance(each, ast.Attribute)}
    last = file.statement(test).lineno
    doing = reading.doing - {each.value for each in walk(reading.node) if changed_in_place(reading, each) is not None}  # type: ignore[attr-defined]
    match test:  # nothing that is done changes what a local name stands for
        case ast.Compare(left=ast.Name(), ops=[ast.Is() | ast.IsNot()], comparators=[ast.Constant()]) if own:
            doing = set()
    between = [each for each in doing if first.lineno <= getattr(each, "lineno", 0) < last]
    return _text(file, test, holds=holds) if is_same and not asked & reading.written and not between else ""


def asked_at_times(reading: Reading, uses: Collection[ast.Name], first: ast.stmt) -> ast.expr | None:
    """A condition under which alone a name is read, where all uses stand under one, and not on both sides of it."""
    asked = [_asked_under(reading, use, first) for use in uses]
    is_at_times = None not in asked and all((test, not holds) not in asked for test, holds in filter(None, asked))
    return asked[-1][0] if asked and is_at_times and asked[-1] is not None else None


def without_none(test: ast.expr, name: str) -> ast.expr:
    """A condition without the question, in front of it, whether a name stands for anything."""
    match test:
        case ast.BoolOp(
            op=op,
            values=[ast.Compare(left=ast.Name(id=asked), ops=[way], comparators=[ast.Constant(value=None)]), rest],
        ) if asked == name and isinstance(way, ast.Is if isinstance(op, ast.Or) else ast.IsNot):
            return rest
    return test


def _choice(reading: Reading, use: ast.Name, block: ast.AST) -> tuple[ast.expr, bool] | None:
    """The condition around a use in a block, and whether it holds there; nothing where there is none."""
    file, branch = reading.file, use
    for around in file.ancestors(use):
        if around is block:
            return None
        if isinstance(around, (ast.If, ast.IfExp)) and branch is not around.test:
            body = around.body if isinstance(around.body, list) else [around.body]
            is_seen = file.parents[file.statement(around)] in (block, *file.ancestors(block))
            return (around.test, branch in body) if is_seen else None
        branch = around  # type: ignore[assignment]
    return None


def _left_early(reading: Reading, use: ast.Name, first: ast.stmt) -> tuple[ast.expr, bool] | None:
    """The condition on which a block is left between a statement and a use, and that it does not hold at the use."""
    leaving = _leaving(reading, use, first, (ast.Return, ast.Raise))
    return (leaving[0].test, False) if len(leaving) == 1 and not leaving[0].orelse else None


def _asked_under(reading: Reading, use: ast.Name, first: ast.stmt) -> tuple[ast.expr, bool] | None:
    """Some condition under which alone a use is reached from a statement in whose block it stands, and which way."""
    file, block = reading.file, reading.file.parents[first]
    inner: ast.AST = use
    for around in file.ancestors(use):
        if around is block:
            break
        if isinstance(around, (ast.If, ast.IfExp)) and inner is not around.test:
            return around.test, inner in (around.body if isinstance(around, ast.If) else [around.body])
        if isinstance(around, ast.BoolOp) and inner is not around.values[0]:
            return around.values[0], isinstance(around.op, ast.And)
        inner = around
    return next(((each.test, False) for each in _leaving(reading, use, first, (ast.Return,))), None)


def _leaving(reading: Reading, use: ast.Name, first: ast.stmt, ends: tuple[type[ast.stmt], ...]) -> list[ast.If]:
    """The conditions, between a statement and a use, that end in some way, or on which its name is set to None."""
    file, found, around = reading.file, list[ast.If](), [use, *reading.file.ancestors(use)]
    for inner in (first, *file.ancestors(first)):
        block, lines = file.parents[inner], _lines(file.parents[inner], inner)  # type: ignore[arg-type]
        at = next((each for each in around if each in lines), None)
        between = lines[lines.index(inner) + 1 : lines.index(at) if at is not None else None]  # type: ignore[arg-type]
        found += [each for each in between if isinstance(each, ast.If) and _ends(each, use.id, ends)]
        if block in around:
            break
    return found


def _ends(choice: ast.If, name: str, ends: tuple[type[ast.stmt], ...]) -> bool:
    match choice.body:
        case [ast.Assign(targets=[ast.Name(id=forgotten)], value=ast.Constant(value=None))] if forgotten == name:
            return True
    return isinstance(choice.body[-1], ends)


def _text(file: File, test: ast.expr, *, holds: bool) -> str:
    if holds:
        return file.text(test)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return file.text(test.operand)
    is_plain = isinstance(test, (ast.Name, ast.Attribute, ast.Subscript, ast.Constant))
    return f"not {file.text(test)}" if is_plain else f"not ({file.text(test)})"


def _are_neighbours(reading: Reading, statements: Sequence[ast.stmt]) -> bool:
    block = reading.file.parents[statements[0]]
    lines = _lines(block, statements[0])
    start = lines.index(statements[0])
    return lines[start : start + len(statements)] == list(statements)


def _beside(reading: Reading, statements: Sequence[ast.stmt]) -> ast.stmt | None:
    """A statement that shares a line with some that are to move, and is none of them."""
    block = _lines(reading.file.parents[statements[0]], statements[0])
    taken = {each.lineno for each in statements} | {each.end_lineno for each in statements}
    return next((each for each in block if each not in statements and taken & {each.lineno, each.end_lineno}), None)


def _lines(block: ast.AST, statement: ast.stmt) -> list[ast.stmt]:
    """The statements of a block among which one stands."""
    every = (getattr(block, name, None) for name in ("body", "orelse", "finalbody"))
    return next((lines for lines in every if isinstance(lines, list) and statement in lines), [statement])


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
        if each in found.asked and each.node in texts and not (reads_alone and _mask_choice(each, texts[each.node])):
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
        if each.node in texts and (test := _mask_choice(each, texts[each.node])) is not None:
            caller, text = tree.source(each.reading.file.path), texts[each.node]
            text = f"({text})" if isinstance(expression(text), (ast.BoolOp, ast.IfExp)) else text
            text = f"{each.reading.file.text(test)} and {text}"
            yield rewrite(caller, caller.at(test), lambda _, text=text: text)  # type: ignore[misc, arg-type]


def _mask_choice(call: Call, text: str) -> ast.expr | None:
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
        own = [each.id for each in walk(expression(text)) if isinstance(each, ast.Name) and each.id in bound]
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
