"""What a call returns: functions of the tree are followed, those of libraries are operations or effects."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from itertools import takewhile

from .attributes import attribute
from .files import Function
from .frames import Frame, choice, kept_in
from .names import parameters
from .nodes import walk
from .operations import applied
from .shapes import size_of
from .signatures import MODULES, bound, method_named, operation_named
from .values import Place, Value

_TRANSPARENT = ("torch.", "functools.", "contextlib.", "typing.", "abc.", "dataclasses.", "collections.abc.")
MOST_CALLS = 4000  # that are followed from one function
_MAPPINGS = {
    "collections.OrderedDict",
    "collections.defaultdict",
    "weakref.WeakKeyDictionary",
    "weakref.WeakValueDictionary",
}
_CHANGING = {"append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse", "update", "popitem"}
_NO_TENSORS = {"self", "instance", "super", "builtin", "class", "list"}
_PLAIN_BUILTINS = {
    *("zip", "min", "max", "sum", "abs", "round", "range", "isinstance", "sorted", "reversed", "str", "type"),
    *("hasattr", "callable", "all", "any", "map", "slice", "enumerate", "repr", "id", "filter", "divmod", "pow"),
}


def call(frame: Frame, callee: Value, placed: Sequence[Value], named: Mapping[str, Value], at: Place) -> Value:
    """What a call returns."""
    callee = frame.code.resolved(callee)
    match callee.op:
        case "function":
            return _follow(frame, callee, placed, named, at)
        case "bound":
            return _follow(frame, callee["func"], [callee["self"], *placed], named, at, callee["self"])
        case "class":
            return _instance(frame, callee, placed, named, at)
        case "self" | "instance":
            name = "forward" if frame.code.method(callee.data[0], callee.data[1], "forward") else "__call__"
            made = attribute(frame, callee, name, at)
            if made.op == "bound":
                return call(frame, made, placed, named, at)
        case "global":
            return _library(frame, callee.data, list(placed), named, at)
        case "new":
            return _module(frame, callee, placed, named, at)
        case "builtin":
            return _builtin(frame, callee.data, placed, named, at)
        case "partial":
            own = [value for name, value in callee.args.items() if name.isdigit()]
            settings = {n: v for n, v in callee.args.items() if not n.isdigit() and n != "func"}
            return call(frame, callee["func"], [*own, *placed], {**settings, **named}, at)
        case "phi":
            yes, no = (call(frame, callee[side], placed, named, at) for side in ("yes", "no"))
            return choice(frame.graph, callee["test"], yes, no, at)
        case "attr":
            return _method(frame, callee, placed, named, at)
    return unknown(frame, callee, placed, named, at)


def unknown(frame: Frame, callee: Value, placed: Sequence[Value], named: Mapping[str, Value], at: Place) -> Value:
    """A call of what the tree does not define: its result is like no other, and it may do something."""
    args = {"func": callee, **{str(place): value for place, value in enumerate(placed)}, **named}
    made = frame.graph.unique("call", args, at=at)
    name = name_of(callee)
    frame.effect(name, made, at.node)
    owner = callee["of"] if callee.op == "attr" else placed[0] if placed else None
    if name == "register_buffer" and owner is not None and len(placed) > 1 and placed[0].is_const():
        _keep_triangle(frame, owner, str(placed[0].data), placed[1])
    _change(frame, name, owner, named, made)
    return made


def _keep_triangle(frame: Frame, owner: Value, name: str, value: Value) -> None:
    """Know a buffer that is a triangle, and that nothing sets or changes in place; others come with a checkpoint."""
    if not any(each.op in ("tril", "triu") for each in value.walk()):
        return
    for file in frame.code.files.naming(name):
        for node in file.uses.get(name, ()):
            chain = [
                node,
                *takewhile(lambda each: isinstance(each, (ast.Attribute, ast.Subscript)), file.ancestors(node)),
            ]
            is_set = any(not isinstance(getattr(each, "ctx", ast.Load()), ast.Load) for each in chain)
            if is_set or any(isinstance(each, ast.Attribute) and each.attr.endswith("_") for each in chain):
                return
    frame.run.attributes[owner.key, name] = value


def _change(frame: Frame, name: str, owner: Value | None, given: Mapping[str, Value], made: Value) -> None:
    """Let what a call changes in place be what it makes: by its name, by inplace=, by out=."""
    inplace = given.get("inplace")
    is_in_place = (name.endswith("_") and not name.endswith("__")) or name in _CHANGING
    if owner is not None and (is_in_place or (inplace is not None and not inplace.is_const(False))):
        frame.changed(owner, made)
    if "out" in given:
        frame.changed(given["out"], made)


def name_of(callee: Value) -> str:
    """What a callee is called, for an effect."""
    callee = callee["func"] if callee.op == "bound" else callee
    if callee.op == "function":
        return getattr(callee.data[1], "name", "lambda")
    if callee.op in ("attr", "builtin"):
        return str(callee.data)
    return str(callee.data).rpartition(".")[2] if callee.op == "global" else callee.op


def _follow(
    frame: Frame,
    function: Value,
    placed: Sequence[Value],
    named: Mapping[str, Value],
    at: Place,
    owner: Value | None = None,
) -> Value:
    """What a function of the tree returns for some arguments."""
    path, node, closure = function.data
    file, run, graph = frame.code.files.file(path), frame.run, frame.graph
    is_again = node in run.active or frame.depth >= run.deepest or run.calls >= MOST_CALLS
    if file is None or is_again or isinstance(node, ast.AsyncFunctionDef):
        return unknown(frame, function, placed, named, at)
    inner = frame.inside(node, called=closure or frame.code.module(path), file=file)
    if owner is not None:
        cls = file.owner(node) if isinstance(node, Function) else None
        inner.owner, inner.cls = owner, (path, cls) if cls is not None else None
        if owner.op in ("self", "instance", "class"):
            inner.cls = owner.data
    inner.bind_arguments(node, placed, named)
    arguments = ((name, value.key) for name, value in inner.env.items())
    key = (path, node, closure, owner.key if owner is not None else None, *arguments)
    known = frame.code.followed.get(key) if not run.attributes else None
    if known is not None:
        return known.copy()  # another object that is computed alike
    run.calls += 1
    run.active.append(node)
    before = run.changes, len(run.reading.effects), graph.serial
    made = inner.expr(node.body) if isinstance(node, ast.Lambda) else inner.body(node.body)
    run.active.pop()
    if before == (run.changes, len(run.reading.effects), graph.serial) and not run.attributes:
        frame.code.followed[key] = made
    return made


def _instance(frame: Frame, cls: Value, placed: Sequence[Value], named: Mapping[str, Value], at: Place) -> Value:
    path, node = cls.data
    setup = frame.code.method(path, node, "__init__")
    given = {str(place): value for place, value in enumerate(placed)} | dict(named)
    if setup is not None:
        names = [each.arg for each in parameters(setup[2].args)][1:]
        given = {names[int(n)] if n.isdigit() and int(n) < len(names) else n: v for n, v in given.items()}
    return frame.graph.value("instance", given, cls.data, at)


def _library(frame: Frame, dotted: str, placed: list[Value], named: Mapping[str, Value], at: Place) -> Value:
    graph = frame.graph
    by_place = {str(place): value for place, value in enumerate(placed)}
    if dotted == "functools.wraps" and placed:
        return graph.value("same", {"of": placed[0]})
    if dotted == "functools.partial" and placed:
        rest = {str(place): value for place, value in enumerate(placed[1:])}
        return graph.value("partial", {"func": placed[0], **rest, **named}, at=at)
    if dotted in _MAPPINGS:
        return graph.value("cache", by_place, at=at)
    if dotted == "torch.device" and placed:
        return placed[0]
    if dotted in ("torch.finfo", "numpy.finfo") and placed:
        return graph.value("finfo", {"dtype": placed[0]}, at=at)
    if dotted in ("math.sqrt", "math.pow") and placed:
        op = dotted.removeprefix("math.")
        return applied(graph, op, bound(op, placed, named, graph), at)
    if dotted.startswith("torch.nn.") and dotted.rpartition(".")[2][:1].isupper():
        names = MODULES[dotted][1] if dotted in MODULES else ()
        given = {names[n] if n < len(names) else str(n): value for n, value in enumerate(placed)} | dict(named)
        return graph.unique("new", given, dotted, at)
    op_or_none = operation_named(dotted)
    if op_or_none is None:
        return unknown(frame, graph.value("global", data=dotted), placed, named, at)
    if op_or_none == "einsum" and placed:
        operands = {str(place): value for place, value in enumerate(placed[1:])}
        return applied(graph, "einsum", {"input": placed[0], **operands}, at)
    args = bound(op_or_none, placed, named, graph)
    made = applied(graph, op_or_none, args, at)
    _change(frame, dotted, args.get("input"), args, made)
    return made


def _module(frame: Frame, module: Value, placed: Sequence[Value], named: Mapping[str, Value], at: Place) -> Value:
    """What a module of torch's returns when it is called."""
    dotted = module.data[1]
    graph = frame.graph
    if dotted == "torch.nn.Sequential" and len(placed) == 1:
        value = placed[0]
        for each in module.items:
            value = call(frame, each, [value], {}, at)
        return value
    if dotted == "torch.nn.Identity" and placed:
        return placed[0]
    if dotted in MODULES and placed:
        op = MODULES[dotted][0]
        if "inplace" in module.args and not module["inplace"].is_const(False):
            return unknown(frame, module, placed, {**named, "inplace": module["inplace"]}, at)
        settings = {name: value for name, value in module.args.items() if name != "inplace"}
        args = bound(op, placed, {**settings, **named}, graph)
        if op == "dropout":
            training = graph.value("training", {"of": module})
            p = args.get("p") or graph.const(0.5)
            args = {"input": args["input"], "p": p, "training": training, "module": module}
        return applied(graph, op, args, at)
    op = "linear" if dotted == "torch.nn.Linear" else "module"
    return graph.value(op, {**bound(op, placed, named, graph), "of": module}, at=at)


