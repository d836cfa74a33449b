"""Statements that nothing needs once some expressions are replaced, and backward calls that no run learns by."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator

from ..reading.frames import Reading
from ..reading.nodes import children, walk
from ..reading.tree import SourceTree
from ..reading.updates import strays
from ..reading.values import Value
from ..task import Finding, apart, near_miss

_NEW = {  # views of nothing
    *("matmul", "mul", "div", "add", "sub", "masked_fill", "where", "softmax", "clone"),
    *("zeros", "ones", "full", "new_zeros", "new_ones", "new_full"),
}


def spent(
    reading: Reading, replaced: Collection[ast.AST], made: Collection[Value], kept: Iterable[str] = ()
) -> list[ast.stmt]:
    """The statements of a function that only fed expressions which are replaced, in source order.

    `made` is what the expressions computed; `kept` are the texts that stand in their place: what these use is needed.
    Only plain assignments to local names go, of values that have no effect and that the expressions were made of, and
    conditions under which nothing is left.
    """
    needed = {name for text in kept for name in names_in(text)}
    parts = {each.key for value in made for each in value.walk()}
    gone = {
        id(node): node for node in walk(reading.node) if isinstance(node, ast.stmt) and _may_go(reading, node, parts)
    }
    uses = _uses(reading, {id(node) for node in (*replaced, *gone.values())})
    own = {id(node) for node in replaced}
    while True:
        used = {name for name, around in uses if around.isdisjoint(own) and around.isdisjoint(gone)} | needed
        alive = {key for key, node in gone.items() if not used.isdisjoint(_names_of(reading, node))}
        if not alive:
            known, stuck = _with_conditions(reading, list(gone.values()))
            alive = {id(node) for block in stuck for node in _of_block(block, gone.values())}
            if not alive:
                outermost = [node for node in known if reading.file.parents[node] not in known]
                return sorted(outermost, key=lambda node: node.lineno)
        gone = {key: node for key, node in gone.items() if key not in alive}


def _may_go(reading: Reading, node: ast.stmt, parts: set[int]) -> bool:
    """Whether a statement sets local names, or what is new, and does nothing else, to a part of what is replaced."""
    scope, names, inside = reading.file.scopes[reading.node], _names_of(reading, node), list(walk(node))
    change = changed_in_place(reading, node)
    value = change[1] if change is not None else reading.values.get(getattr(node, "value", node))
    is_local = bool(names) and names <= scope.bound.keys() - scope.elsewhere.keys()
    doing = [each for each in inside if each in reading.doing and (change is None or each is not node.value)]  # type: ignore[attr-defined]
    is_pure = not doing and not any(isinstance(each, ast.NamedExpr) for each in inside)
    return is_local and is_pure and _is_alone(reading, node) and value is not None and value.key in parts


def _names_of(reading: Reading, node: ast.stmt) -> set[str]:
    """The names that a statement sets, or whose tensor it changes; none where it does anything else."""
    if (change := changed_in_place(reading, node)) is not None:
        return {change[0]}
    target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
    every = target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
    names = {each.id for each in every if isinstance(each, ast.Name)}
    return names if all(isinstance(each, ast.Name) for each in every) else set()


def changed_in_place(reading: Reading, node: ast.AST) -> tuple[str, Value] | None:
    """The name of a tensor that a function has made and a statement changes in place, and what it is then."""
    writes = reading.own_writes
    match node:
        case ast.AugAssign(target=ast.Name(id=name) as at):
            value = reading.values.get(at)
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name))) as at) if at in writes:
            value = writes[at]
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name)) as at]) if at in writes:
            value = writes[at]
        case _:
            return None
    root, made = value, {each.key for each in writes.values()}
    while root is not None and (root is value or root.key in made):
        root = root.get("input")
    return (name, value) if root is not None and value is not None and root.op in _NEW else None


def _uses(reading: Reading, nodes: set[int]) -> list[tuple[str, set[int]]]:
    """The names that are read, changed or deleted, each with those of some nodes that it stands in."""
    found = []
    for node in walk(reading.node):
        name = node.target if isinstance(node, ast.AugAssign) else node
        if isinstance(name, ast.Name) and (name is not node or not isinstance(name.ctx, ast.Store)):
            found.append((name.id, nodes & {id(each) for each in (node, *reading.file.ancestors(node))}))
    return found


def _is_alone(reading: Reading, node: ast.stmt) -> bool:
    """Whether a statement has its line to itself."""
    siblings = children(reading.file.parents[node])
    place = siblings.index(node)
    beside = [each for each in siblings[max(0, place - 1) : place + 2] if isinstance(each, ast.stmt)]
    return not any(each is not node and each.lineno <= node.lineno <= (each.end_lineno or 0) for each in beside)


def _blocks(reading: Reading, gone: list[ast.stmt]) -> list[tuple[ast.AST, list[ast.stmt]]]:
    """The blocks of which nothing would be left, with what they belong to."""
    return [
        (parent, block)
        for parent in {reading.file.parents[node] for node in gone}
        for name in ("body", "orelse", "finalbody")
        if isinstance(block := getattr(parent, name, None), list) and block and all(node in gone for node in block)
    ]


def _goes_whole(parent: ast.AST, gone: list[ast.stmt]) -> bool:
    """Whether a compound statement is a condition that calls nothing, and nothing of it would be left."""
    is_whole = isinstance(parent, ast.If) and all(node in gone for node in (*parent.body, *parent.orelse))
    return is_whole and not any(isinstance(each, (ast.Call, ast.NamedExpr)) for each in walk(parent.test))  # type: ignore[attr-defined]


def _with_conditions(reading: Reading, gone: list[ast.stmt]) -> tuple[list[ast.stmt], list[list[ast.stmt]]]:
    """What goes, with the conditions of which nothing is left; and blocks left empty, though what holds them stays."""
    known = list(gone)
    while True:
        found = _blocks(reading, known)
        stuck = [block for parent, block in found if not _goes_whole(parent, known)]
        whole = {parent: None for parent, _ in found if _goes_whole(parent, known) and parent not in known}
        if stuck or not whole:
            return known, stuck
        known += whole  # type: ignore[arg-type]


def _of_block(block: list[ast.stmt], gone: Collection[ast.stmt]) -> list[ast.stmt]:
    """What goes of a block: its own statements, or else those further in."""
    inside = {id(each) for outer in block for each in walk(outer)}
    return [node for node in block if node in gone] or [node for node in gone if id(node) in inside]


def names_in(text: str) -> set[str]:
    """The names that the text of an expression uses."""
    return {node.id for node in walk(ast.parse(text)) if isinstance(node, ast.Name)}


def strayed_backwards(tree: SourceTree) -> Iterator[Finding]:
    """The backward calls of a tree in which no run learns."""
    for file, node, why in strays(tree.code):
        yield from apart([node], [near_miss(tree.source(file.path).site(node, f"backward call, but {why}"))])
