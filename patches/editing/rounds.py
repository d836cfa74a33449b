"""Let a run that is started in rounds go on from what the one before has counted."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

import libcst as cst

from ..reading.clocks import Round, Step, rounds_of
from ..reading.files import File, Function
from ..reading.frames import Reading
from ..reading.nodes import walk
from ..reading.source import Source
from ..reading.tree import TRAIN_LOOP, SourceTree
from ..reading.turns import block_of
from ..task import Edit, Finding, mend, mended, near_miss
from .donor import donor, parameter
from .edits import BARE_EQUAL, expression, insert_after, insert_before, insert_item, parse_statement

_LOOPS = (ast.For, ast.AsyncFor, ast.While)


def going_on(
    tree: SourceTree,
    reading: Reading,
    owner: ast.ClassDef | None,
    clock: str,
    text: str,
    steps: Sequence[Step] = (),
) -> Iterator[Finding]:
    """Rounds that begin where the one before has ended.

    The run is a function's, or an object's if it has an owner; `clock` is its parameter, `text` what it counts with.
    """
    rounds = rounds_of(tree.code, reading.node, owner)
    nearest = {each.through[0][1]: each.through[0][0] for each in rounds if each.through and not each.is_returned}
    counted = {
        call: text for call, caller in nearest.items() if (text := _counted(reading, steps, caller, call, clock))
    }
    for call, kept in counted.items():
        site = (source := tree.source(nearest[call].file.path)).site(call, "training loop called in rounds")
        yield mended(site) if kept == clock else mend(site, [_given(source, call, clock, kept)])
    rounds = [each for each in rounds if not any(call in counted for _, call in each.through)]
    told = _told(reading, owner) if rounds else ""
    others = [each for each in rounds if not _is_given(each.call, clock)]
    for each in rounds:
        yield from _round(
            tree, each, clock, told, again=any(o is not each and o.caller.node is each.caller.node for o in others)
        )
        for between, call in each.through if each in others and each.is_returned else ():
            yield from _passed_through(tree, between, call, clock)
    record = _record(reading)
    if rounds and told == "record" and record is not None:
        yield _entered(tree.source(reading.file.path), record, clock, text)
    if others and told in ("tuple", "nothing"):
        yield from _returned(tree, reading, clock, told)


def _counted(run: Reading, steps: Sequence[Step], caller: Reading, call: ast.Call, clock: str) -> str:
    """Where the caller of a run sums up, of what its records say, the updates that it has made so far; or its clock."""
    if any(keyword.arg == clock for keyword in call.keywords):
        return clock
    statement, found = caller.file.statement(call), list[str]()
    history = ast.unparse(statement.targets[0]) if isinstance(statement, ast.Assign) else ""
    sums = {f"sum((each[{key!r}] for each in {history}))" for key in _counts(run, steps)}
    for node in (each for each in _own(caller) if isinstance(each, ast.AugAssign) and isinstance(each.op, ast.Add)):
        text = re.sub(r"\b(\w+)(\[.+\]) for \1 in ", r"each\2 for each in ", ast.unparse(node.value))
        is_kept = not isinstance(node.target, ast.Name) and node.lineno > statement.lineno
        found += [caller.file.text(node.target)] * (is_kept and re.sub(r" if .+ else 0$", "", text) in sums)
    every = [caller.file.text(each.target) for each in walk(caller.file.module) if isinstance(each, ast.AugAssign)]
    return found[0] if len(found) == 1 and every.count(found[0]) == 1 else ""


def _counts(run: Reading, steps: Sequence[Step]) -> Iterator[object]:
    """The keys under which a record of a run says how many updates it is of, by a list that grows with each."""
    record, file, blocks = _record(run), run.file, [step.block for step in steps if step.is_always]
    pairs = [(each.arg, each.value) for each in getattr(record, "keywords", ())]
    keys = zip(getattr(record, "keys", ()), getattr(record, "values", ()), strict=True)
    for key, value in [*pairs, *((getattr(each, "value", None), value) for each, value in keys)]:
        name = re.fullmatch(r"len\((\w+)\)", ast.unparse(value))
        named = [e for e in _own(run) if isinstance(e, ast.Name) and name is not None and e.id == name[1]]
        begins = [each for each in named if isinstance(each.ctx, ast.Store)]
        grows = [file.statement(each) for each in named if getattr(file.parents[each], "attr", "") == "append"]
        loops = [next((e for e in file.ancestors(n) if isinstance(e, _LOOPS)), None) for n in (record, *begins) if n]
        is_once = len(begins) == 1 and loops[0] is loops[1] and len(grows) == len(blocks) == len(steps)
        if is_once and all(each in block for each, block in zip(grows, blocks, strict=True)):
            yield key


def _is_given(call: ast.Call, clock: str) -> bool:
    return any(keyword.arg in (clock, None) for keyword in call.keywords)


def _own(reading: Reading) -> list[ast.AST]:
    """The nodes of a function's own text, those of functions in it left out."""
    inner = {id(n) for f in walk(reading.node) if isinstance(f, Function) and f is not reading.node for n in walk(f)}
    return [each for each in walk(reading.node) if id(each) not in inner]


