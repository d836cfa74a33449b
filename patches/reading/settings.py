"""Settings: parameters of functions and constructors, fields of data classes; who tells them, where they are read."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .classes import constructor_of, names_of
from .code import Code, once
from .files import File, Function
from .frames import Effect, Reading
from .names import defaults_of, parameters
from .nodes import walk
from .options import module_dict
from .parsers import Flag, flags, parser_of
from .records import class_of, is_data_class
from .updates import SHALLOW, calls_of, mentions
from .values import Value

_ASKING = ("inspect.", "dataclasses.", "typing.")  # which call nothing that they are given
_CALLS = ("map", "filter", "sorted", "min", "max", "iter")
MOST_HANDED = 4  # calls that hand on all that they are given by name


@dataclass(frozen=True, slots=True)
class Setting:
    """What an object is told: a parameter of a function, or a field of a data class."""

    file: File
    holder: Function | ast.ClassDef
    name: str

    @property
    def default(self) -> ast.expr | None:
        """What it is where nothing is told."""
        return self._declared[1]

    @property
    def annotation(self) -> ast.expr | None:
        """Of which kind it is said to be."""
        return self._declared[0]

    @property
    def _declared(self) -> tuple[ast.expr | None, ast.expr | None]:
        """Its annotation and its default, as a parameter or as a field."""
        function = _told_by(self.holder)
        for each in parameters(function.args) if function is not None else self.holder.body:
            if isinstance(each, ast.arg) and each.arg == self.name and function is not None:
                return each.annotation, defaults_of(function.args).get(each)
            if isinstance(each, ast.AnnAssign) and getattr(each.target, "id", "") == self.name:
                return each.annotation, each.value
        return None, None


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a dict at the top of a module."""

    file: File
    value: ast.expr


@dataclass(frozen=True, slots=True)
class Told:
    """What a call tells for a setting."""

    reading: Reading
    call: ast.Call
    value: Value


def setting_of(code: Code, leaf: Value) -> Setting | None:
    """Which setting a value is."""
    if leaf.op == "parameter":
        path, function, name = leaf.data
        file = code.files.file(path)
        return Setting(file, function, name) if file is not None and isinstance(function, Function) else None
    known = class_of(code, leaf["of"]) if leaf.op == "attr" else None
    file = code.files.file(known[0]) if known is not None else None
    if known is None or file is None or not (is_data_class(code, *known) or _keeps(code, file, known[1], leaf.data)):
        return None
    return Setting(file, known[1], str(leaf.data))


def _keeps(code: Code, file: File, node: ast.ClassDef, name: str) -> bool:
    """Whether what a plain class's own constructor is told is what its objects keep under the same name."""
    setup, under = constructor_of(node), code.subclasses(node)
    is_told_apart = any(names_of(each).defines(name) or constructor_of(each) is not None for each in under)
    if setup is None or is_told_apart or name in names_of(node).outside_init | names_of(node).methods:
        return False
    sets = [each.value["value"] for each in code.reading(file, setup, node).effects if _sets(each, name)]
    is_model = code.method(file.path, node, "forward") is not None
    return not is_model and [each.data[-1] if each.op == "parameter" else "" for each in sets] == [name]


def _sets(effect: Effect, name: str) -> bool:
    return effect.kind == "setattr" and effect.value.data == name and effect.value["of"].op == "self"


def _told_by(holder: Function | ast.ClassDef) -> Function | None:
    """The function by whose parameters something is told; None of a class that is told by its fields."""
    return constructor_of(holder) if isinstance(holder, ast.ClassDef) else holder


def told(code: Code, setting: Setting, depth: int = 0) -> Iterator[Told]:
    """What calls give for a setting, through functions that hand on all that they are given by name."""
    for reading, call, given in _calls(code, setting):
        value = given.get(setting.name) if given is not None else None
        if value is not None:
            yield Told(reading, call, value)
        spread = [each.value for each in call.keywords if each.arg is None and isinstance(each.value, ast.Name)]
        around = reading.node
        rest = around.args.kwarg if isinstance(around, Function) else None
        if given is None and rest is not None and any(each.id == rest.arg for each in spread) and depth < MOST_HANDED:
            yield from told(code, Setting(reading.file, around, setting.name), depth + 1)  # type: ignore[arg-type]


@once
def _calls(code: Code, setting: Setting) -> list[tuple[Reading, ast.Call, dict[str, Value] | None]]:
    return list(_made(code, setting))


