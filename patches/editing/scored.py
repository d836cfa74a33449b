"""How a scope writes what a loss is a mean over, where it learns from it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..reading.files import Function, is_test
from ..reading.frames import Reading
from ..reading.groups import ignored, is_plain, means, pads, unlaid
from ..reading.nodes import walk
from ..reading.source import Source
from ..reading.tree import SourceTree
from ..reading.turns import is_number
from ..reading.updates import Update, reading_of, updates_of_runs
from ..reading.values import Value
from ..task import Edit, Finding, mend, near_miss
from .edits import operand, rewrite
from .handed import is_call, other_uses
from .spelling import written

WEIGHED = "backward of a micro-batch's loss"
_ELSEWHERE = "its targets are made in"
PADDING = ("masked_fill", "pad_sequence")  # what fills rows up, where a loss is not seen to


class Scored(NamedTuple):
    """Code that counts what a loss is a mean over, what forbids to count it, and the edits that it needs elsewhere."""

    text: str
    problem: str = ""
    edits: tuple[Edit, ...] = ()
    paths: frozenset[str] = frozenset()  # of the files that are to have the function that counts


def scored(tree: SourceTree, update: Update, names: tuple[str, str], known: int, batch: Sequence[ast.Name]) -> Scored:
    """How a scope counts what a loss is a mean over.

    The names are those of a function that counts the targets that are not `known`, and of what a function that makes
    a loss counts. A loss that is not seen to be a cross-entropy is taken for a mean over the rows of a micro-batch,
    whose names these are, unless the file pads them.
    """
    reading, found = update.reading, means(update.loss)
    if not found:
        return _rows(update, batch)
    here = _counted(reading, update.backward, update.loss, names[0], known)
    return (_beside(tree, update, names, known) if here.problem.startswith(_ELSEWHERE) else None) or here


def _counted(reading: Reading, at: ast.AST, loss: Value, count: str, known: int) -> Scored:
    """What a loss is a mean over, as it is written in a scope."""
    found = means(loss)
    if not all(map(is_plain, found)):
        return Scored("", "it is no plain mean over its targets")
    texts = list(dict.fromkeys(_written(reading, at, mean, count, known) for mean in found))
    if None in texts:
        around = next((reading.file.function(each.at.node) for each in found if each.at is not None), None)
        made = getattr(around, "name", "the model") if around is not reading.node else "another place"
        return Scored("", f"{_ELSEWHERE} {made}: hand them to it")
    if len(texts) > 1:
        return Scored("", f"it is made of several means, over {' and '.join(map(str, texts))}: give them one")
    text = str(texts[0]) if texts else ""
    paths = frozenset({reading.file.path} if text.startswith(f"{count}(") else ())
    return Scored(text, "" if text else "it is no mean that is seen", (), paths)


def _beside(tree: SourceTree, update: Update, names: tuple[str, str], known: int) -> Scored | None:
    """Let the function that makes a loss return what it is a mean over beside it; None where it cannot."""
    reading, source = update.reading, tree.source(update.reading.file.path)
    call = next((each for each in update.runs if reading.values[each].key == update.loss.key), None)
    statement = reading.file.statement(call) if call is not None else None
    inner = reading_of(tree.code, reading.calls[call]) if call is not None and call in reading.calls else None
    if inner is None or call is None or not isinstance(inner.node, Function) or not _is_free(tree, inner, call):
        return None
    match statement:
        case ast.Assign(targets=[ast.Name() as target], value=value) if value is call:
            edits = [rewrite(source, source.at(target), _with(names[1]))]  # type: ignore[arg-type]
        case _:
            return None
    there, paths = tree.source(inner.file.path), set[str]()
    for each in (node for node in walk(inner.node) if isinstance(node, ast.Return)):
        own = inner.values.get(each.value) if each.value is not None else None
        made = _counted(inner, each, own, names[0], known) if own is not None and own.op != "tuple" else None
        if made is None or made.problem or inner.file.function(each) is not inner.node:
            return None
        paths |= made.paths
        edits.append(rewrite(there, there.at(each.value), _with(made.text)))  # type: ignore[arg-type]
    for scope, node in other_uses(tree.code, inner, call):
        user = tree.source(scope.file.path)
        edits.append(rewrite(user, user.at(scope.file.parents[node]), "{}[0]".format))  # type: ignore[arg-type]
    if (hint := inner.node.returns) is not None:
        edits.append(rewrite(there, there.at(hint), "tuple[{}, int]".format))  # type: ignore[arg-type]
    is_taken = reading.file.scopes[reading.node].is_taken(names[1])
    return None if is_taken else Scored(names[1], "", tuple(edits), frozenset(paths))


def _with(text: str) -> Callable[[str], str]:
    return lambda code: f"{code}, {text}"


def _is_free(tree: SourceTree, made: Reading, call: ast.Call) -> bool:
    """Whether all that use a function call it, out of tests and of other runs, and nothing stands for it."""
    files, node = tree.code.files, made.node
    assert isinstance(node, Function)
    runs = {each for update in updates_of_runs(tree.code) for each in update.runs if each is not call}
    others = other_uses(tree.code, made, call)
    is_called = all(is_call(scope, use) and scope.file.parents[use] not in runs for scope, use in others)
    named = [
        each for file in map(files.file, files.paths) if file for each, _ in file.functions if each.name == node.name
    ]
    is_alone = made.file.owner(node) is None or len(named) == 1
    is_tested = any(is_test(each.path) for each in files.naming(node.name))
    return is_called and is_alone and not is_tested and not node.decorator_list


def weighed(source: Source, update: Update, form: str, count: Scored) -> Finding:
    """Let a backward learn from a loss as it is in a form, if what it is a mean over is known."""
    call, values = update.backward, update.reading.values
    given = [*call.args, *(each.value for each in call.keywords)]
    receiver = call.func.value if isinstance(call.func, ast.Attribute) else None
    losses = [each for each in (receiver, *given) if each in values and values[each].key == update.loss.key]
    if len(losses) != 1 or losses[0] is None or (losses[0] is receiver and call.args):
        return near_miss(source.site(call, "backward call, but which of its operands is the loss cannot be told"))
    if count.problem:
        return near_miss(source.site(losses[0], f"loss of a micro-batch, but {count.problem}"))
    text = form.format(operand(source, source.at(losses[0])))
    text = f"({text})" if losses[0] is receiver else text
    weighs = rewrite(source, source.at(losses[0]), lambda _: text)  # type: ignore[arg-type]
    return mend(source.site(call, WEIGHED), [weighs, *count.edits])


def _written(reading: Reading, at: ast.AST, mean: Value, count: str, known: int) -> str | None:
    text, number = written(unlaid(mean["target"]), reading, reading.file.statement(at)), ignored(mean)
    if text is None:
        return None
    if number == known:
        return f"{count}({text})"
    node = _setting(reading, mean)
    ignore = ast.unparse(node) if node is not None else None if number is None else str(number)
    return f"int(({text} != {ignore}).sum())" if ignore is not None else None


def _setting(reading: Reading, mean: Value) -> ast.expr | None:
    """The name at a file's top by which a cross-entropy is told what to ignore."""
    call = mean.at.node if mean.at is not None and mean.at.file is reading.file else None
    found = (each.value for each in getattr(call, "keywords", ()) if each.arg == "ignore_index")
    node = next(found, None)
    return node if isinstance(node, ast.Name) and node.id in reading.file.scope.bound else None


def _rows(update: Update, batch: Sequence[ast.Name]) -> Scored:
    """The rows of a micro-batch that a loss is made of."""
    reading, parts = update.reading, list(update.loss.walk())
    if any(True for _ in pads(update.loss)) or any(name in reading.file.uses for name in PADDING):
        return Scored(
            "", "rows are padded here, and it is not seen which targets it is a mean over: call cross_entropy here"
        )
    keys = {each.key for each in parts}
    fields = {each["of"].key for each in parts if each.op == "part"}
    fields |= {each["input"].key for each in parts if each.op == "index" and each.get("0", each).is_const()}  # type: ignore[union-attr]
    env = reading.before.get(reading.file.statement(update.backward), {})
    for name in batch:
        rows = unlaid(env[name.id]) if name.id in env else None
        if rows is None or rows.key != reading.values[name].key or is_number(rows):
            continue
        if rows.key in keys - fields:
            return Scored(f"len({name.id})")
    return Scored("", "which targets it is a mean over is not seen: call cross_entropy here")