def _builtin(frame: Frame, name: str, placed: Sequence[Value], named: Mapping[str, Value], at: Place) -> Value:
    graph, first = frame.graph, placed[0] if placed else None
    args = {str(place): value for place, value in enumerate(placed)} | dict(named)
    match name:
        case "float" if first is not None and isinstance(first.data, str) and first.is_const():
            try:
                return graph.const(float(first.data), at)
            except ValueError:
                return graph.opaque("no number", at)
        case "int" | "float" | "bool" if first is not None:
            kinds = {"int": int, "float": float, "bool": bool}
            number = first.number
            known = number is not None and (name != "int" or abs(number) < 2**63)
            return graph.const(kinds[name](number), at) if known else graph.value(name, {"input": first}, at=at)
        case "len" if first is not None:
            is_known = first.op in ("tuple", "list")
            return graph.const(len(first.args), at) if is_known else size_of(graph, first, graph.const(0), at)
        case "list" | "tuple" | "iter" if first is not None:
            kind = "tuple" if name == "tuple" else "list"
            return graph.group(kind, first.items, at) if first.op in ("tuple", "list") else first
        case "getattr" if len(placed) > 1 and placed[1].is_const():
            return attribute(frame, placed[0], str(placed[1].data), at)
        case "setattr" if len(placed) == 3:  # noqa: PLR2004
            attr = str(placed[1].data) if placed[1].is_const() else ""
            frame.run.attributes |= {(placed[0].key, attr): placed[2]} if attr else {}
            frame.effect("setattr", graph.value("setattr", {"of": placed[0], "value": placed[2]}, attr, at), at.node)
            return graph.const(None, at)
        case "enumerate" if first is not None:
            start = {"start": placed[1]} if len(placed) > 1 else dict(named)
            return graph.value("enumerate", {"input": first, **start}, at=at)
        case "min" | "max" if len(args) == 2:  # noqa: PLR2004 - of two numbers
            return applied(graph, name, dict(zip(("input", "other"), args.values(), strict=True)), at)
        case "divmod" if len(placed) == 2:  # noqa: PLR2004
            sides = {"input": placed[0], "other": placed[1]}
            return graph.group("tuple", [applied(graph, op, sides, at) for op in ("floordiv", "mod")], at)
        case "dict" if not placed:
            return graph.value("dict", named, at=at)
    if name in _PLAIN_BUILTINS:
        return graph.value(name, args, at=at)
    return unknown(frame, graph.value("builtin", data=name), placed, named, at)


