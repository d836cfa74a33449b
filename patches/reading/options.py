"""Options: where a scope keeps what it is told, the calls that hand it on, and the command line that asks for it."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .classes import constructor_of, names_of
from .code import Code
from .files import File, Function
from .frames import Reading
from .names import parameters
from .nodes import walk
from .parsers import Flag, Parser, command_of, flags, is_vars, parser_behind, parser_of
from .records import all_fields, class_of, holds_tensors, is_data_class
from .updates import DEEP, MOST_CALLERS, calls_of, makings_of, mentions
from .values import Value

FEWEST = 2  # options by which a dict, a call or a parser is taken for one that has a scope's


@dataclass(frozen=True, slots=True)
class Home:
    """What holds the options of a scope: a function by its parameters, a class by its constructor's, data by its keys.

    `form` is how the scope writes one, with {} for its name.
    """

    kind: str  # "parameter", "attribute" (of self), "field" (of a data class), "entry" (of a dict), "namespace"
    file: File
    node: ast.AST
    form: str = "{}"


@dataclass(frozen=True, slots=True)
class Hand:
    """A call that hands options to a home, and how it writes one of them."""

    file: File
    call: ast.Call
    form: str  # "args.{}", '{}' for a parameter of the function around
    is_whole: bool  # whether it hands on all there are: f(**vars(args))
    parser: Parser | None  # whose command line it takes them from; None of a parameter
    names: frozenset[str] = frozenset()  # of the options that it takes


@dataclass(slots=True)
class Way:
    """How options get to a scope: its home, the homes on the way, the calls between, and its parsers' options."""

    home: Home
    through: list[Home] = field(default_factory=list)
    hands: list[Hand] = field(default_factory=list)
    parsers: list[list[Flag]] = field(default_factory=list)  # the options of each parser that asks
    problem: str = ""  # why options of a command line cannot be told to get here


def way_to(code: Code, reading: Reading) -> Way | None:
    """How a scope is told options; None where that cannot be seen."""
    spaces = _namespaces(code, reading)
    home = _entries(code, reading) or _config(code, reading)
    if home is None and spaces:
        space, parser, names = spaces
        way = Way(Home("namespace", reading.file, reading.node, space))
        way.parsers = _asking(flags(code), [(parser, names)])
        way.problem = "" if way.parsers else "where the options of its command line are added is not seen"
        return way
    home = home or _signature(reading)
    if home is None:
        return None
    way, every = Way(home), flags(code)
    names, whole = frozenset(_hand_on(code, way, home, set())), list(_whole(code, home))
    own = _names_of(code, home) | (_read_by(reading) if home.kind == "parameter" else set())
    if any(not {flag.name for flag in every if flag.file is parser.file} & own for parser in whole):
        return Way(home)  # a command line is made of the home's own names
    asked = Counter(flag.file for flag in every if flag.name in own | names)
    takers = [(hand.parser, hand.names) for hand in way.hands if hand.parser is not None]
    whole += [Parser(home.file, home.node)] * any(flag.parser is home.node for flag in every)
    takers += [(parser, frozenset(own & {flag.name for flag in every})) for parser in whole]
    if way.problem:
        return Way(home, problem=way.problem)
    if not takers:
        is_asked = any(count >= FEWEST for count in asked.values())
        return Way(home, problem="how the options of the command line get here is not seen" if is_asked else "")
    most = {parser.file: max(len(each) for other, each in takers if other.file is parser.file) for parser, _ in takers}
    main = min(most, key=lambda file: (-most[file], -asked[file], file.path.count("/"), file.path))
    if any(each.file not in most and asked[each.file] > most[main] for each, _ in _calls(code, home)):
        return Way(home, problem="how the options of the command line get here is not seen")
    takers = [(parser, names) for parser, names in takers if parser.file is main]
    way.parsers = _asking(every, takers)
    way.hands = [hand for hand in way.hands if hand.parser is None or hand.parser.file is main]
    way.problem = "" if way.parsers else "where the options of its command line are added is not seen"
    return way


