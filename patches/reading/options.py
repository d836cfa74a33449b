"""Options: where a scope keeps what it is told, the calls that hand it on, and the command line that asks for it."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from .code import Code
from .files import File, Function
from .frames import Reading
from .names import parameters
from .updates import MOST_CALLERS, SHALLOW, calls_of, mentions
from .values import Value

_PARSED = ("parse_args", "parse_known_args", "parse_intermixed_args")
FEWEST = 2  # options that a call hands on, where what it takes them from is not known to be a command line


@dataclass(frozen=True, slots=True)
class Home:
    """What holds the options of a scope: a function by its parameters, a class by its constructor's, data by its keys.

    `form` is how the scope writes one, with {} for its name.
    """

    kind: str  # "parameter", "attribute" (of self), "field" (of a data class), "entry" (of a dict)
    file: File
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Dict
    form: str = "{}"


@dataclass(frozen=True, slots=True)
class Hand:
    """A call that hands options to a home, and how it writes one of them."""

    file: File
    call: ast.Call
    form: str  # "args.{}", '{}' for a parameter of the function around
    is_open: bool  # whether it hands on all there are: f(**options)
    parser: str  # the path of the file in which the parser is made that it takes them from; "" of a parameter


@dataclass(slots=True)
class Way:
    """How options get to a scope: its home, the homes on the way, the calls between, and the parser's options."""

    home: Home
    through: list[Home] = field(default_factory=list)
    hands: list[Hand] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Flag:
    """An option that a parser is given: by a call of add_argument, or by a row of what is added in a loop."""

    file: File
    node: ast.expr
    name: str  # of the attribute in which a parsed command line has it
    text: str  # as it is written: "--weight-decay"


def way_to(code: Code, reading: Reading) -> Way | None:
    """How a scope is told options; None where that cannot be seen."""
    home = _entries(code, reading) or _config(code, reading) or _signature(reading)
    if home is None:
        return None
    way = Way(home)
    names, whole = _hand_on(code, way, home, set()), set(_whole(code, home))
    if home.kind == "field" or whole:
        names |= _names_of(home)
    every = flags(code)
    asked = Counter(flag.file.path for flag in every if flag.name in names)
    parsers = {hand.parser for hand in way.hands if hand.parser} | whole
    parsers |= {path for path, count in asked.items() if home.kind == "field" and count >= FEWEST}
    if not parsers or not all(asked[path] for path in whole):
        return Way(home)  # nobody asks for options, or a command line is made of the home's own names
    parser = min(parsers, key=lambda path: (-asked[path], path.count("/"), path))
    way.flags = [flag for flag in every if flag.file.path == parser]
    way.hands = [hand for hand in way.hands if hand.parser in ("", parser)]
    return way


def _whole(code: Code, home: Home) -> Iterator[str]:
    """The paths of the parsers whose command lines are handed on whole: Config(**vars(args))."""
    for reading, call in _calls(code, home):
        for keyword in call.keywords:
            value = reading.values.get(keyword.value) if keyword.arg is None else None
            parser = _parser(code, reading, value) if value is not None else ""
            if parser:
                yield parser


def _names_of(home: Home) -> set[str]:
    if isinstance(home.node, ast.ClassDef):
        return _fields(home.node)
    return {each.arg for each in parameters(home.node.args)} if isinstance(home.node, Function) else set()


def _entries(code: Code, reading: Reading) -> Home | None:
    """A dict at the top of a module, of which a scope reads several entries."""
    found: Counter[tuple[File, ast.Dict, str]] = Counter()
    for node in ast.walk(reading.node):
        match node:
            case ast.Subscript(value=ast.Name(id=name) as base, slice=ast.Constant(value=str(key)) as index):
                file, display = _display(code, reading.file, name)
                if display is not None and any(isinstance(k, ast.Constant) and k.value == key for k in display.keys):
                    quote = reading.file.text(index)[0]
                    found[file, display, f"{reading.file.text(base)}[{quote}{{}}{quote}]"] += 1
    if not found or found.most_common(1)[0][1] < FEWEST:
        return None
    file, display, form = found.most_common(1)[0][0]
    return Home("entry", file, display, form)


def _display(code: Code, file: File, name: str, depth: int = 0) -> tuple[File, ast.Dict | None]:
    """The dict that a name at the top of a module is first set to, there or where it is imported from."""
    for node in file.scope.bound.get(name, []):
        holder = file.parents[node]
        if isinstance(holder, (ast.Assign, ast.AnnAssign)) and isinstance(holder.value, ast.Dict):
            return file, holder.value
        if isinstance(holder, ast.ImportFrom) and isinstance(node, ast.alias) and depth < MOST_CALLERS:
            path = code.files.imported("." * holder.level + (holder.module or ""), file.path)
            other = code.files.file(path) if path is not None else None
            if other is not None:
                return _display(code, other, node.name, depth + 1)
    return file, None


