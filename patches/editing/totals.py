"""The total of a schedule, as planned_updates(epochs, micro-batches, ...) that knows what a run repeats and gathers."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import libcst as cst

from ..reading.code import Code
from ..reading.cuts import by_epochs, cuts, factor, guards, is_guess, is_product, text_of, totals
from ..reading.files import File
from ..reading.nodes import walk
from ..reading.playing.player import Player
from ..reading.source import Source
from ..reading.tree import SourceTree
from ..reading.trials import Sizes, Trial, is_counted_if, total
from ..task import Edit, Finding, Site, mend, mended, near_miss
from .donor import donor, parameters_of
from .edits import BARE_EQUAL, expression, insert_item, rewrite, unwrap
from .loading import at_hand

PLANNED = "planned_updates"


def _told_by(role: str) -> Callable[[Sizes, Player, Any], bool]:
    """What tells whether something is what a run was tried with."""
    return lambda sizes, _, value: value == getattr(sizes, role) and not isinstance(value, bool)


def total_of(code: Code, trial: Trial, is_seen: Callable[[ast.expr], bool]) -> ast.expr | None:
    """The expression that is to be planned: one made already, a product with the epochs, or all that is the total."""
    found = [node for node in totals(trial) if is_seen(node)]
    planned = [node for node in found if _is_planned(node)]
    products = [node for node in trial.nodes() if is_product(trial, node) and is_seen(node)]
    inner = [node for node in products if any(node is each or _holds(code, each, node) for each in found)] or products
    own = [node for node in found if not any(_holds(code, node, other) for other in found if other is not node)]
    return next(iter([*planned, *inner, *own, *_of_an_epoch(trial)]), None)


def planned_for(code: Code, trial: Trial) -> ast.expr | None:
    """The same, first of all where a loader of the run's rows is at hand, or could be."""
    found = cuts(code, trial)
    node = total_of(code, trial, lambda node: all(at_hand(code, trial, cut, node) is not None for cut in found))
    return node or total_of(code, trial, lambda _: True)


