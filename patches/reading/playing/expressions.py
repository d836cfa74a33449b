"""What expressions come to."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..names import parameters
from ..signatures import BINARY, COMPARE
from ..values import Place
from .kinds import Function, Library, Opaque, Scope, Stuck, Super, Thing

if TYPE_CHECKING:
    from .walk import Walk

_NAMES = {"div": "truediv", "and": "and_", "or": "or_", "is": "is_", "isnot": "is_not"}  # of operators, in Python


def _functions(names: dict[Any, str]) -> dict[Any, Callable[..., Any]]:
    return {kind: getattr(operator, _NAMES.get(name, name)) for kind, name in names.items()}


ARITHMETIC = _functions({**BINARY, ast.LShift: "lshift", ast.RShift: "rshift"})
UNARY = _functions({ast.USub: "neg", ast.UAdd: "pos", ast.Invert: "invert"})
COMPARISONS = _functions({kind: name for kind, name in COMPARE.items() if name not in ("in", "notin")})
COMPARISONS |= {ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b}
_DISPLAYS: dict[type[ast.expr], Callable[..., Any]] = {
    ast.Tuple: tuple,
    ast.List: list,
    ast.Set: set,
    ast.ListComp: list,
    ast.SetComp: set,
    ast.GeneratorExp: iter,
}
_MOST_BITS, _MOST_ITEMS = 4096, 100_000  # of a number, and of a list or a text
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def operated(walk: Walk, op: ast.operator, left: Any, right: Any, at: Place, *, in_place: bool = False) -> Any:
    """What an operator makes. Raises Stuck where that is too large to be tried."""
    if _is_large(op, left, right):
        raise Stuck("numbers or lists that are too large to be tried", at)
    if in_place and isinstance(left, (list, bytearray)) and isinstance(op, ast.Add):
        walk.world.extend(left, right, at)
        return left
    return walk.world.operated(op, left, right, at)


def _is_large(op: ast.operator, left: Any, right: Any) -> bool:
    sizes = [len(each) for each in (left, right) if isinstance(each, (list, tuple, str, bytes, bytearray))]
    numbers = [each for each in (left, right) if isinstance(each, int)]
    if len(numbers) == len((left, right)):
        first, second = (each.bit_length() for each in numbers)
        made: int = {ast.Mult: first + second, ast.Pow: first * right, ast.LShift: first + right}.get(type(op), 0)
        return made > _MOST_BITS
    many = sum(sizes) if isinstance(op, ast.Add) else sizes[0] * numbers[0] if sizes and numbers else 0
    return isinstance(op, (ast.Add, ast.Mult)) and many > _MOST_ITEMS


def evaluated(walk: Walk, scope: Scope, node: ast.expr) -> Any:
    """What an expression comes to, by what its parts come to."""
    world = walk.world
    match node:
        case ast.Name():
            return walk.name(scope, node.id)
        case ast.Constant():
            return node.value
        case ast.Attribute():
            return walk.attribute(walk.value(scope, node.value), node.attr, Place(scope.file, node))
        case ast.Call():
            return _called(walk, scope, node)
        case ast.BinOp():
            sides = walk.value(scope, node.left), walk.value(scope, node.right)
            return operated(walk, node.op, *sides, Place(scope.file, node))
        case ast.Subscript():
            owner, index = walk.value(scope, node.value), walk.value(scope, node.slice)
            return world.item(owner, index, Place(scope.file, node))
        case ast.Compare():
            return _compared(walk, scope, node)
        case ast.UnaryOp(op=ast.Not()):
            holds = world.truth(walk.value(scope, node.operand), node)
            return _unknown(scope, node, "what is given") if holds is None else not holds
        case ast.UnaryOp():
            return world.turned(node.op, walk.value(scope, node.operand), Place(scope.file, node))
        case ast.BoolOp():
            return _either(walk, scope, node)
        case ast.IfExp():
            holds = world.truth(walk.value(scope, node.test), node)
            if holds is None and not world.is_lenient:
                return _unknown(scope, node, "which way is taken is not known")
            return walk.value(scope, node.orelse if holds is False else node.body)
        case ast.Tuple() | ast.List() | ast.Set():
            return world.display(_DISPLAYS[type(node)], _spread(walk, scope, node.elts))
        case ast.Dict():
            return _mapping(walk, scope, node)
        case ast.Slice():
            bounds = (node.lower, node.upper, node.step)
            return slice(*(walk.value(scope, each) if each is not None else None for each in bounds))
        case ast.NamedExpr():
            made = walk.value(scope, node.value)
            walk.bind(_function(scope), node.target, made)
            return made
        case ast.Lambda():
            return Function(scope.file.path, node, scope)
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
            inner = Scope(scope.file, node, scope, is_own=scope.is_own)
            made = _turns(walk, inner, node.generators, lambda: walk.value(inner, node.elt))
            return world.display(_DISPLAYS[type(node)], made)
        case ast.DictComp():
            inner = Scope(scope.file, node, scope, is_own=scope.is_own)
            sides = (node.key, node.value)
            pairs = _turns(walk, inner, node.generators, lambda: [walk.value(inner, each) for each in sides])
            return {key: value for key, value in pairs if isinstance(key, Hashable)}
        case ast.JoinedStr():
            return world.text(scope, node)
        case ast.Await():
            return walk.value(scope, node.value)
    return walk.strange("an expression that is not understood", Place(scope.file, node))


def _unknown(scope: Scope, node: ast.AST, why: str) -> Opaque:
    return Opaque(why=why, at=Place(scope.file, node))


def _function(scope: Scope) -> Scope:
    """The scope that a comprehension stands in."""
    while isinstance(scope.node, _COMPREHENSIONS) and scope.outer is not None:
        scope = scope.outer
    return scope


def _spread(walk: Walk, scope: Scope, nodes: Sequence[ast.expr]) -> Iterator[Any]:
    for each in nodes:
        if isinstance(each, ast.Starred):
            yield from walk.world.items(walk.value(scope, each.value), Place(scope.file, each.value))
        else:
            yield walk.value(scope, each)


def _mapping(walk: Walk, scope: Scope, node: ast.Dict) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        name, made = walk.value(scope, key) if key is not None else None, walk.value(scope, value)
        if key is not None and isinstance(name, Hashable):
            found[name] = made
        elif key is None and isinstance(made, dict):
            found |= made
        else:
            walk.strange("an entry whose key is not known", Place(scope.file, value))
            if key is None and isinstance(made, Opaque) and made.path:  # any of the others may be told in it
                found = {name: walk.world.told(f'{made.path}["{name}"]', each, value) for name, each in found.items()}
    return found


def _either(walk: Walk, scope: Scope, node: ast.BoolOp) -> Any:
    """`a or b` and `a and b`, which give one of the two."""
    made: Any = None
    settles = isinstance(node.op, ast.Or)
    for place, each in enumerate(node.values):
        made = walk.value(scope, each)
        holds = walk.world.truth(made, node)
        if holds is None:
            others = node.values[place + 1 :] if walk.world.is_lenient else []
            rest = [walk.world.truth(walk.value(scope, other), node) for other in others]
            return settles if settles in rest else _unknown(scope, node, "what is given")
        if holds == settles:
            break
    return made


def _compared(walk: Walk, scope: Scope, node: ast.Compare) -> Any:
    left, held = walk.value(scope, node.left), True
    for op, each in zip(node.ops, node.comparators, strict=True):
        right = walk.value(scope, each)
        held = walk.world.compared(op, left, right, Place(scope.file, node))
        if held is not True:
            break
        left = right
    return held


def _turns(walk: Walk, scope: Scope, generators: Sequence[ast.comprehension], make: Callable[[], Any]) -> Iterator[Any]:
    """What a comprehension makes in each turn."""
    if not generators:
        yield make()
        return
    first, *rest = generators
    source = walk.value(scope, first.iter)
    one, many = walk.world.alike(source) if not rest else (None, 0)
    if many:
        walk.bind(scope, first.target, one)
        yield from [make()] * many
        return
    for item in walk.world.items(source, Place(scope.file, first.iter)):
        walk.bind(scope, first.target, item)
        if all(_passes(walk, scope, test) for test in first.ifs):
            yield from _turns(walk, scope, rest, make)


def _passes(walk: Walk, scope: Scope, test: ast.expr) -> bool:
    holds = walk.world.truth(walk.value(scope, test), test)
    if holds is None and not walk.world.is_lenient:
        raise Stuck("what a comprehension leaves out is not known", Place(scope.file, test))
    return holds is not False


def _called(walk: Walk, scope: Scope, node: ast.Call) -> Any:
    func, at = node.func, Place(scope.file, node)
    if isinstance(func, ast.Attribute):  # which stays a method that is not called yet
        callee = walk.attribute(walk.value(scope, func.value), func.attr, at)
        walk.world.came_to(scope, func, callee)
    else:
        callee = walk.value(scope, func)
    if isinstance(callee, Library) and callee.dotted == "super" and not node.args:
        return _above(_function(scope), node)
    placed, named = [*_spread(walk, scope, node.args)], dict[str, Any]()
    for keyword in node.keywords:
        value = walk.value(scope, keyword.value)
        if keyword.arg is not None:
            named[keyword.arg] = value
        else:
            named |= {str(key): each for key, each in value.items()} if isinstance(value, dict) else {"**": value}
    return walk.call(callee, placed, named, at)


def _above(scope: Scope, node: ast.Call) -> Any:
    """What super() is in a method."""
    function = scope.node if isinstance(scope.node, ast.FunctionDef) else None
    cls, own = (scope.file.owner(function), parameters(function.args)) if function is not None else (None, [])
    first = scope.names.get(own[0].arg) if own else None
    return Super(first, cls) if cls is not None and isinstance(first, Thing) else _unknown(scope, node, "a base class")