def _config(code: Code, reading: Reading) -> Home | None:
    """A data class of which a scope has an object: a parameter of its, or an attribute of its self."""
    inside = reading.owner if reading.owner is not None else reading.node
    found: Counter[tuple[str, ast.ClassDef, str]] = Counter()
    for node in ast.walk(inside):
        if isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Name, ast.Attribute)):
            text = ast.unparse(node.value)
            owner = _object(reading, text)
            known = class_of(code, owner) if owner is not None else None
            if known is not None and is_data_class(code, *known) and node.attr in _fields(known[1]):
                found[(*known, text)] += 1
    if not found:
        return None
    path, node, text = found.most_common(1)[0][0]
    file = code.files.file(path)
    assert file is not None
    return Home("field", file, node, f"{text}.{{}}")


def _object(reading: Reading, text: str) -> Value | None:
    """What a name, or an attribute of self, is for all of a scope."""
    own = parameters(reading.node.args) if isinstance(reading.node, Function) else []
    first, _, name = text.partition(".")
    if reading.attributes and own and first == own[0].arg:
        return reading.attributes.get(name)
    values = (value for node, value in reading.values.items() if isinstance(node, ast.Name) and node.id == text)
    return next(values, None)


def class_of(code: Code, value: Value) -> tuple[str, ast.ClassDef] | None:
    """The class of the tree that an object is of, by how it is made or by its parameter's annotation."""
    if value.op == "instance":
        return value.data  # type: ignore[no-any-return]
    if value.op != "parameter":
        return None
    path, function, name = value.data
    hint = next((each.annotation for each in parameters(function.args) if each.arg == name), None)
    if isinstance(hint, ast.Constant) and isinstance(hint.value, str):
        hint = ast.parse(hint.value, mode="eval").body
    if isinstance(hint, ast.BinOp):
        hint = hint.left
    if isinstance(hint, ast.Subscript):
        hint = hint.slice
    if not isinstance(hint, (ast.Name, ast.Attribute)):
        return None
    meant = code.resolved(code.module(path).expr(hint))
    return meant.data if meant.op == "class" else None


def is_data_class(code: Code, path: str, node: ast.ClassDef) -> bool:
    """Whether a class is one of dataclasses', or a NamedTuple."""
    frame = code.module(path)
    made = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    marks = [frame.expr(each) for each in (*made, *node.bases)]
    return any(each.op == "global" and each.data in ("dataclasses.dataclass", "typing.NamedTuple") for each in marks)


def _fields(node: ast.ClassDef) -> set[str]:
    return {
        each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }


def _signature(reading: Reading) -> Home | None:
    """The function that a scope is or stands in; of a method without options of its own the constructor."""
    file = reading.file
    functions = [each for each in (reading.node, *file.ancestors(reading.node)) if isinstance(each, Function)]
    if not functions:
        return None
    outer = functions[-1]
    owner = file.parents[outer]
    own = [*outer.args.defaults, *filter(None, outer.args.kw_defaults)]
    if isinstance(owner, ast.ClassDef) and reading.attributes and not own:
        setup = next((each for each in owner.body if isinstance(each, Function) and each.name == "__init__"), None)
        first = parameters(outer.args)[0].arg
        return Home("attribute", file, setup, f"{first}.{{}}") if setup is not None else None
    return Home("parameter", file, outer)


def _hand_on(code: Code, way: Way, home: Home, seen: set[ast.AST]) -> set[str]:
    """Note the calls that hand options to a home, and say which options they take from a command line."""
    names = set[str]()
    seen.add(home.node)
    for reading, call in _calls(code, home):
        taken = _taken(code, reading, call)
        if taken is not None:
            form, own, parser = taken
            names |= own
            way.hands.append(Hand(reading.file, call, form, _is_open(call), parser))
            continue
        between = _spread(code, reading, call)
        if between is not None and between.node not in seen:  # f(**asdict(config))
            own = _hand_on(code, way, between, seen)
            names |= own
            way.through += [between] if own else []
            continue
        around = reading.node
        passed = {value.data[2] for value in _arguments(reading, call) if _is_parameter(value, around)}
        if isinstance(around, Function) and len(passed) >= FEWEST and around not in seen:
            between = Home("parameter", reading.file, around)
            own = _hand_on(code, way, between, seen)
            if own:
                names |= own
                way.through.append(between)
                way.hands.append(Hand(reading.file, call, "{}", _is_open(call), ""))
    return names


def _spread(code: Code, reading: Reading, call: ast.Call) -> Home | None:
    """The data class whose fields a call hands on whole."""
    for keyword in call.keywords:
        value = reading.values.get(keyword.value) if keyword.arg is None else None
        for each in value.walk() if value is not None else ():
            if each.op == "instance" and is_data_class(code, *each.data):
                file = code.files.file(each.data[0])
                return Home("field", file, each.data[1]) if file is not None else None
    return None


def _is_parameter(value: Value, function: ast.AST) -> bool:
    return value.op == "parameter" and value.data[1] is function


def _is_open(call: ast.Call) -> bool:
    """Whether a call hands on a mapping of options whole."""
    return any(keyword.arg is None for keyword in call.keywords)