def _told(reading: Reading, owner: ast.ClassDef | None) -> str:
    """How a run can tell what it has counted: in a "record", an element of a "tuple", or as "nothing" else is told."""
    if _record(reading) is not None:
        return "record"
    if owner is not None:
        return "object"
    returns = [each for each in _own(reading) if isinstance(each, ast.Return)]
    if returns and all(isinstance(each.value, ast.Tuple) for each in returns):
        return "tuple"
    return "nothing" if not returns else ""


def _record(reading: Reading) -> ast.Dict | ast.Call | None:
    """The record that is appended to what a function returns: a display, or a call of dict."""
    nodes = _own(reading)
    returned = {ast.unparse(each.value) for each in nodes if isinstance(each, ast.Return) and each.value is not None}
    for node in nodes:
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr="append"), args=[given]) if given in reading.values:
                made = reading.values[given]
                is_ours = made.op == "dict" and made.at is not None and made.at.file is reading.file
                if is_ours and ast.unparse(owner) in returned and isinstance(made.at.node, (ast.Dict, ast.Call)):  # type: ignore[union-attr]
                    return made.at.node  # type: ignore[union-attr]
    return None


def _entered(source: Source, record: ast.Dict | ast.Call, clock: str, text: str) -> Finding:
    site = source.site(record, "record of a run")
    keys = [keyword.arg for keyword in record.keywords] if isinstance(record, ast.Call) else record.keys
    if any(key == clock or (isinstance(key, ast.Constant) and key.value == clock) for key in keys):
        return mended(site)
    if isinstance(record, ast.Call):
        return mend(site, [_given(source, record, clock, text)])

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.Dict)
        new = cst.DictElement(cst.SimpleString(f'"{clock}"'), expression(source, text))
        items = insert_item(updated.elements, len(updated.elements), new, enclosed=updated.lbrace.whitespace_after)  # type: ignore[type-var]
        return updated.with_changes(elements=items)

    return mend(site, [Edit(source, source.at(record), change)])


def _returned(tree: SourceTree, reading: Reading, clock: str, told: str) -> Iterator[Finding]:
    """Return what has been counted, beside what is returned already."""
    source = tree.source(reading.file.path)
    if told == "nothing":
        assert isinstance(reading.node, Function)
        last = reading.node.body[-1]
        yield mend(source.site(last, "end of a run"), [insert_after(source, source.at(last), f"return {clock}")])
    for each in _own(reading):
        if isinstance(each, ast.Return) and isinstance(each.value, ast.Tuple):
            yield mend(source.site(each, "what a run returns"), [_longer(source, each.value, clock)])


def _longer(source: Source, display: ast.Tuple, name: str) -> Edit:
    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.Tuple)
        opening = updated.lpar[0].whitespace_after if updated.lpar else cst.SimpleWhitespace("")
        items = insert_item(updated.elements, len(updated.elements), cst.Element(cst.Name(name)), enclosed=opening)  # type: ignore[type-var]
        return updated.with_changes(elements=items)

    return Edit(source, source.at(display), change)


