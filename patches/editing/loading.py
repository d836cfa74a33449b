"""Bring a loader to where rows are cut: as a name of its function, an attribute of its object, or an argument."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from ..reading.code import Code
from ..reading.cuts import Cut, is_all_rows, text_of
from ..reading.files import File, Function
from ..reading.names import parameters
from ..reading.nodes import walk
from ..reading.playing.batches import Loader
from ..reading.source import Source
from ..reading.tree import SourceTree
from ..reading.trials import Trial
from ..reading.updates import DEEP, is_within, may_be_it, scope_of
from ..task import Edit
from .edits import insert_after, insert_before, rewrite
from .grouping import as_for
from .spent import spent

LOADER = "loader"
_OF_ORDER = {"sampler", "batch_sampler", "collate_fn", "worker_init_fn"}  # what makes other micro-batches


@dataclass(slots=True)
class Place:
    """Where a loader is made, what it is called there and where rows are cut, and what brings it from here to there."""

    file: File
    scope: ast.AST  # the function, or the module, that makes it
    at: ast.stmt  # the statement by which it is made
    rows: str  # the rows there, as they are written
    name: str  # what it is called where it is made
    there: str  # what it is called where the rows are cut
    is_behind: bool = False  # whether it is made behind that statement
    gone: Sequence[ast.stmt] = ()  # statements that only fed the cut
    own: ast.Assign | None = None  # the statement that makes micro-batches already, and only needs another value
    arguments: Sequence[tuple[File, ast.expr, str]] = ()  # what is handed where rows are cut, and is something else now

    def is_near(self, file: File, node: ast.AST) -> bool:
        """Whether something stands in the function that makes the loader, or in a method of the same class."""
        around = [self.scope, *([self.file.owner(self.scope)] if isinstance(self.scope, Function) else [])]
        return file is self.file and any(each in around for each in file.ancestors(node))


def at_hand(code: Code, trial: Trial, cut: Cut, node: ast.expr) -> Place | None:
    """Where a loader is, or is to be made, whose length an expression can have."""
    if not cut.is_loaded(trial):
        return place_for(code, trial, cut, [node])
    file = code.files.of(node)
    statement = file.statement(node)
    name = text_of(trial, statement, lambda _, __, value: isinstance(value, Loader))
    if name is None and cut.node is not node:
        return None
    return Place(file, file.function(node) or file.module, statement, "", name or LOADER, name or LOADER)


def place_for(code: Code, trial: Trial, cut: Cut, needing: Sequence[ast.expr]) -> Place | None:
    """Where a loader is to be made for a cut, before what needs its length, if anything does."""
    file = cut.file if not needing else code.files.of(needing[0])
    scope = file.function(needing[0]) or file.module if needing else _once(trial, cut)
    if scope is None:
        return None
    first = [each for each in needing if (file.function(each) or file.module) is scope]
    own = file.owner(scope) if isinstance(scope, Function) else None
    there = cut.function
    is_near = there is scope or scope in cut.file.ancestors(there)
    if is_near and _runs_once(trial, scope):
        return _local(code, trial, file, scope, cut, first)
    if own is not None and isinstance(there, Function) and cut.file.owner(there) is own:
        return _attribute(trial, file, own, scope, cut, first)
    return _handed(code, trial, file, scope, cut, first) if _runs_once(trial, scope) else None


def _runs_once(trial: Trial, scope: ast.AST) -> bool:
    return isinstance(scope, ast.Module) or all(player.runs.get(scope) == 1 for _, player in trial.tries)


def _once(trial: Trial, cut: Cut) -> ast.AST | None:
    """The function that is run once in a run, in which rows are cut, or the run's own."""
    around = [each for each in cut.file.ancestors(cut.node) if isinstance(each, Function)]
    return next((each for each in around if _runs_once(trial, each)), trial.start.node)


def _top(file: File, scope: ast.AST, *nodes: ast.AST) -> ast.stmt | None:
    """The first statement of a scope's own block in which one of some nodes stands."""
    body: list[ast.stmt] = scope.body  # type: ignore[attr-defined]
    return next((each for each in body if any(is_within(file, node, each) for node in nodes)), None)


def _local(code: Code, trial: Trial, file: File, scope: ast.AST, cut: Cut, first: Sequence[ast.expr]) -> Place | None:
    body: list[ast.stmt] = scope.body  # type: ignore[attr-defined]
    holder = file.statement(cut.node) if cut.file is file else None
    top = _top(file, scope, *first, cut.node)
    if top is None:
        return None
    rows = text_of(trial, top, is_all_rows(trial)) or _data_set(trial, top, cut)
    if rows is None:
        return None
    match holder:
        case ast.Assign([ast.Name(name), *_], value) if value is cut.node and holder in body[: body.index(top) + 1]:
            return Place(file, scope, holder, rows, name, name, own=holder)
    reading = scope_of(code, cut.file, cut.node, DEEP)
    found = slicing(cut) if cut.is_slice else None
    node = _range_in(cut, found[0]) if found is not None and isinstance(found[0], ast.For) else cut.node
    known = reading.values.get(node) if not cut.is_slice or node is not cut.node else None
    gone = spent(reading, [node], [known]) if known is not None else []
    return Place(file, scope, top, rows, LOADER, LOADER, gone=[*gone, *_feeding(trial, scope, cut)])


