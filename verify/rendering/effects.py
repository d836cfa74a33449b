"""What tasks do to speed and memory, as a table, bars or JSON: "not shown" where noise is larger than the effect."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from markupsafe import Markup

from ...patches.applying.asked import again
from ...patches.reading.tree import SourceTree
from ...patches.task import Task
from ...screen import EXIT_UNPROVEN, printed, save, show_json, show_next, show_table
from ..benching.comparison import ENOUGH, FAR, Compared, Comparison, Effect, compare, pairs
from ..benching.turns import MEASURES
from ..running.proof import Show
from .pictures import WIDTH, Range
from .terminal import require_suffixes, require_writable

NOT_SHOWN, UNKNOWN = "not shown", "?"
KNOWN = "x: with the task, as a multiple of without; more bits/s are better, and less memory and a shorter start"
SUFFIXES = (".svg", ".json")
LABEL, ROW, HEAD = 80, 18, 34  # of bars: the width of names, the height of a row and of a title
STYLE = (
    "svg { background: #fff } text { font: 12px sans-serif; fill: #222 } .title { font-weight: bold } "
    ".noise { fill: #ddd } rect.shown { fill: #2b6cb0 } rect.not-shown { fill: #b8c4d0 } text.not-shown { fill: #777 }"
)


def bench(
    opened: AbstractContextManager[SourceTree],
    tasks: Sequence[Task],
    seconds: float,
    files: Sequence[Path],
    shown: AbstractContextManager[Show],
    *,
    as_json: bool,
    quiet: bool,
) -> int:
    """Measure tasks on the tree that is opened, and say what was; the exit code: unproven where nothing of any was."""
    require_suffixes(files, SUFFIXES, "bench")
    with ExitStack() as copies:
        with opened as tree:
            require_writable(tree.root, [("--report", file) for file in files])
            plain, found = pairs(tree, tasks, copies)
        with shown as show:
            compared = compare(tree.root, plain, found, seconds, show)
    for file in files:
        text = picture(compared) if file.suffix == ".svg" else json.dumps(compared.to_json(), indent=2)
        save(file, f"{text}\n", "--report")
    if as_json:
        show_json(compared.to_json())
    elif not quiet:
        _print(compared, seconds)
    return 0 if any(each.is_measured for each in compared.tasks) else EXIT_UNPROVEN


def _print(compared: Comparison, seconds: float) -> None:
    noise = (words(each).removeprefix(NOT_SHOWN).strip() for each in compared.noise.values())
    rows = [("A/A", "", *noise), *map(_cells, compared.tasks)]
    show_table(("task", "with", *(name for name, _ in MEASURES.values())), rows, typed=("task",))
    printed("".join(f"{line}\n" for line in lines(compared)))
    measured = [each.task for each in compared.tasks if each.is_measured]
    then = again("verify", measured or None, compared.tree)
    if measured and compared.rounds < ENOUGH:
        longer = (ENOUGH + 1) * seconds / compared.rounds
        then = f"{again('bench', [each.task for each in compared.tasks], compared.tree)} --seconds {longer:.0f}"
    show_next(then)


def _cells(compared: Compared) -> tuple[str, ...]:
    if not compared.effects:
        return compared.task.id, "", *["not measured"] * len(MEASURES)
    options = " ".join(f"{name}={value}" for name, value in compared.options.items())
    return compared.task.id, options, *map(words, compared.effects.values())


def words(effect: Effect) -> str:
    """What there is to say of an effect in a cell."""
    if effect.ratio is None:
        return UNKNOWN
    span = f"({effect.ratio.low:.2f}-{effect.ratio.high:.2f})"
    return f"{effect.ratio.median:.2f}x {span}" if effect.is_shown else f"{NOT_SHOWN} {span}"


def lines(compared: Comparison) -> Iterator[str]:
    """What is to be known beside the table: the tree's own figures, what was measured how, and why some was not."""
    figures = [f"{each.before:,.4g} {MEASURES[name][1]}" for name, each in compared.noise.items() if each.before]
    if figures:
        yield f"{compared.tree}, as it is: {', '.join(figures)}"
        yield f"{KNOWN}; A/A: the tree beside itself; {NOT_SHOWN}: no more than that"
        few = f", so few that only {FAR} times the noise is shown" if compared.rounds < ENOUGH else ""
        yield f"{compared.rounds} rounds{few}; processor time, one thread; {'; '.join(compared.machine)}"
    for name, each in compared.noise.items():
        if compared.rounds and each.reason:
            yield f"{MEASURES[name][0]}, of the tree as it is: {each.reason}"
    for one in compared.tasks:
        if one.reason:
            yield f"{one.task.id}: not measured: {' '.join(one.reason.splitlines()[:2])}"
        for name, each in one.effects.items():
            if each.reason and each.reason != compared.noise[name].reason:
                yield f"{one.task.id}: {MEASURES[name][0]}: {each.reason}"


def picture(compared: Comparison) -> str:
    """Bars of what each task does to each figure, on axes of logarithms beside the band of noise, as a file."""
    parts, height = list[Markup](), HEAD + ROW * len(compared.tasks)
    for place, name in enumerate(MEASURES):
        parts.append(Markup('<g transform="translate(0 {})">').format(place * height))
        parts += [*_panel(compared, name, height), Markup("</g>")]
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" role="img"><style>{}</style>{}</svg>'
    return str(Markup(head).format(WIDTH, height * len(MEASURES) + 8, STYLE, Markup("\n").join(parts)))  # noqa: S704


def _panel(compared: Comparison, name: str, height: int) -> Iterator[Markup]:
    told = [(each.task.id, each.effects.get(name, Effect())) for each in compared.tasks]
    noise, right = compared.noise[name].ratio, WIDTH - 180
    known = [noise, *(each.ratio for _, each in told)]
    across = Range.of([-0.1, 0.1, *(math.log(end) for each in known if each for end in (each.low, each.high))])

    def bar(kind: str, one: float, other: float, y: float, thick: float) -> Markup:
        ends = (LABEL + across.share(math.log(end)) * (right - LABEL) for end in (one, other))
        low, high = sorted(round(end, 1) for end in ends)
        box = '<rect class="{}" x="{}" width="{}" y="{}" height="{}"/>'
        return Markup(box).format(kind, low, round(max(high - low, 1), 1), y, thick)  # noqa: S704

    def text(words: str, kind: str, left: float, y: float) -> Markup:
        return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, left, y, words)

    yield text(f"{', '.join(MEASURES[name])}: with the task, as a multiple of without", "title", 4, HEAD - 12)
    if noise is not None:
        yield bar("noise", noise.low, noise.high, HEAD, height - HEAD)
    yield bar("one", 1, 1, HEAD, height - HEAD)
    for y, (task, effect) in zip(range(HEAD, height, ROW), told, strict=True):
        kind = "shown" if effect.is_shown else "not-shown"
        yield text(task, "name", 4, y + 13)
        if effect.ratio is not None:
            yield bar(kind, 1, effect.ratio.median, y + 3, ROW - 6)
            yield bar("interval", effect.ratio.low, effect.ratio.high, y + ROW / 2, 1)
        yield text(words(effect) if effect.ratio is not None else "not measured", kind, right + 12, y + 13)
