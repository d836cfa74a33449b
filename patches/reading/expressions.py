"""What an expression computes."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
from copy import copy

from .attributes import attribute, is_of_module
from .calls import call, name_of
from .frames import Frame, Guard, choice, is_of_a_cache, item_of, joined, kept_in, where
from .nodes import walk
from .numbers import is_number
from .operations import applied
from .shapes import size_of
from .signatures import BINARY, COMPARE, UNARY
from .values import Graph, Place, Value

_INTEGERS = {"const", "size", "item", "counted", "carried"}
_MOST_ITEMS = 16  # of a display that a comprehension goes through one by one
_MOST_CHOICES = 4  # of keys in a dict


def value_of(frame: Frame, node: ast.expr) -> Value:
    """The value of an expression."""
    at, graph = Place(frame.file, node), frame.graph
    match node:
        case ast.Constant():
            return graph.const(node.value if node.value is not ... else "...", at)
        case ast.Name():
            return _name(frame, node)
        case ast.Attribute():
            return attribute(frame, frame.expr(node.value), node.attr, at)
        case ast.Call():
            return _call(frame, node)
        case ast.BinOp() | ast.UnaryOp() | ast.Compare() | ast.BoolOp():
            return _operation(frame, node)
        case ast.IfExp():
            return _either(frame, node, at)
        case ast.Tuple() | ast.List() if not any(isinstance(each, ast.Starred) for each in node.elts):
            kind = "tuple" if isinstance(node, ast.Tuple) else "list"
            return graph.group(kind, [frame.expr(each) for each in node.elts], at)
        case ast.Dict():
            keys = [frame.expr(key) if key is not None else None for key in node.keys]
            return _display(graph, [*zip(keys, map(frame.expr, node.values), strict=True)], at)
        case ast.Subscript():
            return _subscript(frame, node)
        case ast.NamedExpr():
            value = frame.expr(node.value)
            frame.bind(node.target, value)
            return value
        case ast.Lambda():
            return graph.value("function", data=(frame.file.path, node, frame), at=at)
        case ast.ListComp() | ast.GeneratorExp() | ast.SetComp():
            return _comprehension(frame, node)
        case ast.DictComp():
            return _mapping(frame, node)
        case ast.Yield() | ast.YieldFrom():
            value = frame.expr(node.value) if node.value is not None else graph.const(None)
            is_all = isinstance(node, ast.YieldFrom)
            frame.yielded.append(graph.value("all_of", {"of": value}) if is_all else value)
            return graph.opaque("what a generator is sent", at)
        case ast.Starred():
            return frame.expr(node.value)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            frame.expr(child)
    return graph.opaque(f"an expression of kind {type(node).__name__}", at)


def _either(frame: Frame, node: ast.IfExp, at: Place) -> Value:
    """One of two expressions; what each does, it does under the condition."""
    test, guards, run, sides = frame.expr(node.test), frame.guards, frame.run, []
    start, attributes = dict(frame.env), dict(run.attributes)
    for kind, each in (("if", node.body), ("else", node.orelse)):
        frame.env, run.attributes = dict(start), dict(attributes)
        frame.guards = (*guards, Guard(kind, test, at))
        sides.append((frame.expr(each), frame.env, run.attributes))
    frame.guards = guards
    (yes, yes_env, yes_attributes), (no, no_env, no_attributes) = sides
    frame.env = joined(frame.graph, test, yes_env, no_env)
    run.attributes = joined(frame.graph, test, yes_attributes, no_attributes)
    return choice(frame.graph, test, yes, no, at)


def _display(graph: Graph, pairs: Sequence[tuple[Value | None, Value]], at: Place, depth: int = 0) -> Value:
    """A dict; one with a key that is one of two is one of two dicts."""
    test = next((key["test"] for key, _ in pairs if key is not None and key.op == "phi"), None)
    if test is not None and depth < _MOST_CHOICES:
        sides = [
            [(key and where(key, test, holds), where(each, test, holds)) for key, each in pairs]
            for holds in (True, False)
        ]
        yes, no = (_display(graph, side, at, depth + 1) for side in sides)
        return choice(graph, test, yes, no, at)
    entries = dict[str, Value]()
    for key, each in pairs:
        if not (each.op == "dict" if key is None else key.is_const()):
            return graph.opaque("an expression of kind Dict", at)
        entries |= each.args if key is None else {str(key.data): each}
    return graph.value("dict", entries, at=at)


def _operation(frame: Frame, node: ast.BinOp | ast.UnaryOp | ast.Compare | ast.BoolOp) -> Value:
    at, graph = Place(frame.file, node), frame.graph
    match node:
        case ast.BinOp():
            left, right, op = frame.expr(node.left), frame.expr(node.right), BINARY.get(type(node.op))
            if op in ("mul", "add") and left.op in ("tuple", "list"):
                return _repeated(frame, op, left, right, at)
            if isinstance(node.op, ast.BitOr) and left.op == right.op == "dict":
                return graph.value("dict", {**left.args, **right.args}, at=at)
            args = {"input": left, "exponent" if op == "pow" else "other": right}
            return applied(graph, op, args, at) if op is not None else graph.opaque("an operator", at, args)
        case ast.UnaryOp():
            operand = frame.expr(node.operand)
            is_plus = isinstance(node.op, ast.UAdd)
            return operand if is_plus else applied(graph, UNARY[type(node.op)], {"input": operand}, at)
        case ast.Compare():
            sides = [frame.expr(each) for each in (node.left, *node.comparators)]
            pairs = [
                applied(graph, COMPARE[type(op)], {"input": left, "other": right}, at)
                for op, left, right in zip(node.ops, sides, sides[1:], strict=False)
            ]
            return pairs[0] if len(pairs) == 1 else graph.group("all", pairs, at)
        case ast.BoolOp():
            kind = "all" if isinstance(node.op, ast.And) else "any"
            return graph.group(kind, [frame.expr(each) for each in node.values], at)


def set_by_name(frame: Frame, node: ast.For | ast.AsyncFor | ast.While) -> list[Value]:
    """What a loop goes through, one by one, that only sets attributes by name; nothing of any other."""
    if not isinstance(node, ast.For) or len(node.body) != 1 or node.orelse:
        return []
    match node.body[0], node.iter:
        case ast.Expr(value=ast.Call(func=ast.Name(id="setattr"))), ast.Call(
            func=ast.Attribute(value=of, attr="items")
        ):
            pairs = frame.expr(of)
            made = [(frame.graph.const(key), each) for key, each in pairs.args.items()] if pairs.op == "dict" else []
            return [frame.graph.group("tuple", pair) for pair in made]
        case ast.Expr(value=ast.Call(func=ast.Name(id="setattr"))), source:
            over = frame.expr(source)
            return list(over.items) if over.op in ("tuple", "list") else []
    return []


def augmented(frame: Frame, node: ast.AugAssign) -> None:
    """Let a target stand for what an operator makes of it."""
    at, loaded = Place(frame.file, node), copy(node.target)
    loaded.ctx = ast.Load()
    old, change, op = value_of(frame, loaded), frame.expr(node.value), BINARY.get(type(node.op))
    args = {"input": old, "exponent" if op == "pow" else "other": change}
    made = applied(frame.graph, op, args, at) if op is not None else frame.graph.opaque("an operator", at, args)
    if isinstance(node.target, ast.Name) and old.op not in _INTEGERS and not is_number(old):
        frame.changed(old, frame.graph.opaque("changed in place under another name", at))
    frame.bind(node.target, made)


def matched(frame: Frame, subject: Value, case: ast.match_case) -> Value:
    """Whether a case is the one that is taken; what its pattern names is bound."""
    test = _fits(frame, subject, case.pattern)
    if case.guard is None:
        return test
    guard = frame.expr(case.guard)
    return guard if test.is_const(True) else frame.graph.group("all", [test, guard], Place(frame.file, case.pattern))


def _fits(frame: Frame, subject: Value, pattern: ast.pattern) -> Value:
    at, graph = Place(frame.file, pattern), frame.graph
    match pattern:
        case ast.MatchValue(value=node):
            return applied(graph, "eq", {"input": subject, "other": frame.expr(node)}, at)
        case ast.MatchSingleton(value=constant):
            return applied(graph, "is", {"input": subject, "other": graph.const(constant)}, at)
        case ast.MatchOr(patterns=every):
            return graph.group("any", [_fits(frame, subject, each) for each in every], at)
        case ast.MatchAs(pattern=inner, name=name):
            if name is not None:
                frame.env[name] = subject
            return _fits(frame, subject, inner) if inner is not None else graph.const(True)
    for each in walk(pattern):
        name = getattr(each, "name", None) or getattr(each, "rest", None)
        if isinstance(name, str):
            frame.env[name] = graph.unique("matched", {"of": subject})
    return graph.unique("case", {"of": subject}, at=at)


def _repeated(frame: Frame, op: str, items: Value, other: Value, at: Place) -> Value:
    """[T] * 2 and (a, b) + (c,)."""
    if op == "mul" and isinstance(other.number, int) and 0 <= other.number <= _MOST_ITEMS:
        return frame.graph.group(items.op, items.items * other.number, at)
    if op == "add" and other.op == items.op:
        return frame.graph.group(items.op, (*items.items, *other.items), at)
    return frame.graph.value(op, {"input": items, "other": other}, at=at)


def _name(frame: Frame, node: ast.Name) -> Value:
    at, graph = Place(frame.file, node), frame.graph
    owner = frame.scope.owner(node.id)
    if owner is None:
        known = _outermost(frame).env.get(node.id) if frame.file.scope.is_open else None
        if known is None and not frame.code.files.is_open(frame.file):
            is_builtin = hasattr(builtins, node.id)
            return (
                graph.value("builtin", data=node.id, at=at)
                if is_builtin
                else graph.opaque(f"{node.id} is not bound", at)
            )
        return (
            frame.code.resolved(known) if known else graph.opaque(f"{node.id} may be bound without our seeing it", at)
        )
    holder: Frame | None = frame
    while holder is not None and holder.scope is not owner:
        holder = holder.outer
    value = holder.env.get(node.id) if holder is not None else None
    if value is not None and value.op == "const" and owner.parent is None and len(owner.bound[node.id]) > 1:
        return graph.value("setting", data=(frame.file.path, node.id), at=at)  # of a module, set more than once
    if value is not None:
        return frame.code.resolved(value)
    is_top = owner.parent is None  # of a module that is being read
    return graph.value("unset", data=node.id) if is_top else graph.opaque(f"{node.id} is not set yet", at)


def _outermost(frame: Frame) -> Frame:
    return frame if frame.outer is None else _outermost(frame.outer)


def indices(frame: Frame, node: ast.expr) -> dict[str, Value]:
    """The indices of a subscript, by their places."""
    found = {}
    for place, each in enumerate(node.elts if isinstance(node, ast.Tuple) else [node]):
        if isinstance(each, ast.Slice):
            bounds = (each.lower, each.upper, each.step)
            values = [frame.expr(b) if b is not None else frame.graph.const(None) for b in bounds]
            found[str(place)] = frame.graph.group("slice", values, Place(frame.file, each))
        else:
            found[str(place)] = frame.expr(each)
    return found


def _subscript(frame: Frame, node: ast.Subscript) -> Value:
    graph, at = frame.graph, Place(frame.file, node)
    base, index = frame.expr(node.value), indices(frame, node.slice)
    first = index["0"]
    number = first.number if len(index) == 1 and isinstance(first.number, int) else None
    if base.op == "shape" and number is not None:
        return size_of(graph, base["input"], first, at)
    if base.op == "shape" and len(index) == 1 and first.op == "slice" and (parts := _some_sizes(first)) is not None:
        return graph.group("tuple", [size_of(graph, base["input"], graph.const(place), at) for place in parts], at)
    if base.op in ("tuple", "list") and number is not None and -len(base.args) <= number < len(base.args):
        return base.items[number]
    if base.op == "dict" and len(index) == 1 and first.is_const() and str(first.data) in base.args:
        is_known = not is_of_module(base)  # else anybody may have set it
        return base[str(first.data)] if is_known else graph.value("index", {"input": base, **index}, at=at)
    if base.op == "dict" and base.args.keys() == {"True", "False"} and first.op in COMPARE.values():
        return choice(graph, first, base["True"], base["False"], at)
    if base.op == "cache" or (base.op == "dict" and not base.args):
        return kept_in(frame, base, at)
    if base.op == "phi" and number in (0, 1) and {each.op for each in base.items[1:]} == {"tuple", "kept"}:
        yes, no = (each.get(str(number)) or graph.value("part", {"of": each}, number, at) for each in base.items[1:])
        return choice(graph, base["test"], yes, no, at)
    if number is not None and number >= 0 and base.op in ("call", "part", "item", "module"):
        return graph.value("part", {"of": base}, number, at)
    return graph.value("index", {"input": base, **index}, at=at)


def _some_sizes(bounds: Value) -> range | None:
    """The places of x.shape[-2:] or x.shape[:2]; None where they depend on how many there are."""
    if any(each.op != "const" for each in bounds.items) or bounds.items[2].data not in (None, 1):
        return None
    start, stop = bounds.items[0].data, bounds.items[1].data
    if start is not None and start < 0 and (stop is None or stop < 0):
        return range(start, stop or 0)
    return range(start or 0, stop) if (start or 0) >= 0 and stop is not None and stop >= 0 else None


def _comprehension(frame: Frame, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> Value:
    graph, at, first = frame.graph, Place(frame.file, node), node.generators[0]
    source, inner = frame.expr(first.iter), frame.inside(node)
    inner.guards = (*inner.guards, Guard("for", source, at))
    is_plain = len(node.generators) == 1 and not first.ifs
    if is_plain and (every := _one_by_one(frame, node, source)) is not None:
        made = []
        for each in every:
            inner.bind(first.target, each)
            made.append(inner.expr(node.elt))
        return graph.group("list", made, at)
    inner.bind(first.target, item_of(graph, source, node, at))
    for generator in node.generators[1:]:
        inner.bind(generator.target, item_of(graph, inner.expr(generator.iter), generator, at))
    tests = [inner.expr(test) for generator in node.generators for test in generator.ifs]
    conditions = {f"if{place}": test for place, test in enumerate(tests)}
    return graph.value("each", {"of": source, "elt": inner.expr(node.elt), **conditions}, at=at)


def _one_by_one(frame: Frame, node: ast.expr, source: Value) -> Sequence[Value] | None:
    """What a comprehension goes through: what a display holds, or a part for each name that it is unpacked to."""
    if source.op in ("tuple", "list"):
        return source.items if len(source.args) <= _MOST_ITEMS else None
    match frame.file.parents.get(node):
        case ast.Assign(targets=[ast.Tuple(elts=names)]) if not any(isinstance(each, ast.Starred) for each in names):
            if source.op not in ("enumerate", "zip"):
                at = Place(frame.file, node)
                return [frame.graph.value("part", {"of": source}, place, at) for place in range(len(names))]
    return None


def _mapping(frame: Frame, node: ast.DictComp) -> Value:
    at, inner, tests = Place(frame.file, node), frame.inside(node), list[Value]()
    first = node.generators[0]
    over = frame.expr(first.iter) if len(node.generators) == 1 and not first.ifs else None
    if over is not None and over.op in ("tuple", "list") and 0 < len(over.args) <= _MOST_ITEMS:
        made = dict[str, Value]()
        for item in over.items:
            inner.bind(first.target, item)
            key = inner.expr(node.key)
            made |= {str(key.data): inner.expr(node.value)} if key.is_const() else {}
        if len(made) == len(over.args):
            return frame.graph.value("dict", made, at=at)
    for place, each in enumerate(node.generators):
        source = (inner if place else frame).expr(each.iter)
        inner.guards = (*inner.guards, Guard("for", source, at))
        inner.bind(each.target, item_of(frame.graph, source, node, at))
        tests += [inner.expr(test) for test in each.ifs]
    made = {"key": inner.expr(node.key), "value": inner.expr(node.value)}
    return frame.graph.value("mapping", made | {f"if{place}": test for place, test in enumerate(tests)}, at=at)


def _call(frame: Frame, node: ast.Call) -> Value:
    graph, at, func = frame.graph, Place(frame.file, node), node.func
    if isinstance(func, ast.Name) and func.id == "super" and frame.scope.owner("super") is None:
        return graph.value("super", data=frame.cls, at=at)
    callee = frame.code.resolved(frame.expr(func))
    callee = (frame.code.reached(callee, at) if callee.op == "attr" else None) or callee
    function = callee["func"] if callee.op == "bound" else callee.get("decorated") or callee
    if frame.depth == 0 and function.op == "function":
        frame.run.reading.calls[node] = function.data[1]
        frame.code.homes[function.data[1]] = function.data[0]
    if frame.depth == 0 and callee.op == "instance":
        forward = frame.code.method(callee.data[0], callee.data[1], "forward")
        if forward is not None:
            frame.run.reading.calls[node] = forward[2]
            frame.code.homes[forward[2]] = forward[0]
    placed: list[Value] = []
    named: dict[str, Value] = {}
    spread: dict[str, Value] = {}
    is_open = False
    for argument in node.args:
        value = frame.expr(argument)
        if isinstance(argument, ast.Starred) and value.op in ("tuple", "list"):
            placed += value.items
        else:
            placed.append(value)
            is_open = is_open or (isinstance(argument, ast.Starred) and value.op != "shape")
    for keyword in node.keywords:
        value = frame.expr(keyword.value)
        if keyword.arg is not None:
            named[keyword.arg] = value
        elif value.op == "dict":
            named |= value.args
        else:
            is_open, spread = True, {**spread, f"**{len(spread)}": value}
    before = len(frame.run.reading.effects)
    if frame.depth == 0:
        frame.run.through = node
    if not is_open:
        made = call(frame, callee, placed, named, at)
        if frame.depth == 0 and not all(map(is_of_a_cache, frame.run.reading.effects[before:])):
            frame.run.reading.doing.add(node)
        return made
    every = {str(place): value for place, value in enumerate(placed)} | named | spread
    made = graph.opaque("a call with arguments that are not known", at, {"func": callee, **every})
    frame.effect(name_of(callee), made, node)
    return made
