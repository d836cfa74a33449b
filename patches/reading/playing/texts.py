"""What makes something of a text: lists, loops, generators, small tensors; nothing real is read or written.

A scope runs with what it is given left open: a parameter is a path where it is opened, and a number where it is counted
with. Where a run would rest on what is not known, it is Stuck.
"""

from __future__ import annotations

import ast
import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..code import Code
from ..files import File
from ..files import Function as FunctionNode
from ..names import defaults_of, parameters
from ..signatures import BINARY, COMPARE
from ..updates import calls_of
from ..values import Place
from .calls import filled
from .disk import PATH_METHODS, Disk, FilePath, Given, mutables, on_paths, path_of
from .expressions import ARITHMETIC, COMPARISONS, UNARY
from .grids import Grid
from .kinds import Class, Function, Left, Library, Module, Opaque, Raised, Returned, Scope, Stuck, Thing, kinds_of
from .libraries import BUILTINS, COUNTED, LARGEST, LIBRARY, LIMITS, attribute_of, native, require_small
from .names import bound, is_net
from .walk import Walk

_GROWING = {"extend", "insert", "update", "join", "fromlist"}
_OPEN = (Opaque, Given, Library, Thing)
_OF_GRIDS = {**BINARY, **COMPARE, ast.LShift: "shl", ast.RShift: "shr"}
_HARMLESS = {"staticmethod", "classmethod", "property", "cached_property", "override", "no_grad", "inference_mode"}
_HARMLESS |= {"cache", "lru_cache"}
LARGE = 256  # of numbers that are no block sizes or limits of what is read


