"""What a change does to the rest of its tree: names, imports and calls that held before hold after it (law 11).

Each task sees to what it changes; here it is asked, of all of them alike, whether what they made still runs: every
name is bound, every import finds what it names without going round in a circle, every call fits its function.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from ..reading.code import Code
from ..reading.files import File, Files, Function
from ..reading.frames import Reading
from ..reading.names import parameters
from ..reading.nodes import at_once, walk
from ..reading.records import class_of, is_data_class
from ..reading.settings import setting_of, told
from ..reading.tree import SourceTree
from ..reading.updates import MOST_CALLERS, SHALLOW, aliases_of, calls_of, mentions
from ..reading.values import Value
from ..task import Site

_DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_ASKING = ("fields", "get_type_hints", "get_annotations", "__annotations__", "__dataclass_fields__")
_ALIKE = {"name", "default", "default_factory", "metadata"}  # may be asked of any field, whatever it is
_PLAIN = {"int made", "float made", "str made"}
_OF_MODULES = {"__file__", "__name__", "__doc__", "__package__", "__spec__", "__path__", "__builtins__", "__class__"}


def broken(before: SourceTree, after: SourceTree) -> Iterator[Site]:
    """What held in a tree and does not hold in a changed one, where it breaks."""
    then, now = Files(before.paths, before.raw), after.code.files
    changed = [path for path in now.paths if then.raw(path) is not now.raw(path) and then.raw(path) != now.raw(path)]
    for path in changed:
        old, new = then.file(path), now.file(path)
        if old is None or new is None:
            continue
        source = after.source(path)
        known = {name for name, _ in _unbound(old)}
        for name, node in _unbound(new):
            if name not in known:
                yield source.site(node, f"use of {name}, which nothing binds here")
        known = {name for name, _ in _too_early(old)}
        for name, node in _too_early(new):
            if name not in known:
                yield source.site(node, f"use of {name} before it is defined")
        for dotted, name, statement in _imports(new):
            if (dotted, name) not in {each[:2] for each in _imports(old)} and not _is_found(now, new, dotted, name):
                yield source.site(statement, f"import of {name} from {dotted}, which is not there")
        if _goes_round(now, path) and not _goes_round(then, path):
            yield source.site(new.module.body[0], "imports that would go round in a circle")
        for function in _refitted(old, new):
            yield from _misfits(after, function)
        yield from _unforeseen(after, old, new)
    for file in filter(None, map(now.file, now.paths)):
        for dotted, name, statement in _imports(file):
            target = now.imported(dotted, file.path)
            if target in changed and not _is_found(now, file, dotted, name) and _is_found(then, file, dotted, name):
                yield after.source(file.path).site(
                    statement, f"import of {name} from {dotted}, which is not there any more"
                )


@lru_cache(maxsize=512)
def _unbound(file: File) -> Sequence[tuple[str, ast.Name]]:
    """The names that a module reads and nothing in it binds."""
    found = list[tuple[str, ast.Name]]()
    if file.scope.is_open:
        return found
    for node in file.nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and not hasattr(builtins, node.id):
            scope = file.around(node)
            is_open = scope.is_open or scope.owner(node.id) is not None
            if not is_open and node.id not in file.scope.bound and node.id not in _OF_MODULES:
                found.append((node.id, node))
    return found


@lru_cache(maxsize=512)
def _too_early(file: File) -> Sequence[tuple[str, ast.Name]]:
    """The names that a module asks for as it is imported, and binds only further down."""
    found = list[tuple[str, ast.Name]]()
    lines = {each: line for line, top in enumerate(file.module.body) for each in walk(top)}
    is_late = "annotations" in file.scope.bound  # imported from __future__
    hints = {h for each in file.nodes for h in (getattr(each, "annotation", 0), getattr(each, "returns", 0)) if h}
    unread = {each for hint in hints if is_late for each in walk(hint)}
    for line, top in enumerate(file.module.body):
        for node in at_once(top):
            bound = file.scope.bound.get(node.id, ()) if isinstance(node, ast.Name) and node not in unread else ()
            if isinstance(node, ast.Name) and bound and all(lines.get(each, -1) > line for each in bound):
                is_known = file.scope.is_open or hasattr(builtins, node.id)
                if not is_known and file.around(node).owner(node.id) is file.scope:
                    found.append((node.id, node))
    return found


@lru_cache(maxsize=512)
def _imports(file: File) -> Sequence[tuple[str, str, ast.stmt]]:
    """The names that a module imports at its top, and from where."""
    nodes = (node for node in _top(file) if isinstance(node, ast.ImportFrom))
    return [("." * node.level + (node.module or ""), each.name, node) for node in nodes for each in node.names]


def _top(file: File) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, those for type checkers left out."""
    pending: list[ast.AST] = [*file.module.body]
    while pending:
        node = pending.pop()
        is_hint = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if isinstance(node, ast.stmt):
            yield node
        if not is_hint and not isinstance(node, (*_DEFINED, ast.expr)):
            pending += [each for each in ast.iter_child_nodes(node) if isinstance(each, (ast.stmt, ast.ExceptHandler))]


