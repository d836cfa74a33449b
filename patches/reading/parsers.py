"""Command lines: the parsers of a tree, the options that each is given, and what is taken from one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .code import Code, once
from .files import File, Function
from .frames import Reading
from .names import parameters
from .updates import MOST_CALLERS, SHALLOW, calls_of, mentions
from .values import Value

_PARSED = ("parse_args", "parse_known_args", "parse_intermixed_args")


@dataclass(frozen=True, slots=True)
class Parser:
    """A parser, by the expression that makes it; nothing of one that is only known by its file."""

    file: File
    node: ast.AST | None


@dataclass(frozen=True, slots=True)
class Flag:
    """An option that a parser is given: by a call of add_argument, a row of what is added in a loop, or a decorator."""

    file: File
    node: ast.expr
    name: str  # of the attribute in which a parsed command line has it
    texts: tuple[str, ...]  # as it is written: "--weight-decay", "-w"
    parser: ast.AST | None  # the expression that makes its parser, or the function that is one, where that is seen
    is_exclusive: bool = False  # whether it excludes others of its group
    adder: ast.expr | None = None  # the method that adds it, where something holds a part of its arguments


@once
def flags(code: Code) -> list[Flag]:
    """Every option that a parser of the tree is given."""
    found: list[Flag | None] = []
    for reading in mentions(code, "add_argument", SHALLOW):
        for node in reading.values:
            callee = reading.values.get(node.func) if isinstance(node, ast.Call) else None
            adder = callee["func"] if callee is not None and callee.op == "partial" else callee
            if adder is not None and adder.op == "attr" and adder.data == "add_argument":
                assert isinstance(node, ast.Call)
                own = _flag(reading.file, node, *_origin(adder["of"]))
                if own is not None and adder is not callee:
                    made = adder.at.node if adder.at is not None else None
                    own = replace(own, adder=made if isinstance(made, ast.expr) else node.func)
                found += [own] if own is not None else list(_rows(reading, node))
    for file in filter(lambda each: code.is_importable(each.path), code.files.naming("option")):
        for function, call in [(each, call) for each, _ in file.functions for call in each.decorator_list]:
            if isinstance(call, ast.Call) and code.module(file.path).expr(call.func).data == "click.option":
                found.append(_flag(file, call, function, is_exclusive=False))
    return [flag for flag in found if flag is not None]


def command_of(code: Code, value: Value) -> Parser | None:
    """The command of click whose option, or whose options that have no name there, a value is."""
    if value.op != "parameter":
        return None
    path, function, name = value.data
    own = [flag for flag in flags(code) if flag.parser is function]
    is_rest = isinstance(function, Function) and function.args.kwarg is not None and function.args.kwarg.arg == name
    return Parser(own[0].file, function) if own and (is_rest or any(flag.name == name for flag in own)) else None


def _rows(reading: Reading, call: ast.Call) -> Iterator[Flag]:
    """The options of a table that a loop goes through: rows of a flag and its settings, or a dict of settings."""
    loop = next((each for each in reading.file.ancestors(call) if isinstance(each, ast.For)), None)
    if loop is None or len(call.args) != 1 or all(keyword.arg for keyword in call.keywords):
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
            yield Flag(made.file, row, key.value.lstrip("-").replace("-", "_"), (key.value,), None)


def settings(flag: Flag) -> dict[str, ast.expr]:
    """What an option is given beside its name."""
    shown = flag.node.elts[1] if isinstance(flag.node, ast.Tuple) else flag.node
    if isinstance(shown, ast.Dict):
        pairs = zip(shown.keys, shown.values, strict=True)
        return {str(key.value): value for key, value in pairs if isinstance(key, ast.Constant)}
    return {each.arg: each.value for each in shown.keywords if each.arg} if isinstance(shown, ast.Call) else {}


def _flag(file: File, call: ast.Call, parser: ast.AST | None, is_exclusive: bool) -> Flag | None:
    given = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    texts = [text for each in given for text in each.split("/")]  # "--shuffle/--no-shuffle"
    long = [text for text in texts if text.startswith("--")] or texts[:1]
    if not long:
        return None
    own = next((k.value.value for k in call.keywords if k.arg == "dest" and isinstance(k.value, ast.Constant)), None)
    own = own or next((text for text in texts if not text.startswith("-")), None)
    name = own if isinstance(own, str) else long[0].lstrip("-").replace("-", "_")
    return Flag(file, call, name, tuple(texts), parser, is_exclusive)


def _origin(value: Value) -> tuple[ast.AST | None, bool]:
    """The expression that makes the parser that options are added to, and whether they exclude each other."""
    is_exclusive = False
    while value.op == "call" and value["func"].op == "attr" and str(value["func"].data).startswith("add_"):
        is_exclusive = is_exclusive or value["func"].data == "add_mutually_exclusive_group"
        if value["func"].data == "add_parser":
            break
        value = value["func"]["of"]
    return value.at.node if value.op in ("call", "instance") and value.at is not None else None, is_exclusive


def parser_of(code: Code, reading: Reading, value: Value, depth: int = 0) -> Parser | None:
    """The parser whose parsed command line a value is, or the dict of it."""
    while (value.op == "part" and value.data == 0) or is_vars(value):
        value = value["of"] if value.op == "part" else value["0"]
    func = value.get("func")
    if func is not None and func.op == "attr" and func.data in _PARSED:
        made = func["of"].at
        return Parser(made.file, made.node) if made is not None else Parser(reading.file, None)
    if value.op != "parameter" or depth > MOST_CALLERS:
        return None
    _, function, name = value.data
    names = [each.arg for each in parameters(function.args)]
    if name not in names and (command := command_of(code, value)) is not None:
        return command
    if name not in names or not isinstance(function, Function):
        return None
    for caller, call in calls_of(code, function) or _chosen(code, function):
        given = [keyword.value for keyword in call.keywords if keyword.arg == name]
        given += call.args[names.index(name) : names.index(name) + 1]
        known = [caller.values[node] for node in given if node in caller.values]
        found = (parser_of(code, caller, each, depth + 1) for each in known)
        parser = next((each for each in found if each is not None), None)
        if parser is not None:
            return parser
    return None


@once
def _chosen(code: Code, function: Function) -> list[tuple[Reading, ast.Call]]:
    """The calls by which a command line chooses a function: out of a table, or as set_defaults has kept it."""
    found = []
    for reading in (each for word in _PARSED for each in mentions(code, word, SHALLOW)):
        for call in (node for node in reading.values if isinstance(node, ast.Call) and node.func in reading.values):
            callee = reading.values[call.func]
            parts = [code.resolved(each) for each in callee.walk()] if callee.op in ("index", "get", "call") else []
            is_kept = callee.op == "attr" and callee["of"].op != "self" and _is_default(code, function, callee.data)
            if is_kept or any(each.op == "function" and each.data[1] is function for each in parts):
                found.append((reading, call))
    return found


def _is_default(code: Code, function: Function, name: str) -> bool:
    """Whether a parser keeps a function for an attribute of its command lines."""
    files = code.files.naming(function.name)
    around = (file.parents[node] for file in files for node in file.uses.get(function.name, ()))
    return any(isinstance(each, ast.keyword) and each.arg == name for each in around)


def is_vars(value: Value) -> bool:
    """Whether a value is vars() of something."""
    func = value.get("func")
    return func is not None and func.op == "builtin" and func.data == "vars" and "0" in value.args


def parser_behind(code: Code, reading: Reading, value: Value) -> Parser | None:
    """The parser whose parsed command line a value is made of."""
    found = (parser_of(code, reading, each) for each in value.walk() if each.op in ("call", "parameter"))
    return next((each for each in found if each is not None), None)
