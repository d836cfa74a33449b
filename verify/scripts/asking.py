"""What is asked of scripts: properties, and the words that their judges share."""

from collections.abc import Callable

from ..running.evidence import Evidence, Picture, Verdict, passed, unproven
from .seen import Seen, Update

RUNS = "the script runs, as far as it is let"
Judge = Callable[[Seen], Evidence]
PROPERTIES: list[tuple[str, str, Judge]] = []  # names, and what is to hold
TASKS: dict[str, tuple[int, ...]] = {}  # by name of a property: the tasks that it is of, where a tree is judged


def asked(prop: str, *tasks: int) -> Callable[[Judge], Judge]:
    """Register a function as the judge of a property of scripts."""

    def register(judge: Judge) -> Judge:
        PROPERTIES.append((judge.__name__.replace("_", "-"), prop, judge))
        TASKS[PROPERTIES[-1][0]] = tasks
        return judge

    return register


def not_applicable(why: str) -> Evidence:
    """A script does not do what a property is about."""
    return Evidence(Verdict.NOT_APPLICABLE, detail=why)


def violated(detail: str, at: str, picture: Picture | None = None) -> Evidence:
    return Evidence(Verdict.FAIL, detail=f"{detail}{f' ({at})' if at else ''}", picture=picture, at=at)


def backward_of(update: Update) -> str:
    """Where the first backward of an update is called."""
    return next((each.line for each in update.events if each.kind == "backward"), update.line)


def size_of(update: Update) -> int:
    """Micro-batches: backward calls."""
    return len({loss.backward for loss in update.losses})


def short(lines: list[str]) -> list[str]:
    return [line[-80:] for line in lines]


@asked(RUNS, 1)
def the_script_runs(seen: Seen) -> Evidence:
    """Whether a script came to its end, or was stopped by us."""
    if seen.ended:
        return Evidence(Verdict.ERROR, detail=f"it ended with {seen.ended}, after {seen.made} updates")
    if not seen.made:
        return unproven("no optimizer of torch stepped, and no parameter changed: nothing was trained")
    return passed(f"{seen.stopped or 'it ran to its end'}; {seen.made} updates")