def _is_found(files: Files, file: File, dotted: str, name: str) -> bool:
    """Whether a name that is imported from the tree is there; others are taken to be."""
    path = files.imported(dotted, file.path)
    module = files.file(path) if path is not None else None
    if path is None or module is None:
        return path is not None or not dotted.startswith(".")
    is_module = path.endswith("__init__.py") and files.imported(f".{name}", path) is not None
    return (
        name in ("*", "__getattr__") or module.scope.is_taken(name) or is_module or "__getattr__" in module.scope.bound
    )


def _goes_round(files: Files, path: str) -> bool:
    """Whether a module imports itself, by way of others."""
    pending, seen = [path], set[str]()
    while pending:
        file = files.file(pending.pop())
        for dotted in {dotted for dotted, _, _ in _imports(file)} if file is not None else ():
            target = files.imported(dotted, file.path)  # type: ignore[union-attr]
            if target == path:
                return True
            if target is not None and target not in seen:
                seen.add(target)
                pending.append(target)
    return False


def _refitted(old: File, new: File) -> Iterator[Function]:
    """The functions of a module that take other arguments than before."""
    known = {_name(old, node): ast.dump(node.args) for node, _ in old.functions}
    for node, _ in new.functions:
        if known.get(_name(new, node), "") not in ("", ast.dump(node.args)):
            yield node


def _name(file: File, node: Function) -> str:
    around = [each.name for each in file.ancestors(node) if isinstance(each, _DEFINED)]
    return ".".join([node.name, *around])


def _misfits(tree: SourceTree, function: Function) -> Iterator[Site]:
    """The calls of a function whose arguments it does not take."""
    for reading, call in calls_of(tree.code, function):
        problem = _misfit(function, call, is_method=_is_bound(reading.file, function, call))
        if problem:
            yield tree.source(reading.file.path).site(call, f"call of {function.name}, {problem}")


def _is_bound(file: File, function: Function, call: ast.Call) -> bool:
    """Whether a call gives a function its first argument by what it is called on."""
    owner = file.owner(function) if function in file.parents else None
    kinds = {getattr(each, "id", "") for each in function.decorator_list}
    first = [each.arg for each in parameters(function.args)[:1]]
    is_method = owner is not None or first in (["self"], ["cls"])
    on_class = getattr(owner, "name", "") == getattr(getattr(call.func, "value", None), "id", None)
    return is_method and "staticmethod" not in kinds and not (on_class and "classmethod" not in kinds)


def _misfit(function: Function, call: ast.Call, *, is_method: bool) -> str:
    own = function.args
    if any(isinstance(each, ast.Starred) for each in call.args) or any(each.arg is None for each in call.keywords):
        return ""
    placed = [each.arg for each in (*own.posonlyargs, *own.args)][is_method:]
    needed = placed[: len(placed) - len(own.defaults)]
    needed += [each.arg for each, default in zip(own.kwonlyargs, own.kw_defaults, strict=True) if default is None]
    named = {each.arg for each in call.keywords if each.arg is not None}
    given = set(placed[: len(call.args)]) | named
    if len(call.args) > len(placed) and own.vararg is None:
        return f"with {len(call.args)} arguments for {len(placed)} parameters"
    unknown = named - {*placed, *(each.arg for each in own.kwonlyargs)}
    if unknown and own.kwarg is None:
        return f"which has no parameter {sorted(unknown)[0]}"
    left = [name for name in needed if name not in given]
    return f"which is not given {left[0]}" if left else ""


def _unforeseen(tree: SourceTree, old: File, new: File) -> Iterator[Site]:
    """Who goes by the kinds of a data class's fields, where one is of a kind now that none of them was of."""
    former = {each.name: each for each in old.classes}
    for node in (each for each in new.classes if each.name in former):
        was = _kinds(former[node.name])
        fresh = {name: kind for name, kind in _kinds(node).items() if kind not in was.values()}
        is_one = bool(fresh) and is_data_class(tree.code, new.path, node)
        for reading, at in _asking(tree.code, new.path, node) if is_one else ():
            asked = _asked_of(reading, at)
            known = {_seen(kind, asked) for kind in was.values()}
            seen = {name: _seen(kind, asked) for name, kind in fresh.items() if asked}
            for name in [name for name, each in seen.items() if each not in known and each[0] not in _PLAIN][:1]:
                note = f"use of what the fields of {node.name} are: {name} is to be of a kind that none of them was of"
                yield tree.source(reading.file.path).site(at, note)