def _data_set(trial: Trial, top: ast.stmt, cut: Cut) -> str | None:
    """The text of a loader's data set, if all its names mean the same in front of a statement."""
    made = cut.loader.made if cut.loader is not None else None
    if not isinstance(made, ast.Call) or not is_within(cut.file, made, cut.function):
        return None
    named = [each.value for each in made.keywords if each.arg == "dataset"]
    data_set = next(iter([*made.args[:1], *named]))
    _, player = trial.tries[0]
    names = [
        each for each in walk(data_set) if isinstance(each, ast.Name) and each.id in cut.file.scopes[cut.function].bound
    ]
    known = player.before[top][1] if top in player.before else {}
    is_all = cut.loader is not None and not cut.loader.settings.get("drop_last")
    is_known = all(each.id in known and known[each.id] in player.values.get(each, []) for each in names)
    return cut.file.text(data_set) if is_all and is_known else None


def _feeding(trial: Trial, scope: ast.AST, cut: Cut) -> list[ast.stmt]:
    """The loaders of a scope that only the cut goes through."""
    _, player = trial.tries[0]
    found: list[ast.stmt] = []
    for each in walk(scope):
        match each:
            case ast.Assign([ast.Name(name) as target, *_], value) if isinstance(
                player.values.get(value, [None])[0], Loader
            ):
                uses = [use for use in walk(scope) if getattr(use, "id", "") == name and use is not target]
                found += [each] if all(is_within(cut.file, use, cut.node) for use in uses) else []
    return found


def _attribute(
    trial: Trial, file: File, own: ast.ClassDef, scope: ast.AST, cut: Cut, first: Sequence[ast.expr]
) -> Place | None:
    """An attribute that is set where the rows become known: before what needs its length, or where they are kept."""
    there = cut.function
    assert isinstance(there, Function)
    name = f"{parameters(there.args)[0].arg}.{LOADER}"
    top = _top(file, scope, *first) if first and _runs_once(trial, scope) else None
    rows = text_of(trial, top, is_all_rows(trial)) if top is not None else None
    if top is not None and rows is not None:
        return Place(file, scope, top, rows, name, name)
    for method in own.body:
        if isinstance(method, Function) and _runs_once(trial, method):
            for before, behind in zip(method.body, method.body[1:], strict=False):
                rows = text_of(trial, behind, is_all_rows(trial))
                if rows is not None and "." in rows and rows.startswith(f"{parameters(method.args)[0].arg}."):
                    return Place(file, method, before, rows, name, name, is_behind=True)
    return None


def _handed(code: Code, trial: Trial, file: File, scope: ast.AST, cut: Cut, first: Sequence[ast.expr]) -> Place | None:
    """An argument that was the rows: the function that cuts them is called from here, with them as they are."""
    there = cut.function
    if not isinstance(there, Function):
        return None
    read = {each.id for each in walk(cut.node) if isinstance(each, ast.Name)}
    found = slicing(cut) if cut.is_slice else None
    own = [cut.node, *([found[0].iter] if found is not None and isinstance(found[0], ast.For) else [])]
    calls = _calls_of(code, there)
    for call in [each for other, each in calls or () if other is file and is_within(file, each, scope)]:
        for name, value in _given(there, call).items():
            is_rows = all(v and all(each == trial.all_rows(p) for each in v) for _, p, v in trial.everywhere(value))
            uses = [each for each in walk(there) if isinstance(each, ast.Name) and each.id == name]
            others = [(other, _given(there, each).get(name)) for other, each in calls or () if each is not call]
            is_alone = all(value is not None for _, value in others) and (not others or _splits(cut, name))
            is_own = all(any(is_within(cut.file, each, outer) for outer in own) for each in uses)
            if is_rows and is_alone and name in read and is_own:
                top = _top(file, scope, *first, call)
                rows = text_of(trial, top, is_all_rows(trial)) if top is not None else None
                if top is not None and rows is not None:
                    more = [(o, v, f"{o.text(v)}.split({trial.size})") for o, v in others if v is not None]
                    return Place(file, scope, top, rows, LOADER, name, arguments=[(file, value, LOADER), *more])
    return None


