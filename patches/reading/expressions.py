"""What an expression computes."""

from __future__ import annotations

import ast
import builtins

from .attributes import attribute, is_of_module
from .calls import call, name_of
from .frames import Frame, Guard, choice, is_of_a_cache, item_of, kept_in
from .operations import applied
from .shapes import size_of
from .signatures import BINARY, COMPARE, UNARY
from .values import Place, Value

_MOST_ITEMS = 16  # of a display that a comprehension goes through one by one


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
            test = frame.expr(node.test)
            return choice(graph, test, frame.expr(node.body), frame.expr(node.orelse), at)
        case ast.Tuple() | ast.List() if not any(isinstance(each, ast.Starred) for each in node.elts):
            kind = "tuple" if isinstance(node, ast.Tuple) else "list"
            return graph.group(kind, [frame.expr(each) for each in node.elts], at)
        case ast.Dict() if all(isinstance(key, ast.Constant) for key in node.keys):
            pairs = zip(node.keys, node.values, strict=True)
            return graph.value("dict", {str(getattr(key, "value", "")): frame.expr(each) for key, each in pairs}, at=at)
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


def _operation(frame: Frame, node: ast.BinOp | ast.UnaryOp | ast.Compare | ast.BoolOp) -> Value:
    at, graph = Place(frame.file, node), frame.graph
    match node:
        case ast.BinOp():
            left, right, op = frame.expr(node.left), frame.expr(node.right), BINARY.get(type(node.op))
            if op in ("mul", "add") and left.op in ("tuple", "list"):
                return _repeated(frame, op, left, right, at)
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
        if not frame.file.scope.is_open:
            is_builtin = hasattr(builtins, node.id)
            return (
                graph.value("builtin", data=node.id, at=at)
                if is_builtin
                else graph.opaque(f"{node.id} is not bound", at)
            )
        known = _outermost(frame).env.get(node.id)
        return known or graph.opaque(f"{node.id} may be bound without our seeing it", at)
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
    if base.op == "cache" or (base.op == "dict" and not base.args):
        return kept_in(frame, base, at)
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
    if is_plain and source.op in ("tuple", "list") and len(source.args) <= _MOST_ITEMS:
        made = []
        for each in source.items:
            inner.bind(first.target, each)
            made.append(inner.expr(node.elt))
        return graph.group("list", made, at)
    inner.bind(first.target, item_of(graph, source, node, at))
    for generator in node.generators[1:]:
        inner.bind(generator.target, item_of(graph, inner.expr(generator.iter), generator, at))
    tests = [inner.expr(test) for generator in node.generators for test in generator.ifs]
    conditions = {f"if{place}": test for place, test in enumerate(tests)}
    return graph.value("each", {"of": source, "elt": inner.expr(node.elt), **conditions}, at=at)


def _mapping(frame: Frame, node: ast.DictComp) -> Value:
    at, inner, tests = Place(frame.file, node), frame.inside(node), list[Value]()
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
    function = callee["func"] if callee.op == "bound" else callee.get("decorated") or callee
    if frame.depth == 0 and function.op == "function":
        frame.run.reading.calls[node] = function.data[1]
    if frame.depth == 0 and callee.op == "instance":
        forward = frame.code.method(callee.data[0], callee.data[1], "forward")
        frame.run.reading.calls |= {node: forward[2]} if forward is not None else {}
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
    frame.effect(name_of(callee), callee, node)
    every = {str(place): value for place, value in enumerate(placed)} | named | spread
    return graph.opaque("a call with arguments that are not known", at, {"func": callee, **every})