def _asking(every: Sequence[Flag], takers: Sequence[tuple[Parser, frozenset[str]]]) -> list[list[Flag]]:
    """The options of each parser that asks for those that are taken from a command line."""
    found: dict[ast.AST | None, list[Flag]] = {}
    for parser, names in takers:
        near = [flag for flag in every if flag.file is parser.file] or [flag for flag in every if flag.name in names]
        makers = dict.fromkeys(flag.parser for flag in near)
        groups = {maker: [flag for flag in near if flag.parser in (maker, None)] for maker in makers}
        whole = {maker: group for maker, group in groups.items() if names <= {flag.name for flag in group}}
        if not whole and len({flag.file for flag in near}) == 1 and names & {flag.name for flag in near}:
            own = [flag for flag in near if flag.parser in (parser.node, None)]  # some come from elsewhere: parents
            whole = {parser.node: own} if own else {}
        found |= whole
    return list({id(group[0].node): group for group in found.values()}.values())


def _namespaces(code: Code, reading: Reading) -> tuple[str, Parser, frozenset[str]] | None:
    """The parsed command line whose options a scope reads itself: how it writes one, whose it is, and which."""
    found: dict[str, set[str]] = {}
    parsers: dict[str, Parser] = {}
    known: dict[int, Parser | None] = {}
    for node in walk(reading.node):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value in reading.values:
            value = reading.values[node.value]
            if value.key not in known:
                known[value.key] = None if command_of(code, value) else parser_of(code, reading, value)
            parser = known[value.key]
            if parser is not None:
                found.setdefault(f"{node.value.id}.{{}}", set()).add(node.attr)
                parsers[f"{node.value.id}.{{}}"] = parser
    form = max(found, key=lambda each: len(found[each]), default="")
    return (form, parsers[form], frozenset(found[form])) if form else None


def _whole(code: Code, home: Home) -> Iterator[Parser]:
    """The parsers whose command lines are handed on whole: Config(**vars(args))."""
    for reading, call in _calls(code, home):
        for keyword in call.keywords:
            value = reading.values.get(keyword.value) if keyword.arg is None else None
            parser = parser_behind(code, reading, value) if value is not None and _is_all(value) else None
            if parser is not None:
                yield parser
    if isinstance(home.node, ast.ClassDef):
        for reading in mentions(code, home.node.name, DEEP):
            for value in reading.values.values():
                func = value.get("func") if value.op == "opaque" else None
                if func is not None and func.op == "class" and func.data[1] is home.node and _is_all(value):
                    parser = parser_behind(code, reading, value)
                    if parser is not None:
                        yield parser


def _is_all(value: Value) -> bool:
    """Whether a value may hold all options of a command line: no display of some, nor those of a list of names."""
    parts = list(value.walk())
    return not any(map(_names_in, parts)) and not any(part.op in ("dict", "instance") and part.args for part in parts)


def _names_in(display: Value) -> set[str]:
    items = display.items if display.op in ("tuple", "list") else ()
    return {each.data for each in items if each.is_const() and isinstance(each.data, str)}


def _listed(value: Value) -> set[str]:
    """The names of all entries of a dict, where they are those of a display; nothing where there may be others."""
    if value.op == "dict":
        return set(value.args)
    source = value["key"].get("of") if value.op == "mapping" else value.get("0")
    func = value.get("func")
    if func is not None and func.op == "builtin" and func.data == "dict" and source is not None and source.op == "zip":
        source = source.items[0]
    elif value.op != "mapping":
        return set()
    return _names_in(source) if source is not None and len(_names_in(source)) == len(source.args) else set()


def _read_by(reading: Reading) -> set[str]:
    """The attributes and entries of objects that a scope is given, which may be options."""
    found = set[str]()
    for node in walk(reading.node):
        match node:
            case (
                ast.Attribute(value=ast.Name() as owner, attr=name)
                | ast.Subscript(value=ast.Name() as owner, slice=ast.Constant(value=str(name)))
            ) if reading.values.get(owner) is not None and reading.values[owner].op == "parameter":
                found.add(name)
    return found


def _names_of(code: Code, home: Home) -> set[str]:
    """The options that a home has."""
    match home.node:
        case ast.ClassDef():
            return all_fields(code, home.file.path, home.node)
        case ast.Dict():
            return {str(each.value) for each in home.node.keys if isinstance(each, ast.Constant)}
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return {each.arg for each in parameters(home.node.args)}
    return set()


