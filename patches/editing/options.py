"""Give a scope an option: to what holds its options, to the calls that hand them on, and to the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import libcst as cst

from ..reading.classes import names_of
from ..reading.evaluations import is_at_hand, is_in_run_of
from ..reading.files import File
from ..reading.frames import Reading
from ..reading.nodes import walk
from ..reading.options import Hand, Home, Way, way_to
from ..reading.origins import hops
from ..reading.parsers import Flag
from ..reading.records import all_fields, fixed_shape
from ..reading.source import Source
from ..reading.tree import SourceTree
from ..reading.updates import Update, calls_of, scope_of
from ..task import Edit, Finding, State, mend, mended, near_miss, opaque
from .donor import PARSER, flag_of, parameter, parameter_of, place_among
from .edits import BARE_EQUAL, expression, insert_after, insert_before, insert_item
from .handed import is_call, other_uses

LOOP = "train_loop"  # of the reference: whose options they are


@dataclass(frozen=True, slots=True)
class Told:
    """How a scope reads an option, and what brings the option to it."""

    text: str
    findings: tuple[Finding, ...]
    through: tuple[Home, ...] = ()  # the functions on its way, which have it as a parameter


def told(tree: SourceTree, reading: Reading, given: Source, *names: str) -> list[Told]:
    """Options of the reference's training loop as options of a scope."""
    way = way_to(tree.code, reading)
    if way is not None:
        return [_told(tree, reading, way, given, name) for name in names]
    node = reading.file.module.body[0] if isinstance(reading.node, ast.Module) else reading.node
    source = tree.source(reading.file.path)
    site = source.site(node, f"training, but where {', '.join(names)} could be an option is not seen")  # type: ignore[arg-type]
    return [Told(name, (opaque(site),)) for name in names]


def taken(reading: Reading, options: Mapping[str, Told], inserted: Sequence[str]) -> Iterator[tuple[ast.AST, str]]:
    """Where a scope gives a name that is brought another meaning, or has an option of that name for something else."""
    scope = reading.file.scopes[reading.node]
    for name, option in options.items():
        if option.findings[0].state is State.APPLIED:
            node = reading.node if isinstance(reading.node, ast.stmt) else reading.file.module.body[0]
            yield node, f"it has an option {name}"
    own = [name for name, option in options.items() if option.text == name]
    for name in (*own, *inserted):
        owner = scope.owner(name)
        if owner is not None and (owner.parent is not None or name in own):
            yield owner.bound[name][0], f"rename {name}"


def _told(tree: SourceTree, reading: Reading, way: Way, given: Source, name: str) -> Told:
    homes = [] if way.home.kind == "namespace" else [way.home, *way.through]
    found = [_home(tree, home, given, name) for home in homes]
    is_new = way.home.kind == "namespace" or any(each.state is State.MISSING for each in found[:1])
    found += [_flag(tree, flags, given, name, reading.file.path) for flags in way.parsers]
    found += [_handed(tree, hand, given, name) for hand in way.hands if way.parsers and not hand.is_whole]
    if way.problem and is_new:
        note = f"training that is to have {name}, but {way.problem}"
        found.append(near_miss(tree.source(way.home.file.path).site(way.home.node, note)))  # type: ignore[arg-type]
    return Told(way.home.form.format(name), tuple(found), tuple(way.through))


def brought_to(
    tree: SourceTree, evaluation: Update, told_of: Sequence[tuple[Told, Update]], name: str, given: Source
) -> tuple[str, dict[ast.AST, Finding]]:
    """How an evaluation reads an option that the updates of its runs are told, and what hands it down the calls to it.

    No text where not all of these calls are seen.
    """
    code, there, texts, found = tree.code, evaluation.reading, set[str](), dict[ast.AST, Finding]()
    for option, update in told_of:

        def text(file: File, node: ast.AST, option: Told = option, update: Update = update) -> str:
            around = scope_of(code, file, node.body[0])  # type: ignore[attr-defined]
            is_through = any(each.node is node for each in option.through)
            return option.text if is_at_hand(option.text, update.reading, around) else name if is_through else ""

        way = hops(code, there.file, there.node, text)
        texts.add(name if way else text(there.file, there.node))
        for hop in way:
            called = scope_of(code, hop.file, hop.function.body[0])
            calls = {call for each, call in calls_of(code, hop.function) if is_in_run_of(code, update, each.node)}
            if calls - {each.call for each in way} or not all(is_call(*e) for e in other_uses(code, called, hop.call)):
                return "", {}
            here = text(hop.caller.file, hop.caller.node) or name
            found[hop.function] = _home(tree, Home("parameter", hop.file, hop.function), given, name)
            found[hop.call] = _handed(
                tree, Hand(hop.caller.file, hop.call, here, is_whole=False, parser=None), given, name
            )
    return (texts.pop(), found) if len(texts) == 1 else ("", {})


