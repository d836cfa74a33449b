"""Take tasks back: replay the originals without them, and merge in what was edited by hand since.

Three texts of each file decide: what bitpatch last wrote, what lies on disk, and what it would have written
without the tasks. Where only one of the latter two differs from the first, it is right; where both do, and
differently, the revert is refused.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from ..files.nesting import parsed
from ..known import task_named
from ..reading.source import Source
from ..reading.tree import SourceTree
from ..task import (
    BitpatchError,
    Change,
    Outcome,
    Plan,
    Site,
    State,
    Task,
    TaskOutcome,
    TaskStatus,
    Unparsable,
    Unreadable,
)
from .engine import plan, status
from .merge import Conflict, merge, same_line
from .originals import Originals, Remembered, load
from .settling import meant_lines
from .skips import MARK
from .survey import survey

_BY_HAND = "take it out by hand, or go back with the tree's own history (git)"


class _Refusal(BitpatchError):
    """Why tasks cannot be taken back, and the sites that say so."""

    def __init__(self, reason: str, sites: Sequence[Site] = ()) -> None:
        super().__init__(reason)
        self.sites = tuple(sites)


def plan_apply(
    tree: SourceTree, tasks: Sequence[Task], *, tell: Callable[[str], None], keep_going: bool = False
) -> tuple[Plan, Originals | None]:
    """What applying tasks would do, and what to remember for a later revert: None leaves that as it is."""
    planned = plan(tree, tasks, quick=True, keep_going=keep_going)
    if not planned.changes:
        return planned, None
    try:
        return planned, remember(tree, load(tree.root), planned)
    except BitpatchError as error:
        tell(f"warning: {error}; until then, a revert of this will be refused")
        return planned, None


def plan_revert(
    tree: SourceTree, originals: Originals, tasks: Sequence[Task], *, every: bool = False
) -> tuple[Plan, Originals]:
    """What taking tasks back would do: all of it, or nothing if one is refused; and what is left to remember.

    With `every`, a task that bitpatch did not apply is left alone where anything else is remembered.
    """
    outcomes = tuple(_decide(found, originals, every=every) for found in _states(tree, tasks, originals, every=every))
    gone = [outcome.task for outcome in outcomes if outcome.outcome is Outcome.REVERTED]
    changes: list[Change] = []
    try:
        if gone and not Plan(outcomes).refused:
            changes, originals = _take_back(tree, originals, gone)
    except Unreadable:
        raise
    except BitpatchError as error:
        sites = error.sites if isinstance(error, _Refusal) else ()
        refused = [
            TaskOutcome(outcome.task, Outcome.REFUSED, str(error), sites) if outcome.task in gone else outcome
            for outcome in outcomes
        ]
        return Plan(tuple(refused)), originals
    absent = {outcome.task.id for outcome in outcomes if outcome.outcome is Outcome.NOT_APPLIED}
    return Plan(outcomes, tuple(changes)), Originals() if originals.tasks <= absent else originals


def _states(tree: SourceTree, tasks: Sequence[Task], originals: Originals, *, every: bool) -> list[TaskStatus]:
    """How far the tree holds each task; unknown where a file does not parse, and where nobody asks."""
    known = {}
    asked = [task for task in tasks if task.id in originals.tasks or not (every and originals.tasks)]
    try:
        known = {found.task: found for found in survey(tree, asked)}
    except Unparsable:
        for task in asked:
            with contextlib.suppress(Unparsable):
                known[task] = survey(tree, [task])[0]
    return [known.get(task, TaskStatus(task, State.UNRECOGNISED, ())) for task in tasks]


def _decide(found: TaskStatus, originals: Originals, *, every: bool) -> TaskOutcome:
    task, sites = found.task, tuple(each.site for each in found.findings if each.state is State.APPLIED)
    if found.state is State.MISSING:
        return TaskOutcome(task, Outcome.NOT_APPLIED, "", ())
    if task.id in originals.tasks:
        return TaskOutcome(task, Outcome.REVERTED, "", sites)
    reason = (
        f"{task.id}: there are no originals to go back to: bitpatch did not apply it to this tree at this place "
        f"(patched by hand, perhaps, or moved since); {_BY_HAND}"
    )
    left_alone = every and (originals.tasks or found.state is State.UNRECOGNISED)
    return TaskOutcome(task, Outcome.NOT_APPLIED if left_alone else Outcome.REFUSED, reason, sites)


def _take_back(tree: SourceTree, originals: Originals, gone: Sequence[Task]) -> tuple[list[Change], Originals]:
    if originals.blocked:
        raise _Refusal(f"{originals.blocked}; {_BY_HAND}")
    left = originals.tasks - {task.id for task in gone}
    replayed = replay(tree, originals, left)
    after, refusals, sites = {}, [], []
    present = {path: file for path, file in originals.files.items() if path in tree.paths}
    for path, file in present.items():
        after[path], conflicts = merge(file.written, tree.raw(path), replayed[path])
        refusals += [_explain(path, conflict) for conflict in conflicts]
        sites += [_site(path, conflict.line, 1, "edited by hand since bitpatch wrote it") for conflict in conflicts]
    if sites:
        raise _Refusal("\n".join(refusals), sites)
    _require_nothing_dangles(tree, originals, after, replayed)
    if len(present) < len(originals.files):
        _require_taken_out(tree, after, gone)
    changes = [Change(path, tree.raw(path), raw) for path, raw in sorted(after.items()) if raw != tree.raw(path)]
    files = {path: Remembered(file.original, replayed[path]) for path, file in originals.files.items()}
    at = {task: lines for task, lines in originals.at.items() if task in left}
    return changes, replace(originals, tasks=left, files=files, at=at)


def replay(tree: SourceTree, originals: Originals, tasks: Collection[str]) -> Mapping[str, bytes]:
    """The remembered files as they would be had only these tasks been applied; raises BitpatchError if one refuses."""
    texts = [text for file in originals.files.values() for text in (file.original, file.written)]
    is_settled = bool(originals.at) or any(MARK in text for text in texts)  # then lines of the originals decide
    before = replace(
        tree,
        paths=tuple(path for path in originals.paths if path in tree.paths or path in originals.files),
        model_path=originals.model_path,
        training_path=originals.training_path,
        sources={
            path: _parsed(path, file.original, tree.raw(path) if path in tree.paths and not is_settled else None)
            for path, file in originals.files.items()
        },
        at={task: lines for task, lines in originals.at.items() if task in tasks},
    )
    try:
        planned = plan(before, [task_named(name) for name in sorted(tasks)])
    except KeyError as error:
        raise _Refusal(f"another version of bitpatch applied tasks here: {error.args[0]}") from None
    for outcome in planned.outcomes:
        if outcome.outcome is Outcome.REFUSED:
            raise _Refusal(f"{outcome.task.id} would not apply to the originals alone: {outcome.reason}", outcome.sites)
    changed = {change.path: change.after for change in planned.changes}
    return {path: changed.get(path, file.original) for path, file in originals.files.items()}


@lru_cache(maxsize=64)
def _parsed(path: str, raw: bytes, origin: bytes | None) -> Source:
    return Source(path, raw, origin=origin)


def remember(tree: SourceTree, originals: Originals, planned: Plan) -> Originals:
    """What to remember once a plan is applied; what was edited by hand before becomes part of the originals."""
    applied = {outcome.task.id for outcome in planned.outcomes if outcome.outcome is Outcome.APPLIED}
    older = originals
    if by_hand := any(p not in tree.paths or tree.raw(p) != f.written for p, f in originals.files.items()):
        still_there = frozenset(name for name in originals.tasks if not _is_missing(tree, name))
        originals = replace(originals, tasks=still_there) if still_there else Originals()
    changed = {change.path: change.after for change in planned.changes}
    files = {path: Remembered(tree.raw(path), after) for path, after in changed.items()}
    blocked = originals.blocked
    for path, file in originals.files.items():
        files[path] = file
        if path in tree.paths:
            original, conflicts = merge(file.written, tree.raw(path), file.original)
            files[path] = Remembered(file.original if conflicts else original, changed.get(path, tree.raw(path)))
            blocked = blocked or "".join(_blocked(path, conflict.line) for conflict in conflicts[:1])
    known = Originals(
        tasks=originals.tasks | applied,
        paths=tuple(dict.fromkeys((*tree.paths, *files))),
        model_path=tree.model_path,
        training_path=tree.training_path,
        files=files,
        blocked=blocked,
        waiting=originals.waiting | frozenset(_waiting(tree, planned)),
        at=meant_lines(tree, older, files, originals.tasks | applied, applied),
    )
    if ((by_hand and originals.tasks) or known.at) and not blocked:
        return replace(known, blocked=_difference(tree, known))
    return known


def _is_missing(tree: SourceTree, name: str) -> bool:
    try:
        return status(tree, [task_named(name)])[0].state is State.MISSING
    except KeyError:  # another version's task
        return False


def _difference(tree: SourceTree, known: Originals) -> str:
    """Where a replay would not give what was written, if it does not."""
    try:
        replayed = replay(tree, known, known.tasks)
    except BitpatchError as error:
        return str(error)
    for path, file in known.files.items():
        if path not in tree.paths:
            continue
        pairs = zip(file.written.splitlines(), replayed[path].splitlines(), strict=False)
        if file.written != replayed[path]:
            return _blocked(path, next((n for n, (a, b) in enumerate(pairs, 1) if a != b), 1))
    return ""


def _blocked(path: str, line: int) -> str:
    return f"{path}:{line}: edited by hand where bitpatch had written, and then patched again"


def _site(path: str, line: int, column: int, note: str) -> Site:
    return Site(path, note, lambda: (line, column))


def _explain(path: str, conflict: Conflict) -> str:
    mine, other = (_quoted(side) for side in (conflict.ours, conflict.theirs))
    return (
        f"{path}:{conflict.line}: edited by hand since bitpatch wrote it; it reads\n{mine}\n"
        f"and the revert wants\n{other}\n"
        "make these lines what the revert wants, or put back what bitpatch wrote; then run the command again"
    )


def _quoted(raw: bytes, most: int = 6) -> str:
    lines = raw.decode(errors="replace").splitlines()
    more = [f"    ... {len(lines) - most} lines more"] if len(lines) > most else []
    return "\n".join([f"    | {line}" for line in lines[:most]] + more) or "    | (nothing)"


def _waiting(tree: SourceTree, planned: Plan) -> Iterator[tuple[str, str]]:
    """Which files use a name, or a parameter, that a plan is about to bring: they wait for it, and may do so again."""
    for change in planned.changes:
        brought = _gone(change.path, change.after, change.before)
        for place in tree.contents:
            for _, _, name in _missed(place, tree.raw(place), change.path, *brought):
                yield place, name


def _require_nothing_dangles(
    tree: SourceTree, originals: Originals, after: Mapping[str, bytes], replayed: Mapping[str, bytes]
) -> None:
    """Refuse to take away a name or a parameter that code uses which was written since."""
    texts = {path: after.get(path) or tree.raw(path) for path in tree.paths if path not in tree.unrelated}
    by_hand = {path: text for path, text in texts.items() if text != replayed.get(path, b"")}
    missed = []
    for path, raw in after.items():
        if raw != tree.raw(path):
            brought = _gone(path, tree.raw(path), raw)
            for place, text in by_hand.items():
                for line, column, name in _missed(place, text, path, *brought):
                    if (place, name) not in originals.waiting:
                        line_now = same_line(text, tree.raw(place), line)
                        missed.append(_site(place, line_now, column, f"{name} is used here, and would be gone"))
    if missed:
        raise _Refusal("\n".join([*map(str, missed), "take those uses out, then run the command again"]), missed)


def _gone(path: str, now: bytes, then: bytes) -> tuple[set[str], set[tuple[str, str]]]:
    """The names that one text of a file binds and another does not, and the parameters."""
    more, less = _syntax(path, now), _syntax(path, then)
    return _bound(more) - _bound(less) - set(dir(builtins)), _parameters(more) - _parameters(less)


def _missed(
    place: str, text: bytes, path: str, gone: set[str], lost: set[tuple[str, str]]
) -> Iterator[tuple[int, int, str]]:
    """Where the code of one file uses a name that another, or itself, is to lose."""
    module = os.path.splitext(os.path.basename(path))[0]
    words = {parameter for _, parameter in lost} | (gone if os.fsencode(module) in text else set())
    uses = _uses(text) if place == path or any(word.encode() in text for word in words) else None
    if uses is None:  # or it does not parse: nothing runs it
        return
    lost = lost - uses.own if place != path else lost
    found = [(at, name) for name in gone for at in uses.imports.get((module, name), ())]
    found += [(at, called[1]) for called in lost for at in uses.keywords.get(called, ())]
    found += [(at, name) for name in gone if place == path for at in uses.names.get(name, ())]
    for (line, column), name in sorted(found):
        yield line, column, name


class _Uses(NamedTuple):
    """Where a file uses names, imports them, and calls with keywords; and the parameters that are its own."""

    names: Mapping[str, list[tuple[int, int]]]
    imports: Mapping[tuple[str, str], list[tuple[int, int]]]  # by the module's last name, and the name
    keywords: Mapping[tuple[str, str], list[tuple[int, int]]]  # by the function's name, and the keyword
    own: set[tuple[str, str]]


@lru_cache(maxsize=256)
def _uses(text: bytes) -> _Uses | None:
    try:
        syntax = parsed(text)
    except (SyntaxError, ValueError):
        return None
    uses = _Uses(defaultdict(list), defaultdict(list), defaultdict(list), _parameters(syntax))
    for node in ast.walk(syntax):
        at = (getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1)
        if isinstance(node, ast.Name):
            uses.names[node.id].append(at)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                uses.imports[(node.module or "").split(".")[-1], alias.name].append(at)
        elif isinstance(node, ast.Call):
            function = str(getattr(node.func, "attr", None) or getattr(node.func, "id", ""))
            for keyword in node.keywords:
                if keyword.arg:
                    uses.keywords[function, keyword.arg].append(at)
    return uses


def _syntax(path: str, raw: bytes) -> ast.Module:
    try:
        return parsed(raw)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise _Refusal(f"{path}:{line}:1: does not parse as merged with what was edited by hand; {_BY_HAND}") from None


def _bound(module: ast.Module) -> set[str]:
    """Every name that a file binds: definitions, arguments, imports, assignments."""
    names = set()
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
    return names


def _parameters(module: ast.Module) -> set[tuple[str, str]]:
    """Each function, or class by its __init__, with each parameter that a keyword may name."""
    found: set[tuple[str, str]] = set()
    classes: dict[ast.stmt, str] = {}
    for node in ast.walk(module):  # a class comes before what is in it
        if isinstance(node, ast.ClassDef):
            classes |= {inner: node.name for inner in node.body if getattr(inner, "name", "") == "__init__"}
        elif isinstance(node, ast.FunctionDef):
            name = classes.get(node, node.name)
            found |= {(name, arg.arg) for arg in (*node.args.args, *node.args.kwonlyargs)}
    return found


def _require_taken_out(tree: SourceTree, after: Mapping[str, bytes], gone: Sequence[Task]) -> None:
    """Refuse where a file that bitpatch patched was moved: what it wrote would go on living elsewhere."""
    for path, raw in after.items():
        tree = tree.with_source(Source(path, raw, origin=tree.raw(path)))
    for found in status(tree, gone):
        for finding in found.findings:
            if finding.state is State.APPLIED:
                raise _Refusal(
                    f"{finding.site}: {found.task.id} would still be there; a file that bitpatch patched was moved or "
                    f"deleted since. Move it back, then run the command again",
                    [finding.site],
                )
