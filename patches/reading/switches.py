"""Maps of all positions that chunked attention puts together: which setting turns them off, and what sets chunks.

A map is what is made with zeros [..., T, T], of three dimensions or more. The setting is known by what hangs on it, not
by its name: with it off there is no map. That of the chunks is known by what it chooses.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .classes import names_of
from .code import Code, once
from .files import File, Function
from .flows import ANY, DONE, Use, followed
from .frames import Reading
from .nodes import walk
from .settings import Setting, setting_of, told
from .updates import MOST_CALLERS, calls_of, made_of
from .values import Value, walked

_BLANK = {"zeros", "new_zeros", "empty", "new_empty", "full", "new_full"}
_LEAVES = ("parameter", "attr")
FEWEST = 3  # dimensions of a map: more than a mask has
MAPS = "maps"
_NEEDING = {"torch.stack", "torch.cat", "max", "min", "next", "an entry"}


@dataclass(frozen=True, slots=True)
class Switch:
    """A forward that makes maps in chunks, what turns them off, and what sets the chunks, where that is known.

    `resolved` is how the former is made of None, where it is.
    """

    reading: Reading
    canvas: Value
    flag: Value | None
    chunk: Value | None
    by_truth: bool  # whether chunks are off where their setting counts as false, and not where it is None alone
    resolved: Value | None


@once
def switches(code: Code) -> list[Switch]:
    """The forwards of a tree that make maps in chunks, and the methods of modules without one."""
    found = []
    for file in dict.fromkeys((*code.files.holding("def forward"), *code.files.holding("Module"))):
        for function, owner in file.functions:
            kin = [*(each for _, each in code.bases(file.path, owner)), *code.subclasses(owner)] if owner else []
            bases = {getattr(base, "attr", getattr(base, "id", "")) for each in kin for base in each.bases}
            has_forward = any("forward" in names_of(each).methods for each in kin)
            if (kin and function.name == "forward") or ("Module" in bases and not has_forward):
                found.append((file, function))
    made = [_switch(code, code.reading(file, function, file.owner(function))) for file, function in found]
    known = [each for each in made if each is not None]
    return [each for each in known if not _is_inside(code, each, {other.reading.owner for other in known})]


def _is_inside(code: Code, switch: Switch, owners: set[ast.ClassDef | None]) -> bool:
    """Whether another shows it: that of a module in it, or of a method of its own class, if that alone asks for it."""
    made, own, name = switch.canvas.at, switch.reading.owner, getattr(switch.reading.node, "name", "")
    inner = made.file.function(made.node) if made is not None else None
    home = made.file.owner(inner) if made is not None and inner is not None else None
    uses = [(file, node) for file in code.files.naming(name) for node in file.uses.get(name, ())]
    users = {(file, file.function(node)) for file, node in uses if isinstance(node, ast.Attribute)}
    asking = {file.owner(user) if user is not None else None for file, user in users if user is not switch.reading.node}
    return (asking == {own} and name != "forward") or (home in owners and home is not own)


def _switch(code: Code, reading: Reading) -> Switch | None:
    roots = [reading.returned] if reading.returned is not None else []
    roots += [*reading.values.values(), *(effect.value for effect in reading.effects)]
    known = [*walked(roots)]
    canvases = [value for value in known if _is_canvas(value)]
    if not canvases:
        return None
    has = made_of({each.key for each in canvases})
    tests = [each["test"] for each in known if each.op == "phi" and has(each["yes"]) != has(each["no"])]
    guards = (guard for effect in reading.effects if has(effect.value) for guard in effect.under)
    tests += [guard.value for guard in guards if guard.kind in ("if", "else")]
    flag = chunk = resolved = None
    by_truth = False
    asked = {each.key: each for test in tests for each in _parts(test)}
    for test in asked.values():
        made = test.beneath(("bool", "not"))
        if made.op == "phi" and (leaf := _asked_for_none(made["test"])) is not None:
            flag, resolved = leaf, made
        elif (leaf := _asked_for_none(made) or made).op == "parameter" and leaf.data[1] is reading.node:
            continue  # which a caller chooses each time
        elif leaf is not made:
            chunk = chunk or leaf
        elif made.op in _LEAVES and _is_flag(code, made):
            flag = flag or made
        elif made.op in _LEAVES and setting_of(code, made) is not None:
            chunk, by_truth = made, True
    return Switch(reading, canvases[0], flag, chunk, by_truth, resolved)


def kept_chunks(code: Code) -> Iterator[tuple[Switch, str]]:
    """Where modules whose attention is in chunks keep what sets these: "window", "config.window"; "" if not seen."""
    for each in switches(code):
        chunk, path = each.chunk, list[str]()
        kept = {value.key: name for name, value in each.reading.attributes.items()}
        while chunk is not None and chunk.key not in kept and chunk.op == "attr":
            chunk, path = chunk["of"], [chunk.data, *path]
        first = kept.get(chunk.key) if chunk is not None and chunk.op != "self" else ""
        yield each, ".".join([first, *path] if first else path) if first is not None else ""


def made_anyway(code: Code, switch: Switch) -> Value | None:
    """A map that is made where it is turned off too: that in chunks, or what a forward hands out in its place."""
    at, chunk, has = switch.canvas.at, switch.chunk, made_of({switch.canvas.key})
    is_asked = made_of({switch.flag.key} if switch.flag is not None else set())
    writes = [each for each in switch.reading.writes if "input" in each.value.args and has(each.value["input"])]
    is_wasted = writes and not any(is_asked(guard.value) for write in writes for guard in write.under)
    if is_wasted or (at is not None and chunk is not None and not _is_chosen(code, at.file, at.node, chunk.name)):
        return switch.canvas
    asks = (lambda _: False), is_asked
    given, pairs = ([way for way in _ways(switch.reading.returned, ask) if way.op == "tuple"] for ask in asks)
    places = {place for each in given for place, part in enumerate(each.items) if has(part)}
    parts = (part for each in pairs for place, part in enumerate(each.items) if place in places)
    ways = (way for part in parts for way in _ways(part, is_asked) if not is_asked(way))
    return next((way for way in ways if way.op not in ("const", "opaque", "unset")), None)


def _ways(value: Value | None, is_left: Callable[[Value], bool]) -> Iterator[Value]:
    """What a value may be, without choices between its ways that are to be left."""
    if value is not None and value.op != "phi":
        yield value
    elif value is not None and not is_left(value["test"]):
        yield from (*_ways(value["yes"], is_left), *_ways(value["no"], is_left))


def _is_chosen(code: Code, file: File, node: ast.AST, chunk: str, depth: int = 0) -> bool:
    """Whether an expression stands where something else than chunks is asked for, there or in all that call it."""
    function = file.function(node)
    if function is None or depth > MOST_CALLERS:
        return True
    values = code.reading(file, function, file.owner(function)).values

    def asks(test: ast.expr) -> bool:
        parts = values[test].walk() if test in values else ()
        return any(part.op in _LEAVES and part.name != chunk for part in parts)

    if _is_under(file, node, asks):
        return True
    calls = calls_of(code, function) if function.name != "forward" else []
    return bool(calls) and all(_is_chosen(code, caller.file, call, chunk, depth + 1) for caller, call in calls)


def _leaves(test: ast.If) -> bool:
    return isinstance(test.body[-1], (ast.Return, ast.Raise, ast.Continue))


def _is_canvas(value: Value) -> bool:
    size = value.get("size") if value.op in _BLANK else None
    return (
        size is not None
        and size.op == "tuple"
        and len(size.args) >= FEWEST
        and size.items[-1].key == size.items[-2].key
        and not size.items[-1].is_const()
    )


def _parts(test: Value) -> Iterator[Value]:
    """What a condition is made of, by and, or and not."""
    inner = test.items if test.op in ("all", "any", "not") else ()
    for each in inner:
        yield from _parts(each)
    if not inner:
        yield test


def _asked_for_none(test: Value) -> Value | None:
    """What a test asks whether it is None."""
    test = test.beneath(("bool", "not"))
    is_asked = test.op in ("is", "isnot") and test["other"].is_const(None)
    return test["input"] if is_asked and test["input"].op in _LEAVES else None


def is_resolved(value: Value, chunk: Value | None = None) -> bool | None:
    """Whether a value is a setting, and for None whether chunks are off; None where it asks for no None at all."""
    value, leaf = value.beneath(("bool", "not")), made_of_none(value)
    if leaf is None:
        return None
    is_none = value["test"].beneath(("bool", "not")).op == "is"
    unsaid, said = (value["yes"], value["no"]) if is_none else (value["no"], value["yes"])
    off = _asked_for_none(unsaid) or (unsaid["input"] if unsaid.op == "not" else None)
    is_off = off is not None and unsaid.op in ("is", "not") and (chunk is None or off.key == chunk.key)
    return is_off and said.beneath(("bool", "not")).key == leaf.key


def made_of_none(value: Value) -> Value | None:
    """The setting of which a value is made, if None is made something else."""
    value = value.beneath(("bool", "not"))
    return _asked_for_none(value["test"]) if value.op == "phi" else None


def kept_resolved(code: Code, setting: Setting) -> Iterator[ast.expr]:
    """Where a constructor keeps what it makes of a setting's None among what it was told."""
    if not isinstance(setting.holder, Function):
        return
    parents = setting.file.parents
    reading = code.reading(setting.file, setting.holder, setting.file.owner(setting.holder))
    for node, value in reading.values.items():
        around = parents[node]
        whole = parents[around] if isinstance(around, ast.keyword) else around
        is_told = isinstance(whole, ast.Dict) or (isinstance(whole, ast.Call) and ast.unparse(whole.func) == "dict")
        leaf = made_of_none(value) if is_told and isinstance(node, ast.expr) else None
        if leaf is not None and setting_of(code, leaf) == setting:
            match parents[whole]:
                case ast.Assign(targets=[ast.Attribute()]) | ast.AnnAssign(target=ast.Attribute()):
                    yield node  # type: ignore[misc]