def kept_by(tree: SourceTree, file: File, setup: ast.AST, given: Source, name: str) -> Finding:
    """An option as a parameter of a constructor, which keeps it on its object."""
    return _home(tree, Home("attribute", file, setup), given, name)


def _last(given: Source, name: str, names: Sequence[str]) -> int:
    """The place of an option behind names of the tree's own, among those that patches brought."""
    return place_among(given, LOOP, name, names, in_order=False)


def _home(tree: SourceTree, home: Home, given: Source, name: str) -> Finding:
    target = tree.source(home.file.path)
    match home.node:
        case ast.Dict():
            name_of = home.form.partition("[")[0].rpartition(".")[2]
            counted = [n for n in home.file.uses.get("values", ()) if ast.unparse(getattr(n, "value", n)) == name_of]
            if counted:
                return near_miss(target.site(counted[0], f"values of {name_of}, which is to have one more: name them"))  # type: ignore[arg-type]
            return _entry(target, home.node, given, name)
        case ast.ClassDef():
            return _field(tree, target, home, given, name)
    assert isinstance(home.node, ast.FunctionDef | ast.AsyncFunctionDef)
    function = target.at(home.node)
    if not isinstance(function, cst.FunctionDef):
        return near_miss(target.site(home.node, f"function that is to have {name}, but it shares its line"))
    brought = parameter(target, given, LOOP, name, function)
    uses = [each for each in walk(home.node) if isinstance(each, ast.Name) and each.id == name]
    if brought.edits and uses:
        return near_miss(
            target.site(uses[0], f"{name}, which is to be an option here, means something else: rename it")
        )
    if home.kind != "attribute" or not brought.edits:
        return brought
    owner = home.file.parents[home.node]
    assert isinstance(owner, ast.ClassDef)
    family = [names_of(each) for _, each in tree.code.bases(home.file.path, owner)]
    if any(each.defines(name) or "__slots__" in each.stored for each in family) or tree.code.is_open(
        home.file.path, owner, name
    ):
        return near_miss(target.site(owner, f"{owner.name} has a {name} of its own, or is not to have more attributes"))
    return mend(brought.site, [*brought.edits, _kept(target, home.node, given, name)])  # type: ignore[arg-type]


def _entry(target: Source, display: ast.Dict, given: Source, name: str) -> Finding:
    keys = [str(each.value) if isinstance(each, ast.Constant) else "" for each in display.keys]
    site = target.site(display, f"entry {name}")
    if name in keys:
        return mended(site)
    default = given.code(parameter_of(given, LOOP, name).default or cst.Name("None"))
    at = _last(given, name, keys)

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.Dict)
        new = cst.DictElement(expression(target, f'"{name}"'), expression(target, default))
        items = insert_item(updated.elements, at, new, enclosed=updated.lbrace.whitespace_after)  # type: ignore[type-var]
        return updated.with_changes(elements=items)

    return mend(site, [Edit(target, target.at(display), change)])


def _field(tree: SourceTree, target: Source, home: Home, given: Source, name: str) -> Finding:
    owner = home.node
    assert isinstance(owner, ast.ClassDef)
    fields = [each for each in owner.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
    names = [each.target.id for each in fields]  # type: ignore[union-attr]
    site = target.site(owner, f"field {name} of {owner.name}")
    if name in all_fields(tree.code, home.file.path, owner):
        return mended(site)
    place = _last(given, name, names)
    if problem := fixed_shape(tree.code, home.file.path, owner, name, place) if names else "it has no field of its own":
        return near_miss(target.site(owner, f"{owner.name}, which is to have {name}, but {problem}"))
    new = parameter_of(given, LOOP, name)
    assert new.annotation is not None
    assert new.default is not None
    text = f"{name}: {given.code(new.annotation.annotation)} = {given.code(new.default)}"
    return mend(site, [insert_after(target, target.at(fields[place - 1]), text)])


def _kept(target: Source, setup: ast.FunctionDef, given: Source, name: str) -> Edit:
    """Keep a constructor's parameter on self, behind those that come before it."""
    own = setup.args.args[0].arg
    kept: list[tuple[str, ast.stmt]] = []
    for each in setup.body:
        match each:
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id=owner), attr=attr)], value=ast.Name()) if (
                owner == own
            ):
                kept.append((attr, each))
    text = f"{own}.{name} = {name}"
    place = _last(given, name, [attr for attr, _ in kept])
    if not place:
        return insert_before(target, target.at(setup.body[0]), text)
    return insert_after(target, target.at(kept[place - 1][1]), text)


