"""Where rows are cut, where micro-batches are counted, where a schedule's steps stop: by what trials show."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .code import Code
from .files import File
from .nodes import walk
from .playing.batches import Loader, Many, Rows, Space, Stream
from .playing.kinds import Opaque, Thing
from .playing.player import Player
from .trials import Sizes, Trial, content, total

_GUESSES: list[Callable[[Sizes], int]] = [
    lambda sizes: sizes.rows // sizes.size,
    lambda sizes: max(1, sizes.rows // sizes.size),
    lambda sizes: math.ceil(sizes.rows / sizes.size),
    lambda sizes: sizes.rows // sizes.size + 1,
]


@dataclass(frozen=True, slots=True)
class Cut:
    """Where rows are cut: an expression that gives them all, or that gives one micro-batch in each turn of a loop."""

    node: ast.expr
    file: File
    is_slice: bool
    asked: frozenset[str]  # of what gives them all
    is_of_an_epoch: bool  # whether that is made anew in each
    loader: Loader | None = None  # if it is one

    def is_loaded(self, trial: Trial) -> bool:
        """Whether it is a loader that shuffles, and is told its size and its workers."""
        said = self.loader.settings if self.loader is not None else {}
        is_told = said.get("shuffle") is True and "num_workers" in said and "size" in trial.roles
        is_refused = said.get("persistent_workers") is True and said.get("num_workers") == 0
        is_same_each_epoch = self.is_of_an_epoch and "generator" in said
        wrong = is_refused or is_same_each_epoch
        return is_told and not wrong and not any(said.get(each) for each in ("drop_last", "sampler", "batch_sampler"))

    @property
    def function(self) -> ast.AST:
        return self.file.function(self.node) or self.file.module


def cuts(code: Code, trial: Trial) -> list[Cut]:
    """Where the rows of a run are cut; the innermost expressions."""
    for is_slice in (False, True):
        found = [node for node in trial.nodes() if _cuts(trial, node, is_slice)]
        inside = {id(inner) for node in found for inner in walk(node) if inner is not node}
        own = [e for e in found if not any(id(o) in inside and o in set(walk(e)) for o in found if o is not e)]
        own = [each for each in own if not any(_returns(code, other, each) for other in own)]
        if own:
            return [_cut(code, trial, node, is_slice) for node in _apart(code, trial, own)]
    return []


def _returns(code: Code, call: ast.expr, node: ast.expr) -> bool:
    """Whether a call is of a function that returns an expression, and does nothing else."""
    made = code.files.of(node).parents[node]
    function = code.files.of(node).function(node)
    is_all = function is not None and isinstance(made, ast.Return) and function.body == [made]
    return is_all and isinstance(call, ast.Call) and getattr(call.func, "id", "") == function.name  # type: ignore[union-attr]


def piece(trial: Trial) -> ast.AST:
    """Where one micro-batch at a time is cut, if no more than that is seen; else where a loss is learned from."""
    for node in trial.nodes():
        tries = trial.everywhere(node)
        if isinstance(node, ast.Subscript) and all(
            values and all(each in trial.all_rows(player).split(sizes.size) for each in values)
            for sizes, player, values in tries
        ):
            return node
    return trial.loop


def _apart(code: Code, trial: Trial, nodes: list[ast.expr]) -> list[ast.expr]:
    """Of expressions that give the same things, the one that stands nearest to where the run begins."""
    found: list[ast.expr] = []
    for node in sorted(nodes, key=lambda each: code.files.of(each).function(each) is not trial.start.node):
        if not any(_is_of(trial, node, other) for other in found):
            found.append(node)
    return found


def _is_of(trial: Trial, node: ast.expr, other: ast.expr) -> bool:
    """Whether two expressions give the very same micro-batches, or one of them is a loader, whose the other's are."""
    values, others = ([each for _, player in trial.tries[:1] for each in player.values[n]] for n in (node, other))
    if isinstance(others[0], Loader) or isinstance(values[0], Rows):
        return isinstance(others[0], Loader)
    firsts = [content(each) or [None] for each in (values[0], others[0])]
    return firsts[0][0] is firsts[1][0] or values[0] is others[0]


