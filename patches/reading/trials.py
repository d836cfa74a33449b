"""Runs tried with a few rows: which updates they make, what their options do to that, and what total was planned."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from .code import Code, once
from .files import File, Function
from .nodes import walk
from .playing.batches import Loader, Many, Optimizer, Rows, Stream
from .playing.kinds import Marks, Opaque
from .playing.player import Player
from .playing.plays import Held, Start, left_out, play
from .tensors import Unknown
from .updates import calls_of, updates_of_runs

_FACTORS = (2, 3)  # what a number is tried to be, to see what it does
_MANY = 20  # rows
_MOST_CALLERS = 4
# rows; epochs, extra steps, micro-batches an update and rows a micro-batch, where they are options
_TRIED = [
    (20, 1, 0, 1, 8), (11, 2, 1, 1, 8), (3, 3, 2, 1, 8), (16, 1, 0, 1, 8), (9, 1, 3, 1, 5), (17, 2, 1, 2, 8),
    (13, 2, 2, 2, 3),
]  # fmt: skip


class Sizes(NamedTuple):
    """What a run was tried with."""

    rows: int
    epochs: int
    extra: int
    accumulated: int
    size: int

    @property
    def batches(self) -> int:
        """Micro-batches an epoch, without extra ones."""
        return math.ceil(self.rows / self.size)

    @property
    def updates(self) -> int:
        """Updates of the run."""
        return self.epochs * math.ceil((self.batches + self.extra) / self.accumulated)


@dataclass
class Trial:
    """A run that was tried."""

    start: Start
    roles: dict[str, str]  # "epochs", "extra", "accumulated", "size": how what acts so is come by
    size: int  # rows a micro-batch, where no option says it
    kinds: dict[str, str]  # of what stands for itself
    told: dict[str, list[Player]]  # plays in which one number was told another, by the number
    base: Player  # with nothing told
    tries: list[tuple[Sizes, Player]] = field(default_factory=list)

    @cached_property
    def row_names(self) -> set[str]:
        """The data sets whose rows are learned from."""
        return {name for _, player in self.tries for name, _ in learned(player)}

    def all_rows(self, player: Player) -> Rows:
        """The rows that are learned from, in order."""
        return Rows(next(iter(self.row_names), ""), tuple(sorted(at for _, at in learned(player))))

    @property
    def made(self) -> ast.AST:
        """Where the last schedule is made, or where a loss is learned from first."""
        schedules = self.tries[0][1].schedules
        return schedules[-1].made if schedules else self.loop

    @property
    def is_scheduled(self) -> bool:
        """Whether a schedule steps more often than once an epoch."""
        return any(
            sum(kind == "schedule" for kind, _, _ in play.done) > max(1, sizes.epochs) for sizes, play in self.tries
        )

    @property
    def loop(self) -> ast.AST:
        """Where a loss is learned from first."""
        return next(node for kind, _, node in self.base.done if kind == "backward")

    @cached_property
    def plays(self) -> list[Player]:
        """Every play of the run."""
        return [*(player for _, player in self.tries), *(each for plays in self.told.values() for each in plays)]

    def plays_of(self, role: str) -> list[Player]:
        """The plays in which what acts so was told another number."""
        return self.told.get(self.roles.get(role, ""), [])

    def sizes_of(self, player: Player) -> Sizes:
        """What a play was tried with in which one number was told another."""
        rest = {"epochs": 1, "extra": 0, "accumulated": 1, "size": self.size}
        paths = {role: self.roles.get(role, "") for role in rest}
        told = {role: player.given.get(path, self.base.leaves.get(path, rest[role])) for role, path in paths.items()}
        return Sizes(len(learned(self.base)), **told)

    @cached_property
    def is_counted(self) -> bool:
        """Whether the total of the schedule is the number of updates that are made."""
        if total(self.plays[0]) is not None:
            return all(total(player) == updates(player) for player in self.plays)
        made = [node for node in self.nodes() if all(is_updates(player, node) for _, player in self.tries)]
        return bool(self.plays[0].schedules) and any(
            all(is_updates(each, node) for each in self.plays) for node in made
        )

    @cached_property
    def is_stepped(self) -> bool:
        """Whether the schedule steps with each update, or would if its total were theirs."""
        for player in self.plays:
            end, made = total(player), updates(player)
            steps = sum(kind == "schedule" for kind, _, _ in player.done)
            if steps != made and not (end is not None and min(made, end) - 1 <= steps <= min(made, end + 1)):
                return False
        return True

    @cached_property
    def is_by_epochs(self) -> bool:
        """Whether the total of the schedule grows with the epochs."""
        plays, ends = self.plays_of("epochs"), [total(each) for each in self.plays_of("epochs")]
        return bool(plays) and (None in ends or ends[0] * _FACTORS[1] == ends[1] * _FACTORS[0])

    def is_alone(self, node: ast.expr) -> bool:
        """Whether an expression depends on nothing but the rows and what the run is tried with."""
        others = [plays for path, plays in self.told.items() if path not in self.roles.values()]
        first = [each.values.get(node) for plays in others for each in plays]
        return all(each == self.base.values.get(node) for each in first)

    def everywhere(self, node: ast.AST) -> Iterator[tuple[Sizes, Player, list[Any]]]:
        """What an expression was in each try."""
        for sizes, player in self.tries:
            yield sizes, player, player.values.get(node, [])

    def nodes(self) -> Iterator[ast.expr]:
        """The expressions that were computed in every try, the names among them left out."""
        first = self.tries[0][1].values
        for node in first:
            is_always = all(node in player.values for _, player in self.tries[1:])
            if is_always and isinstance(node, ast.expr) and not isinstance(node, ast.Name):
                yield node


def is_updates(player: Player, node: ast.AST) -> bool:
    """Whether an expression was the number of updates in a play."""
    values = player.values.get(node)
    return bool(values) and all(each == updates(player) for each in values or ())


def learned(player: Player) -> Marks:
    """The rows that are learned from in a play."""
    return frozenset[tuple[str, int]]().union(*(what for kind, what, _ in player.done if kind == "backward"))


def updates(player: Player) -> int:
    """How often the optimizer steps."""
    stepped = [what for kind, what, _ in player.done if kind == "step"]
    own = [each for each in stepped if isinstance(each, Optimizer)]
    emptied = {each.path for kind, each, _ in player.done if kind == "zero_grad" and isinstance(each, Opaque)}
    others = [each for each in stepped if isinstance(each, Opaque)]
    return len(own or [each for each in others if each.path in emptied] or others)


def total(player: Player) -> Any:
    """The total that the last schedule was given."""
    return player.schedules[-1].total if player.schedules else None


def is_counted_if(
    code: Code,
    trial: Trial,
    guesses: Sequence[ast.expr],
    total_at: ast.expr | None = None,
    *,
    is_of_an_epoch: bool = False,
) -> bool:
    """Whether the total would be the number of updates if some expressions were that of micro-batches, and one that."""
    sizes = [each for each, _ in trial.tries] + [None] * (len(trial.plays) - len(trial.tries))
    for each, player in zip(sizes, trial.plays, strict=True):
        known = each or trial.sizes_of(player)
        forced = dict.fromkeys(guesses, known.batches)
        if total_at is not None:
            forced[total_at] = known.updates // (known.epochs if is_of_an_epoch else 1)
        try:
            other = play(code, trial.start, player.given, trial.kinds, player.count, forced)
        except Unknown:
            return False
        if total(other) not in (updates(other), None):
            return False
    return True


def _first(player: Player) -> int:
    """How many rows the first micro-batch has."""
    return len(next((what for kind, what, _ in player.done if kind == "backward"), ())) or 1


@once
def trials(code: Code) -> list[Trial]:
    """The runs of a tree that learn from rows in several updates: each as it begins nearest to its backward."""
    found: list[Trial] = []
    mentions = [(file, node) for file in code.files.naming("backward") for node in file.uses.get("backward", ())]
    for most in (0, _MOST_CALLERS):
        for file, node in mentions if not (most and found) else ():
            if not any(_learns_by(trial, node) for trial in found):
                trial = _nearest(code, file, file.function(node) or file.module, most)
                is_known = trial is None or any(
                    _learns_by(each, getattr(trial.loop, "func", trial.loop)) for each in found
                )
                found += [trial] if trial is not None and not is_known else []
    return found


def trial_of(code: Code, backward: ast.AST) -> Trial | None:
    """The run that learns from a loss by some call, if one was tried."""
    return next((each for each in trials(code) if _learns_by(each, getattr(backward, "func", backward))), None)


def _others(code: Code) -> list[tuple[File, ast.AST]]:
    """Where a loss is learned from in a loop besides."""
    places = [each.effect.at for each in updates_of_runs(code)]
    return [(at.file, at.node.func) for at in places if isinstance(at.node, ast.Call)]


@once
def unseen(code: Code) -> list[tuple[File, ast.AST]]:
    """Loops in which a loss is learned from what is cut by a number, and of which no trial shows more."""
    found = trials(code)
    places = [(file, node) for file, node in _others(code) if not any(_learns_by(each, node) for each in found)]
    return [(file, cut) for file, node in places for cut in _numbered(file.function(node) or file.module)[:1]]


def _numbered(scope: ast.AST) -> list[ast.AST]:
    """Where something is cut by a number that is written out."""
    calls = [each for each in walk(scope) if isinstance(each, ast.Call) and each.args]
    steps = [each for each in calls if getattr(each.func, "id", "") == "range" and len(each.args) == 3]  # noqa: PLR2004
    splits = [each for each in calls if getattr(each.func, "attr", "") in ("split", "chunk", "batched")]
    return [
        each
        for each in (*steps, *splits)
        if isinstance(each.args[-1], ast.Constant) and isinstance(each.args[-1].value, int)
    ]


def _learns_by(trial: Trial, node: ast.AST) -> bool:
    done = (each for kind, _, each in trial.tries[0][1].done if kind == "backward")
    return any(getattr(each, "func", None) is node for each in done)


def _nearest(code: Code, file: File, node: ast.AST, most: int) -> Trial | None:
    """The run whose schedule is known that begins nearest to a place; callers of callers are looked at."""
    pending, seen = [(file, node, 0)], set[ast.AST]()
    fallback: Trial | None = None
    while pending:
        file, node, depth = pending.pop(0)
        while isinstance(node, Function) and (outer := file.function(node)) is not None:
            node = outer  # what is defined inside of a function runs with it
        if node in seen:
            continue
        seen.add(node)
        trial = tried(code, file, node)  # type: ignore[arg-type]
        plays = [player for _, player in trial.tries] if trial is not None else []
        if (
            trial is not None
            and total(plays[0]) is not None
            and "epochs" in trial.roles
            and all(len(each.schedules) == 1 for each in plays)
        ):
            return trial
        if trial is not None and (
            fallback is None or (total(fallback.tries[0][1]) is None and total(trial.tries[0][1]))
        ):
            fallback = trial
        if isinstance(node, Function) and depth < most:
            callers = [(r.file, r.file.function(call) or r.file.module) for r, call in calls_of(code, node)]
            pending += [(other, each, depth + 1) for other, each in callers]
    return fallback if most else None


@once
def tried(
    code: Code, file: File, node: Function | ast.Module, held: tuple[tuple[ast.expr, str], ...] = ()
) -> Trial | None:
    """A run tried with a few rows, if it learns from each in several updates.

    `held` are expressions of what others set before it begins, and how each is come by; those that hold, by nothing.
    """
    start = Start(file, node, file.owner(node) if isinstance(node, Function) else None)
    for name in ("", *left_out(code, start)):  # rows that a run may be given
        made = _tried_with(code, start, held, {name: "rows"} if name else {})
        if made is not None:
            return made
    return None


def _tried_with(
    code: Code, start: Start, held: tuple[tuple[ast.expr, str], ...], kinds: dict[str, str]
) -> Trial | None:
    def played(given: Mapping[str, int], rows: int) -> Player:
        player = play(code, start, given, kinds, rows, Held(held, kinds, rows, given))
        player.leaves |= {path: 1 for _, path in held if kinds.get(path) == "int"}
        return player

    try:
        base = played({}, _MANY)
    except Unknown:
        return None
    first = next((what for kind, what, _ in base.done if kind == "backward"), None)
    if not first or updates(base) < 2 or len(learned(base)) <= len(first):  # noqa: PLR2004
        return None
    told = _told(played, base)
    trial = Trial(start, _roles(base, told), len(first), kinds, told, base)
    for rows, epochs, extra, accumulated, size in _TRIED:
        wanted = {"epochs": epochs, "extra": extra, "accumulated": accumulated, "size": size}
        given = {path: wanted[role] for role, path in trial.roles.items()}
        try:
            player = played(given, rows)
        except Unknown:
            return None
        own = {
            role: wanted[role] if role in trial.roles else default
            for role, default in (("epochs", 0), ("extra", 0), ("accumulated", 1), ("size", trial.size))
        }
        trial.tries.append((Sizes(len({at for _, at in learned(player)}), *own.values()), player))
    return trial


def _told(played: Callable[[Mapping[str, int], int], Player], base: Player) -> dict[str, list[Player]]:
    """Plays in which one number is told another, of each number that changes something by it."""
    made: dict[str, list[Player]] = {}
    for path in base.leaves:
        try:
            first = played({path: _FACTORS[0]}, _MANY)
            if _shown(first) != _shown(base):
                made[path] = [first, played({path: _FACTORS[1]}, _MANY)]
        except Unknown:
            continue
    return made


def _shown(player: Player) -> tuple[int, int, Any]:
    return updates(player), _first(player), total(player)


def _roles(base: Player, made: dict[str, list[Player]]) -> dict[str, str]:
    """Which numbers are the epochs, extra steps, micro-batches an update, rows a micro-batch, by what they do."""
    found: dict[str, str] = {}
    once_more: dict[str, int] = {}
    for path, plays in made.items():
        default, counts = base.leaves[path], [updates(each) for each in plays]
        if [_first(each) for each in plays] == list(_FACTORS):
            found.setdefault("size", path)
        elif default > 0 and all(
            count * default == updates(base) * each for count, each in zip(counts, _FACTORS, strict=True)
        ):
            found.setdefault("epochs", path)
            once_more["epochs"] = default
    epochs = once_more.get("epochs", 1)
    for path, plays in made.items():
        default, counts = base.leaves[path], [updates(each) for each in plays]
        each_epoch = updates(base) // epochs
        more = [count - updates(base) for count in counts]
        if path not in found.values() and more == [(each - default) * epochs for each in _FACTORS]:
            found.setdefault("extra", path)
        elif (
            path not in found.values()
            and default == 1
            and counts == [math.ceil(each_epoch / each) * epochs for each in _FACTORS]
        ):
            found.setdefault("accumulated", path)
    return found


def content(value: Any) -> list[Any] | None:
    """What one gets of something that gives one thing after another."""
    if isinstance(value, Loader):
        try:
            return list(value.batches)
        except Unknown:
            return None
    if isinstance(value, Stream):
        return value.given
    return list(value) if isinstance(value, Many) else None