def _passed_through(tree: SourceTree, reading: Reading, call: ast.Call, clock: str) -> Iterator[Finding]:
    """A function between a round and its run: it takes the clock, and hands it on."""
    source = tree.source(reading.file.path)
    function = source.at(reading.node)  # type: ignore[arg-type]
    assert isinstance(function, cst.FunctionDef)
    yield parameter(source, donor("bit_transformer/training.py"), TRAIN_LOOP, clock, function)
    if not _is_given(call, clock):
        yield mend(source.site(call, f"{clock} handed on"), [_given(source, call, clock)])


def _given(source: Source, call: ast.Call, clock: str, text: str = "") -> Edit:
    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.Call)
        new = cst.Arg(keyword=cst.Name(clock), value=expression(source, text or clock), equal=BARE_EQUAL)
        args = insert_item(updated.args, len(updated.args), new, enclosed=updated.whitespace_before_args)
        return updated.with_changes(args=args)

    return Edit(source, source.at(call), change)


def _round(tree: SourceTree, each: Round, clock: str, told: str, *, again: bool) -> Iterator[Finding]:
    caller, call, file = each.caller, each.call, each.caller.file
    source = tree.source(file.path)
    site = source.site(call, "training loop called in rounds")
    if _is_given(call, clock):
        yield mended(site)
        return
    scope = file.scopes[caller.node]
    if not told or not each.is_returned or again or scope.is_taken(clock) or (each.through and told != "record"):
        yield near_miss(source.site(call, f"{site.note}, and its updates cannot be told: give it {clock}"))
        return
    edits = _kept(source, file, each, clock, told)
    if edits is None:
        note = f"{site.note}, whose history is not kept under a name: keep it, or give it {clock}"
        yield near_miss(source.site(call, note))
        return
    edits.append(_given(source, call, clock))
    function = source.at(caller.node) if isinstance(caller.node, Function) else None
    if isinstance(function, cst.FunctionDef) and rounds_of(tree.code, caller.node):
        yield mend(site, edits)
        yield parameter(source, donor("bit_transformer/training.py"), TRAIN_LOOP, clock, function)
        yield from going_on(tree, caller, None, clock, clock)
        return
    loops = [node for node in file.ancestors(call) if isinstance(node, _LOOPS)]
    outer = [node for node in loops if file.function(node) is file.function(call)][-1]
    yield mend(site, [insert_before(source, source.at(outer), f"{clock} = 0"), *edits])


def _kept(source: Source, file: File, each: Round, clock: str, told: str) -> list[Edit] | None:
    """Keep what a round has counted; None where its statement leaves no place for that."""
    statement, call = each.statement, each.call
    after = source.at(statement)
    if not isinstance(after, cst.SimpleStatementLine) and not isinstance(after, cst.BaseSmallStatement):
        return None
    match statement, told:
        case ast.Expr(value=value), "record" if value is call:
            return [_assigned(source, statement, f'{clock} = {{}}[-1]["{clock}"]')]
        case ast.Assign(targets=[ast.Name(id=name)], value=value), "record":
            last = {ast.unparse(call): "[-1]", f"{ast.unparse(call)}[-1]": ""}.get(ast.unparse(value))
            return None if last is None else [insert_after(source, after, f'{clock} = {name}{last}["{clock}"]')]
        case ast.Assign(targets=[ast.Tuple() as names], value=value), "tuple" if value is call:
            return [_longer(source, names, clock)]
        case ast.Expr(value=value), "nothing" if value is call:
            return [_assigned(source, statement, f"{clock} = {{}}")]
        case ast.Assign(targets=[ast.Name(id=name)], value=value), "object" if value is call:
            block = block_of(file, statement)
            later = block[block.index(statement) + 1 :]
            uses = [s for s in later if any(isinstance(n, ast.Name) and n.id == name for n in walk(s))]
            return [insert_after(source, source.at(uses[-1]), f"{clock} = {name}.{clock}")] if uses else None
    return None


def _assigned(source: Source, statement: ast.Expr, form: str) -> Edit:
    """Make an assignment of a statement that is a call alone."""

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        alone = updated.body[0] if isinstance(updated, cst.SimpleStatementLine) else None
        assert isinstance(alone, cst.Expr)
        value = alone.value
        made = parse_statement(source, form.format(source.code(value)))
        return updated.with_changes(body=made.body)

    return Edit(source, source.statement(source.at(statement)), change)