def _cuts(trial: Trial, node: ast.expr, is_slice: bool) -> bool:
    for sizes, player, values in trial.everywhere(node):
        batches = list(trial.all_rows(player).split(sizes.size))
        if is_slice and values != batches * (len(values) // max(1, len(batches))):
            return False
        if not is_slice and not all(content(each) == batches for each in values):
            return False
    return True


def _cut(code: Code, trial: Trial, node: ast.expr, is_slice: bool) -> Cut:
    every = [each for _, _, values in trial.everywhere(node) for each in values]
    asked = {word for each in every if isinstance(each, (Many, Loader)) for word in each.asked}
    is_anew = all(len(values) == sizes.epochs for sizes, _, values in trial.everywhere(node))
    loader = every[0] if every and isinstance(every[0], Loader) else None
    return Cut(node, code.files.of(node), is_slice, frozenset(asked), is_anew, loader)


def is_guess(trial: Trial, node: ast.expr) -> bool:
    """Whether an expression is the number of micro-batches, rounded up or down, perhaps one at least."""
    return any(_is(trial, node, rule) for rule in _GUESSES)


def _is(trial: Trial, node: ast.expr, rule: Callable[[Sizes], Any]) -> bool:
    return all(values and all(each == rule(sizes) for each in values) for sizes, _, values in trial.everywhere(node))


def guesses(trial: Trial) -> list[ast.expr]:
    """The widest expressions that guess at the number of micro-batches; a loader's length is no guess."""
    found = [node for node in trial.nodes() if is_guess(trial, node) and not _is_length(trial, node)]
    found = [node for node in found if trial.is_alone(node)]
    inside = {id(inner) for node in found for inner in walk(node) if inner is not node}
    return [node for node in found if id(node) not in inside and not isinstance(node, ast.Attribute)]


def _is_length(trial: Trial, node: ast.expr) -> bool:
    """Whether an expression counts micro-batches that there are."""
    if not isinstance(node, ast.Call) or len(node.args) != 1:
        return False
    values = [each for _, player in trial.tries for each in player.values.get(node.args[0], [])]
    return bool(values) and all(isinstance(each, (Many, Loader, Stream)) for each in values)


def totals(trial: Trial) -> list[ast.expr]:
    """The expressions that are what the schedule is given for its total."""
    return [
        node
        for node in trial.nodes()
        if all(values and all(each == total(player) for each in values) for _, player, values in trial.everywhere(node))
    ]


def is_product(trial: Trial, node: ast.expr) -> bool:
    """Whether an expression multiplies the epochs with a number of micro-batches."""
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and factor(trial, node) is not None


def factor(trial: Trial, node: ast.BinOp) -> bool | None:
    """Whether the epochs stand on the left of a product; None if it is none of epochs and micro-batches."""
    is_left = by_epochs(trial, node)
    other = node.right if is_left else node.left
    return is_left if is_guess(trial, other) and trial.is_alone(other) else None


def by_epochs(trial: Trial, node: ast.BinOp) -> bool | None:
    """Whether the epochs stand on the left of a product; None if it is none of theirs."""
    sides = [_is(trial, each, lambda sizes: sizes.epochs) for each in (node.left, node.right)]
    return sides[0] if any(sides) else None


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition under which a schedule steps, and whether it only keeps it from passing its total."""

    node: ast.If
    is_limit: bool
    is_all: bool  # whether that is all it says, and the step all that stands under it


def guards(trial: Trial) -> Iterator[Guard]:
    """The conditions that count, under which the schedule alone steps."""
    for node in dict.fromkeys(each for player in trial.plays for each in player.tests):
        if isinstance(node, ast.If) and _steps_alone(trial, node):
            counted = [each for each in walk(node.test) if _is_number(trial, each)]
            limits = [e for e in walk(node.test) if isinstance(e, ast.Compare) and _is_limit(trial, node, e)]
            inside = {id(each) for limit in limits for each in walk(limit)}
            if counted:
                is_limit = bool(limits) and all(id(each) in inside for each in counted)
                is_plain = len(node.body) == 1 and not node.orelse and not isinstance(node.test, ast.BoolOp)
                yield Guard(node, is_limit, is_limit and is_plain)


def _steps_alone(trial: Trial, node: ast.If) -> bool:
    """Whether a schedule steps under a condition, and nothing else does."""
    inside = {id(each) for statement in node.body for each in walk(statement)}
    done = {kind for player in trial.plays for kind, _, at in player.done if id(at) in inside}
    calls = [each for statement in node.body for each in walk(statement) if isinstance(each, ast.Call)]
    words = {getattr(each.func, "attr", "") for each in calls}
    return done == {"schedule"} or (not done and words == {"step"})


def _is_number(trial: Trial, node: ast.AST) -> bool:
    values = [each for player in trial.plays for each in player.values.get(node, [])]
    return any(isinstance(each, int) for each in values)


def _is_limit(trial: Trial, node: ast.If, test: ast.Compare) -> bool:
    """Whether a comparison lets a schedule step before it has come to its total, whatever it says behind that."""
    if len(test.ops) != 1:
        return False
    for counter, end in ((test.left, test.comparators[0]), (test.comparators[0], test.left)):
        if all(_counts_to(player, node, counter, end) for player in trial.plays):
            return True
    return False


def _counts_to(player: Player, node: ast.If, counter: ast.expr, end: ast.expr) -> bool:
    tests, counts, ends = player.tests.get(node, []), player.values.get(counter, []), player.values.get(end, [])
    if not len(tests) == len(counts) == len(ends):
        return False
    every = zip(tests, counts, ends, strict=True)
    return all(
        limit == total and (last >= total - 1 or (holds and count in (last, last + 1)))
        for (holds, last, total), count, limit in every
    )


def unsure(trial: Trial) -> list[ast.AST]:
    """Conditions that are not known, on which steps depend."""
    return list(dict.fromkeys(each for _, player in trial.tries for each in player.unsure))


def text_of(trial: Trial, at: ast.stmt, want: Callable[[Sizes, Player, Any], bool]) -> str | None:
    """How something is written in front of a statement: a name, an attribute or an entry that is what is wanted."""
    scopes = [(sizes, player, player.before[at][1]) for sizes, player in trial.tries if at in player.before]
    if not scopes:
        return None
    _, player, names = scopes[0]
    for text, steps in _texts(player, names):
        if all(want(sizes, other, _reached(other, names, steps)) for sizes, other, names in scopes):
            return text
    return None


def _texts(player: Player, names: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    yield from ((name, [name]) for name in names)
    for name, value in names.items():
        for inner in _parts(player, value):
            shown = f'["{inner[1:]}"]' if inner.startswith("[") else f".{inner}"
            yield f"{name}{shown}", [name, inner]
            for further in _parts(player, _step(player, value, inner)) if not shown.startswith("[") else ():
                if not further.startswith("["):
                    yield f"{name}{shown}.{further}", [name, inner, further]


def _parts(player: Player, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"[{key}" for key in value if isinstance(key, str)]
    if isinstance(value, Opaque) and value.path:
        known = (each for each in (*player.leaves, *player.kinds) if each.startswith(value.path))
        begins = (each.removeprefix(value.path) for each in known)
        entries = (
            (each[0], each[2:-2] if each.startswith('["') else each[1:]) for each in begins if each[:1] in (".", "[")
        )
        return [("" if sign == "." else "[") + name for sign, name in dict.fromkeys(entries) if name.isidentifier()]
    return list(value.own) if isinstance(value, (Thing, Space)) else []


def _step(player: Player, value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name.removeprefix("["))
    if isinstance(value, Opaque):
        return player.leaf(value.path + (f'["{name[1:]}"]' if name.startswith("[") else f".{name}"))
    return value.own.get(name) if isinstance(value, (Thing, Space)) else None


def _reached(player: Player, names: dict[str, Any], steps: list[str]) -> Any:
    value = names.get(steps[0])
    for each in steps[1:]:
        value = _step(player, value, each)
    return value


def is_all_rows(trial: Trial) -> Callable[[Sizes, Player, Any], bool]:
    """What tells whether something is all rows that are learned from."""

    def want(_: Sizes, player: Player, value: Any) -> bool:
        rows = trial.all_rows(player)
        return value == rows or rows.name == f"set:{getattr(value, 'name', '')}"

    return want
