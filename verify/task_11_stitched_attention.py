"""Judge of task-11: in chunked attention each query sees its window, in the map and in the output.

The oracle is an explicit softmax over the keys of the window. No chunked code and no mask of the tree takes part in it.
"""

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .driving import pictures
from .driving.attention_runs import (
    FEWER,
    HEADS,
    MODES,
    PRECISIONS,
    RATE,
    REFUSALS,
    STACK,
    Call,
    Shape,
    first_call,
    maps_in,
    mode_of,
    model_of,
    under,
    weighted,
)
from .driving.devices import strays
from .driving.explicit_attention import (
    UNSEEN,
    attend,
    beside,
    compare_with_explicit,
    decoding_error,
    logging_shows,
    reach_exactly,
)
from .driving.memory import Memory
from .driving.operations import distance, tensors_in
from .driving.space import Points, over
from .driving.tree import Tree, with_dropout
from .running.evidence import Evidence, at_most, check, failed, passed, unproven

CHUNKS = (1, 2, 3, 4, 5, 6, 8, 9, 13, 16, 30)
OVERLAPS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 17)
LENGTHS = range(1, 27)  # with the two above: 3,146 shapes
# (T, chunk, overlap): padding left, right, on both sides, nowhere; windows longer than the sequence; no overlap.
SHAPES = (
    (9, 4, 6),
    (1, 4, 2),
    (5, 8, 3),
    (7, 3, 0),
    (8, 4, 4),
    (10, 4, 2),
    (12, 1, 3),
    (13, 5, 7),
    (6, 2, 9),
    (8, 4, 0),
    (3, 1, 0),
)
LARGE = ((530, 64, 0), (600, 128, 0), (300, 256, 0), (300, 64, 20), (530, 100, 130))
LONGEST = 64  # bits of a shape that nobody chose
TOLERANCE = 1e-12  # an entry of a map
ALLOWED = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.1}  # distance from float64
GROWTH = 2.5  # of the largest tensor as T doubles: 2 where memory is linear, 4 where something is T x T


def drawn(count: int) -> tuple[tuple[int, int, int], ...]:
    """Shapes that nobody chose: sequences, chunks and overlaps of any lengths."""
    stream = random.Random(11)  # noqa: S311 - no secret
    return tuple((stream.randint(1, LONGEST), stream.randint(1, 70), stream.randint(0, 70)) for _ in range(count))


def grid(tree: Tree) -> Iterator[Shape]:
    """The covering grid, shortest sequences first, every thirteenth not causal where it can be, and large ones."""
    for n, length in enumerate(LENGTHS):
        for m, (chunk, overlap) in enumerate((chunk, overlap) for chunk in CHUNKS for overlap in OVERLAPS):
            looks = (n * len(CHUNKS) * len(OVERLAPS) + m) % 13 == 0 and tree.looks_ahead[1]
            for causal in (True, False) if looks else (True,):
                yield Shape(length, causal, chunk, overlap, layers=1, rows=1, more={"full_attn_logging": True})
    yield from (Shape(size[0], True, *size[1:], layers=1, rows=1, more={"full_attn_logging": True}) for size in LARGE)