class Machine:
    """Runs one scope, a World: what its own expressions give is kept, in the order in which they gave it."""

    most, deepest, is_lenient, is_shared = 600_000, 40, False, False

    def __init__(self, code: Code, sample: bytes, numbers: Sequence[int]) -> None:
        self.walk, self.disk = Walk(code, self), Disk(sample)
        self.numbers = itertools.chain(numbers, itertools.count(90, 9))
        self.own: dict[ast.AST, tuple[Any, Scope]] = {}  # what the scope's own expressions gave last, and where
        self.doing: set[ast.AST] = set()  # calls that do more than they return
        self.stops: Callable[[Any], bool] = lambda _: False  # what ends the run once its statement is done
        self.age = 1  # of the sample
        self.effects = 0
        self.words: set[str] = set()  # texts that the code names
        self.most_written: Any = None  # what stands for large numbers that the code names, or else themselves
        self.encoders: list[str] = []  # the modules of functions that give bits
        self.returned: Callable[[Function, Any], None] = lambda *_: None  # is told what functions of the tree return

    def run(self, file: File, function: FunctionNode | ast.Module, owner: ast.ClassDef | None) -> Any:
        """Run a scope with what it is given left open, until a statement is done that gives what is looked for."""
        scope = self.walk.module(file.path)
        if not isinstance(function, ast.Module):
            scope = Scope(file, function)
            self._begin(scope, function, owner)
        scope.is_own = True
        try:
            for _ in self.walk.block(scope, function.body):
                pass
        except Returned as returned:
            return returned.value
        except Stuck:
            raise
        except (ValueError, *LIMITS):
            raise Stuck("code that is too deep, or not understood", Place(file, function)) from None
        except Left:
            pass
        return None

    def _begin(self, scope: Scope, function: FunctionNode, owner: ast.ClassDef | None) -> None:
        own, defaults, top = parameters(function.args), defaults_of(function.args), self.walk.module(scope.file.path)
        for each in own:
            is_plain = each in defaults and not _is_given(self.walk.code, function, each.arg)
            scope.names[each.arg] = self.walk.value(top, defaults[each]) if is_plain else Given(each.arg)
        for rest in filter(None, (function.args.vararg, function.args.kwarg)):
            scope.names[rest.arg] = Opaque(why="what else a call gives", at=Place(scope.file, rest))
        if owner is not None and own:
            cls = Class(scope.file.path, owner)
            scope.names[own[0].arg] = cls if "classmethod" in kinds_of(function) else Given(own[0].arg, cls)

    def counted(self, value: Any) -> Any:
        """A number that something is given as, and what is made of such."""
        if isinstance(value, slice):
            bounds = [self.counted(each) for each in (value.start, value.stop, value.step)]
            return next((each for each in bounds if isinstance(each, Opaque)), slice(*bounds))
        if isinstance(value, tuple):
            return tuple(map(self.counted, value))
        if not isinstance(value, Given):
            return value
        if value.path is not None:
            raise Stuck(f"{value.text} is a path and a number")
        if value.number is None:
            value.number = next(self.numbers)
        return value.number

    # -- a World: statements

    def came_to(self, scope: Scope, node: ast.expr, made: Any) -> Any:
        if isinstance(node, (ast.Constant, ast.BinOp)) and isinstance(made, (str, int)) and _is_written(node):
            self.words |= {made} if isinstance(made, str) else set()
            made = self.most_written if isinstance(made, int) and made > LARGE and self.most_written else made
        if scope.is_own:
            self.own.pop(node, None)
            self.own[node] = made, scope
            self.walk.is_over = self.walk.is_over or self.stops(made)
        return made

    def truth(self, value: Any, node: ast.AST) -> bool | None:
        if isinstance(value, (Opaque, Given, Library)):
            return None
        if isinstance(value, Grid):
            return bool(value.data[0]) if len(value.data) == 1 else None
        return True if isinstance(value, (Thing, Function, Class, Module, FilePath)) else bool(value)

    def perhaps(self, scope: Scope, node: Any, source: Any = None) -> Iterator[Any]:
        """Let whatever may be changed be unknown; what only raises is passed by."""
        at = Place(scope.file, node.iter if isinstance(node, ast.For) else node.test)
        done = [node] if isinstance(node, ast.For) else [*node.body, *node.orelse]
        inside = [each for statement in done for each in ast.walk(statement)]
        if isinstance(node, ast.While):
            raise Stuck("how often a loop runs is not known", at)
        if any(isinstance(each, (ast.Break, ast.Continue, ast.Yield, ast.YieldFrom)) for each in inside):
            raise Stuck("which way is taken is not known", at)
        for each in inside:
            if not isinstance(each, ast.Name):
                continue
            for names in scope.chain:
                is_changed = not isinstance(each.ctx, ast.Load) or any(mutables([names.get(each.id)]))
                if is_changed and (each.id in names or names is scope.names):
                    names[each.id] = Opaque(why="which way is taken is not known", at=at)
                    break
        return iter(())

    def is_open(self, value: Any) -> bool:
        return isinstance(value, _OPEN)

    def items(self, value: Any, at: Place) -> Iterator[Any]:
        if self.is_open(value):
            raise Stuck("what is gone through is not known", at)
        source = native(iter, [value], {}, at)
        while True:
            try:
                each = next(source)
            except StopIteration:
                return
            except UnicodeError:
                raise Raised("UnicodeDecodeError") from None
            except Stuck:
                raise
            except LIMITS:
                raise Stuck("code that is not understood", at) from None
            yield each

    def alike(self, value: Any) -> tuple[Any, int]:
        return None, 0

    def unpacked(self, value: Any, targets: Sequence[ast.expr], at: Place) -> Sequence[Any]:
        part = Opaque(why="a part of what is not known", at=at)
        return [part] * len(targets) if self.is_open(value) else list(self.items(value, at))

    def extend(self, owner: Any, more: Any, at: Place) -> None:
        if isinstance(more, (Opaque, Given)):
            raise Stuck(getattr(more, "why", "what is added to a list is not known"), at)
        native(owner.extend, [more], {}, at)

    # -- a World: expressions

    def operated(self, op: ast.operator, left: Any, right: Any, at: Place) -> Any:
        is_path = path_of(left) is not None or (isinstance(left, Given) and isinstance(right, str))
        if isinstance(op, ast.Div) and is_path:
            return self.disk.opened(left).joined(path_of(right) or right)
        return self._applied(op, ARITHMETIC, left, right, at)

    def _applied(self, op: Any, functions: dict[Any, Any], left: Any, right: Any, at: Place) -> Any:
        for side in (left, right):
            if isinstance(side, (Opaque, Library)):
                return side if isinstance(side, Opaque) else Opaque(why="what a library has", at=at)
        if (isinstance(left, (Given, str)) and isinstance(right, (Given, str))) or (
            isinstance(op, ast.Mod) and isinstance(left, str)
        ):
            return Opaque(why="a text", at=at)
        left, right = self.counted(left), self.counted(right)
        for a, b in ((left, right), (right, left)):
            if isinstance(a, Grid):
                return native(functools.partial(a.combined, is_first=a is left), [_OF_GRIDS[type(op)], b], {}, at)
            if isinstance(a, int) and a > LARGEST and not isinstance(b, int):
                raise Stuck("numbers that are too large to be tried", at)
        if type(op) not in functions:
            raise Stuck("an operator that is not understood", at)
        return native(functions[type(op)], [left, right], {}, at)

    def turned(self, op: ast.unaryop, value: Any, at: Place) -> Any:
        return value if isinstance(value, Opaque) else native(UNARY[type(op)], [self.counted(value)], {}, at)

    def compared(self, op: ast.cmpop, left: Any, right: Any, at: Place) -> Any:
        unknown = Opaque(why="what is compared is given, or not known", at=at)
        if isinstance(op, (ast.Is, ast.IsNot)) and (left is None or right is None):
            other = right if left is None else left
            return unknown if isinstance(other, (Opaque, Given)) else (other is None) == isinstance(op, ast.Is)
        if any(isinstance(side, (Opaque, Library, Thing)) for side in (left, right)):
            return unknown
        if isinstance(left, Given) and not isinstance(right, (int, float, Given)):
            return unknown
        if isinstance(op, (ast.In, ast.NotIn)):
            return native(COMPARISONS[type(op)], [left, right], {}, at)
        return self._applied(op, COMPARISONS, left, right, at)

    def display(self, kind: Callable[..., Any], items: Iterator[Any]) -> Any:
        made = list(items)
        try:
            return kind(made)
        except TypeError:
            raise Stuck("a set of what is in none") from None

    def text(self, scope: Scope, node: ast.JoinedStr) -> Any:
        parts = [self._formatted(scope, each) for each in node.values]
        is_known = all(isinstance(each, str) for each in parts)
        return "".join(parts) if is_known else Opaque(why="a text", at=Place(scope.file, node))

    def _formatted(self, scope: Scope, node: ast.expr) -> Any:
        """A part of a text."""
        if not isinstance(node, ast.FormattedValue):
            return self.walk.value(scope, node)
        value = self.walk.value(scope, node.value)
        if isinstance(value, Given):
            value = str(path_of(value) or value.number or value.text)
        parts = node.format_spec.values if isinstance(node.format_spec, ast.JoinedStr) else []
        spec = "".join(str(each.value) for each in parts if isinstance(each, ast.Constant))
        is_plain = isinstance(value, (str, int)) and all(isinstance(each, ast.Constant) for each in parts)
        return format(value, spec) if is_plain and len(spec) <= len("08b") and node.conversion == -1 else None

    def item(self, owner: Any, index: Any, at: Place) -> Any:
        if isinstance(owner, Given) and isinstance(index, str):
            return owner.attrs.setdefault(f"[{index}]", Given(_shown(at)))
        if isinstance(owner, (*_OPEN, Class)):
            return Opaque(why=f"what {_shown(at)[:60]} is", at=at)
        index = self.counted(index)
        return index if isinstance(index, Opaque) else native(operator.getitem, [owner, index], {}, at)

    def set_item(self, owner: Any, index: Any, value: Any, at: Place) -> None:
        if isinstance(owner, (list, dict, bytearray, Grid)):
            native(operator.setitem, [owner, self.counted(index), value], {}, at)
        elif not isinstance(owner, (Opaque, Given)):
            raise Stuck("an entry that is set of what is not known", at)

    def delete_item(self, owner: Any, index: Any, at: Place) -> None:
        native(operator.delitem, [owner, self.counted(index)], {}, at)

    # -- a World: names and attributes

    def attribute(self, owner: Any, name: str, at: Place) -> Any:
        if isinstance(owner, Opaque):
            return owner
        if isinstance(owner, Given):
            return self._of_given(owner, name, at)
        try:
            return self._of_path(owner, name) if isinstance(owner, FilePath) else attribute_of(owner, name)
        except (LookupError, AttributeError):
            return Opaque(why=f"what .{name} is", at=at)

    def _of_path(self, path: FilePath, name: str) -> Any:
        if name != "stat":
            return path.attribute(name)
        written = 2 if path.name in self.disk.files else self.age  # the sample before all others, or after them
        return lambda: Given("stat", attrs={"st_size": path.size(), "st_mtime": written})

    def _of_given(self, owner: Given, name: str, at: Place) -> Any:
        if name in owner.attrs:
            return owner.attrs[name]
        cls, code = owner.cls, self.walk.code
        found = code.method(cls.path, cls.node, name) if cls is not None else None
        if cls is not None and found is not None and not code.is_open(cls.path, cls.node, name):
            is_of_class = "classmethod" in kinds_of(found[2])
            return bound(self.walk, found[0], found[2], cls if is_of_class else owner, at)
        if name in PATH_METHODS or owner.path is not None:
            owner.is_path = owner.is_path or name in PATH_METHODS
            return self.attribute(self.disk.opened(owner), name, at)
        made = owner.attrs[name] = Given(f"{owner.text}.{name}")
        return made

    def set_attribute(self, owner: Any, name: str, value: Any, at: Place) -> None:
        if isinstance(owner, Given):
            owner.attrs[name] = value
        elif not isinstance(owner, Opaque):
            raise Stuck("an attribute that is set of what is not known", at)

    def lacking(self, owner: Thing | Class, name: str, at: Place) -> Opaque:
        return Opaque(why=f"what .{name} is", at=at)

    def library(self, dotted: str) -> Any:
        if dotted == "open":
            return self.disk.open
        if dotted == "os.path.join":
            return lambda *parts: FilePath(self.disk, str(parts[0])).joined(*parts[1:])
        return BUILTINS.get(dotted) or LIBRARY.get(dotted, Library(dotted))

    def top(self, scope: Scope, name: str, value: ast.expr | None) -> Any:
        if value is not None:
            return self.walk.value(scope, value)
        return Opaque(why=f"what {name} stands for", at=Place(scope.file, scope.node))

    def told(self, path: str, made: Any, node: ast.expr) -> Any:
        return made

    def defined(self, function: Function) -> Any:
        node = function.node
        if isinstance(node, ast.Lambda) or not kinds_of(node) - _HARMLESS:
            return function
        at = Place(self.walk.module(function.path).file, node)
        return Opaque(why=f"what the decorator makes of {node.name}", at=at)

    # -- a World: calls

    def follow(self, function: Function, placed: list[Any], named: dict[str, Any], at: Place) -> Any:
        if self.walk.depth > self.deepest:
            raise Stuck("a call that is too deep", at)
        is_flat = all(isinstance(each, (int, str, bytes)) for each in placed)
        is_bare = is_flat and not named and function.around is None and function.owner is None
        key, known = (function.node, self.most_written, *placed), self.walk.code.answers.setdefault("run", {})
        if is_bare and key in known:
            made = list(known[key]) if isinstance(known[key], list) else known[key]
        else:
            before = self.effects, self.disk.reads
            made = self.walk.entered(function, placed, named)
            is_flat = isinstance(made, (list, tuple)) and all(isinstance(each, int) for each in made)
            is_pure = before == (self.effects, self.disk.reads) and (is_flat or isinstance(made, (int, str, bytes)))
            if is_bare and is_pure:
                known[key] = list(made) if isinstance(made, list) else made
        self.returned(function, made)
        return made

    def make(self, cls: Class, placed: list[Any], named: dict[str, Any], at: Place) -> Any:
        if is_net(self.walk, cls):
            return self._unknown(cls, placed, named, at)
        return filled(self.walk, Thing(cls), placed, named, at)

    def called(self, callee: Any, placed: list[Any], named: dict[str, Any], at: Place) -> Any:
        callee, placed, named = on_paths(self.disk, callee, placed, named)
        if isinstance(callee, (*_OPEN, Module)) or not callable(callee):
            return self._unknown(callee, placed, named, at)
        name = getattr(callee, "__name__", "")
        is_counting = name in COUNTED or isinstance(callee, functools.partial)  # a method of a tensor
        placed = [self._handed(each, at, is_counting=is_counting) for each in placed]
        named = {key: self._handed(each, at, is_counting=is_counting) for key, each in named.items()}
        every = [*placed, *named.values()]
        if any(isinstance(each, (Opaque, Given)) for each in every) and name != "append":
            if name in _GROWING or any(mutables(every)):
                raise Stuck("what is added to a list is not known", at)
            return next((each for each in every if isinstance(each, Opaque)), Opaque(why="what is given", at=at))
        require_small(every)
        return native(callee, placed, named, at)

    def _handed(self, value: Any, at: Place, *, is_counting: bool) -> Any:
        """An argument with the numbers that something in it is given as."""
        if isinstance(value, tuple):
            return tuple(self._handed(each, at, is_counting=is_counting) for each in value)
        if isinstance(value, (Function, Class)):
            return lambda *placed, **named: self.walk.call(value, list(placed), named, at)
        return self.counted(value) if is_counting or getattr(value, "number", None) else value

    def _unknown(self, callee: Any, placed: list[Any], named: dict[str, Any], at: Place) -> Any:
        """What a call gives that may do anything."""
        self.effects += 1
        self.doing |= {*self.walk.calls}
        if isinstance(callee, Library) and (callee.dotted + ".").startswith(("print.", "logging.", "warnings.")):
            return None
        if any(mutables([*placed, *named.values()])):
            raise Stuck("a list that is handed to a function that is not seen", at)
        return callee if isinstance(callee, Opaque) else Given(_shown(at))


def _is_written(node: ast.AST) -> bool:
    """Whether an expression is a constant, or made of such."""
    is_made = isinstance(node, ast.BinOp) and _is_written(node.left) and _is_written(node.right)
    return is_made or isinstance(node, ast.Constant)


def _shown(at: Place) -> str:
    return ast.unparse(at.node)


def _is_given(code: Code, function: FunctionNode, name: str) -> bool:
    """Whether a call may give a parameter that has a default."""
    names = [each.arg for each in parameters(function.args)]
    for _, site in calls_of(code, function):
        is_open = any(isinstance(each, ast.Starred) for each in site.args) or any(k.arg is None for k in site.keywords)
        if is_open or any(k.arg == name for k in site.keywords) or len(site.args) + 1 > names.index(name):
            return True
    return False