def _flag(tree: SourceTree, flags: Sequence[Flag], given: Source, name: str, path: str) -> Finding:
    """An option of a scope in some file, behind the nearest one before it that the parser has."""
    target = tree.source(flags[0].file.path)
    own = {flag.name: flag for flag in flags if not flag.is_exclusive}
    spelled = [flag for flag in flags if flag.name == name or f"--{name}" in flag.texts]
    ours = {flag_of(call).removeprefix("--"): call for call in given.walk(cst.Call, having=PARSER) if flag_of(call)}
    if spelled and not (spelled[0].name == name and _is_same(spelled[0], ours[name], given)):
        return near_miss(target.site(spelled[0].node, f"option --{name}, which is there for something else: rename it"))
    if spelled:
        return mended(target.site(spelled[0].node, f"option --{name}"))
    order = list(ours)
    before = [each for each in order[: order.index(name)] if each in own]
    anchor = own[before[-1]] if before else next(iter(own.values()), None)
    if anchor is None:
        return near_miss(
            target.site(
                flags[0].node, f"options that exclude each other, and no other beside which --{name} would stand"
            )
        )
    is_dashed = any("-" in text.lstrip("-") for flag in flags for text in flag.texts)
    text = f"--{name.replace('_', '-') if is_dashed else name}"
    site = target.site(anchor.node, f"option {text}")
    settings = {
        k.keyword.value: _setting(target, given, k.value, path) for k in ours[name].args if k.keyword is not None
    }
    if isinstance(anchor.parser, ast.FunctionDef):
        return _decorator(target, anchor, text, settings, behind=bool(before))
    if isinstance(anchor.node, ast.Call) and any(isinstance(each, ast.Constant) for each in anchor.node.args):
        return _call(target, given, anchor, ours[name], text, settings, behind=bool(before))
    return mend(site, [_row(target, anchor, text, settings, behind=bool(before))])


def _is_same(flag: Flag, ours: cst.Call, given: Source) -> bool:
    """Whether an option is what the reference's is: of the same kind, with the same default unless it is a number."""
    if not isinstance(flag.node, ast.Call):
        return True
    own = {keyword.arg: ast.unparse(keyword.value) for keyword in flag.node.keywords}
    wanted = {each.keyword.value: given.code(each.value) for each in ours.args if each.keyword is not None}
    is_command = isinstance(flag.parser, ast.FunctionDef)  # whose options have the types of their defaults
    kinds = [(own.get(name), wanted.get(name)) for name in ("type", "action") if not is_command]
    texts = [(each or "").strip("'\"") for each in (own.get("default"), wanted.get("default"))]
    return all(a == b or (a or "").replace("'", '"') == b for a, b in kinds) and (
        texts[0] == texts[1] or texts[0].isdigit()
    )


def _call(
    target: Source, given: Source, anchor: Flag, ours: cst.Call, flag: str, settings: dict[str, str], *, behind: bool
) -> Finding:
    """The reference's call of add_argument, in the file's own words, as a neighbour of one of its own."""
    call = target.at(anchor.node)
    statement, site = target.statement(call), target.site(anchor.node, f"option {flag}")
    smalls = statement.body if isinstance(statement, cst.SimpleStatementLine) else ()
    is_alone = any(isinstance(each, cst.Expr) and each.value is call for each in smalls)
    if not isinstance(call, cst.Call) or not is_alone:
        note = f"option beside which {flag} would stand, but it is no statement of its own"
        return near_miss(target.site(anchor.node, note))
    changed = [
        each.with_changes(value=expression(given, settings[each.keyword.value])) if each.keyword is not None else each
        for each in ours.args
    ]
    same = all(given.code(a.value) == given.code(b.value) for a, b in zip(changed, ours.args, strict=True))
    text = (
        given.code(given.statement(ours)).strip()
        if same
        else given.module.code_for_node(ours.with_changes(args=changed))
    )
    adder = anchor.file.text(anchor.adder) if anchor.adder is not None else target.code(call.func)
    text = re.sub(r"^\w+\.add_argument", adder, text).replace(f'"{flag_of(ours)}"', f'"{flag}"')
    place = insert_after if behind else insert_before
    return mend(site, [place(target, statement, text)])