def _is_planned(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == PLANNED


def _of_an_epoch(trial: Trial) -> Sequence[ast.expr]:
    """What the last schedule is told to be the steps of an epoch."""
    schedules = trial.tries[0][1].schedules
    keywords = schedules[-1].made.keywords if schedules and isinstance(schedules[-1].made, ast.Call) else ()
    return [each.value for each in keywords if each.arg == "steps_per_epoch" and trial.is_alone(each.value)]


def _holds(code: Code, outer: ast.AST, node: ast.AST) -> bool:
    return any(each is outer for each in code.files.of(node).ancestors(node))


def planned_total(
    tree: SourceTree,
    trial: Trial,
    node: ast.expr | None,
    counted: Sequence[ast.expr],
    more: Mapping[str, str],
    loader: str,
) -> Iterator[Finding]:
    """Let the schedule's total be the number of updates that are made.

    `counted` are guesses at the micro-batches of an epoch, which will be right; `more` says what planned_updates calls
    that which acts so in the run.
    """
    schedules, made = trial.tries[0][1].schedules, trial.made
    is_guess = node is not None and is_product(trial, node) and bool(counted)
    if schedules and not trial.is_stepped:
        yield near_miss(site_of(tree, made, "schedule that does not step with each update: step it always"))
    elif (trial.is_counted and not is_guess) or (
        schedules and not is_guess and counted and is_counted_if(tree.code, trial, counted)
    ):
        yield mended(site_of(tree, made, "total of the schedule"))
    elif not schedules or node is None or not trial.is_by_epochs:
        yield near_miss(site_of(tree, made, "schedule, but no total of it that could be planned"))
    elif not is_counted_if(tree.code, trial, [], node, is_of_an_epoch=node in _of_an_epoch(trial)) and (
        not (node := _with_extra(trial, of := node)) or not is_counted_if(tree.code, trial, [], node)
    ):
        problem = "total of the schedule, but something counts outside of it: put that into it"
        yield near_miss(site_of(tree, of, problem))
    else:
        at = tree.code.files.of(node).statement(node)
        texts = {name: text_of(trial, at, _told_by(role)) for role, name in more.items() if role in trial.roles}
        yield _planned(tree, trial, node, texts, loader)


def _with_extra(trial: Trial, node: ast.expr) -> ast.expr | None:
    """The total that adds the extra steps of a run to an expression, as if they were not of each epoch."""
    tries = [(sizes.extra, each) for sizes, _, values in trial.everywhere(node) for each in values[:1]]
    wanted = [each + extra for extra, each in tries] if "extra" in trial.roles else []
    found = ([values[0] for _, _, values in trial.everywhere(each)] for each in totals(trial))
    return next((each for each, values in zip(totals(trial), found, strict=True) if values == wanted), None)


def gathered_total(tree: SourceTree, trial: Trial, node: ast.expr, told: Mapping[str, str]) -> Finding:
    """Let the schedule's total count groups of micro-batches, whose size is `told` as planned_updates calls it."""
    site = site_of(tree, node, "total of the schedule")
    named = {each.arg: each.value for each in node.keywords} if _is_planned(node) else {}
    ((name, _),) = told.items()
    if name in named:
        every = trial.everywhere(named[name])
        is_right = all(set(values) == {sizes.accumulated} for sizes, _, values in every)
        problem = f"planned updates, but their {name} is not what the run gathers"
        return mended(site) if is_right else near_miss(site_of(tree, node, problem))
    if "accumulated" in trial.roles and (trial.is_counted or _is_gathered(trial)):
        return mended(site)
    if not trial.is_alone(node) or len({total(each) for each in trial.plays_of("accumulated")}) > 1:
        return near_miss(site_of(tree, node, "total of the schedule, but it counts something else than updates"))
    if not trial.is_by_epochs:
        return near_miss(site_of(tree, node, "total of the schedule, but no product of epochs and steps of an epoch"))
    loaders = [at_hand(tree.code, trial, cut, node) for cut in cuts(tree.code, trial) if cut.is_loaded(trial)]
    return _planned(tree, trial, node, told, next((each.name for each in loaders if each is not None), ""), by_epochs)


def _is_gathered(trial: Trial) -> bool:
    """Whether a total counts groups of whatever it takes for the micro-batches of an epoch."""
    whole, epochs = total(trial.base), trial.sizes_of(trial.base).epochs
    ends = [(total(each), trial.sizes_of(each).accumulated) for each in trial.plays_of("accumulated")]
    return isinstance(whole, int) and all(end == epochs * math.ceil(whole / epochs / size) for end, size in ends)


def unguarded(tree: SourceTree, trial: Trial, is_near: Callable[[File, ast.AST], bool]) -> Iterator[Finding]:
    """Take the schedule's step out of a condition that only keeps it from passing a total that is not the run's."""
    for guard in guards(trial):
        file = tree.code.files.of(guard.node)
        source = tree.source(file.path)
        if not guard.is_limit:
            problem = "scheduler's step under a condition that is not its total: step it always"
            yield near_miss(source.site(guard.node, problem))
        elif guard.is_all and not trial.is_counted and is_near(file, guard.node):
            edit = unwrap(source, source.at(guard.node))  # type: ignore[arg-type]
            yield mend(source.site(guard.node, "scheduler that stops before the run does"), [edit])


def site_of(tree: SourceTree, node: ast.AST, note: str) -> Site:
    """The site of a node, in whatever file it stands."""
    return tree.source(tree.code.files.of(node).path).site(node, note)  # type: ignore[arg-type]


def _planned(
    tree: SourceTree,
    trial: Trial,
    node: ast.expr,
    options: Mapping[str, str | None],
    loader: str,
    factor: Callable[[Trial, ast.BinOp], bool | None] = factor,
) -> Finding:
    """Let a total be planned, with some options by how they are written there."""
    file = tree.code.files.of(node)
    source = tree.source(file.path)
    site = source.site(node, "total of the schedule")
    unknown = [name for name, text in options.items() if text is None]
    if unknown:
        return near_miss(
            source.site(node, f"total of the schedule, but {', '.join(unknown)} of the run is not known here")
        )
    if _is_planned(node):
        if set(options) <= {each.arg for each in node.keywords}:
            return near_miss(source.site(node, "planned updates, but the run makes more, or fewer"))
        return mend(site, [_told(source, node, options)])  # type: ignore[arg-type]
    more = "".join(f", {name}={text}" for name, text in options.items())
    is_left = factor(trial, node) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) else None
    if is_left is not None:
        return mend(site, [Edit(source, source.at(node), _product(source, more, is_left=is_left))])
    if node in _of_an_epoch(trial):
        return mend(site, [rewrite(source, source.at(node), lambda text: f"{PLANNED}(1, {text}{more})")])  # type: ignore[arg-type]
    statement = file.statement(node)
    epochs = text_of(trial, statement, _told_by("epochs"))
    if epochs is None:
        return near_miss(source.site(node, "total of the schedule, but how many epochs there are is not known here"))
    by_name, length = _named_guess(trial, statement), f"len({loader})" if loader else None
    known = by_name or length or _inner_guess(trial, file, node)
    if known is None:
        return near_miss(source.site(node, "total of the schedule, but no product of epochs and steps of an epoch"))
    text = f"{PLANNED}({epochs}, {known}{more})"
    return mend(site, [Edit(source, source.at(node), lambda _: expression(source, text))])