def _kinds(node: ast.ClassDef) -> dict[str, tuple[str, str, bool]]:
    """The fields of a class: each one's annotation, the kind of its default, and whether it has metadata."""
    found = {}
    for each in (each for each in node.body if isinstance(each, ast.AnnAssign)):
        said = {k.arg: k.value for k in each.value.keywords} if isinstance(each.value, ast.Call) else {}
        default = said.get("default", each.value)
        kind = type(default.value) if isinstance(default, ast.Constant) else type(default)
        found[ast.unparse(each.target)] = (ast.unparse(each.annotation), kind.__name__, "metadata" in said)
    return found


def _seen(kind: tuple[str, str, bool], asked: set[str]) -> tuple[object, ...]:
    """What of a field's kind somebody sees who asks for some things; of unions that are taken apart, the parts."""
    hint: object = f"{kind[0]} made" if "made" in asked else kind[0]
    if "get_args" in asked and hint not in _PLAIN:
        hint = frozenset(re.findall(r"\w+", kind[0])) - {"Optional", "Union", "None", "typing"}
    return hint if asked - {"key"} else "", kind[1] if "kind" in asked else "", "key" in asked and kind[2]


def _asked_of(reading: Reading, at: ast.expr) -> set[str]:
    """What a scope asks of the fields that it has there, beyond what any has: "type", "kind" of a default, "key".

    "made" is asked where a field's type is handed on by that name, to make a value of any text: type=field.type.
    """
    file, nodes = reading.file, list(walk(reading.node))
    apart = {"get_args"} & {getattr(each, "id", getattr(each, "attr", "")) for each in nodes}
    handed = [k.value for each in nodes if isinstance(each, ast.Call) for k in each.keywords if k.arg == "type"]
    values = [
        reading.values[each]
        for each in handed
        if isinstance(each, (ast.Name, ast.Attribute)) and each in reading.values
    ]
    apart |= {"made"} if any(part.key == reading.values[at].key for each in values for part in each.walk()) else set()
    parent = file.parents[at]
    if not (isinstance(at, ast.Call) and isinstance(parent, (ast.For, ast.comprehension))) or parent.iter is not at:
        return {"type", *apart}
    asked = set[str]()
    for each in nodes:
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load) and each.id == ast.unparse(parent.target):
            use = file.parents[each]
            outer = file.parents[use]
            name = use.attr if isinstance(use, ast.Attribute) else "type"
            asked |= {name} - _ALIKE
            is_judged = isinstance(outer, ast.Call) and getattr(outer.func, "id", "") in ("type", "isinstance")
            asked |= {"kind"} if name == "default" and is_judged else set()
            asked |= {"key"} if name == "metadata" and isinstance(outer, ast.Subscript) else set()
    return asked | apart if asked - {"key"} else asked


def _asking(code: Code, path: str, node: ast.ClassDef) -> Iterator[tuple[Reading, ast.expr]]:
    """Where somebody asks for the fields of a class, or of what may be it."""
    family = {node, *(each for _, each in code.bases(path, node)), *code.subclasses(node)}
    words = {name for word in _ASKING for name in aliases_of(code, word)}
    for reading in dict.fromkeys(each for word in sorted(words) for each in mentions(code, word, SHALLOW)):
        for at, value in reading.values.items():
            func = value.get("func") if isinstance(at, ast.Call) else None
            is_call = func is not None and func.op == "global" and str(func.data).rpartition(".")[2] in _ASKING
            is_named = isinstance(at, ast.Attribute) and at.attr in _ASKING[3:]
            whose = value.get("0") if is_call else reading.values.get(at.value) if is_named else None  # type: ignore[attr-defined]
            if (is_call or is_named) and _may_be(code, whose, family):
                yield reading, at  # type: ignore[misc]


def _may_be(code: Code, value: Value | None, family: set[ast.ClassDef], depth: int = 0) -> bool:
    """Whether a value may be one of some classes, or an object of one."""
    value = code.resolved(value) if value is not None else None
    known = class_of(code, value) if value is not None else None
    if value is not None and value.op in ("class", "self"):
        known = value.data
    setting = setting_of(code, value) if value is not None and value.op == "parameter" and known is None else None
    calls = list(told(code, setting)) if setting is not None and depth < MOST_CALLERS else []
    if calls:
        return any(_may_be(code, each.value, family, depth + 1) for each in calls)
    return known is None or known[1] in family
