"""How a value is written at a place: by a name that stands for it there, or by the expression that computed it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..reading.frames import Env, Reading
from ..reading.frames import where as chosen_where
from ..reading.masks import causal_mask
from ..reading.nodes import expression, walk
from ..reading.updates import is_within
from ..reading.values import Value


def spelled(value: Value, reading: Reading, at: ast.AST, where: tuple[Value, bool] | None = None) -> str | None:
    """The text of a value in front of the statement that a node stands in; None where no text is known to mean it.

    `where` is a condition, and whether it holds, under which alone the text is to be looked at.
    """
    return next(spellings(value, reading, at, where), None)


def device_of(model: Value, reading: Reading, at: ast.stmt) -> str | None:
    """A model's device, by the name that a scope has for it."""
    devices = {name: value for name, value in reading.before.get(at, {}).items() if value.op == "device"}
    names = [name for name, value in devices.items() if any(each.key == model.key for each in value.walk())]
    text = None if names else spelled(model, reading, at)
    return names[0] if names else f"next({text}.parameters()).device" if text is not None else None


def spellings(value: Value, reading: Reading, at: ast.AST, where: tuple[Value, bool] | None = None) -> Iterator[str]:
    """Texts of a value there: those that stand in the node itself first, then names, then what was written before."""
    if value.op == "const" and isinstance(value.data, (bool, int, float, type(None))):
        yield repr(value.data) if value.data not in (float("inf"), float("-inf")) else f'float("{value.data}")'
        return
    env = reading.before.get(reading.file.statement(at), {})
    if where is not None:
        env = {name: chosen_where(known, *where) for name, known in env.items()}
    names = [name for name, known in env.items() if known.key == value.key]
    inside = {node.id for node in walk(at) if isinstance(node, ast.Name)}
    yield from sorted(names, key=lambda name: name not in inside)
    own = next((name for name, known in env.items() if known.op == "self"), "")
    is_own = value.op == "parameter" and value.data[1] is reading.node
    if own and value.op != "const" and not is_own:
        alike = (name for name, known in reading.attributes.items() if known.key == value.key)
        yield from (f"{own}.{name}" for name in alike if name not in reading.written)
    expressions = [(node, known) for node, known in reading.values.items() if known.key == value.key]
    for node, _ in sorted(expressions, key=lambda each: not is_within(reading.file, each[0], at)):
        is_local = isinstance(node, ast.Name) and node.id in reading.file.scopes[reading.node].bound
        if isinstance(node, ast.expr) and not is_local and _is_valid(reading, node, at, env):
            text = reading.file.text(node)
            yield text if "\n" not in text else ast.unparse(node)
    if value.op == "attr" and value.data not in reading.written | reading.filled:
        yield from (f"{each}.{value.data}" for each in spellings(value["of"], reading, at, where) if _is_atom(each))


def _is_valid(reading: Reading, node: ast.expr, at: ast.AST, env: Env) -> bool:
    """Whether an expression still means the same there: its names do, and all that it calls of the tree is masks."""
    if getattr(node, "ctx", None) is not None and not isinstance(node.ctx, ast.Load):  # type: ignore[attr-defined]
        return False
    if is_within(reading.file, node, at):
        return True
    for each in walk(node):
        if isinstance(each, (ast.NamedExpr, ast.Lambda, ast.Yield, ast.Await, ast.comprehension)):
            return False
        made = reading.values[each] if each in reading.calls else None
        is_kept = made is not None and any(part.op == "kept" for part in made.walk())  # and so the same again
        if (made is not None and not is_kept and causal_mask(made) is None) or each in reading.doing:
            return False
        if isinstance(each, ast.Attribute) and each.attr in reading.written | reading.filled:
            return False
        if isinstance(each, ast.Name) and each.id in reading.file.scopes[reading.node].bound:
            then, now = reading.values.get(each), env.get(each.id)
            if then is None or now is None or then.key != now.key:
                return False
    return True


def written(value: Value, reading: Reading, at: ast.AST) -> str | None:
    """The text of a value there, made of texts of its parts where it has none of its own."""
    text = spelled(value, reading, at)
    if text is not None or "input" not in value.args:
        return text
    inner = written(value["input"], reading, at)
    if inner is None:
        return None
    inner = inner if _is_atom(inner) else f"({inner})"
    match value.op:
        case "mT":
            return f"{inner}.transpose(-2, -1)"
        case "swap":
            return f"{inner}.transpose{value.data}"
        case "permute":
            return inner + reordered(value)
        case "unflatten":
            sizes = [spelled(each, reading, at) for each in value["sizes"].items]
            return None if None in sizes else f"{inner}.unflatten({value['dim'].data}, ({', '.join(map(str, sizes))}))"
        case "contiguous" | "clone" | "detach":
            return f"{inner}.{value.op}()"
        case "index":
            places = [_place(each) for name, each in value.args.items() if name != "input"]
            return f"{inner}[{', '.join(filter(None, places))}]" if all(places) else None
    return None


def _place(value: Value) -> str | None:
    """An index or a slice of constants."""
    if value.op == "slice" and all(each.is_const() for each in value.items):
        start, end, *step = ("" if each.is_const(None) else str(each.data) for each in value.items)
        return f"{start}:{end}" + "".join(f":{each}" for each in step if each)
    return repr(value.data) if value.is_const() else None


def reordered(value: Value) -> str:
    """What puts a tensor's dimensions into the order of a permuted value, behind its text."""
    moved = [place for place, each in enumerate(value.data) if place != each]
    is_swap = len(moved) == 2  # noqa: PLR2004 - two dimensions
    return f".transpose({moved[0]}, {moved[1]})" if is_swap else f".permute{value.data}"


def _is_atom(text: str) -> bool:
    return isinstance(expression(text), (ast.Name, ast.Attribute, ast.Call, ast.Subscript))