def _is_flag(code: Code, leaf: Value, depth: int = 0) -> bool:
    setting = setting_of(code, leaf)
    if setting is None or depth > MOST_CALLERS:
        return False
    if setting.default is None and setting.annotation is None:
        return any(_is_flag(code, each.value, depth + 1) for each in told(code, setting))
    default = code.module(setting.file.path).expr(setting.default) if setting.default is not None else None
    hint = ast.unparse(setting.annotation) if setting.annotation is not None else ""
    return "bool" in hint or (default is not None and default.is_const() and isinstance(default.data, bool))


def unguarded(code: Code) -> list[Use]:
    """The uses of the lists of maps that models hand out which cannot do without a map."""
    starts = [(file, node) for file in code.files.holding("def forward") for node in _collected(file)]
    reached, uses = followed(code, starts, MAPS, gives, _is_guarded)
    keys = {each.kind[1:].partition(")")[0] for each in reached if each.kind.endswith(f"){MAPS}")} - {ANY}
    keys = {each for each in keys if not each.lstrip("-").isdigit()}
    files = dict.fromkeys(file for key in sorted(keys) for file in code.files.holding(key))
    nodes = ((file, node) for file in sorted(files, key=lambda each: each.path) for node in file.nodes)
    handed = [(file, node) for file, node in nodes if isinstance(node, ast.Subscript) and _key(node) in keys]
    uses += followed(code, handed, MAPS, gives, _is_guarded)[1]
    return [use for use in dict.fromkeys(uses) if use.asked in _NEEDING]


