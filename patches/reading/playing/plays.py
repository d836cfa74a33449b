"""Begin a run: its parameters stand for themselves, and what has to be a number, or rows, is made so."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from ..code import Code, once
from ..files import File, Function
from ..names import defaults_of, parameters
from ..nodes import walk as inside
from ..records import is_data_class
from ..tensors import Unknown
from ..values import Place
from .batches import Many, Rows, Wanted
from .calls import filled
from .kinds import Class, Opaque, Raised, Returned, Scope, Thing
from .player import PLAIN, Player

_FAILURES = (Raised, RecursionError, TypeError, AttributeError, KeyError, ValueError, RuntimeError, IndexError)
_COUNTING = {"backward", "step", "zero_grad", "lr_scheduler", "DataLoader", "total_steps", "optim"}
_MOST_RESTARTS = 60


@dataclass(slots=True)
class Start:
    """Where a run begins: a function, a method of an object that is made for it, or the top of a module."""

    file: File
    node: Function | ast.Module
    owner: ast.ClassDef | None


@once
def counting(code: Code) -> set[ast.AST]:
    """The functions that do what counts for a run, or call one that may, by its name."""
    files = filter(None, map(code.files.file, code.files.paths))
    named: dict[ast.AST, frozenset[str]] = {node: _named(node) for file in files for node, _ in file.functions}
    found = {node for node, names in named.items() if names & _COUNTING}
    while True:
        names = {node.name for node in found if isinstance(node, Function)} - {"forward", "__init__"}
        more = {node for node, own in named.items() if own & names} - found
        if not more:
            return found
        found |= more


@lru_cache(maxsize=4096)
def _named(node: ast.AST) -> frozenset[str]:
    """The names, attributes and keywords of a function."""
    keywords = (each.arg or "" for each in inside(node) if isinstance(each, ast.keyword))
    return frozenset([*(getattr(each, "id", getattr(each, "attr", "")) for each in inside(node)), *keywords])


def play(
    code: Code,
    start: Start,
    given: Mapping[str, int],
    kinds: dict[str, str],
    rows: int,
    forced: Mapping[ast.expr, int] = MappingProxyType({}),
) -> Player:
    """Play a run; what has to be of a kind is made so, and the run played again. Raises Unknown."""
    for _ in range(_MOST_RESTARTS):
        player = Player(code, given, kinds, rows, counting(code), forced)
        try:
            _begin(player, start)
        except Wanted as wanted:
            kinds[wanted.path] = wanted.kind
        except _FAILURES as error:
            raise Unknown(str(error)) from error
        else:
            return player
    raise Unknown("too many unknowns")


def _begin(player: Player, start: Start) -> None:
    walk, node = player.walk, start.node
    if isinstance(node, ast.Module):
        scope = walk.module(start.file.path)
    else:
        scope = Scope(start.file, node)
        own = parameters(node.args)
        if start.owner is not None and own:
            scope.names[own[0].arg] = _owner(player, Class(start.file.path, start.owner), node)
            own = own[1:]
        _open(player, scope, own)
    _run(player, scope, node)


def left_out(code: Code, start: Start) -> list[str]:
    """The parameters of a run, and of its object's constructor, that are None unless they are given."""
    setup = code.method(start.file.path, start.owner, "__init__") if start.owner is not None else None
    functions = [each for each in (start.node, setup[2] if setup is not None else None) if isinstance(each, Function)]
    pairs = (pair for each in functions for pair in defaults_of(each.args).items())
    return [own.arg for own, default in pairs if isinstance(default, ast.Constant) and default.value is None]


def _owner(player: Player, cls: Class, node: Function) -> Thing:
    """The object whose method a run is."""
    made = Thing(cls, name=cls.node.name)
    setup = player.method(made, "__init__")
    if is_data_class(player.walk.code, cls.path, cls.node):
        return filled(player.walk, made, [], {}, Place(player.walk.module(cls.path).file, node), cls.node.name)
    if setup is not None and isinstance(setup.node, Function) and setup.node is not node:
        own = parameters(setup.node.args)
        inner = Scope(player.walk.module(setup.path).file, setup.node)
        inner.names[own[0].arg] = made
        _open(player, inner, own[1:])
        _run(player, inner, setup.node)
    return made


def _open(player: Player, scope: Scope, own: list[ast.arg]) -> None:
    """Let parameters stand for themselves."""
    node = scope.node
    assert isinstance(node, Function)
    defaults, top = defaults_of(node.args), player.walk.module(scope.file.path)
    for each in own:
        scope.names[each.arg] = _parameter(player, top, each, defaults.get(each))
    if node.args.vararg is not None:
        scope.names[node.args.vararg.arg] = Many()
    if node.args.kwarg is not None:
        scope.names[node.args.kwarg.arg] = {}


def _parameter(player: Player, top: Scope, each: ast.arg, default: ast.expr | None) -> Any:
    hint = each.annotation
    if isinstance(hint, ast.Constant) and isinstance(hint.value, str):
        with suppress(SyntaxError):
            hint = ast.parse(hint.value, mode="eval").body
    meant = player.walk.value(top, hint) if isinstance(hint, (ast.Name, ast.Attribute)) else None
    if isinstance(meant, Class) and is_data_class(player.walk.code, meant.path, meant.node):
        return filled(player.walk, Thing(meant, name=each.arg), [], {}, Place(top.file, each), each.arg)
    if default is None or each.arg in player.kinds:
        return player.leaf(each.arg)
    made = player.walk.value(top, default)
    return player.told(each.arg, made if isinstance(made, PLAIN) else None, default)


def _run(player: Player, scope: Scope, node: Function | ast.Module) -> None:
    player.runs[node] = 1
    with suppress(Returned):
        for _ in player.walk.block(scope, node.body):
            pass


class Held(Mapping[ast.expr, Any]):
    """What stands for expressions, of the kind that it is wanted to be; what holds comes by nothing."""

    def __init__(
        self, held: tuple[tuple[ast.expr, str], ...], kinds: Mapping[str, str], rows: int, given: Mapping[str, int]
    ) -> None:
        self._paths = dict(held)
        self._kinds, self._rows, self._given = kinds, rows, given

    def __getitem__(self, node: ast.expr) -> Any:
        path = self._paths[node]
        match self._kinds.get(path, "") if path else "holds":
            case "holds":
                return True
            case "rows":
                return Rows(path, tuple(range(self._rows)))
            case "int":
                return self._given.get(path, 1)
        return Opaque(path, is_given=True)

    def __iter__(self) -> Iterator[ast.expr]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
