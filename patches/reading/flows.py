"""What is done with a value, wherever it goes: by names, calls, returns, attributes of objects, through containers.

Each thing that it may be has a kind, and `gives` says what becomes of a kind that is asked for something.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from .code import Code
from .files import File, Function
from .names import parameters
from .reads import reads_of_attribute, reads_of_name, reads_of_parameter
from .updates import SHALLOW, calls_of, scope_of

ANY = "*"  # a place in a container that is not told
DEEPEST = 3  # containers in containers
DONE = ""  # what comes of it is none of ours any more
Asked = Callable[
    [str, str, str], str | None
]  # kind, how it is asked, by which name: the kind that comes of it, or None
_TRANSPARENT = (ast.IfExp, ast.Starred, ast.NamedExpr, ast.BoolOp)
_PICKING = {"next", "max", "min", "random.choice"}  # of a container, one of what it holds
_TAKING = {"pop", "popleft", "popright", "get", "setdefault", "__getitem__"}  # so do these methods
_CARRYING = {"list", "tuple", "set", "frozenset", "dict", "sorted", "reversed", "iter", "filter"}
_LOOKING = {"len", "print", "bool", "id", "repr", "str", "type", "isinstance", "any", "all"}
_NUMBERING = {"enumerate", "zip"}
_LOOPS = (ast.For, ast.While, ast.ListComp, ast.GeneratorExp)
_HARMLESS = (ast.Expr, ast.FormattedValue, ast.If, ast.While, ast.Assert, ast.Delete, ast.Await)


class Use(NamedTuple):
    """A place where a value cannot be what it is to be, and what is asked of it there."""

    file: File
    node: ast.AST
    asked: str

    @property
    def lack(self) -> str:
        """What a thing is not, or has not, that cannot be asked for this."""
        what = self.asked.removeprefix("an ").removeprefix("a ")
        return f"is not {what}" if what.startswith("to be ") else f"has no {what}"


Way = tuple[tuple[Function, File, ast.Call], ...]  # the calls that a value was handed on by, the last one last


class At(NamedTuple):
    """An expression that has a value, of a kind, or a container of it, and by which calls it came to its function."""

    file: File
    node: ast.AST
    kind: str
    way: Way | None = None  # None: as what it comes from, if that stands in the same function


def misuses(code: Code, starts: Sequence[tuple[File, ast.AST]], kind: str, gives: Asked) -> list[Use]:
    """The uses of what some expressions give that nothing comes of, as `gives` says."""
    return followed(code, starts, kind, gives)[1]


def followed(
    code: Code,
    starts: Sequence[tuple[File, ast.AST]],
    kind: str,
    gives: Asked,
    stops: Callable[[File, ast.AST], bool] = lambda *_: False,
) -> tuple[list[At], list[Use]]:
    """Wherever what some expressions give comes to, and the uses that nothing comes of; `stops` says what is well."""
    pending = [At(file, node, kind, ()) for file, node in starts]
    seen: dict[At, None] = {}
    uses: list[Use] = []
    while pending:
        at = pending.pop()
        if at in seen or stops(at.file, at.node):
            continue
        seen[at] = None
        for step in _steps(code, at, gives):
            if isinstance(step, Use):
                uses.append(step)
            elif step.way is None:
                is_near = step.file is at.file and step.file.function(step.node) is at.file.function(at.node)
                pending.append(step._replace(way=at.way if is_near else ()))
            else:
                pending.append(step)
    return list(seen), uses


def _steps(code: Code, at: At, gives: Asked) -> Iterator[At | Use]:
    file, node, kind, way = at
    parent = file.parents[node]
    match parent:
        case ast.Assign() | ast.AnnAssign() | ast.NamedExpr() if parent.value is node:
            targets = parent.targets if isinstance(parent, ast.Assign) else [parent.target]
            for target in targets:
                yield from _bound(code, file, target, kind)
            if isinstance(parent, ast.NamedExpr):
                yield At(file, parent, kind)
        case ast.Return() | ast.Yield() | ast.YieldFrom():
            yield from _returned(code, file, parent, kind, gives, way or ())
        case ast.Tuple() | ast.List() | ast.Dict() | ast.Set():
            yield from _held(file, parent, _place_in(parent, node), kind)
        case ast.Attribute():
            yield from _asked(file, parent, kind, gives)
        case ast.Subscript() if parent.value is node:
            yield from _indexed(code, file, parent, kind, gives)
        case ast.For() | ast.AsyncFor() | ast.comprehension() if parent.iter is node:
            if _is_holder(kind):
                yield from _bound(code, file, parent.target, _taken(kind, ANY))
            else:
                whole = file.parents[parent] if isinstance(parent, ast.comprehension) else None
                yield from _given(gives, kind, "loop", "", file, node, whole)
        case ast.Call():
            yield from _passed(code, file, parent, node, kind, gives, way or ())
        case ast.keyword():
            call = file.parents[parent]
            if isinstance(call, ast.Call):
                yield from _passed(code, file, call, parent, kind, gives, way or ())
        case ast.Compare():
            is_identity = all(isinstance(op, (ast.Is, ast.IsNot)) for op in parent.ops)
            if not is_identity and not _is_holder(kind):
                yield Use(file, parent, "a comparison")
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() if parent.elt is node:
            yield from _held(file, parent, ANY, kind)
        case ast.IfExp() if parent.test is node:
            pass
        case ast.Starred() if isinstance(file.parents[parent], (ast.Tuple, ast.List, ast.Set)):
            whole = file.parents[parent]
            if _is_holder(kind):
                yield from _held(file, whole, ANY, _taken(kind, ANY))
            else:
                yield from _given(gives, kind, "loop", "", file, node, None)
        case _ if isinstance(parent, _TRANSPARENT):
            yield At(file, parent, kind)
        case ast.UnaryOp(op=ast.Not()):
            pass
        case _ if isinstance(parent, _HARMLESS):
            pass
        case ast.AugAssign() if _is_holder(kind):
            yield from _bound(code, file, parent.target, kind)
        case ast.BinOp() if _is_holder(kind):
            yield At(file, parent, kind)
        case _:
            is_operator = isinstance(parent, (ast.BinOp, ast.UnaryOp, ast.AugAssign))
            yield Use(file, node, "an operator" if is_operator else "a use that is known here")


def _is_holder(kind: str) -> bool:
    return kind.startswith("(")


def _taken(kind: str, place: str) -> str:
    """The kind of what is at a place in a container; nothing where it is something else."""
    held, _, inner = kind[1:].partition(")") if _is_holder(kind) else (ANY, "", DONE)
    return inner if ANY in (held, place) or held == place or place.startswith("-") else DONE


def _held(file: File, node: ast.AST, place: str, kind: str) -> Iterator[At]:
    """A container that has something at a place."""
    if kind and kind.count("(") < DEEPEST:
        yield At(file, node, f"({place}){kind}")


def _place_in(display: ast.Tuple | ast.List | ast.Set | ast.Dict, node: ast.AST) -> str:
    if isinstance(display, ast.Dict):
        key = next((key for key, value in zip(display.keys, display.values, strict=True) if value is node), None)
        return str(key.value) if isinstance(key, ast.Constant) else ANY
    is_plain = not any(isinstance(each, ast.Starred) for each in display.elts)
    return str(next(place for place, each in enumerate(display.elts) if each is node)) if is_plain else ANY


def _given(
    gives: Asked, kind: str, how: str, name: str, file: File, node: ast.AST, then: ast.AST | None
) -> Iterator[At | Use]:
    """What comes of a value that is asked for something: `then` has it."""
    made = gives(kind, how, name)
    if made is None:
        yield Use(file, node, name or {"loop": "to be gone through", "slice": "a part"}.get(how, "an entry"))
    elif made and then is not None:
        yield At(file, then, made)


def _asked(file: File, attribute: ast.Attribute, kind: str, gives: Asked) -> Iterator[At | Use]:
    if _is_holder(kind):
        call = file.parents[attribute]
        is_method = isinstance(call, ast.Call) and call.func is attribute
        inner = _taken(kind, ANY if is_method else attribute.attr)
        if inner and is_method and attribute.attr not in _TAKING:
            yield from _held(file, call, ANY, f"(1){inner}" if attribute.attr == "items" else inner)
        elif inner:
            yield At(file, call if is_method else attribute, inner)
        return
    if not isinstance(attribute.ctx, ast.Load):
        yield Use(file, attribute, f"{attribute.attr}, which is set")
        return
    parent = file.parents[attribute]
    is_called = isinstance(parent, ast.Call) and parent.func is attribute
    how = "method" if is_called else "attribute"
    yield from _given(gives, kind, how, attribute.attr, file, attribute, parent if is_called else attribute)


def _indexed(code: Code, file: File, node: ast.Subscript, kind: str, gives: Asked) -> Iterator[At | Use]:
    if not isinstance(node.ctx, ast.Load):
        yield Use(file, node, "an entry, which is set")
        return
    index = node.slice
    if _is_holder(kind):
        inner = _taken(kind, str(index.value) if isinstance(index, ast.Constant) else ANY)
        if inner:
            yield At(file, node, inner if not isinstance(index, ast.Slice) else f"({ANY}){inner}")
        return
    is_turn = any(isinstance(each, _LOOPS) for each in file.ancestors(node)) and not isinstance(index, ast.Tuple)
    how = "index" if _is_number(code, file, index) else "some" if is_turn else "indices"
    if isinstance(index, ast.Slice):
        is_open = index.lower is None or index.upper is None or _is_negative(index.lower) or _is_negative(index.upper)
        how = "slice" if is_open or index.step is not None else "few"
    yield from _given(gives, kind, how, "", file, node, node)


def _is_negative(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)


def _is_number(code: Code, file: File, index: ast.expr) -> bool:
    """Whether an index is one place, and no tensor or list of them, as far as the code tells."""
    if isinstance(index, (ast.Tuple, ast.List, ast.Slice)):
        return False
    value = scope_of(code, file, index, SHALLOW).values.get(index)
    if value is None:
        return isinstance(index, (ast.Constant, ast.UnaryOp))
    if value.op == "parameter":
        _, function, name = value.data
        hint = next((a.annotation for a in parameters(function.args) if a.arg == name), None)
        return hint is None or ast.unparse(hint) == "int"
    known = ("item", "counted", "carried", "neg", "mod", "sub", "add", "floordiv", "int")
    return value.number is not None or value.op in known


def _bound(code: Code, file: File, target: ast.AST, kind: str) -> Iterator[At | Use]:
    """Where what a target is set to is read."""
    match target:
        case ast.Name():
            yield from (At(*each, kind) for each in reads_of_name(code, file, target))
        case ast.Tuple() | ast.List():
            for place, each in enumerate(target.elts):
                inner = _taken(kind, ANY if any(isinstance(e, ast.Starred) for e in target.elts) else str(place))
                yield from _bound(code, file, each, inner) if inner else ()
        case ast.Starred():
            yield from _bound(code, file, target.value, f"({ANY}){kind}")
        case ast.Attribute():
            owner = next((each for each in file.ancestors(target) if isinstance(each, ast.ClassDef)), None)
            yield from (At(*each, kind, ()) for each in reads_of_attribute(code, file, owner, target.attr))
        case _:
            yield Use(file, target, "to be kept under a key, from where it is not followed")


def _returned(code: Code, file: File, node: ast.AST, kind: str, gives: Asked, way: Way) -> Iterator[At | Use]:
    """Who is given it: where it was handed in, who did so; else whoever calls, reads or is handed the function."""
    function = file.function(node)
    if function is None:
        return
    if isinstance(node, ast.YieldFrom) and not _is_holder(kind):
        yield from _given(gives, kind, "loop", "", file, node, None)
        return
    kind = f"({ANY}){kind}" if isinstance(node, ast.Yield) else kind
    if way and way[-1][0] is function:
        yield At(*way[-1][1:], kind, way[:-1])
        return
    owner = file.owner(function)
    kinds = {getattr(each, "id", getattr(each, "attr", "")) for each in function.decorator_list}
    if kinds & {"property", "cached_property"} and owner is not None:
        yield from (At(*each, kind, ()) for each in reads_of_attribute(code, file, owner, function.name))
    callers = calls_of(code, function)
    for reading, call in callers:
        yield At(reading.file, call, kind, ())
    for other in dict.fromkeys(reading.file for reading, _ in callers):
        for each in other.uses.get(function.name, ()):
            parent = other.parents[each]
            is_handed = isinstance(parent, (ast.Call, ast.keyword, ast.Dict, ast.List))
            if is_handed and getattr(parent, "func", None) is not each and _means(code, other, each, function):
                yield Use(other, each, "to be made by whoever is handed the function")


def _means(code: Code, file: File, node: ast.AST, function: Function) -> bool:
    """Whether an expression is a function itself, as far as the code tells."""
    value = scope_of(code, file, node, SHALLOW).values.get(node) if isinstance(node, ast.expr) else None
    value = code.resolved(value) if value is not None else None
    if value is not None and value.op == "attr" and value["of"].op in ("self", "instance", "class"):
        path, cls, *_ = value["of"].data
        found = code.method(path, cls, str(value.data))
        return found is not None and found[2] is function
    return value is not None and value.op == "function" and value.data[1] is function


def _passed(
    code: Code, file: File, call: ast.Call, node: ast.AST, kind: str, gives: Asked, way: Way
) -> Iterator[At | Use]:
    """What a call does with an argument."""
    if call.func is node:
        yield Use(file, call, "to be called")
        return
    reading = scope_of(code, file, call, SHALLOW)
    function = reading.calls.get(call)
    callee = reading.values.get(call.func)
    callee = code.resolved(callee) if callee is not None else None
    place = next((place for place, each in enumerate(call.args) if each is node), None)
    keyword = node.arg if isinstance(node, ast.keyword) else None
    argument = node.value if isinstance(node, ast.keyword) else node
    owner = callee["of"] if callee is not None and callee.op == "attr" else None
    while owner is not None and owner.op == "carried" and owner["start"].op in ("self", "carried"):
        owner = owner["start"]  # a loop that calls its methods leaves it what it is
    if function is None and owner is not None and callee is not None and owner.op in ("self", "instance"):
        (path, cls), name = owner.data, str(callee.data)
        found = code.method(path, cls, name)  # behind a decorator
        function = found[2] if found is not None and not code.is_open(path, cls, name) else None
    if callee is not None and callee.op == "class":
        yield from _constructed(code, callee.data, place, keyword, kind, file, call)
    elif isinstance(function, Function) and (home := code.home(function)) is not None:
        is_bound = home.owner(function) is not None and not (callee is not None and callee.op == "function")
        is_again = any(each is function for each, _, _ in way) or len(way) >= DEEPEST
        inward = () if is_again else (*way, (function, file, call))
        place = place if place is None else place + is_bound
        yield from _parameter(home, function, place, keyword, kind, file, call, inward)
    elif callee is not None and callee.op in ("builtin", "global"):
        name = str(callee.data)
        if not _is_holder(kind):
            yield from _given(gives, kind, "call", name, file, argument, call)
        elif name in _PICKING:
            yield At(file, call, _taken(kind, ANY))
        elif name in _NUMBERING:
            yield from _held(file, call, ANY, f"({1 if name == 'enumerate' else place}){_taken(kind, ANY)}")
        elif name in _CARRYING or name.startswith(("itertools.", "collections.", "random.", "copy.")):
            yield from _held(file, call, ANY, _taken(kind, ANY))
        elif name not in _LOOKING:
            yield from _given(gives, kind.rpartition(")")[2], "held", name, file, argument, call)
    elif callee is not None and callee.op == "attr" and _is_holder(kind):
        pass
    elif callee is not None and callee.op == "attr" and callee.data in ("append", "add", "put"):
        yield Use(file, argument, "to be kept in a list, from where it is not followed")
    else:
        yield Use(file, argument, f"to be handed to {ast.unparse(call.func)}, which is not seen")


def _constructed(
    code: Code,
    cls: tuple[str, ast.ClassDef],
    place: int | None,
    keyword: str | None,
    kind: str,
    file: File,
    call: ast.Call,
) -> Iterator[At | Use]:
    found = code.method(*cls, "__init__")
    home = code.files.file(found[0] if found is not None else cls[0])
    assert home is not None
    if found is not None:
        yield from _parameter(home, found[2], None if place is None else place + 1, keyword, kind, file, call, ())
        return
    fields = [
        each.target.id for each in cls[1].body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]
    name = keyword or (fields[place] if place is not None and place < len(fields) else None)
    if name is None:
        yield Use(file, call, f"to be handed to {cls[1].name}, which does not say what it does with it")
    else:
        yield from (At(*each, kind, ()) for each in reads_of_attribute(code, home, cls[1], name))


def _parameter(
    home: File,
    function: Function,
    place: int | None,
    keyword: str | None,
    kind: str,
    file: File,
    call: ast.Call,
    way: Way,
) -> Iterator[At | Use]:
    placed = [*function.args.posonlyargs, *function.args.args]
    named = {each.arg: each for each in parameters(function.args)}
    target = named.get(keyword or "") if place is None else placed[place] if place < len(placed) else None
    if target is None:
        yield Use(file, call, "to be handed on among others")
        return
    yield from (At(*each, kind, way) for each in reads_of_parameter(home, function, target.arg))