def gives(kind: str, how: str, name: str) -> str | None:
    """What comes of a list of maps, or of one that is made of it; None of what fails where it is empty."""
    if how == "loop" or (how == "call" and name in ("list", "tuple", "reversed", "sorted")):
        return kind
    return None if how == "index" or (how == "call" and name in _NEEDING) else DONE


def _key(node: ast.Subscript) -> str:
    is_read = isinstance(node.ctx, ast.Load) and isinstance(node.slice, ast.Constant)
    return str(node.slice.value) if is_read and isinstance(node.slice, ast.Constant) else ""


def _collected(file: File) -> Iterator[ast.AST]:
    """The lists to which a forward adds what its blocks give beside their output, where it reads them."""
    for function, owner in file.functions:
        if owner is None:
            continue
        parts, lists = set[str](), set[str]()
        for node in walk(function):
            match node:
                case ast.Assign(targets=[ast.Tuple(elts=[_, *rest]), *_], value=ast.Call()):
                    parts |= {each.id for each in rest if isinstance(each, ast.Name)}
        for node in walk(function):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append"), args=args):
                    lists |= {name} if any(getattr(each, "id", "") in parts for each in args) else set()
        for node in walk(function):
            is_read = isinstance(node, ast.Name) and node.id in lists and isinstance(node.ctx, ast.Load)
            if is_read and not isinstance(file.parents[node], ast.Attribute):
                yield node


def _is_guarded(file: File, node: ast.AST) -> bool:
    """Whether an expression stands under a condition that asks for it, or behind one that leaves."""
    text = ast.unparse(node)
    return _is_under(file, node, lambda test: text in ast.unparse(test))


def _is_under(file: File, node: ast.AST, asks: Callable[[ast.expr], bool]) -> bool:
    """Whether a node stands under a condition that asks so, or behind one that leaves, in its function."""
    inner = node
    for around in file.ancestors(node):
        if isinstance(around, (ast.If, ast.IfExp)) and inner is not around.test and asks(around.test):
            return True
        if isinstance(around, ast.BoolOp) and any(map(asks, around.values[: around.values.index(inner)])):  # type: ignore[arg-type]
            return True
        for block in (getattr(around, "body", None), getattr(around, "orelse", None)):
            before = block[: block.index(inner)] if isinstance(block, list) and inner in block else ()
            if any(isinstance(each, ast.If) and _leaves(each) and asks(each.test) for each in before):
                return True
        if isinstance(around, Function):
            break
        inner = around
    return False
