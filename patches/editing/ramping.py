"""Put a probability on a ramp, and draw what is compared with it from a generator of its own."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..donor import donor, parameter
from ..ranks import TRAINING
from ..reading.drawn import Drawn
from ..reading.draws import Draw
from ..reading.hops import Hop, hops
from ..reading.origins import Spot, ahead, compared, names_read
from ..reading.updates import DEEP, is_within, scope_of
from ..task import Finding, mend, near_miss
from ..tree import SourceTree
from .courses import Kept, kept_draws
from .drawing import before, drawn_from, ramped, shared
from .handing import handed, parameter_from


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
    loop = run.course.loop if spot.reading.node is run.course.reading.node else None
    if loop is not None and not is_within(file, spot.node, loop):
        problem = "it stands before the loop, where it is computed once: put it in the loop"
    if problem:
        yield near_miss(replace(site, note=f"{site.note}, but {problem}"))
        return
    if shows(file, spot.reading.node):
        edits = ramped(source, [spot, *again], draw, ramping.reached, ramp(spot.reading.node, "{}"))
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
