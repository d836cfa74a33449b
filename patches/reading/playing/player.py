"""A whole run for a few rows: loops, counts and lists for what they are, all else unknown.

What libraries compute is an Opaque that knows the rows it is made of. So it shows which rows each micro-batch holds,
how often an optimizer and a schedule step, and what total the schedule was given, however that is written.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from ..code import Code
from ..nodes import jumps, yields
from ..records import is_data_class
from ..tensors import Unknown
from ..values import Place
from . import outside
from .batches import Counted, Loader, Many, Method, Rows, Schedule, Space, Stream, Wanted, marks
from .calls import filled
from .expressions import ARITHMETIC, COMPARISONS
from .iterables import KNOWN
from .kinds import NONE, Class, Function, Left, Library, Opaque, Raised, Scope, Thing, kinds_of
from .names import is_net
from .walk import Walk

_APART = 16  # rows that one data set has more than the one before
_KEPT = {int, Counted, Rows, Many, Stream, Loader}  # what is kept of what expressions are
_MOST_ITEMS = 64  # of what is unpacked
_PAIR = 2
PLAIN = (int, float, str, bool, type(None))
_KNOWN_TRUTH = (Many, list, tuple, dict, *PLAIN)
_RUN_ANYWAY = {"property", "cached_property", "__init__", "__post_init__"}


class Player:
    """One play of a run, a World: what is given, what was seen on the way, what was done."""

    most, deepest, is_lenient, is_shared = 60_000, 30, True, True

    def __init__(
        self,
        code: Code,
        given: Mapping[str, int],
        kinds: Mapping[str, str],
        rows: int,
        relevant: set[ast.AST],
        forced: Mapping[ast.expr, int],
    ):
        self.walk = Walk(code, self)
        self.given, self.kinds, self.count, self.relevant, self.forced = given, kinds, rows, relevant, forced
        self.before = self.walk.before
        self.whole: dict[str, int] = {}  # how many rows each data set has
        self.leaves: dict[str, int] = {}  # numbers that may be told, and what they are unless they are
        self.values: dict[ast.AST, list[Any]] = {}  # of expressions, those that count or hold rows
        self.done: list[tuple[str, Any, ast.AST]] = []  # backward, step, schedule, zero_grad; with rows, or whose
        self.schedules: list[Schedule] = []
        self.tests: dict[ast.stmt, list[tuple[bool, int, Any]]] = {}  # of an if, with where the schedule was
        self.unsure: list[ast.AST] = []  # conditions on which something that counts depends, and that are not known
        self.counted = False  # whether something is looked up by the number that enumerate gives
        self.runs: dict[ast.AST, int] = {}  # how often each function has been called

    # -- what stands for itself

    def number(self, path: str, default: int) -> int:
        """A number that may be told, by how it is come by."""
        self.leaves.setdefault(path, default)
        return self.given.get(path, default)

    def leaf(self, path: str, *, is_given: bool = True) -> Any:
        """What is come by in some way, and is not known."""
        kind = self.kinds.get(path, "")
        if kind == "rows":
            place = [each for each, kind in self.kinds.items() if kind == "rows"].index(path)
            self.whole[path] = self.count + _APART * place
            return Rows(path, tuple(range(self.whole[path])))
        return self.number(path, 1) if kind == "int" else Opaque(path, NONE, is_given)

    def want(self, value: Any, kind: str) -> None:
        """Play again with something of another kind, if it can be."""
        is_open = isinstance(value, Opaque) and not value.marks and value.path and self.kinds.get(value.path) != kind
        if is_open and (kind == "rows" or value.is_given):
            raise Wanted(value.path, kind)

    def told(self, path: str, made: Any, node: ast.expr) -> Any:
        if isinstance(made, int) and not isinstance(made, bool):
            return self.number(path, made)
        is_plain = isinstance(made, PLAIN) and (made is not None or isinstance(node, ast.Constant))
        return made if is_plain or not isinstance(made, (Opaque, type(None))) else self.leaf(path)

    # -- a World: statements

    def came_to(self, scope: Scope, node: ast.expr, made: Any) -> Any:
        if type(made) is Method:
            made = self._plain(made)
        if isinstance(node, (ast.Constant, ast.Dict)) and scope.node is scope.file.module:
            made = self._setting(scope, node, made)
        if self.forced:
            made = self.forced.get(node, made)
        if type(made) in _KEPT:
            self.values.setdefault(node, []).append(made)
        return made

    def _setting(self, scope: Scope, node: ast.Constant | ast.Dict, made: Any) -> Any:
        """What a name at the top of a module is set to; numbers may be told, and those in a dict."""
        parents = scope.file.parents
        holder = parents[node]
        if not isinstance(holder, (ast.Assign, ast.AnnAssign)) or isinstance(parents[holder], ast.ClassDef):
            return made
        target = holder.targets[0] if isinstance(holder, ast.Assign) else holder.target
        if isinstance(node, ast.Constant):
            return self.told(f"{scope.file.path}:{ast.unparse(target)}", made, node)
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                made[key.value] = self.told(f'{ast.unparse(target)}["{key.value!s}"]', made[key.value], value)
        return made

    def truth(self, value: Any, node: ast.AST) -> bool | None:
        if isinstance(value, (Opaque, Rows)):
            return None
        holds = bool(value) if isinstance(value, _KNOWN_TRUTH) else True
        if isinstance(node, ast.If) and self.schedules:
            known = self.schedules[-1]
            self.tests.setdefault(node, []).append((holds, known.last_epoch, known.total))
        return holds

    def perhaps(self, scope: Scope, node: Any, source: Any = None) -> Iterator[Any]:
        before, body = len(self.done), node.body
        if isinstance(node, ast.If):
            body = node.body if not jumps(node.body) or jumps(node.orelse) else node.orelse
            yield from self.walk.block(scope, body)
            for each in body:
                if isinstance(each, ast.Assign) and isinstance(getattr(each.value, "value", None), bool):
                    self.walk.bind(scope, each.targets[0], Opaque())
        else:
            if not isinstance(node, ast.While):
                self.walk.bind(scope, node.target, Opaque("", marks(source)))
            with suppress(Left):
                yield from self.walk.block(scope, body)
        if len(self.done) > before:
            self.unsure.append(node.iter if isinstance(node, (ast.For, ast.AsyncFor)) else node.test)

    def is_open(self, value: Any) -> bool:
        return isinstance(value, Opaque)

    def items(self, value: Any, at: Place) -> Iterator[Any]:
        if isinstance(value, (Many, Loader)):
            value.asked.append("each")
        if isinstance(value, Loader):
            return iter(value.batches)
        if isinstance(value, Rows):
            return (Opaque("", frozenset({(value.name, each)})) for each in value.at)
        if isinstance(value, (list, tuple, dict, range, str, Stream)):
            return iter(value)
        if isinstance(value, Thing):
            made = self.method(value, "__iter__")
            if made is not None:
                return self.items(self.walk.call(made, [], {}, at), at)
            size, getter = outside.length(self, value, at), self.method(value, "__getitem__")
            return (self.walk.call(getter, [each], {}, at) for each in range(size))
        return iter([Opaque("", marks(value))])

    def alike(self, value: Any) -> tuple[Any, int]:
        is_part = isinstance(value, Rows) and len(value.at) < self.whole.get(value.name, 0)
        return (Opaque("", value.marks), len(value.at)) if is_part else (None, 0)

    def unpacked(self, value: Any, targets: Sequence[ast.expr], at: Place) -> Sequence[Any]:
        if isinstance(value, Schedule) and value.is_pair and len(targets) == _PAIR:
            return [value.optimizer, value]
        if isinstance(value, Thing) and value.is_data:
            value = list(value.own.values())
        if isinstance(value, Stream):
            value = list(islice(value, _MOST_ITEMS))
        is_starred = any(isinstance(each, ast.Starred) for each in targets)
        if isinstance(value, (list, tuple)) and (len(value) == len(targets) or is_starred):
            return value
        path = value.path if isinstance(value, Opaque) and not value.marks else ""
        return [
            self.leaf(f"{path}[{place}]", is_given=False) if path else Opaque("", marks(value))
            for place in range(len(targets))
        ]

    def extend(self, owner: Any, more: Any, at: Place) -> None:
        owner.asked.append("change")
        owner.extend(outside.every(self, more, at, len(owner)))

    # -- a World: expressions

    def _plain(self, value: Any) -> Any:
        """A method that is not called is an attribute of something unknown."""
        if not isinstance(value, Method):
            return value
        of = value.of
        is_known = isinstance(of, Opaque) and of.path and not of.marks
        return self.leaf(f"{of.path}.{value.name}") if is_known else Opaque("", marks(of))

    def operated(self, op: ast.operator, left: Any, right: Any, at: Place) -> Any:
        sides = [self._plain(left), right]
        if all(isinstance(each, (int, float)) for each in sides):
            try:
                return ARITHMETIC[type(op)](*sides)
            except (ZeroDivisionError, KeyError, OverflowError, TypeError):
                raise Unknown(at) from None
        lists = [each for each in sides if isinstance(each, Many)]
        for each in lists:
            each.asked.append("change")
        if len(lists) == _PAIR and isinstance(op, ast.Add):
            return Many([*left, *right])
        if lists and isinstance(op, ast.Mult) and any(isinstance(each, int) for each in sides):
            return Many(left * right)
        if all(isinstance(each, dict) for each in sides) and isinstance(op, ast.BitOr):
            return left | right
        is_counting = any(isinstance(each, (int, float, list)) for each in sides)
        if is_counting or all(isinstance(each, Opaque) for each in sides):
            for each in sides if not isinstance(left, str) else ():
                self.want(each, "int")
        return Opaque("", marks(sides))

    def turned(self, op: ast.unaryop, value: Any, at: Place) -> Any:
        if isinstance(value, (int, float)) and isinstance(op, (ast.USub, ast.UAdd)):
            return -value if isinstance(op, ast.USub) else value
        return Opaque("", marks(value))

    def compared(self, op: ast.cmpop, left: Any, right: Any, at: Place) -> Any:
        sides = [left, right]
        if None in sides and isinstance(op, (ast.Is, ast.IsNot, ast.Eq, ast.NotEq)):
            return (left is right) == isinstance(op, (ast.Is, ast.Eq))
        numbers = [each for each in sides if isinstance(each, (int, float))]
        for each in sides if len(numbers) == 1 else ():
            self.want(each, "int")
        if all(isinstance(each, PLAIN) or type(each) in (Many, dict, list) for each in sides):
            with suppress(TypeError):
                return COMPARISONS[type(op)](left, right)
        return Opaque()

    def display(self, kind: Callable[..., Any], items: Iterator[Any]) -> Many | Stream:
        return Stream(items) if kind is iter else Many(items)

    def text(self, scope: Scope, node: ast.JoinedStr) -> Opaque:
        return Opaque()

    def item(self, owner: Any, index: Any, at: Place) -> Any:
        if isinstance(index, slice):
            bounds = [index.start, index.stop, index.step]
            unknown = [each for each in bounds if not isinstance(each, (int, type(None)))]
            for each in unknown:
                self.want(each, "int")
            if unknown:
                return Opaque("", marks(owner))
        if isinstance(index, Counted) and not isinstance(owner, dict):
            self.counted = True
        if isinstance(owner, Many):
            owner.asked.append("index")
        if isinstance(owner, (list, str, range)) and isinstance(index, (int, slice)):
            try:
                made = owner[index]
            except IndexError:
                raise Unknown(at) from None
            return Many(made) if isinstance(made, list) else made
        if isinstance(owner, dict):
            return owner[index] if isinstance(index, (str, int)) and index in owner else Opaque("", marks(owner))
        if isinstance(owner, Schedule) and owner.is_pair and isinstance(index, int):
            return (owner.optimizer, owner)[index]
        if isinstance(owner, Thing):
            getter = self.method(owner, "__getitem__")
            if getter is not None:
                return self.walk.call(getter, [index], {}, at)
            return list(owner.own.values())[index] if isinstance(index, int) else Opaque("", marks(owner))
        if isinstance(owner, Opaque):
            if isinstance(index, slice) and (index.start is not None or index.stop is not None):
                self.want(owner, "rows")
            if isinstance(index, str) and owner.path and not owner.marks:
                return self.leaf(f'{owner.path}["{index}"]')
        return owner.item(index) if isinstance(owner, Rows) else Opaque("", marks(owner))

    def set_item(self, owner: Any, index: Any, value: Any, at: Place) -> None:
        is_place = isinstance(owner, list) and isinstance(index, int) and -len(owner) <= index < len(owner)
        if is_place or (isinstance(owner, dict) and isinstance(index, (int, str))):
            owner[index] = value

    def delete_item(self, owner: Any, index: Any, at: Place) -> None: ...

    # -- a World: names and attributes

    def attribute(self, owner: Any, name: str, at: Place) -> Any:
        if isinstance(owner, Space) and name in owner.own:
            return owner.own[name]
        if isinstance(owner, Rows) and name == "shape":
            return Many([len(owner.at), Opaque("", owner.marks)])
        if isinstance(owner, Schedule) and name in ("total_steps", "T_max"):
            return owner.total
        if isinstance(owner, Schedule) and name in ("last_epoch", "_step_count"):
            return owner.last_epoch + (name == "_step_count")
        if isinstance(owner, Loader) and name in ("dataset", "batch_size"):
            return owner.rows if name == "dataset" else owner.settings.get("batch_size", 1)
        if isinstance(owner, Opaque) and not owner.marks and owner.path:
            child = f"{owner.path}.{name}"
            return self.leaf(child) if child in self.kinds else Method(owner, name)
        return Method(owner, name)

    def set_attribute(self, owner: Any, name: str, value: Any, at: Place) -> None:
        if isinstance(owner, Space):
            owner.own[name] = value

    def lacking(self, owner: Thing | Class, name: str, at: Place) -> Any:
        return self.leaf(f"{owner.name}.{name}") if isinstance(owner, Thing) else Opaque(f"{owner.node.name}.{name}")

    def library(self, dotted: str) -> Any:
        return "__main__" if dotted == "__name__" else Library(dotted)

    def top(self, scope: Scope, name: str, value: ast.expr | None) -> Any:
        if isinstance(value, ast.Dict):
            return self.walk.value(scope, value)
        path = f"{scope.file.path}:{name}"
        with suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            made = ast.literal_eval(value) if value is not None else None
            if value is not None and made is not None and isinstance(made, PLAIN):
                return self.told(path, made, value)
        return self.leaf(path)

    def defined(self, function: Function) -> Function:
        return function

    def method(self, owner: Thing, name: str) -> Function | None:
        """A method of an object, bound to it."""
        found = self.walk.code.method(owner.cls.path, owner.cls.node, name)
        return Function(found[0], found[2], None, owner) if found is not None else None

    # -- a World: calls

    def follow(self, function: Function, placed: list[Any], named: dict[str, Any], at: Place) -> Any:
        """What a function of the tree gives: what counts is done, and so is what is all known; all else is not."""
        node, every = function.node, (*placed, *named.values())
        line, column = getattr(at.node, "lineno", 0), getattr(at.node, "col_offset", 0)
        unknown = Opaque(f"call:{function.path}:{line}:{column}", marks(every))
        names = {"lambda"} if isinstance(node, ast.Lambda) else {node.name, *kinds_of(node)}
        is_sure = node in self.relevant
        is_asked = is_sure or yields(node) or bool(names & {"lambda", *_RUN_ANYWAY})
        kinds = {type(each) for each in every}
        is_known = Opaque not in kinds or (Rows in kinds and bool(kinds & {int, Counted}))  # which may cut them
        if self.walk.depth <= self.deepest and (is_asked or is_known):
            self.runs[node] = self.runs.get(node, 0) + 1
            try:
                return self.walk.entered(function, placed, named)
            except (Unknown, Raised):
                if is_sure or names & {"lambda", "property", "cached_property"}:
                    raise
        return self.leaf(unknown.path) if unknown.path in self.kinds else unknown

    def make(self, cls: Class, placed: list[Any], named: dict[str, Any], at: Place) -> Any:
        name = f"{cls.node.name}:{getattr(at.node, 'lineno', 0)}"
        counts = any(each in self.relevant for each in cls.node.body)
        if not counts and not is_data_class(self.walk.code, cls.path, cls.node) and is_net(self.walk, cls):
            return self.leaf(name, is_given=False)
        return filled(self.walk, Thing(cls, name=name), placed, named, at)

    def called(self, callee: Any, placed: list[Any], named: dict[str, Any], at: Place) -> Any:
        if not isinstance(callee, Library) or callee.dotted not in KNOWN:
            return outside.called(self, callee, placed, named, at)
        try:
            return KNOWN[callee.dotted](outside.Asked(self, placed, named, at))
        except (TypeError, IndexError, KeyError, ValueError, StopIteration, ZeroDivisionError, OverflowError):
            raise Unknown(at) from None