def _calls_of(code: Code, function: Function) -> list[tuple[File, ast.Call]] | None:
    """Every call of a function, by its name; None if it is used in another way too."""
    found = []
    for file in code.files.naming(function.name):
        for node in (each for each in file.uses.get(function.name, ()) if may_be_it(file, each)):
            call = file.parents[node]
            around = (file.scopes[each] for each in file.ancestors(node) if isinstance(each, Function))
            if any(function not in scope.bound.get(function.name, [function]) for scope in around):
                continue  # another thing of that name
            if not isinstance(call, ast.Call) or call.func is not node:
                return None
            found.append((file, call))
    return found


def _given(function: Function, call: ast.Call) -> dict[str, ast.expr]:
    names = [each.arg for each in parameters(function.args) if each.arg != "self"]
    return {**dict(zip(names, call.args, strict=False)), **{k.arg: k.value for k in call.keywords if k.arg}}


def _splits(cut: Cut, name: str) -> bool:
    """Whether a cut is a plain split of what has a name, which is the same of an argument."""
    func = cut.node.func if isinstance(cut.node, ast.Call) else None
    return isinstance(func, ast.Attribute) and func.attr == "split" and getattr(func.value, "id", "") == name


def problems(trial: Trial, cut: Cut, place: Place, size: str) -> Iterator[str]:
    """Why a loader of shuffled rows could not stand for the rows as they are cut."""
    said = cut.loader.settings if cut.loader is not None else {}
    if cut.asked & {"sorted", "reversed", "zip"} or set(said) & _OF_ORDER or len(trial.row_names) > 1:
        yield "they pass through something that a loader of shuffled rows cannot: go through them alone"
    for sizes, player in trial.tries:
        batches = [each.marks for each in trial.all_rows(player).split(sizes.size)]
        learned = [what for kind, what, _ in player.done if kind == "backward"]
        many = sizes.accumulated  # what a loss weighs may be of all its group
        wanted = [(each, frozenset().union(*batches[n - n % many :][:many])) for n, each in enumerate(batches)]
        if len(learned) < len(wanted) or any(what not in each for what, each in zip(learned, wanted, strict=False)):
            yield "they pass through something that a loader of shuffled rows cannot: go through them alone"
    if any(player.counted for _, player in trial.tries):
        yield "the loop's counter finds rows by their place, and they come shuffled: zip them into one data set"
    if cut.is_slice and slicing(cut) is None:
        yield "each is cut by a place that is needed for more, or late in a turn: take them from rows.split"
    if is_listed(cut) and not cut.is_of_an_epoch:
        yield "they are read elsewhere too, and a loader has no rows to index"
    going = {id(each) for outer in (*place.gone, cut.node) for each in walk(outer)}
    names = {each.id for each in walk(place.scope) if isinstance(each, ast.Name) and id(each) not in going}
    if place.own is None and place.name == LOADER and LOADER in names:
        yield f"the name {LOADER} is taken: rename yours"
    own = text_of(trial, place.at, lambda sizes, _, value: value == sizes.size) if "size" in trial.roles else None
    if own is None and trial.roles.get("size", "") in trial.kinds:
        yield "their size is known elsewhere alone: make it a number, or a parameter batch_size"
    if own is not None and own != size:
        yield f"their size is {own}: make it a number, or a parameter batch_size"


def is_listed(cut: Cut) -> bool:
    """Whether micro-batches are asked for more than to be gone through and counted."""
    return bool(cut.asked - {"each", "len"})


def loaded(tree: SourceTree, place: Place, cut: Cut, loads: str) -> Iterator[Edit]:
    """Make a loader, and let it stand for the rows as they are cut."""
    source, there = tree.source(place.file.path), tree.source(cut.file.path)
    if place.own is not None:
        yield rewrite(source, source.at(place.own.value), lambda _: loads)  # type: ignore[arg-type]
        return
    insert = insert_after if place.is_behind else insert_before
    yield insert(source, source.at(place.at), f"{place.name} = {loads}")
    for each in place.gone:
        yield Edit(source, source.at(each), lambda _: cst.RemoveFromParent())
    for file, value, text in place.arguments:
        yield _rewritten(tree, file, value, text)
    if place.arguments:
        hints = [each.annotation for each in parameters(cut.function.args) if each.arg == place.there]  # type: ignore[attr-defined]
        if hints[0] is not None and cut.file is place.file:
            old = cut.file.text(hints[0])
            hint = f"tuple[{old}, ...] | DataLoader" if len(place.arguments) > 1 else "DataLoader"
            yield _rewritten(tree, cut.file, hints[0], hint)
    if cut.is_slice:
        yield from _unsliced(there, cut, place.there)
        return
    text = f"list({place.there})" if is_listed(cut) else place.there
    if text != cut.file.text(cut.node):
        yield rewrite(there, there.at(cut.node), lambda _: text)  # type: ignore[arg-type]


