"""Put a probability on a ramp, and draw what is compared with it from a generator of its own."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import libcst as cst

from ..reading.draws import Draw, Drawn
from ..reading.files import File
from ..reading.origins import Hop, Spot, ahead, compared, hops, is_made_at_need, names_read
from ..reading.source import Source
from ..reading.tree import SourceTree
from ..reading.updates import DEEP, is_within, scope_of
from ..task import Edit, Finding, mend, near_miss
from .courses import Kept, kept_draws
from .donor import donor, parameter
from .edits import expression, insert_before, operand, rewrite
from .handing import handed, parameter_from
from .ranks import TRAINING

_ONE = ("item", "squeeze", "cpu", "numpy")
_KINDS = ("float", "bool")


@dataclass(frozen=True, slots=True)
class Ramping:
    """How a ramp is written: of a clock and an end; and the names of what is reached of it."""

    text: Callable[[str, str], str]
    reached: str  # a probability
    share: str  # of one, where only that can be handed down


def on_a_ramp(
    tree: SourceTree, run: Drawn, draw: Draw, spot: Spot, kept: Kept, ramping: Ramping, needed: dict[str, None]
) -> Iterator[Finding]:
    """Put a probability on a ramp where the clock is known; else hand down the share of it that is reached.

    The files that need the ramp's function are noted.
    """
    file, shows = spot.reading.file, run.course.shows
    source = tree.source(file.path)
    site = source.site(spot.node, "probability that is the same from the first update on")

    def ramp(scope: ast.AST, end: str) -> str:
        return ramping.text(kept.clock_in(file, scope), end)

    again, problem = _again(tree, run, draw, spot)
    way = [] if shows(file, spot.reading.node) else hops(tree.code, file, spot.reading.node, shows)
    scopes = {spot.reading, *(hop.caller for hop in way)} - {run.course.reading}
    names = (ramping.reached, ramping.share, kept.clock, kept.draws)
    hidden = [name for each in scopes for name in names if name in each.file.scopes[each.node].bound]
    problem = f"{hidden[0]} has another meaning on the way: rename it" if hidden else problem
    turn = run.course.turn if spot.reading.node is run.course.reading.node else None
    is_ahead = turn is not None and not is_within(file, spot.node, turn)
    is_lazy = turn is not None and is_ahead and is_made_at_need(spot.reading, spot.node, turn)
    if is_ahead and not is_lazy:
        problem = "it stands before the loop, where it is computed once: put it in the loop"
    if problem:
        yield near_miss(replace(site, note=f"{site.note}, but {problem}"))
        return
    if shows(file, spot.reading.node):
        edits = ramped(source, [spot, *again], draw, ramping.reached, ramp(spot.reading.node, "{}"), in_place=is_lazy)
        needed[source.path] = None
        yield mend(site, edits) if edits else near_miss(replace(site, note=f"{site.note}, but no place before it"))
        return
    if not way:
        yield near_miss(replace(site, note=f"{site.note}, but who calls this is not seen"))
        return
    yield mend(site, [edit for each in (spot, *again) for edit in shared(source, each, draw, ramping.share)])
    yield from handed(
        tree, way, ramping.share, parameter_from(f"{ramping.share}: float = 1.0"), lambda _: ramping.share
    )
    for hop in (each for each in way if shows(each.caller.file, each.caller.node)):
        target = tree.source(hop.caller.file.path)
        text = ramping.text(kept.clock_in(hop.caller.file, hop.caller.node), "1.0")
        edit = before(target, ahead(hop.caller.file, hop.call, ()), f"{ramping.share} = {text}")
        place = target.site(hop.call, "call that hands on how much of a probability is reached")
        needed[target.path] = None
        yield mend(place, [edit]) if edit else near_miss(replace(place, note=f"{place.note}: no place before it"))


def _again(tree: SourceTree, run: Drawn, draw: Draw, spot: Spot) -> tuple[list[Spot], str]:
    """Where else the same number is compared with a sum that holds the probability; or why that is not in reach."""
    found = []
    for other in (each for each in run.others(draw) if each.number.key == draw.number.key):
        place = compared(tree.code, other)
        text = ast.unparse(spot.node)
        nodes = [n for n in ast.walk(place.node) if isinstance(n, ast.expr) and ast.unparse(n) == text] if place else []
        if nodes and place is not None and place.reading is spot.reading:
            names = names_read(spot.node)
            is_near = ahead(spot.reading.file, nodes[0], names) is ahead(spot.reading.file, spot.node, names)
            if not is_near or not draw.compresses_below:
                return [], "another draw goes by it too: give each a number of its own"
            found += [Spot(spot.reading, node) for node in nodes]
    return found, ""


def own_draws(tree: SourceTree, run: Drawn, kept: Kept, draw_name: str, function: str) -> Iterator[Finding]:
    """Draw from a generator that a run has made for this, handed down where it cannot be seen.

    What functions are handed is the parameter of a function of the reference.
    """
    shows, every = run.course.shows, run.shared
    if every:
        yield from kept_draws(tree, kept, next(iter(every.values())).library)
    ways: dict[ast.AST, Hop] = {}
    for node, draw in every.items():
        assert draw.made.at is not None
        file = draw.made.at.file
        source, scope = tree.source(file.path), scope_of(tree.code, file, node, DEEP)
        way, is_here = hops(tree.code, file, scope.node, shows), shows(file, scope.node)
        edits = drawn_from(source, file, draw, f"{kept.draws_in(file, scope.node)}.random" if is_here else draw_name)
        site = source.site(node, "draw from a generator that others use")  # type: ignore[arg-type]
        if edits is None or not (is_here or way):
            why = "kept as a tensor: make it a number" if edits is None else "who calls this is not seen"
            yield near_miss(replace(site, note=f"{site.note}, but {why}"))
            continue
        yield mend(site, edits)
        ways |= {hop.call: hop for hop in way}
    yield from handed(
        tree,
        list(ways.values()),
        draw_name,
        lambda target, own: parameter(target, donor(TRAINING), function, draw_name, own),
        lambda hop: f"{kept.draws_in(hop.caller.file, hop.caller.node)}.random",
    )


def drawn_from(source: Source, file: File, draw: Draw, text: str) -> list[Edit] | None:
    """Draw a number, or a list of them, by calls of `text`; None where what is drawn is kept as a tensor."""
    assert draw.made.at is not None
    call = draw.made.at.node
    node, methods = _whole(file, call)
    sizes = [each for name, each in draw.made.args.items() if name.isdigit()]
    count = sizes[0].number if len(sizes) == 1 else None
    is_tensor = bool(sizes) or str(draw.made["func"].data).startswith("torch.")
    if methods == ["tolist"] and isinstance(count, int):
        return [rewrite(source, source.at(node), lambda _: f"[{text}() for _ in range({count})]")]  # type: ignore[arg-type]
    if methods[-1:] == ["item"] or methods[-1:] == ["float"] or not is_tensor:
        return [rewrite(source, source.at(node), lambda _: f"{text}()")]  # type: ignore[arg-type]
    compare = file.parents[node]
    if compare is not draw.place.node or methods not in ([], ["[]"]):
        return None
    drawn = rewrite(source, source.at(node), lambda _: f"{text}()")  # type: ignore[arg-type]
    around = file.parents[compare]
    outer = file.parents[around]
    if isinstance(around, ast.Attribute) and around.attr == "item" and isinstance(outer, ast.Call):
        return [drawn, Edit(source, source.at(outer), lambda updated: updated.func.value)]  # type: ignore[attr-defined]
    is_test = getattr(around, "test", None) is compare or isinstance(around, ast.BoolOp)
    is_test = is_test or (isinstance(around, ast.UnaryOp) and isinstance(around.op, ast.Not))
    is_bool = isinstance(around, ast.Call) and getattr(around.func, "id", "") == "bool"
    return [drawn] if is_test or is_bool else None


def _whole(file: File, call: ast.AST) -> tuple[ast.AST, list[str]]:
    """A draw with what makes a number of it, and what that is called."""
    node, methods = call, list[str]()
    while True:
        around = file.parents[node]
        outer = file.parents[around]
        if isinstance(around, ast.Attribute) and isinstance(outer, ast.Call) and outer.func is around:
            if around.attr not in (*_ONE, "tolist"):
                return node, methods
            node, methods = outer, [*methods, around.attr]
        elif isinstance(around, ast.Subscript) and around.value is node and not methods:
            node, methods = around, ["[]"]
        elif isinstance(around, ast.Call) and getattr(around.func, "id", "") in _KINDS and around.args == [node]:
            node, methods = around, [*methods, "float"]
        else:
            return node, methods


def ramped(
    source: Source, spots: Sequence[Spot], draw: Draw, name: str, ramp: str, *, in_place: bool = False
) -> list[Edit]:
    """Compare with a probability on a ramp, that is computed before, or there; `ramp` is how, with {} for its end.

    Nothing where there is no place before the first of the spots.
    """
    file = spots[0].reading.file
    node, text = _left(spots[0], draw)
    reached = ramp.format(text.format(file.text(node) if "\n" not in file.text(node) else ast.unparse(node)))
    if in_place:
        return [rewrite(source, source.at(node), lambda _: text.format(reached))]  # type: ignore[arg-type]
    place = before(source, ahead(file, node, names_read(node)), f"{name} = {reached}")
    new = name if text == "{}" else f"1 - {name}"
    nodes = [node, *(spot.node for spot in spots[1:])]
    return [] if place is None else [place, *(rewrite(source, source.at(each), lambda _: new) for each in nodes)]  # type: ignore[arg-type]


def before(source: Source, statement: ast.stmt | None, text: str) -> Edit | None:
    """Put a statement in front of one; None where that stands in no block."""
    line = source.statement(source.at(statement)) if statement is not None else None
    is_in_block = line is not None and isinstance(source.parents[line], (cst.IndentedBlock, cst.Module))
    return insert_before(source, line, text) if line is not None and is_in_block else None


def _left(spot: Spot, draw: Draw) -> tuple[ast.expr, str]:
    """What is the probability, or is what it leaves of 1; and how the probability is written of it."""
    node = spot.node
    if draw.compresses_below:
        return node, "{}"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and ast.unparse(node.left) in ("1", "1.0"):
        return node.right, "{}"
    return node, "1 - {}" if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript, ast.Call)) else "1 - ({})"


def shared(source: Source, spot: Spot, draw: Draw, name: str) -> list[Edit]:
    """Compare with a share of a probability, that a function is handed."""
    node, text = _left(spot, draw)
    part = f"{name} * {{}}" if text == "{}" else f"1 - {name} * ({text})"

    def change(updated: cst.CSTNode) -> cst.CSTNode:
        return expression(source, part.format(operand(source, updated)))

    return [Edit(source, source.at(node), change)]