def _entries(code: Code, reading: Reading) -> Home | None:
    """A dict at the top of a module, of which a scope reads several entries."""
    found: Counter[tuple[File, ast.Dict, str]] = Counter()
    for node in walk(reading.node):
        match node:
            case ast.Subscript(value=ast.Name(id=name) as base, slice=ast.Constant(value=str(key)) as index):
                file, display = module_dict(code, reading.file, name)
                if display is not None and any(isinstance(k, ast.Constant) and k.value == key for k in display.keys):
                    quote = reading.file.text(index)[0]
                    found[file, display, f"{reading.file.text(base)}[{quote}{{}}{quote}]"] += 1
    if not found or found.most_common(1)[0][1] < FEWEST:
        return None
    file, display, form = found.most_common(1)[0][0]
    return Home("entry", file, display, form)


def module_dict(code: Code, file: File, name: str, depth: int = 0) -> tuple[File, ast.Dict | None]:
    """The dict that a name at the top of a module is first set to, there or where it is imported from."""
    bound = file.scope.bound.get(name, [])
    for node in bound if len(bound) == 1 else []:
        holder = file.parents[node]
        if isinstance(holder, (ast.Assign, ast.AnnAssign)) and isinstance(holder.value, ast.Dict):
            return file, holder.value
        if isinstance(holder, ast.ImportFrom) and isinstance(node, ast.alias) and depth < MOST_CALLERS:
            path = code.files.imported("." * holder.level + (holder.module or ""), file.path)
            other = code.files.file(path) if path is not None else None
            if other is not None:
                return module_dict(code, other, node.name, depth + 1)
    return file, None


def _config(code: Code, reading: Reading) -> Home | None:
    """A data class whose methods change no field, of which a scope is handed an object; one made of nothing is none."""
    inside = reading.owner if reading.owner is not None else reading.node
    found: Counter[tuple[str, ast.ClassDef, str]] = Counter()
    for node in walk(inside):
        if isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Name, ast.Attribute)):
            text = ast.unparse(node.value)
            owner = _object(reading, text)
            is_told = owner is not None and (owner.op != "instance" or bool(owner.args))
            known = class_of(code, owner) if owner is not None and is_told else None
            known = known if known is not None and not holds_tensors(code, *known) else None
            fields = all_fields(code, *known) if known is not None and is_data_class(code, *known) else set()
            if known is not None and node.attr in fields and not names_of(known[1]).outside_init & fields:
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


def _signature(reading: Reading) -> Home | None:
    """The function that a scope is or stands in; of a method without options of its own the constructor."""
    file = reading.file
    functions = [each for each in (reading.node, *file.ancestors(reading.node)) if isinstance(each, Function)]
    if not functions:
        return None
    outer = functions[-1]
    owner = file.parents[outer]
    every = (*outer.args.defaults, *filter(None, outer.args.kw_defaults))
    own = [each for each in every if not (isinstance(each, ast.Constant) and each.value is None)]  # no data
    if isinstance(owner, ast.ClassDef) and reading.attributes and not own:
        setup = constructor_of(owner)
        first = parameters(outer.args)[0].arg
        return Home("attribute", file, setup, f"{first}.{{}}") if setup is not None else None
    return Home("parameter", file, outer)


