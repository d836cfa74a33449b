"""Raise the share of compressed micro-batches along half a cosine.

A model that has learned nothing yet gets half of its micro-batches run-length encoded. With the
patch the probability rises from 0 to compress_prob over `--warmup_steps` optimizer updates, and the
draws come from a generator of their own, so that they shift no other random numbers.

A run has one clock: where train_loop is called in rounds, each goes on from the updates of those before.

Contract: fixes. From warmup_steps on, the probability is what it was.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from .editing.courses import Kept, kept_clock, obstacles
from .editing.donor import definitions, donor
from .editing.imports import imported_once
from .editing.options import taken, told
from .editing.ramping import Ramping, on_a_ramp, own_draws
from .editing.ranks import TRAINING
from .editing.rounds import going_on
from .editing.spent import strayed_backwards
from .reading.clocks import Course, changing, counter, counts_what, rounds_of
from .reading.draws import Draw, Drawn, drawn_by
from .reading.files import File
from .reading.frames import Reading
from .reading.origins import Spot, compared, origins, ramp_of, texts_of, used_elsewhere
from .reading.ramps import Ramp
from .reading.tree import SourceTree
from .task import Contract, Finding, Task, mended, near_miss

RAMP, RAMPED, SHARE, WARMUP, CLOCK = "cosine_ramp", "ramped_prob", "ramp", "warmup_steps", "global_step"
DRAWS, DRAW, DRAWING = "draws", "draw", "draw_form"  # the last is whose parameter the other is, in the reference


def find(tree: SourceTree) -> Iterator[Finding]:
    """Where a run draws whether it compresses, with which probability, and where its updates end."""
    yield from imported_once(_found(tree))


def _found(tree: SourceTree) -> Iterator[Finding]:
    yield from strayed_backwards(tree)
    runs, strays = drawn_by(tree.code)
    yield from (_miss(tree, each.reading.file, each.backward, "update, but no one loop leads to it") for each in strays)
    for run in runs:
        yield from _run(tree, run)
    if not any(run.draws for run in runs):
        yield from (_miss(tree, *each) for run in runs for each in run.undrawn)


def _miss(tree: SourceTree, file: File, node: ast.AST, note: str) -> Finding:
    return near_miss(tree.source(file.path).site(node, note))  # type: ignore[arg-type]


def _run(tree: SourceTree, run: Drawn) -> Iterator[Finding]:
    if run.draws and len(run.chosen) != 1:
        many = "one of several that may decide it" if run.chosen else "which does not tell whether it compresses"
        yield from (_miss(tree, *draw.place, f"draw, but {many}") for draw in (run.chosen or run.draws).values())
        return
    for draw in run.chosen.values():
        change = changing(tree.code, run.course, draw.threshold)
        ramp = ramp_of(tree.code, draw)
        if ramp is not None and (change or ramp.shape.endswith("cosine")):
            yield from _by_hand(tree, run, draw, ramp)
        elif change:
            yield _miss(tree, *draw.place, f"draw, but its probability {change}: take its schedule out")
        else:
            yield from _without_ramp(tree, run, draw)


def _by_hand(tree: SourceTree, run: Drawn, draw: Draw, ramp: Ramp) -> Iterator[Finding]:
    """A ramp that is there: along half a cosine, by a clock that counts updates and goes on from round to round."""
    course = run.course
    counted, place = counts_what(tree.code, course, ramp.clock)
    if ramp.shape != "half a cosine":
        yield _miss(tree, *draw.place, f"ramp, but along {ramp.shape}, not half a cosine")
    elif counted != "updates":
        what = f"counts {counted}, not updates" if counted else "is not seen to count updates"
        yield _miss(tree, *(place or draw.place), f"clock of a ramp, but it {what}")
    else:
        yield mended(tree.source(draw.place.file.path).site(draw.place.node, "probability on a ramp"))  # type: ignore[arg-type]
        kept = Kept(course, CLOCK, DRAWS, counter="" if run.shared else None)
        if ramp.option == WARMUP:
            yield from told(tree, course.reading, donor(TRAINING), WARMUP)[0].findings
        if ramp.clock.op == "carried" and ramp.parameter is not None:
            yield from going_on(tree, course.reading, course.owner, ramp.parameter, ramp.parameter)
        elif ramp.clock.op == "carried":
            for each in rounds_of(tree.code, course.reading.node, course.owner):
                yield _miss(
                    tree, each.caller.file, each.call, "round of training, but the clock of its ramp starts anew"
                )
        if run.shared:
            yield from (_miss(tree, *each) for each in obstacles(tree, kept))
            yield from own_draws(tree, run, kept, DRAW, DRAWING)


def _without_ramp(tree: SourceTree, run: Drawn, draw: Draw) -> Iterator[Finding]:
    code, course, given = tree.code, run.course, donor(TRAINING)
    kept = Kept(course, CLOCK, DRAWS, counter(code, course))
    found, spot = list(obstacles(tree, kept)), compared(code, draw)
    found += run.undrawn
    found += used_elsewhere(code, run.updates, draw, course.shows)
    others = [text for each in run.others(draw) for text in texts_of(code, each)]
    spots = origins(code, spot, draw, run.scopes, others) if spot is not None else []
    if not spots:
        found.append((*draw.place, "draw, but it is not seen with which one probability it is compared"))
    option = told(tree, teller := _teller(course, spots), given, WARMUP)[0]
    inserted = [RAMPED, RAMP] if course.owner is not None else [RAMPED, SHARE, RAMP]
    found += [
        (teller.file, node, f"name that is to be given: {why}")
        for node, why in taken(teller, {WARMUP: option}, inserted)
    ]
    yield from (_miss(tree, *each) for each in found)
    if found:
        return
    form = f"{RAMP}({{}}, start=0.0, end={{}}, total_steps={option.text})"
    ramping = Ramping(form.format, RAMPED, SHARE)
    needed: dict[str, None] = {}
    placed = [each for spot in spots for each in on_a_ramp(tree, run, draw, spot, kept, ramping, needed)]
    yield from (definitions(tree.source(path), given, RAMP) for path in needed)
    yield from placed
    yield from own_draws(tree, run, kept, DRAW, DRAWING)
    yield from option.findings
    if kept.counter is None:
        yield from kept_clock(tree, kept)
        text = kept.clock_in(course.reading.file, course.reading.node)
        yield from going_on(tree, course.reading, course.owner, CLOCK, text, course.steps)


def _teller(course: Course, spots: Sequence[Spot]) -> Reading:
    """The scope that is told the option: a method of the object, if it is that which goes by the probability."""
    shown = [spot.reading for spot in spots if course.shows(spot.reading.file, spot.reading.node)]
    return shown[0] if course.owner is not None and shown else course.reading


task = Task(
    number=6,
    slug="compression-ramp",
    title="Compression probability on a cosine ramp",
    contract=Contract.FIXES,
    seam="update",
    option="warmup_steps",
    summary="compress_prob is reached along half a cosine of warmup_steps updates; its draws are its own",
    why=__doc__,
    sought="a number drawn in the loop over micro-batches, and the probability that it is compared with",
    find=find,
)