def _rewritten(tree: SourceTree, file: File, node: ast.expr, text: str) -> Edit:
    source = tree.source(file.path)
    return rewrite(source, source.at(node), lambda _: text)  # type: ignore[arg-type]


def slicing(cut: Cut) -> tuple[ast.For | ast.While, ast.stmt, str, set[str]] | None:
    """The loop of a slice, its statement, its name and those of its place; None if that is needed for more."""
    file, statement, scope = cut.file, cut.file.statement(cut.node), cut.function
    loop = file.parents[statement]
    if not isinstance(loop, (ast.For, ast.While)) or statement not in loop.body:
        return None
    name = getattr(statement.targets[0], "id", "batch") if isinstance(statement, ast.Assign) else "batch"
    earlier = loop.body[: loop.body.index(statement)]
    is_first = not earlier or (isinstance(loop, ast.For) and not _named([name], earlier))
    starts = {each.id for each in walk(cut.node) if isinstance(each, ast.Name)} & _stepped(cut, loop)
    others = [e for e in walk(scope) if isinstance(e, ast.For) and e is not loop and not is_within(file, loop, e)]
    apart = [part for e in others if len(_named(starts, [e.target])) == len(starts) for part in (e.target, *e.body)]
    allowed: list[ast.AST] = [cut.node, *apart]
    allowed += [loop.target] if isinstance(loop, ast.For) else [loop.test, *_counting(file, loop, starts)]
    own = file.scopes[scope]
    uses = [u for u in _named(starts, [scope]) if file.scopes[file.function(u) or file.module].owner(u.id) is own]
    is_new = name not in own.bound or bool(_named([name], [statement]))
    is_only = bool(starts) and is_new and all(any(is_within(file, use, each) for each in allowed) for use in uses)
    return (loop, statement, name, starts) if is_only and is_first else None


def _named(names: Collection[str], nodes: Sequence[ast.AST]) -> list[ast.Name]:
    """Where some names stand."""
    return [each for node in nodes for each in walk(node) if isinstance(each, ast.Name) and each.id in names]


def _stepped(cut: Cut, loop: ast.For | ast.While) -> set[str]:
    if isinstance(loop, ast.For):
        is_plain = isinstance(loop.target, ast.Name) or _range_in(cut, loop) is not loop.iter
        return {each.id for each in walk(loop.target) if isinstance(each, ast.Name)} if is_plain else set()
    return {
        each.target.id for each in loop.body if isinstance(each, ast.AugAssign) and isinstance(each.target, ast.Name)
    }


def _range_in(cut: Cut, loop: ast.For) -> ast.expr:
    """The one range that a loop goes through, or what is called so, whatever comes with each number of it; else all."""
    made = [each for each in walk(cut.function) if isinstance(each, ast.Assign) and any(_ranges(each.value))]
    names = {getattr(target, "id", "") for each in made for target in each.targets}
    found: list[ast.expr] = [*_ranges(loop.iter)] or [*_named(names, [loop.iter])]
    return found[0] if len(found) == 1 else loop.iter


def _ranges(node: ast.AST) -> Iterator[ast.Call]:
    return (each for each in walk(node) if isinstance(each, ast.Call) and getattr(each.func, "id", "") == "range")


def _counting(file: File, loop: ast.While, names: set[str]) -> list[ast.stmt]:
    """The statements that begin and step the counter of a loop."""
    block = next(value for value in vars(file.parents[loop]).values() if isinstance(value, list) and loop in value)
    begin = [
        each
        for each in block[: block.index(loop)]
        if isinstance(each, ast.Assign) and len(each.targets) == 1 and getattr(each.targets[0], "id", "") in names
    ]
    step = [each for each in loop.body if isinstance(each, ast.AugAssign) and getattr(each.target, "id", "") in names]
    return [*begin, *step]


def _unsliced(source: Source, cut: Cut, loader: str) -> Iterator[Edit]:
    found = slicing(cut)
    assert found is not None
    loop, statement, name, starts = found
    if isinstance(loop, ast.For):
        yield rewrite(source, source.at(_range_in(cut, loop)), lambda _: loader)  # type: ignore[arg-type]
        for place in (each for each in walk(loop.target) if getattr(each, "id", "") in starts):
            yield rewrite(source, source.at(place), lambda _: name)  # type: ignore[arg-type]
    else:
        for each in _counting(cut.file, loop, starts):
            yield Edit(source, source.at(each), lambda _: cst.RemoveFromParent())
        yield Edit(source, source.at(loop), as_for(source, name, loader))
    if isinstance(statement, ast.Assign) and statement.value is cut.node:
        yield Edit(source, source.at(statement), lambda _: cst.RemoveFromParent())
    else:
        yield rewrite(source, source.at(cut.node), lambda _: name)  # type: ignore[arg-type]