def _calls(code: Code, home: Home) -> Iterator[tuple[Reading, ast.Call]]:
    if home.kind == "parameter":
        yield from calls_of(code, home.node)  # type: ignore[arg-type]
        return
    made = home.file.parents[home.node] if home.kind == "attribute" else home.node
    if isinstance(made, ast.ClassDef):
        for reading in mentions(code, made.name, SHALLOW):
            for node in reading.values:
                callee = reading.values.get(node.func) if isinstance(node, ast.Call) else None
                meant = code.resolved(callee) if callee is not None else None
                if meant is not None and meant.op == "class" and meant.data[1] is made:
                    yield reading, node  # type: ignore[misc]


def _arguments(reading: Reading, call: ast.Call) -> list[Value]:
    nodes = [*call.args, *(keyword.value for keyword in call.keywords)]
    return [reading.values[node] for node in nodes if node in reading.values]


def _taken(code: Code, reading: Reading, call: ast.Call) -> tuple[str, set[str], str] | None:
    """What a call takes options from, as it writes them, which, and the path of their parser.

    None where it takes none from a command line.
    """
    found: dict[str, set[str]] = {}
    parsers: dict[str, str] = {}
    for node in (*call.args, *(keyword.value for keyword in call.keywords)):
        match node:
            case ast.Attribute(value=owner, attr=name):
                form = f"{reading.file.text(owner)}.{{}}"
            case ast.Subscript(value=owner, slice=ast.Constant(value=str(name)) as key):
                quote = reading.file.text(key)[0]
                form = f"{reading.file.text(owner)}[{quote}{{}}{quote}]"
            case _:
                continue
        parser = _parser(code, reading, reading.values[owner]) if owner in reading.values else ""
        if parser:
            found.setdefault(form, set()).add(name)
            parsers[form] = parser
    if not found:
        return None
    form = max(found, key=lambda each: len(found[each]))
    return form, found[form], parsers[form]


def _parser(code: Code, reading: Reading, value: Value, depth: int = 0) -> str:
    """The path of the file in which the parser is made whose command line a value is; "" if it is none."""
    for func in (each["func"] for each in value.walk() if "func" in each.args):
        if func.op == "attr" and func.data in _PARSED:
            made = func["of"].at
            return made.file.path if made is not None else reading.file.path
    if value.op != "parameter" or depth > MOST_CALLERS:
        return ""
    _, function, name = value.data
    place = [each.arg for each in parameters(function.args)].index(name) if value.data[2] != "self" else -1
    for caller, call in calls_of(code, function) if isinstance(function, Function) else []:
        given = [keyword.value for keyword in call.keywords if keyword.arg == name]
        given += call.args[place : place + 1] if place >= 0 else []
        for node in given:
            if node in caller.values and (parser := _parser(code, caller, caller.values[node], depth + 1)):
                return parser
    return ""


def flags(code: Code) -> list[Flag]:
    """Every option that a parser of the tree is given."""
    found: list[Flag | None] = []
    for reading in mentions(code, "add_argument", SHALLOW):
        for node in reading.values:
            callee = reading.values.get(node.func) if isinstance(node, ast.Call) else None
            if callee is not None and callee.op == "attr" and callee.data == "add_argument":
                assert isinstance(node, ast.Call)
                own = _flag(reading.file, node)
                found += [own] if own is not None else list(_rows(reading, node))
    return [flag for flag in found if flag is not None]


def _rows(reading: Reading, call: ast.Call) -> Iterator[Flag]:
    """The options of a table that a loop goes through: rows of a flag and its settings, or a dict of settings."""
    loop = next((each for each in reading.file.ancestors(call) if isinstance(each, ast.For)), None)
    if loop is None or len(call.args) != 1 or not _is_open(call):
        return
    over = loop.iter
    if isinstance(over, ast.Call) and isinstance(over.func, ast.Attribute):  # table.items()
        over = over.func.value
    made = reading.values[over].at if over in reading.values else None
    if made is None:
        return
    pairs: list[tuple[ast.expr, ast.expr | None]] = []
    if isinstance(made.node, ast.Dict):
        pairs = list(zip(made.node.values, made.node.keys, strict=True))
    elif isinstance(made.node, (ast.Tuple, ast.List)):
        pairs = [(row, row.elts[0]) for row in made.node.elts if isinstance(row, ast.Tuple) and len(row.elts) == 2]  # noqa: PLR2004
    for row, key in pairs:
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield Flag(made.file, row, key.value.lstrip("-").replace("-", "_"), key.value)


def _flag(file: File, call: ast.Call) -> Flag | None:
    texts = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    long = [text for text in texts if text.startswith("--")] or texts[:1]
    if not long:
        return None
    own = next((k.value.value for k in call.keywords if k.arg == "dest" and isinstance(k.value, ast.Constant)), None)
    name = own if isinstance(own, str) else long[0].lstrip("-").replace("-", "_")
    return Flag(file, call, name, long[0])
