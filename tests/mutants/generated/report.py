"""What came of generated mutants: two pages, and the schema of mutation testing (mutation-testing-elements, version 2)."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from samples import REFERENCE, ROOT

from generated.lines import read
from generated.page import PAGE as HTML
from generated.page import REPORT as SCHEMED
from generated.page import page
from generated.survivors import EQUIVALENT

if TYPE_CHECKING:
    from generated.run import Generated, Result

PAGE = ROOT / "docs" / "mutants_generated.md"
CRASHED = ("RuntimeError", "Timeout")
DETECTED = ("Killed", *CRASHED)
LONGEST = 90  # characters of a change that a table shows
INTRODUCTION = """# Generated mutants

Trees that are `reference/` with one small change, made by operators (tests/mutants/generated/operators.py) on every line
that a patch inserts or changes, and on the functions that these lines call; none has the bytecode of `reference/` or
of another. Written by `make mutants`; mutants.json holds the same in the schema of mutation testing reports, and
mutants.html, to open in a browser, what somebody looks at: survivors first, each in its place in the source.

Killed: a check failed. Crashed: a check ended in an error or ran out of time before one failed: verify is red too.
Equivalent: shown to be right (tests/mutants/generated/survivors.py). The score is what was killed or crashed of all that
was judged and is not equivalent. A mutant counts for each task whose line it changes; those of functions that are only
called stand apart.
"""


def write_pages(mutants: Sequence["Generated"], results: Mapping[str, "Result"], checks: Mapping[str, str]) -> int:
    """Write them; return how many mutants were judged, not refused, and not known to be equivalent."""
    PAGE.write_text("\n".join(page_lines(mutants, results)) + "\n", encoding="utf-8")
    said = report(mutants, results, checks)
    SCHEMED.write_text(json.dumps(said, separators=(",", ":")) + "\n", encoding="utf-8")
    HTML.write_text(page(said), encoding="utf-8")
    return sum(fate(each, results) in {"Survived", "NoCoverage"} for each in mutants)


def fate(mutant: "Generated", results: Mapping[str, "Result"]) -> str:
    """The status of a mutant: Ignored where it is known to be equivalent, Pending where it was not judged."""
    result = results.get(mutant.mutation.name)
    if result and result.status in DETECTED:
        return result.status
    return "Ignored" if mutant.mutation.name in EQUIVALENT else result.status if result else "Pending"


def page_lines(mutants: Sequence["Generated"], results: Mapping[str, "Result"]) -> Iterator[str]:
    yield INTRODUCTION
    by_task, by_operator = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for each in mutants:
        said = fate(each, results)
        by_operator[each.mutation.operator].append(said)
        for task in sorted(each.tasks) or [0]:
            by_task[f"task-{task:02}" if task else "what they call"].append(said)
    every = [fate(each, results) for each in mutants]
    yield from scores("lines of", by_task, every)
    yield ""
    yield from scores("operator", by_operator, every)
    yield "\n## Survivors\n"
    yield "Open ones first; each was passed by all checks of its tasks.\n"
    yield "| tasks | where | operator | change | why it is right |\n| --- | --- | --- | --- | --- |"
    alive = [each for each in mutants if fate(each, results) in {"Survived", "NoCoverage", "Ignored"}]
    for each in sorted(alive, key=lambda each: (each.mutation.name in EQUIVALENT, sorted(each.tasks or each.callers))):
        yield row(each, fate(each, results))


def scores(head: str, groups: Mapping[str, Sequence[str]], every: Sequence[str]) -> Iterator[str]:
    """A table of how many mutants of each group were killed."""
    yield f"| {head} | mutants | judged | killed | crashed | equivalent | open | score |\n|{' --- |' * 8}"
    for name, fates in [*sorted(groups.items()), ("all", every)]:
        killed, equivalent, pending = (fates.count(each) for each in ("Killed", "Ignored", "Pending"))
        judged, crashed = len(fates) - pending, sum(map(fates.count, CRASHED))
        opened = judged - equivalent - killed - crashed
        score = f"{100 - 100 * opened / (judged - equivalent):.1f}%" if judged > equivalent else ""
        yield f"| {name} | {len(fates)} | {judged} | {killed} | {crashed} | {equivalent} | {opened} | {score} |"


def row(mutant: "Generated", said: str) -> str:
    """A survivor's row."""
    tasks = ", ".join(map(str, sorted(mutant.tasks))) or f"({', '.join(map(str, sorted(mutant.callers)))})"
    at = f"{mutant.path}:{mutant.mutation.lines.start}"
    why = EQUIVALENT.get(mutant.mutation.name, "" if said == "Survived" else "unproven")
    change = f"{shown(mutant.mutation.before)} → {shown(mutant.mutation.after)}"
    return f"| {tasks} | {at} | {mutant.mutation.operator} | {change} | {why} |"


def shown(text: str) -> str:
    """Code on one line of a table, not too long."""
    text = " ".join(text.split())
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return f"`{text}`".replace("|", "\\|") if text else "nothing"


def report(
    mutants: Iterable["Generated"], results: Mapping[str, "Result"], checks: Mapping[str, str]
) -> dict[str, Any]:
    """A mutation testing report: mutated files with their mutants, and judges with their checks."""
    files: dict[str, Any] = {}
    for each in mutants:
        file = files.setdefault(
            f"reference/{each.path}", {"language": "python", "source": read(REFERENCE, each.path), "mutants": []}
        )
        file["mutants"].append(mutant_result(each, results, checks))
    tests: dict[str, Any] = {}
    for check, prop in checks.items():
        (judge,) = (ROOT / "verify").glob(f"task_{int(check.split('/')[0].removeprefix('task-')):02}_*.py")
        tests.setdefault(f"verify/{judge.name}", {"tests": []})["tests"].append({"id": check, "name": prop})
    return {"schemaVersion": "2", "thresholds": {"high": 95, "low": 80}, "files": files, "testFiles": tests}


def owners(mutant: "Generated") -> str:
    """Whose code a mutant changes, in words that page.py reads."""
    whose = ", ".join(f"task-{task}" for task in sorted(mutant.tasks or mutant.callers))
    return f"in a line of {whose}" if mutant.tasks else f"in what {whose} calls"


def mutant_result(mutant: "Generated", results: Mapping[str, "Result"], checks: Mapping[str, str]) -> dict[str, Any]:
    mutation, result = mutant.mutation, results.get(mutant.mutation.name)
    entry: dict[str, Any] = {
        "id": mutation.name,
        "mutatorName": mutation.operator,
        "replacement": mutation.after,
        "location": {
            side: {"line": line, "column": column}
            for side, (line, column) in (("start", mutation.start), ("end", mutation.end))
        },
        "status": fate(mutant, results),
        "description": owners(mutant),
    }
    if result:
        entry["testsCompleted"] = result.tried
    if result and entry["status"] in DETECTED:
        entry |= {"coveredBy": [result.by], "killedBy": [result.by]}
        if entry["status"] == "RuntimeError":  # which readers of the schema take for a mutant that could not be tried
            entry |= {"status": "Killed", "statusReason": "the check ended in an error"}
    elif entry["status"] == "Survived":
        judges = {f"task-{task}" for task in mutant.tasks | mutant.callers}
        entry["coveredBy"] = [check for check in checks if check.split("/")[0] in judges]
    elif entry["status"] == "Ignored":
        entry["statusReason"] = EQUIVALENT[mutation.name]
    return entry