@check(task=11, prop="the map is the softmax over the window: 3,146 shapes, support and values")
def maps_over_a_grid(tree: Tree) -> Evidence:
    """Call an attention module of each chunk and overlap, and compare its map with an explicit softmax."""
    calls: dict[Any, Call | None] = {}
    dense: dict[int, Tensor] = {}  # by length, over all positions: a softmax over a subset is a part of it
    x = torch.randn(
        1, max(max(size) for size in LARGE), 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    count, worst = 0, 0.0
    for shape in grid(tree):
        key, given, seen = (shape.chunk, shape.overlap, shape.causal), x[:, : shape.length], shape.seen
        try:
            if key not in calls:
                calls[key] = first_call(model_of(tree, shape).eval(), shape)
            call = calls[key]
            if call is None:
                return unproven(UNSEEN)
            with torch.inference_mode():
                if shape.length not in dense:
                    dense[shape.length] = attend(call.module, given, Shape(shape.length, causal=False))[1]
                maps = [each for each in tensors_in(call.again(given)) if each.shape[-2:] == seen.shape]
                wanted = dense[shape.length] * seen
                wanted /= wanted.sum(-1, keepdim=True)
        except REFUSALS as raised:
            return failed(f"{type(raised).__name__}: {raised}: {shape}", shape.reproduction)
        if not maps and tree.seams.is_told:
            return unproven("no map is among what attention gives: it may be kept elsewhere")
        if not maps or maps[-1].shape != wanted.shape:
            return failed(f"no map [B, H, T, T]: {shape}", shape.reproduction)
        if not torch.equal(maps[-1] != 0, wanted != 0):
            shown = pictures.maps("the map, beside the window's", maps[-1], wanted)
            return failed(f"the map's support is not the window: {shape}", shape.reproduction, picture=shown)
        count, worst = count + 1, max(worst, distance(maps[-1], wanted))
        if not worst <= TOLERANCE:
            shown = pictures.maps("the map, beside the softmax over the window", maps[-1], wanted)
            detail = f"the map is not the softmax over the window: {shape}"
            return at_most(worst, TOLERANCE, detail, shape.reproduction, shown)
    return at_most(worst, TOLERANCE, f"{count} shapes: support and values")


@check(task=11, prop="logits, gradients and maps are those of an explicit softmax over the window")
@over(
    *("causal", "full_attn_logging", "num_layers"),
    sizes=(*SHAPES, *drawn(3), *LARGE[:3]),
    way=FEWER,
    width=HEADS[:4],
    rows=(2, 1, 3),
)
def outputs_are_those_of_the_window(tree: Tree, points: Points) -> Evidence:
    """Compare shapes with padding on each side and on none, in each kind of stack, trained and evaluated."""
    return compare_with_explicit(tree, points, in_padding=True)


@check(task=11, prop="each position depends on those of its window and on no other, exactly, in any precision")
@over(*("causal", "full_attn_logging", "num_layers"), sizes=SHAPES[:6], way=FEWER, precision=PRECISIONS[1:], rows=(1,))
def nothing_else_reaches_a_position(tree: Tree, points: Points) -> Evidence:
    """Compare which gradients are exactly zero with the window, or with windows of windows."""
    return reach_exactly(tree, points)


@check(task=11, prop="what is read bit by bit sees the windows that one forward of all of it sees")
@over(*STACK, "num_layers", windows=((4, 2), (3, 4), (5, 0), (40, 3), (6, 1)))
def decodes_as_it_reads(tree: Tree, points: Points) -> Evidence:
    """Score each prefix alone, and what a tree's generation writes as it reads on; compare with the whole."""
    return decoding_error(tree, points)


@check(task=11, prop="outputs are the same with and without maps, and without them nothing grows with T x T")
@over("causal", way=FEWER, windows=((4, 2), (3, 5), (7, 0)))
def logging_changes_nothing(tree: Tree, points: Points) -> Evidence:
    """Compare steps bit for bit, and the largest tensor at T and 2 T - 1, neither a multiple of the chunk."""
    T, worst = 61, 0.0
    for point in points:
        small, large = (Shape.at(point.values | {"length": n, "full_attn_logging": False}) for n in (T, 2 * T - 1))
        largest = []
        for shape in (small, large):
            trains, grad_mode = MODES[mode_of(point)]
            model = model_of(tree, shape).train(trains)
            with Memory() as memory, grad_mode():
                logits = Tree.forward(model, tree.bits(1, shape.length), causal=shape.causal)[0]
                if logits.requires_grad:
                    torch.autograd.backward(weighted(logits))
            largest.append(memory.largest)
        try:
            shown = logging_shows(tree, point, False, True)
        except REFUSALS as raised:
            shown = f"{type(raised).__name__}: {raised}: {point}"
        if shown:
            return failed(shown, small.reproduction)
        worst = max(worst, largest[1] / largest[0])
        if worst > GROWTH:
            return at_most(worst, GROWTH, f"growth of the largest tensor from T to 2 T: {point}", small.reproduction)
    return at_most(worst, GROWTH, f"growth of the largest tensor from T to 2 T at {len(points.done)} points")


@check(task=11, prop="other precisions and devices give nearly the same, and the map is taken before dropout")
@over(
    *STACK,
    "causal",
    sizes=((13, 4, 6), (9, 4, 2), (8, 4, 0), (1, 4, 2)),
    precision=PRECISIONS[1:],
    dropout=(0.0, RATE),
    full_attn_logging=(True,),
)
def other_precisions_and_dropout(tree: Tree, points: Points) -> Evidence:
    """Compare logits with those of float64, look at the maps, and run attention on `meta`."""
    for point in points:
        shape, (dtype, cast, _, _) = Shape.at(point), point["precision"]
        bits, allowed = tree.bits(shape.rows, shape.length), ALLOWED[cast or dtype]
        exact = Tree.forward(model_of(tree, shape), bits, causal=shape.causal)[0]
        model = with_dropout(model_of(tree, shape, dtype=dtype), point["dropout"])
        try:
            with under(point["precision"]):
                logits, telemetry = Tree.forward(model, bits, causal=shape.causal)
        except REFUSALS as raised:
            return failed(f"{type(raised).__name__}: {raised}: {point}", shape.reproduction)
        if problem := flaw(maps_in(telemetry), shape, allowed):
            return failed(f"{problem}: {point}", shape.reproduction)
        if not point["dropout"] and distance(logits, exact) > allowed:
            detail, shown = f"distance from float64: {point}", beside("logits", logits, exact)
            return at_most(distance(logits, exact), allowed, detail, shape.reproduction, shown)
        call = first_call(model, shape)
        if call is not None and (problem := strays(call.module, call.args, call.kwargs)):
            return failed(f"on another device, attention fails: {problem}: {point}", shape.reproduction)
    return passed(f"{len(points.done)} points")


def flaw(maps: list[Tensor], shape: Shape, tolerance: float) -> str:
    """What is wrong with the maps [B, H, T, T] of a model, if anything is."""
    if len(maps) != shape.layers:
        return f"{len(maps)} maps of {shape.layers} layers"
    for n, each in enumerate(maps):
        if each.shape[-2:] != shape.seen.shape or not torch.equal(each != 0, shape.seen.expand_as(each)):
            return f"the support of map {n} is not the window"
        if distance(each.sum(-1, dtype=torch.float64), torch.ones(())) > shape.length * tolerance:
            return f"the rows of map {n} do not sum to 1"
    return ""
