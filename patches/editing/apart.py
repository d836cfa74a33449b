"""Keep what is read only at times apart: under the condition under which it is read, and without gradients."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Sequence

from ..edits import move_under
from ..reading.frames import Reading
from ..source import Source
from ..task import Edit


def kept_apart(
    source: Source, reading: Reading, statements: Sequence[ast.stmt], uses: Collection[ast.Name], no_grad: str
) -> Iterator[Edit]:
    """Put neighbouring statements under what all uses of their names stand under, if that is known before them."""
    conditions = {condition_of(reading, use, statements[0]) for use in uses}
    heads = [f"if {condition}:" for condition in conditions if condition and len(conditions) == 1]
    if all(_is_detached(reading, use) for use in uses):
        heads.append(f"with {no_grad}:")
    if heads and _are_neighbours(reading, statements):
        yield from move_under(source, heads, [source.at(each) for each in statements])


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
    for node in ast.walk(reading.node):
        value = reading.values.get(node.value) if isinstance(node, ast.Assign) else None
        if value is not None and node not in gone and value.key in made:
            names |= {
                each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
            }
            top = next((each for each in (node, *file.ancestors(node)) if file.parents.get(each) is block), None)
            if isinstance(top, ast.stmt) and top not in makers:
                makers.append(top)
    own = {id(each) for each in (*makers, *gone, at)}
    loads = [node for node in ast.walk(reading.node) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
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
    parts, made = found
    scope = reading.file.scopes[reading.node]
    for node in (each for statement in makers for each in ast.walk(statement)):
        if isinstance(node, ast.Assign):
            value, target = reading.values.get(node.value), node.targets[0]
            is_local = (
                isinstance(target, ast.Name) and target.id not in {*scope.elsewhere, *kept} and len(node.targets) == 1
            )
            if not is_local or value is None or value.key not in parts:
                return False
        elif (
            (isinstance(node, ast.stmt) and not isinstance(node, ast.If))
            or node in reading.doing
            or isinstance(node, ast.NamedExpr)
        ):
            return False
    return all(use in reading.values and reading.values[use].key in made for use in uses)


def condition_of(reading: Reading, use: ast.Name, first: ast.stmt) -> str:
    """What has to hold for a use to be reached, if it means the same in front of a statement before it; or nothing."""
    file, branch = reading.file, use
    for choice in file.ancestors(use):
        if isinstance(choice, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return ""
        if isinstance(choice, (ast.If, ast.IfExp)):
            body = choice.body if isinstance(choice.body, list) else [choice.body]
            break
        branch = choice  # type: ignore[assignment]
    else:
        return ""
    is_near = file.parents[file.statement(choice)] is file.parents[first]
    if branch not in body or not is_near or any(isinstance(each, ast.Call) for each in ast.walk(choice.test)):
        return ""
    env = reading.before.get(first, {})
    names = [each for each in ast.walk(choice.test) if isinstance(each, ast.Name)]
    own = [each for each in names if each.id in file.scopes[reading.node].bound]
    is_same = all(each.id in env and env[each.id].key == reading.values[each].key for each in own)
    asked = {each.attr for each in ast.walk(choice.test) if isinstance(each, ast.Attribute)}
    until = file.statement(choice).lineno
    between = [each for each in reading.doing if first.lineno <= getattr(each, "lineno", 0) < until]
    return file.text(choice.test) if is_same and not asked & reading.written and not between else ""


def _is_detached(reading: Reading, use: ast.Name) -> bool:
    parent = reading.file.parents[use]
    return isinstance(parent, ast.Attribute) and parent.attr in ("detach", "data")


def _are_neighbours(reading: Reading, statements: Sequence[ast.stmt]) -> bool:
    block = reading.file.parents[statements[0]]
    for name in ("body", "orelse", "finalbody"):
        lines = getattr(block, name, None)
        if isinstance(lines, list) and statements[0] in lines:
            start = lines.index(statements[0])
            return lines[start : start + len(statements)] == list(statements)
    return False