def _named_guess(trial: Trial, statement: ast.stmt) -> str | None:
    """A name for the number of micro-batches that is set in the function of a statement."""
    _, player = trial.tries[0]
    scope, names = player.before[statement]
    for each in ast.walk(scope.node):
        if isinstance(each, ast.Assign) and is_guess(trial, each.value) and trial.is_alone(each.value):
            target = each.targets[0]
            if isinstance(target, ast.Name) and target.id in names:
                return target.id
    return None


def _inner_guess(trial: Trial, file: File, node: ast.expr) -> str | None:
    """How the number of micro-batches is written in a total, where it is of nothing that the total binds."""
    names = [each for each in walk(node) if isinstance(each, ast.Name)]
    bound = {each.id for each in names if isinstance(each.ctx, ast.Store)}
    for each in (each for each in walk(node) if isinstance(each, ast.expr)):
        used = {name.id for name in walk(each) if isinstance(name, ast.Name)}
        if not used & bound and is_guess(trial, each) and trial.is_alone(each):
            return file.text(each)
    return None


def _product(source: Source, more: str, *, is_left: bool) -> Callable[[cst.CSTNode], cst.CSTNode]:
    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.BinaryOperation)
        epochs, steps = (updated.left, updated.right) if is_left else (updated.right, updated.left)
        texts = [source.code(each.with_changes(lpar=(), rpar=())) for each in (epochs, steps)]
        return expression(source, f"{PLANNED}({texts[0]}, {texts[1]}{more})")

    return change


def _told(source: Source, node: ast.Call, options: Mapping[str, str]) -> Edit:
    """Tell planned_updates options, in the order of its parameters."""
    own, names = parameters_of(donor("bit_transformer/training.py"), PLANNED), [each.arg for each in node.keywords]
    missing = {name: text for name, text in options.items() if name not in names}

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.Call)
        args = list(updated.args)
        for name, text in missing.items():
            keys = [each.keyword.value if each.keyword is not None else "" for each in args]
            later = [at for at, key in enumerate(keys) if key in own[own.index(name) :]]
            new = cst.Arg(keyword=cst.Name(name), value=expression(source, text), equal=BARE_EQUAL)
            args = insert_item(args, later[0] if later else len(args), new, enclosed=updated.whitespace_before_args)
        return updated.with_changes(args=args)

    return Edit(source, source.at(node), change)
