"""What functions and objects of a tree do with a few numbers: what is not known may be kept and handed on.

Of libraries a short table is known. Where what happens would depend on what is not known, or where it takes too long,
Unknown is raised.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Never

from ..code import Code
from ..tensors import Unknown
from ..values import Place
from .calls import filled
from .cases import members
from .expressions import ARITHMETIC, COMPARISONS, UNARY
from .kinds import Class, Function, Library, Opaque, Raised, Scope, Stuck, Thing
from .names import is_whole
from .walk import Walk

_MOST_BITS, _MOST_ITEMS = 256, 1000
_OF_NUMBERS = {"item", "detach", "cpu", "float", "clone", "mean", "min", "max", "double", "squeeze", "tolist"}
_PLAIN: dict[str, Callable[..., Any]] = {
    **{each.__name__: each for each in (float, int, bool, str, len, abs, min, max, sum, any, all, round)},
    **{each.__name__: each for each in (list, tuple, dict, range, enumerate, zip, sorted, reversed)},
    **{f"math.{name}": getattr(math, name) for name in ("isnan", "isinf", "isfinite", "ceil", "floor", "sqrt", "exp")},
    **{f"numpy.{name}": getattr(math, name) for name in ("isnan", "isinf", "isfinite")},
    **{f"torch.{name}": getattr(math, name) for name in ("isnan", "isinf", "isfinite")},
    **{f"operator.{name}": getattr(operator, name) for name in ("gt", "ge", "lt", "le", "not_")},
    "torch.tensor": float,
    "torch.as_tensor": float,
    **dict.fromkeys(
        ("copy.copy", "copy.deepcopy"),
        lambda made: _copied(made),  # noqa: PLW0108 - which stands below
    ),
}
_NUMBERS = {"math.inf": math.inf, "math.nan": math.nan, "numpy.inf": math.inf, "torch.inf": math.inf}
_KINDS = {"float": float, "int": int, "bool": bool, "str": str, "dict": dict, "list": list, "tuple": tuple}
_FAILURES = (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError)
_OF_DISPLAYS = {"append", "extend", "insert", "pop", "clear", "copy", "get"}
_OF_DISPLAYS |= {"update", "setdefault", "items", "keys", "values"}


class Figures:
    """One run, a World: `seen` is what expressions came to in the last call, `entered` the functions gone through."""

    most, deepest, is_lenient, is_shared = 4000, 12, False, True

    def __init__(self, code: Code) -> None:
        self.walk = Walk(code, self)
        self.seen: dict[ast.expr, list[Any]] = {}
        self.entered: list[ast.AST] = []

    def call(self, callee: Any, /, *placed: Any, **named: Any) -> Any:
        """What a call comes to. Raises Unknown, or Raised where the code raises."""
        at = Place(self.walk.module(callee.path).file, callee.node)
        return self._guarded(lambda: self.walk.call(callee, list(placed), named, at))

    def expression(self, path: str, node: ast.expr, env: dict[str, Any]) -> Any:
        """What an expression of a module comes to, where some names are known. Raises Unknown, or Raised."""
        scope = Scope(self.walk.module(path).file, node)
        scope.names = env
        return self._guarded(lambda: self.walk.value(scope, node))

    def member(self, path: str, name: str) -> Any:
        """What a name stands for at the top of a module. Raises Unknown."""
        return self._guarded(lambda: self.walk.member(path, name))

    def _guarded(self, asked: Callable[[], Any]) -> Any:
        self.seen, self.entered, self.walk.steps = {}, [], 0
        try:
            return asked()
        except _FAILURES as error:
            raise Unknown from error

    # -- a World

    def came_to(self, scope: Scope, node: ast.expr, made: Any) -> Any:
        self.seen.setdefault(node, []).append(made)
        return made

    def truth(self, value: Any, node: ast.AST) -> bool:
        if isinstance(value, (Opaque, Library)):
            raise Unknown
        return True if isinstance(value, (Thing, Class, Function)) else bool(value)

    def perhaps(self, scope: Scope, node: ast.AST, source: Any = None) -> Never:
        raise Unknown

    def is_open(self, value: Any) -> bool:
        return isinstance(value, (Opaque, Thing, Library, Class))

    def items(self, value: Any, at: Place) -> Iterator[Any]:
        if self.is_open(value):
            raise Stuck("what a loop goes through is not known", at)
        return iter(value)

    def alike(self, value: Any) -> tuple[Any, int]:
        return None, 0

    def unpacked(self, value: Any, targets: Sequence[ast.expr], at: Place) -> Sequence[Any]:
        return [Opaque()] * len(targets) if isinstance(value, Opaque) else list(self.items(value, at))

    def operated(self, op: ast.operator, left: Any, right: Any, at: Place) -> Any:
        if isinstance(left, (str, bytes, Opaque)) or isinstance(right, (str, bytes, Opaque)):
            return Opaque()
        return small(ARITHMETIC[type(op)](left, right))

    def turned(self, op: ast.unaryop, value: Any, at: Place) -> Any:
        return value if isinstance(value, Opaque) else UNARY[type(op)](value)

    def compared(self, op: ast.cmpop, left: Any, right: Any, at: Place) -> Any:
        if isinstance(left, (Opaque, Library)) or isinstance(right, Opaque):
            raise Stuck("what is compared is not known", at)
        return COMPARISONS[type(op)](left, right)

    def display(self, kind: Callable[..., Any], items: Iterator[Any]) -> Any:
        return kind(list(items))

    def text(self, scope: Scope, node: ast.JoinedStr) -> Opaque:
        return Opaque()

    def item(self, owner: Any, index: Any, at: Place) -> Any:
        owner = members(self.walk, owner) if isinstance(owner, Class) else owner
        return Opaque() if isinstance(owner, (Opaque, Library)) else owner[index]

    def set_item(self, owner: Any, index: Any, value: Any, at: Place) -> None:
        if not isinstance(owner, Opaque):
            owner[index] = value

    def delete_item(self, owner: Any, index: Any, at: Place) -> None:
        del owner[index]

    def extend(self, owner: Any, more: Any, at: Place) -> None:
        owner.extend(list(self.items(more, at)))
        small(owner)

    def attribute(self, owner: Any, name: str, at: Place) -> Any:
        match owner:
            case bool() | int() | float():
                return (lambda *_, **__: owner) if name in _OF_NUMBERS else owner if name == "data" else Opaque()
            case list() | dict() if name in _OF_DISPLAYS:
                return getattr(owner, name)
        return Opaque()

    def set_attribute(self, owner: Any, name: str, value: Any, at: Place) -> None:
        if not isinstance(owner, (Opaque, Library)):
            raise Stuck("an attribute that is set of what is not known", at)

    def lacking(self, owner: Thing | Class, name: str, at: Place) -> Opaque:
        if is_whole(self.walk, owner.cls if isinstance(owner, Thing) else owner):
            raise AttributeError(name)
        return Opaque()  # of a base that is a library's

    def library(self, dotted: str) -> Any:
        return _NUMBERS.get(dotted, Library(dotted))

    def top(self, scope: Scope, name: str, value: ast.expr | None) -> Any:
        return self.walk.value(scope, value) if value is not None else Opaque()

    def told(self, path: str, made: Any, node: ast.expr) -> Any:
        return made

    def defined(self, function: Function) -> Function:
        return function

    def follow(self, function: Function, placed: list[Any], named: dict[str, Any], at: Place) -> Any:
        if self.walk.depth > self.deepest:
            raise Stuck("a call that is too deep", at)
        self.entered.append(function.node)
        return self.walk.entered(function, placed, named)

    def make(self, cls: Class, placed: list[Any], named: dict[str, Any], at: Place) -> Thing:
        if known := members(self.walk, cls):
            return {each.own["value"]: each for each in known.values()}[placed[0]]
        return filled(self.walk, Thing(cls), placed, named, at)

    def called(self, callee: Any, placed: list[Any], named: dict[str, Any], at: Place) -> Any:
        if isinstance(callee, Opaque):
            return Opaque()
        if isinstance(callee, Library):
            return self._library(callee.dotted, placed, named, at)
        if not callable(callee):
            raise Stuck("a call of what is not known", at)
        made = callee(*placed, **named)  # a method of a number, a text, a list or a dict
        small(getattr(callee, "__self__", None))
        return made

    def _library(self, dotted: str, placed: list[Any], named: dict[str, Any], at: Place) -> Any:
        match dotted, placed:
            case ("getattr", [owner, str(name), *rest]):
                try:
                    return self.walk.attribute(owner, name, at)
                except AttributeError:
                    return rest[0]
            case ("setattr" | "object.__setattr__", [Thing() as owner, str(name), value]):
                owner.own[name] = value
                return None
            case ("hasattr", [int() | float(), str()]):
                return False
            case ("hasattr", [Thing() as owner, str(name)]):
                with suppress(AttributeError):
                    self.walk.attribute(owner, name, at)
                    return True
                return False
            case ("isinstance", [value, kind]):
                return self._is_of(value, kind)
            case ("type", [Thing() as owner]):
                return owner.cls
            case ("vars", [Thing() as owner]):
                return owner.own
            case ("dataclasses.asdict", [Thing() as owner]):
                return dict(owner.own)
            case ("dataclasses.replace" | "copy.replace", [Thing() as owner]):
                made = _copied(owner)
                made.own |= named
                return made
            case ("sys.exit" | "exit" | "quit", _):
                raise Raised("SystemExit")
        if dotted not in _PLAIN or any(isinstance(each, Opaque) for each in (*placed, *named.values())):
            return Opaque()
        return small(_PLAIN[dotted](*placed, **named))

    def _is_of(self, value: Any, kind: Any) -> bool:
        if isinstance(kind, tuple):
            return any(self._is_of(value, each) for each in kind)
        if isinstance(value, Thing) and isinstance(kind, Class):
            return any(node is kind.node for _, node in self.walk.code.bases(value.cls.path, value.cls.node))
        if isinstance(value, Opaque) or not isinstance(kind, (Class, Library)):
            raise Unknown
        return isinstance(kind, Library) and isinstance(value, _KINDS.get(kind.dotted, Opaque))


def small(made: Any) -> Any:
    """What was made, unless it is large."""
    if isinstance(made, int) and made.bit_length() > _MOST_BITS:
        raise Unknown
    if isinstance(made, (range, list, tuple, dict, str)) and len(made) > _MOST_ITEMS:
        raise Unknown
    return made


def _copied(made: Any) -> Any:
    if isinstance(made, Thing):
        return Thing(made.cls, dict(made.own), made.name, made.is_data)
    return made.copy() if hasattr(made, "copy") else made