def _hand_on(code: Code, way: Way, home: Home, seen: set[ast.AST]) -> set[str]:
    """Note the calls that hand options to a home, and say which options they take from a command line."""
    names = set[str]()
    seen.add(home.node)
    for reading, call in _calls(code, home):
        taken = _taken(code, reading, call)
        is_whole = any(
            k.arg is None and k.value in reading.values and _is_all(reading.values[k.value]) for k in call.keywords
        )
        if taken is not None:
            names |= taken.names
            way.through += [Home("parameter", reading.file, reading.node)] * (taken.form == "{}" and not is_whole)
            way.hands.append(Hand(reading.file, call, taken.form, is_whole, taken.parser, taken.names))
            continue
        between = _spread(code, reading, call)
        if between is not None and between.node not in seen:  # f(**asdict(config))
            own = _hand_on(code, way, between, seen)
            names |= own
            way.through += [between] if own else []
            continue
        spread = [reading.values.get(each.value) for each in call.keywords if each.arg is None]
        if any(each is not None and not _is_all(each) and parser_behind(code, reading, each) for each in spread):
            at = f"{reading.file.path}:{call.lineno}"
            way.problem = f"{at} hands on options of a command line without their names: name one there"
        around = reading.node
        given = [reading.values.get(node) for node in (*call.args, *(keyword.value for keyword in call.keywords))]
        passed = {each.data[2] for each in given if each and each.op == "parameter" and each.data[1] is around}
        if isinstance(around, Function) and len(passed) >= FEWEST and around not in seen:
            between = Home("parameter", reading.file, around)
            own = _hand_on(code, way, between, seen)
            if own:
                names |= own
                way.through.append(between)
                way.hands.append(Hand(reading.file, call, "{}", False, None))
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


def _calls(code: Code, home: Home) -> Iterator[tuple[Reading, ast.Call]]:
    is_setup = getattr(home.node, "name", "") == "__init__"
    if isinstance(home.node, Function) and not is_setup:
        yield from calls_of(code, home.node)
        return
    made = home.file.parents[home.node] if is_setup else home.node
    if isinstance(made, ast.ClassDef):
        yield from makings_of(code, made)


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a call takes from a command line: how it would write another option, whose command line it is, and which."""

    form: str
    parser: Parser
    names: frozenset[str]


def _taken(code: Code, reading: Reading, call: ast.Call) -> _Taken | None:
    """What a call takes options from; None where it takes none from a command line."""
    found: dict[str, set[str]] = {}
    parsers: dict[str, Parser] = {}
    for node in (*call.args, *(keyword.value for keyword in call.keywords)):
        value = reading.values.get(node)
        if value is None:
            continue
        if (command := command_of(code, value)) is not None:
            found.setdefault("{}", set()).add(value.data[2])
            parsers["{}"] = command
        space, name, form = _option(reading, node, value, call)
        parser = parser_of(code, reading, space) if space is not None and form else None
        if parser is not None:
            found.setdefault(form, set()).add(name)
            parsers[form] = parser
    for value in [reading.values[k.value] for k in call.keywords if k.arg is None and k.value in reading.values]:
        parser = parser_behind(code, reading, value) if _listed(value) or _is_all(value) else None
        form = _space(code, reading, call) if parser is not None else ""
        names = _listed(value) or {flag.name for flag in flags(code) if parser and flag.parser is parser.node}
        if parser is not None and form and names:
            found.setdefault(form, set()).update(names)
            parsers[form] = parser
    if not found:
        return None
    form = max(found, key=lambda each: len(found[each]))
    return _Taken(form, parsers[form], frozenset(found[form]))


def _option(reading: Reading, node: ast.expr, value: Value, call: ast.Call) -> tuple[Value | None, str, str]:
    """The command line that an argument may be an option of, the option, and how the call would write another."""
    match node:
        case ast.Subscript(value=owner, slice=ast.Constant(value=str(name)) as key) if owner in reading.values:
            quote = reading.file.text(key)[0]
            return reading.values[owner], name, f"{reading.file.text(owner)}[{quote}{{}}{quote}]"
        case ast.Attribute(value=owner, attr=name) if owner in reading.values:
            return reading.values[owner], name, f"{reading.file.text(owner)}.{{}}"
    if value.op != "attr":
        return None, "", ""
    env = reading.before.get(reading.file.statement(call), {})
    names = [each for each, known in env.items() if known.key == value["of"].key]
    return value["of"], str(value.data), f"{names[0]}.{{}}" if names else ""


def _space(code: Code, reading: Reading, call: ast.Call) -> str:
    """How a call would write an option of the parsed command line that has a name there."""
    env = reading.before.get(reading.file.statement(call), {})
    names = [name for name, value in env.items() if parser_of(code, reading, value)]
    plain = [name for name in names if not is_vars(env[name])]
    return f"{plain[0]}.{{}}" if plain else f'{names[0]}["{{}}"]' if names else ""
