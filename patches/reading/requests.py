"""Runs that are made on request: how many updates they make, by what is kept between requests."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .classes import constructor_of
from .code import Code, once
from .files import File, Function, is_test
from .names import defaults_of, parameters
from .nodes import walk
from .playing.plays import Held, Start, counting, play
from .records import kept_records
from .schedules import ENDS, Schedule
from .tensors import Unknown
from .trials import Trial, total, tried, updates
from .updates import calls_of

_CHANGING = {"update", "append", "extend", "insert", "pop", "remove", "clear", "setdefault", "resize_"}
_LONG = 200  # epochs, of which no total may be too large
_KEY = re.compile(r'\.\w+|\["[^"]*"\]')


class Write(NamedTuple):
    """Something that is kept: in what, under which key, and what it is."""

    root: str  # the name of what keeps it
    key: str  # ".rows", '["rows"]'
    value: ast.expr | None
    statement: ast.stmt


@dataclass(frozen=True, slots=True)
class Asked:
    """A run on request that steps a schedule: what it counts by, and what keeps that."""

    trial: Trial
    root: str  # of what is kept, as the run has it
    kept: str  # and as the scope has it that makes the schedule
    keys: frozenset[str]  # under which the schedule is kept
    held: tuple[tuple[ast.expr, str], ...]  # what requests have set, and how that is come by
    homes: Mapping[
        str, str
    ]  # under which key is kept what a constructor is told, by its name, or a record, by its class

    @property
    def roles(self) -> dict[str, str]:
        """How what the run counts by is come by: rows, epochs, and the options that it has."""
        return {"rows": next(iter(self.trial.row_names)), **self.trial.roles}

    @property
    def is_counted(self) -> bool:
        """Whether the run makes the updates that its rows, epochs and options come to."""
        return all(
            updates(player) == sizes.updates and sizes.rows == player.count for sizes, player in self.trial.tries
        )

    def key(self, path: str) -> tuple[str, str] | None:
        """The key of what is come by in some way, and what is read of that; None if nothing keeps it."""
        head, own = re.split(r"\W", path, maxsplit=1)[0], path.removeprefix(self.root)
        own = self.homes[head] + path.removeprefix(head) if own == path and head in self.homes else own
        found = _KEY.match(own) if own != path else None
        return (found[0], own[found.end() :]) if found is not None else None

    def steps(self) -> list[ast.Call]:
        """The calls by which the run steps the schedule."""
        done = [(kind, getattr(what, "path", ""), node) for kind, what, node in self.trial.base.done]
        emptied = {path for kind, path, _ in done if kind == "zero_grad"}
        found = [
            node
            for kind, path, node in done
            if kind == "step" and path not in emptied and path.startswith(tuple(self.root + key for key in self.keys))
        ]
        return [each for each in dict.fromkeys(found) if isinstance(each, ast.Call)]


def asked(code: Code, made: Schedule) -> Asked | None:
    """The run on request that steps a schedule, where all that do count by the same; None where there is none."""
    file, scope = made.reading.file, made.reading.node
    kept = [each for each in writes(scope) if _holds(made, each)] if isinstance(scope, Function) else []
    if not isinstance(scope, Function) or len({each.root for each in kept}) != 1:
        return None
    root, keys = kept[0].root, frozenset(each.key for each in kept)
    owner = file.owner(scope)
    owner = owner if owner is not None and root == _own(scope) else None
    found = []
    for node, cls in file.functions:
        if (
            cls is owner
            and node in counting(code)
            and any(isinstance(each, (ast.For, ast.While, ast.comprehension)) for each in walk(node))
        ):
            held = (*_unset(file, node, owner, root), *_unended(code))
            trial = tried(code, file, node, held)
            roots = [owner.name] if owner is not None else [root, *(each.arg for each in parameters(node.args))]
            for each in dict.fromkeys(roots) if trial is not None and len(trial.row_names) == 1 else ():
                run = Asked(trial, each, root, keys, held, _homes(code, file, owner, node))  # type: ignore[arg-type]
                found += [run] if run.steps() else []
    runs = {each.trial.start.node: each for each in found if isinstance(each.trial.start.node, Function)}
    callers = {node: {reading.node for reading, _ in calls_of(code, node)} for node in runs}
    found = [each for node, each in runs.items() if not callers[node] or callers[node] - runs.keys()]  # no part of one
    counts = {frozenset((role, path.removeprefix(each.root)) for role, path in each.roles.items()) for each in found}
    return found[0] if len(counts) == 1 else None


def _homes(code: Code, file: File, owner: ast.ClassDef | None, run: Function) -> dict[str, str]:
    """Where an object keeps what its constructor is told, and data classes, each in one place."""
    setup = constructor_of(owner) if owner is not None else None
    records = kept_records(code, file.path, owner) if owner is not None else {}
    sets = [*writes(setup)] if setup is not None else []
    pairs = [(cls.name, f".{name}") for name, (_, cls) in records.items()]
    for each in sets:
        dicts = [each.value] if isinstance(each.value, ast.Dict) else []
        kept = [(each.value, each.key), *((value, key) for made in dicts for value, key in _entries(made, each.key))]
        pairs += [(value.id, key) for value, key in kept if isinstance(value, ast.Name)]
    often = Counter([name for name, _ in pairs] + [each.key for each in sets] + [e.arg for e in parameters(run.args)])
    return {name: key for name, key in pairs if often[name] == often[_KEY.findall(key)[0]] == 1}


def _entries(display: ast.Dict, key: str) -> Iterator[tuple[ast.expr, str]]:
    """What a dict holds that is kept under a key, and the keys of that; of those that are written out."""
    for name, value in zip(display.keys, display.values, strict=True):
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            yield value, f'{key}["{name.value}"]'


def miscounted(code: Code, made: Schedule, run: Asked) -> str | None:
    """What is wrong with a total that is computed for a run; nothing where it is right, None where it is not known."""
    start = Start(made.reading.file, made.reading.node, made.reading.owner)  # type: ignore[arg-type]
    trial, kinds = run.trial, {path: kind for path, kind in run.trial.kinds.items() if kind == "int"}
    keys = {path: found for path in trial.roles.values() if (found := run.key(path)) is not None}
    kept = [(each.key, each.value.id) for each in writes(start.node) if isinstance(each.value, ast.Name)]
    own = {name + rest: path for path, (key, rest) in keys.items() for written, name in kept if written == key}
    fixed = {role: trial.base.leaves[path] for role, path in trial.roles.items() if path not in keys}
    tries = [sizes for sizes, _ in trial.tries]
    for sizes in (*tries, tries[0]._replace(epochs=_LONG)):
        wanted = sizes._replace(**fixed)  # what no request can tell
        told = {path: getattr(wanted, role) for role, path in trial.roles.items()}
        told |= {name: told[path] for name, path in own.items()}
        try:
            player = play(code, start, told, kinds, wanted.rows, Held(run.held, kinds, wanted.rows, told))
        except Unknown:
            return None
        known = total(player)
        if not isinstance(known, int) or (known != wanted.updates and player.leaves.keys() - told.keys()):
            return None
        if known != wanted.updates:
            return f"where a run of {wanted.rows} rows makes {wanted.updates} updates it comes to {known}"
    return ""


@once
def _unended(code: Code) -> tuple[tuple[ast.expr, str], ...]:
    """The conditions that a schedule has not come to its end; they hold."""
    nodes = (node for file in code.files.naming(ENDS[0]) for node in file.nodes if isinstance(node, ast.Compare))
    return tuple((node, "") for node in nodes if asks_the_end(node))


def asks_the_end(test: ast.expr) -> bool:
    """Whether a condition asks how far a schedule has come."""
    return any(getattr(each, "attr", "") in ENDS for each in walk(test))


def _holds(made: Schedule, write: Write) -> bool:
    value = made.reading.values.get(write.value) if write.value is not None else None
    return value is not None and any(part.key == made.made.key for part in value.walk())


def writes(scope: ast.AST) -> Iterator[Write]:
    """What a function keeps in something that has a name."""
    for each in walk(scope):
        match each:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    yield from _written(target, value, each)
            case ast.AnnAssign(target=target, value=value) | ast.AugAssign(target=target, value=value):
                yield from _written(target, value, each)
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=root), attr="update"), keywords=more)):
                yield from (Write(root, f'["{every.arg}"]', every.value, each) for every in more)


def unplanned(code: Code, made: Schedule, run: Asked, key: str, rest: str) -> str:
    """Where something that a run counts by is set without a schedule for it."""
    file = made.reading.file
    makers = [node for node, _ in file.functions if any(each.key in run.keys for each in writes(node))]
    able = {*makers, *(reading.node for maker in makers for reading, _ in calls_of(code, maker))}
    for other in (file, *_importing(code, file)):
        for scope, cls in other.functions:
            is_own = other is file and cls in (None, made.reading.owner)
            where = f"{other.path}:{scope.lineno}"
            if cls is not None and (scope is constructor_of(cls) or (other is file and not is_own)):
                continue
            if any(place_of(each) is not None and place_of(each)[1] == key for each in _changed(scope)):  # type: ignore[index]
                return f"{scope.name} ({where}) changes a part of what is kept as {key}"
            for each in writes(scope):
                is_key = each.key in (key, rest) and (is_own or cls is None or each.root != _own(scope))
                if is_key and scope not in able:
                    return f"{scope.name} ({where}) sets {each.root}{each.key}, and no schedule for it"
    return ""


def _importing(code: Code, file: File) -> Iterator[File]:
    """The files that import another one."""
    others = filter(None, map(code.files.file, code.files.paths))
    for other in (each for each in others if each is not file and not is_test(each.path)):
        if any(code.files.imported(module, other.path) == file.path for module in other.imports):
            yield other


def _changed(scope: ast.AST) -> Iterator[ast.expr]:
    """What a function changes a part of."""
    for each in walk(scope):
        match each:
            case ast.Attribute(value=owner, ctx=ast.Store()) | ast.Subscript(value=owner, ctx=ast.Store()):
                yield owner
            case ast.Call(func=ast.Attribute(value=owner, attr=name)) if name in _CHANGING:
                yield owner


def may_be_none(made: Schedule, key: str) -> bool:
    """Whether what is kept under a key may be nothing once requests have set it, or have not."""
    for scope, cls in made.reading.file.functions:
        none = {each.arg for each, default in defaults_of(scope.args).items() if _is_none(default)}
        for each in writes(scope) if cls is None or scope is not constructor_of(cls) else ():
            parts = [each.value.body, each.value.orelse] if isinstance(each.value, ast.IfExp) else [each.value]
            if each.key == key and any(_is_none(part) or getattr(part, "id", "") in none for part in parts):
                return True
    return False


def _written(target: ast.expr, value: ast.expr | None, statement: ast.stmt) -> Iterator[Write]:
    if isinstance(target, ast.Tuple):
        own = value.elts if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts) else None
        for place, part in enumerate(target.elts):
            yield from _written(part, own[place] if own is not None else value, statement)
    elif (found := place_of(target)) is not None:
        yield Write(*found, value, statement)


def place_of(node: ast.AST) -> tuple[str, str] | None:
    """What something is kept in, and its key."""
    match node:
        case ast.Attribute(value=ast.Name(id=root), attr=name):
            return root, f".{name}"
        case ast.Subscript(value=ast.Name(id=root), slice=ast.Constant(value=str(name))):
            return root, f'["{name}"]'
    return None


def _unset(file: File, run: Function, owner: ast.ClassDef | None, root: str) -> tuple[tuple[ast.expr, str], ...]:
    """What is read of what requests have set before a run, and how that is come by."""
    scopes = {node: _own(node) if owner is not None else root for node, cls in file.functions if cls is owner}
    setup = constructor_of(owner) if owner is not None else None
    every = [(scope, each) for scope, held in scopes.items() for each in writes(scope) if each.root == held]
    own = {each.key for scope, each in every if scope is run or isinstance(each.statement, ast.AugAssign)}
    told = {each.key for scope, each in every if scope is not setup} - own
    name = owner.name if owner is not None else root
    return tuple(
        (node, name + place[1])
        for scope, held in scopes.items()
        for node in walk(scope)
        if (place := place_of(node)) is not None and place[0] == held and place[1] in told
        if isinstance(node, ast.expr) and isinstance(getattr(node, "ctx", None), ast.Load)
    )


def _own(method: Function) -> str:
    """What a method calls its object."""
    return next((each.arg for each in parameters(method.args)), "")


def _is_none(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is None