def _method(frame: Frame, callee: Value, placed: Sequence[Value], named: Mapping[str, Value], at: Place) -> Value:
    """What a method returns of an object that the tree does not define: a tensor's, mostly."""
    owner, name = callee["of"], str(callee.data)
    graph = frame.graph
    if owner.op in ("dict", "cache"):
        if name == "setdefault" and len(placed) > 1:
            return placed[1]
        if name in ("get", "pop") and placed:
            return kept_in(frame, owner, at)
    op = method_named(name)
    if op is None or owner.op in (*_NO_TENSORS, "dict", "cache"):
        return unknown(frame, callee, placed, named, at)
    if op == "size" and placed:
        return size_of(graph, owner, placed[0], at)
    made = applied(graph, op, bound(op, [owner, *placed], named, graph), at)
    _change(frame, name, owner, named, made)
    return made


def decorated(frame: Frame, node: Function) -> Value:
    """What a function's name stands for, its decorators applied."""
    around = frame if frame.scope.parent is not None else None
    value = plain = frame.graph.value("function", data=(frame.file.path, node, around), at=Place(frame.file, node))
    for decorator in reversed(node.decorator_list):
        made, at = frame.code.resolved(frame.expr(decorator)), Place(frame.file, decorator)
        if made.op in ("function", "bound"):
            inner, value = value, call(frame, made, [value], {}, at)
            if _hands_on(value, inner):
                value = frame.graph.value("function", {"decorated": plain}, value.data, at)
        elif not _is_transparent(made["func"] if made.op == "call" else made):
            return frame.graph.opaque(f"what the decorator makes of {node.name} is not known", at, {"decorated": plain})
    return value


def _hands_on(outer: Value, inner: Value) -> bool:
    """Whether a function calls another, which is around it, with all that it is given, and takes nothing itself."""
    _, node, around = outer.data if outer.op == "function" else (None, None, None)
    if around is None or not isinstance(node, Function) or parameters(node.args):
        return False
    names = {name for name, value in around.env.items() if value is inner}
    rest = [getattr(each, "arg", None) for each in (node.args.vararg, node.args.kwarg)]
    calls = [each for each in walk(node) if isinstance(each, ast.Call) and getattr(each.func, "id", None) in names]
    return bool(calls) and all(
        [getattr(getattr(each, "value", None), "id", "") for each in (*call.args, *call.keywords)] == rest
        for call in calls
    )


def _is_transparent(decorator: Value) -> bool:
    """Whether a decorator leaves what a function computes as it is."""
    if decorator.op == "builtin":
        return decorator.data in ("property", "staticmethod", "classmethod")
    name = decorator.data[1] if isinstance(decorator.data, tuple) else decorator.data
    is_known = decorator.op in ("global", "new", "partial") and str(name).startswith(_TRANSPARENT)
    return is_known or decorator.op == "same"