def _made(code: Code, setting: Setting) -> Iterator[tuple[Reading, ast.Call, dict[str, Value] | None]]:
    """The calls of what has a setting, and what they give by its names; nothing where that is not seen."""
    holder, owner = setting.holder, _owner(setting)
    if isinstance(owner, ast.ClassDef):
        fields = (each.target for each in owner.body if isinstance(each, ast.AnnAssign))
        names = [each.id for each in fields if isinstance(each, ast.Name)]
        names = _placed(setup)[1:] if (setup := _told_by(holder)) is not None else names
    else:
        names = _placed(owner)
        for reading, call in calls_of(code, owner):
            yield reading, call, _bound(reading, call, names)
    for reading in mentions(code, owner.name, SHALLOW):
        for node, value in reading.values.items():
            if not isinstance(node, ast.Call):
                continue
            meant, held = _meant(code, value if value.op == "partial" else reading.values.get(node.func))
            if meant is not None and meant.data is not None and meant.data[1] is owner:
                if value.op == "partial":  # what it holds is told, whoever calls it
                    yield reading, node, _by_name(value.args, names[1:] if held else names)
                elif meant.op == "class":
                    own = names if isinstance(holder, ast.ClassDef) else []  # an object's own are named
                    yield reading, node, _by_name(value.args, own) if value.op == "instance" else None


def strayed(code: Code, setting: Setting) -> Iterator[tuple[File, ast.AST]]:
    """Where what has a setting is handed on as it is, so that it is not seen who tells it."""
    owner = _owner(setting)
    for reading in mentions(code, owner.name, SHALLOW):
        for node, value in reading.values.items():
            is_name = isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load)
            meant = _meant(code, value)[0] if is_name and value.op != "partial" else None
            if meant is not None and meant.data[1] is owner and not _is_known_use(reading, node):
                yield reading.file, node


def _is_known_use(reading: Reading, node: ast.AST) -> bool:
    """Whether a class or a function is called there, or given to what is read or calls nothing; else it is kept."""
    around = reading.file.parents[node]
    if not isinstance(around, ast.Call):
        return not isinstance(around, (ast.Dict, ast.List, ast.Tuple, ast.Set, ast.Assign, ast.Return, ast.keyword))
    made, func = reading.values.get(around), reading.values.get(around.func)
    is_asked = func is not None and (func.op == "builtin" or str(func.data).startswith(_ASKING))
    is_partial = made is not None and made.op == "partial"
    is_plain = is_asked and func is not None and func.data not in _CALLS
    return around.func is node or around in reading.calls or is_partial or is_plain


def _owner(setting: Setting) -> Function | ast.ClassDef:
    holder = setting.holder
    owner = setting.file.parents[holder] if isinstance(holder, Function) and holder.name == "__init__" else holder
    return owner if isinstance(owner, ast.ClassDef) else holder


def _meant(code: Code, callee: Value | None) -> tuple[Value | None, bool]:
    """The class or function that is called, through what holds a part of its arguments, and whether self is held."""
    while callee is not None and callee.op == "partial":
        callee = callee["func"]
    callee = code.resolved(callee) if callee is not None else None
    is_bound = callee is not None and callee.op == "bound"
    callee = callee["func"] if callee is not None and is_bound else callee
    return (callee if callee is not None and callee.op in ("class", "function") else None), is_bound


def _by_name(given: Mapping[str, Value], names: Sequence[str]) -> dict[str, Value]:
    return {names[int(n)] if n.isdigit() and int(n) < len(names) else n: each for n, each in given.items()}


def _placed(function: Function) -> list[str]:
    return [each.arg for each in (*function.args.posonlyargs, *function.args.args)]


def _bound(reading: Reading, call: ast.Call, names: Sequence[str]) -> dict[str, Value] | None:
    if any(isinstance(each, ast.Starred) for each in call.args) or any(each.arg is None for each in call.keywords):
        return None
    callee = reading.values.get(call.func)
    placed = names[1:] if callee is not None and callee.op == "bound" else names
    nodes = dict(zip(placed, call.args, strict=False)) | {each.arg: each.value for each in call.keywords if each.arg}
    return {name: reading.values[node] for name, node in nodes.items() if node in reading.values}


def asker(code: Code, each: Told) -> Setting | Flag | Entry | None:
    """Whose setting, option or entry it is that a call hands on; None of a value of the call's own."""
    value = each.value
    setting = setting_of(code, value)
    if setting is not None:
        return setting
    parser = parser_of(code, each.reading, value["of"]) if value.op == "attr" else None
    if parser is not None:
        options = [flag for flag in flags(code) if flag.name == value.data]
        return next((flag for flag in options if flag.file is parser.file), next(iter(options), None))
    node = value.at.node if value.at is not None else None
    match node:
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str(key))):
            file, table = module_dict(code, each.reading.file, name)
            pairs = zip(table.keys, table.values, strict=True) if table is not None else ()
            found = [held for own, held in pairs if isinstance(own, ast.Constant) and own.value == key]
            return Entry(file, found[0]) if found else None
    return None


