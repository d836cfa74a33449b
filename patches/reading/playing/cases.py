"""What match statements take, and what the members of enums are."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..values import Place
from .kinds import Class, Library, Opaque, Scope, Thing

if TYPE_CHECKING:
    from .walk import Walk

_OF_ONE = {"float", "int", "bool", "str"}  # classes whose pattern has the whole for its part


def match(walk: Walk, scope: Scope, node: ast.Match) -> Iterator[Any]:
    """Run the first case that takes the subject."""
    subject = walk.value(scope, node.subject)
    for case in node.cases:
        holds = _takes(walk, scope, case.pattern, subject)
        if holds and case.guard is not None:
            holds = walk.world.truth(walk.value(scope, case.guard), case.guard)
        if holds is None:
            walk.strange("which case is taken is not known", Place(scope.file, case.pattern))
        if holds is not False:
            yield from walk.block(scope, case.body) if holds else ()
            return


def _takes(walk: Walk, scope: Scope, pattern: ast.pattern, value: Any) -> bool | None:
    """Whether a pattern takes a value; None where that is not known."""
    at, world = Place(scope.file, pattern), walk.world
    match pattern:
        case ast.MatchValue(value=node):
            return world.truth(world.compared(ast.Eq(), value, walk.value(scope, node), at), pattern)
        case ast.MatchSingleton(value=constant):
            return world.truth(world.compared(ast.Is(), value, constant, at), pattern)
        case ast.MatchOr(patterns=every):
            found = [_takes(walk, scope, each, value) for each in every]
            return True if True in found else _every(found)
        case ast.MatchAs(pattern=inner, name=name):
            holds = _takes(walk, scope, inner, value) if inner is not None else True
            if holds and name is not None:
                scope.names[name] = value
            return holds
        case ast.MatchSequence(patterns=every) if isinstance(value, (tuple, list)) and not any(
            isinstance(each, ast.MatchStar) for each in every
        ):
            is_long = len(every) == len(value)
            return is_long and _every([_takes(walk, scope, *each) for each in zip(every, value, strict=True)])
        case ast.MatchClass(cls=ast.Name(id=name) as kind, patterns=inner, kwd_patterns=[]) if not inner or (
            name in _OF_ONE and not inner[1:]
        ):
            asked = walk.call(world.library("isinstance"), [value, walk.value(scope, kind)], {}, at)
            holds = world.truth(asked, pattern)
            return _every([holds, *(_takes(walk, scope, each, value) for each in inner)]) if holds else holds
    return world.truth(walk.strange("a pattern that is not understood", at), pattern)


def _every(found: Sequence[bool | None]) -> bool | None:
    return False if False in found else None if None in found else True


def members(walk: Walk, cls: Class) -> dict[str, Thing]:
    """The members of an enum, the same ones however often they are asked for; of another class none."""
    found, module = dict[str, Thing](), walk.module(cls.path)
    is_enum = [walk.value(module, each) for each in cls.node.bases] == [Library("enum.Enum")]
    for each in cls.node.body if is_enum else ():
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
            name, value = each.targets[0].id, walk.value(module, each.value)
            found[name] = _member(cls, name)
            found[name].own["value"] = len(found) if isinstance(value, Opaque) else value  # which auto() is
    return found


@lru_cache(maxsize=1024)
def _member(cls: Class, name: str) -> Thing:
    return Thing(cls, {"name": name}, name)