def _decorator(target: Source, anchor: Flag, flag: str, settings: dict[str, str], *, behind: bool) -> Finding:
    """An option of click's as a neighbour of another of its command."""
    call, site = target.at(anchor.node), target.site(anchor.node, f"option {flag}")
    assert isinstance(call, cst.Call)
    choice = target.names.spelled("click.Choice")
    if "choices" in settings and choice is None:
        return near_miss(
            target.site(anchor.node, f"option beside which {flag} would stand, but click has no name here")
        )
    words = {name: text for name, text in settings.items() if name != "type" or "default" not in settings}
    given = {"choices": f"type={choice}({{}})", "action": "is_flag=True"}
    told = ", ".join(given.get(name, f"{name}={{}}").format(text) for name, text in words.items())
    new = cst.Decorator(expression(target, f'{target.code(call.func)}("{flag}", {told})'))

    def change(updated: cst.CSTNode) -> cst.FlattenSentinel[cst.CSTNode]:
        return cst.FlattenSentinel([updated, new] if behind else [new, updated])

    return mend(site, [Edit(target, target.parents[call], change)])


def _row(target: Source, anchor: Flag, flag: str, settings: dict[str, str], *, behind: bool) -> Edit:
    """A row of a table of options: a flag and its settings, or an entry of a dict of settings."""
    table = anchor.file.parents[anchor.node]
    assert isinstance(table, (ast.Tuple, ast.List, ast.Dict))
    key = f'"{flag if anchor.texts[0].startswith("--") else flag.removeprefix("--")}"'
    rows = table.values if isinstance(table, ast.Dict) else table.elts
    shown = anchor.node.elts[1] if isinstance(anchor.node, ast.Tuple) else anchor.node
    pairs = [
        f'"{name}": {text}' if isinstance(shown, ast.Dict) else f"{name}={text}" for name, text in settings.items()
    ]
    display = f"{{{', '.join(pairs)}}}" if isinstance(shown, ast.Dict) else f"dict({', '.join(pairs)})"
    at = rows.index(anchor.node) + behind

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, (cst.Tuple, cst.List, cst.Dict))
        if isinstance(updated, cst.Dict):
            new: cst.CSTNode = cst.DictElement(expression(target, key), expression(target, display))
            opening = updated.lbrace.whitespace_after
        else:
            new = cst.Element(expression(target, f"({key}, {display})"))
            opening = (
                updated.lpar[0].whitespace_after
                if isinstance(updated, cst.Tuple)
                else updated.lbracket.whitespace_after
            )
        return updated.with_changes(elements=insert_item(updated.elements, at, new, enclosed=opening))

    return Edit(target, target.at(table), change)


def _handed(tree: SourceTree, hand: Hand, given: Source, name: str) -> Finding:
    """An option in a call that hands others on."""
    target = tree.source(hand.file.path)
    site = target.site(hand.call, f"{name} handed on")
    if any(keyword.arg == name for keyword in hand.call.keywords):
        return mended(site)
    new = cst.Arg(keyword=cst.Name(name), value=expression(target, hand.form.format(name)), equal=BARE_EQUAL)

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(updated, cst.Call)
        names = [each.keyword.value if each.keyword is not None else "" for each in updated.args]
        first = next((place for place, each in enumerate(names) if each), len(names))
        place = first + place_among(given, LOOP, name, names[first:], in_order=True)
        return updated.with_changes(args=insert_item(updated.args, place, new, enclosed=updated.whitespace_before_args))

    return mend(site, [Edit(target, target.at(hand.call), change)])


def _setting(target: Source, given: Source, value: cst.BaseExpression, path: str) -> str:
    """A setting of an option as a file writes it: its name where it has it or is given it, else what the name means."""
    text = given.code(value)
    if isinstance(value, cst.Name) and {target.path} != {given.path, path} and not target.names.top_level(text):
        known = [(each.part.text, each.value) for each in given.names.top_level(text) if each.value is not None]
        return (ast.get_source_segment(*known[-1]) if known else None) or text
    return (target.names.spelled(text) or text) if "." in text else text