def entries(code: Code, setting: Setting) -> Iterator[Entry]:
    """The entries for a setting in dicts within dicts of modules, of which one is given by its key, as it is."""
    calls = [(reading, call) for reading, call, given in _calls(code, setting) if given is None]
    spread = [(reading, each.value) for reading, call in calls for each in call.keywords if each.arg is None]
    values = [reading.values[each] for reading, each in spread if each in reading.values]
    keys = {each["0"].data for each in values if each.op == "index" and each.get("0") is not None}
    for file in code.files.holding(setting.name) if keys else ():
        for node in file.nodes:
            around = file.parents.get(node)
            if isinstance(node, ast.Dict) and isinstance(around, ast.Dict) and file.function(node) is None:
                pairs = zip(around.keys, around.values, strict=True)
                if any(each is node and isinstance(key, ast.Constant) and key.value in keys for key, each in pairs):
                    inner = zip(node.keys, node.values, strict=True)
                    yield from (Entry(file, each) for key, each in inner if getattr(key, "value", "") == setting.name)


def reads(code: Code, setting: Setting) -> Iterator[tuple[Reading, ast.expr, ast.expr | None]]:
    """Where a setting is read: a parameter by its name, or a field of an object, which comes too."""
    if isinstance(setting.holder, ast.ClassDef):
        for reading in mentions(code, setting.name, SHALLOW):
            for node in list(reading.values):
                match node:
                    case (
                        ast.Attribute(value=of, attr=name, ctx=ast.Load())
                        | ast.Call(func=ast.Name(id="getattr"), args=[of, ast.Constant(value=name), *_])
                    ) if name == setting.name and of in reading.values:
                        known = class_of(code, reading.values[of])
                        if known is not None and known[1] is setting.holder:
                            yield reading, node, of
        return
    reading = code.reading(setting.file, setting.holder, setting.file.owner(setting.holder))
    for node in walk(setting.holder):
        if isinstance(node, ast.Name) and node.id == setting.name and isinstance(node.ctx, ast.Load):
            yield reading, node, None


def truths(code: Code, setting: Setting) -> Iterator[tuple[File, ast.expr]]:
    """Where a setting itself, or what is kept of it, counts as true or false, and None would count as false."""
    holder, file = setting.holder, setting.file
    if isinstance(holder, ast.ClassDef):
        yield from ((reading.file, node) for reading, node, _ in reads(code, setting) if _is_asked(reading.file, node))
    else:
        key = code.graph.value("parameter", data=(file.path, holder, setting.name)).key
        owner = file.owner(holder)
        for function, around in file.functions:
            if function is holder or (owner is not None and around is owner):
                values = code.reading(file, function, around).values
                asked = [node for node, value in values.items() if value.key == key and isinstance(node, ast.expr)]
                yield from ((file, node) for node in asked if _is_asked(file, node))
    for other in code.files.holding(setting.name):
        for node in other.nodes:
            match node:
                case ast.Subscript(slice=ast.Constant(value=name), ctx=ast.Load()) if name == setting.name:
                    yield from ((other, each) for each in _entry_reads(other, node) if _is_asked(other, each))


def _entry_reads(file: File, node: ast.Subscript) -> list[ast.expr]:
    """An entry that is read, and the names that stand for it in its function, unless one is asked for None there."""
    parent, function = file.parents[node], file.function(node)
    names = [each.id for each in parent.targets if isinstance(each, ast.Name)] if isinstance(parent, ast.Assign) else []
    inside = [each for each in walk(function or file.module) if isinstance(each, ast.Name) and each.id in names]
    asked = any(isinstance(file.parents[each], ast.Compare) for each in inside)
    return [node, *(() if asked else inside)]


def _is_asked(file: File, node: ast.expr) -> bool:
    """Whether an expression counts as true or false where it stands."""
    parent = file.parents[node]
    is_test = isinstance(parent, (ast.If, ast.IfExp, ast.While, ast.Assert)) and parent.test is node
    is_bool = isinstance(parent, ast.Call) and getattr(parent.func, "id", "") in ("bool", "int")
    is_part = isinstance(parent, (ast.BoolOp, ast.comprehension)) or isinstance(getattr(parent, "op", None), ast.Not)
    return is_test or is_bool or is_part
