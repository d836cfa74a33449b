"""A page of a report in the schema of mutation testing: one file that loads nothing. PYTHONPATH is tests:tests/mutants.

    python -m generated.page                              docs/mutants.json, as docs/mutants.html
    python -m generated.page REPORT.json PAGE.html        any other report; what the schema leaves free may be absent

Survivors come first, each in its place in the source, with why it lives. Where a page would grow too large, it says
less of the mutants that were found, and shows fewer lines around the others; survivors are never left out.
"""

import json
import re
import sys
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from samples import ROOT

FOLDER = Path(__file__).parent
STYLE = ROOT / "verify" / "rendering" / "page.css"  # that of `bitpatch verify --report`
REPORT, PAGE = ROOT / "docs" / "mutants.json", ROOT / "docs" / "mutants.html"
LARGEST = 300_000  # bytes of a page
WORDS = {
    "Survived": "alive",
    "NoCoverage": "unproven",
    "Ignored": "set aside",
    "Killed": "found",
    "Timeout": "found",
    "RuntimeError": "invalid",
    "CompileError": "invalid",
    "Pending": "not tried",
}
KINDS = ("alive", "unproven", "set aside", "found", "invalid", "not tried")
SHOWN = ("alive", "unproven", "set aside")  # each in its place in the source
OPEN = ("alive", "unproven")
CALLED = "what they call"


@dataclass(frozen=True, slots=True)
class Room:
    """How much a page may say of each thing."""

    around: int  # lines before and after a survivor
    letters: int  # of a change that was found; without any, they are counted, and not listed


ROOMS = [Room(2, 120), Room(2, 60), Room(1, 24), Room(1, 0), Room(0, 0)]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mutant, as a page has it."""

    file: str
    given: Mapping[str, Any]  # as the report has it
    source: Sequence[str]

    @property
    def kind(self) -> str:
        return WORDS.get(self.given["status"], "invalid")

    @property
    def line(self) -> int:
        return int(self.given["location"]["start"]["line"])

    @property
    def tasks(self) -> list[str]:
        """The tasks whose lines it changes, as its description says."""
        said = self.given.get("description", "")
        return re.findall(r"task-\d+", said) if said.startswith("in a line of") else [CALLED] if "task-" in said else []

    @property
    def why(self) -> str:
        """Why it lives."""
        tried = self.given.get("testsCompleted")
        usual = {
            "Survived": f"all {tried:,} checks that were tried pass it"
            if tried
            else "every check that was tried passes it",
            "NoCoverage": f"none of {tried:,} checks was able to tell" if tried else "no check was able to tell",
        }
        return str(self.given.get("statusReason") or usual.get(self.given["status"], "the report does not say"))

    @property
    def lines(self) -> tuple[int, list[str], list[str]]:
        """The number of the first line that is changed, the lines before, and after; none where the source lacks them."""
        start, end = self.given["location"]["start"], self.given["location"]["end"]
        before = list(self.source[start["line"] - 1 : end["line"]])
        if not before or "replacement" not in self.given:
            return self.line, before, []
        last = before[-1][end["column"] - 1 :]
        after = before[0][: start["column"] - 1] + self.given["replacement"] + last
        return self.line, before, after.split("\n") if after.strip() else []

    def change(self, letters: int) -> str:
        """The change in a line, of about so many letters."""
        start, end = self.given["location"]["start"], self.given["location"]["end"]
        before = list(self.source[start["line"] - 1 : end["line"]])
        if not before or "replacement" not in self.given:
            return _cut(self.given.get("description", ""), letters)
        before[-1] = before[-1][: end["column"] - 1]  # first: it may be the only line
        before[0] = before[0][start["column"] - 1 :]
        after = self.given["replacement"].split("\n")
        return f"{_cut(_flat(before), letters // 2)} → {_cut(_flat(after), letters // 2) or 'nothing'}"


def _flat(lines: Iterable[str]) -> str:
    return " ".join(" ".join(lines).split())


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[:letters]}…"


def mutants_of(report: Mapping[str, Any]) -> list[Mutant]:
    """All mutants of a report, by file and line."""
    found = [
        Mutant(name, each, file.get("source", "").split("\n"))
        for name, file in report["files"].items()
        for each in file["mutants"]
    ]
    return sorted(found, key=lambda each: (each.file, each.line, each.given["location"]["start"]["column"]))


def page(report: Mapping[str, Any]) -> str:
    """The page, which says less of what was found where it would grow too large."""
    for room in ROOMS:
        text = _page(report, room)
        if len(text.encode()) <= LARGEST:
            break
    return text


def _page(report: Mapping[str, Any], room: Room) -> str:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    mutants = mutants_of(report)
    listed = [each for each in mutants if each.kind == "found" and room.letters]
    shown = sorted((each for each in mutants if each.kind in SHOWN), key=lambda each: SHOWN.index(each.kind))
    limits = {"high": 80, "low": 60, **report.get("thresholds", {})}
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    totals, known = count(mutants), _known(mutants)
    rest = Counter(_code(each, known) for each in mutants if each.kind not in (*SHOWN, *(["found"] if listed else [])))
    return environment.get_template("page.html").render(
        style=Markup(STYLE.read_text(encoding="utf-8") + (FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        digest=f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}",
        totals=totals,
        colour=_colour(totals, limits),
        by_task=tally(mutants, lambda each: each.tasks),
        by_operator=tally(mutants, lambda each: [each.given["mutatorName"]]),
        by_file=tally(mutants, lambda each: [each.file]),
        shown=[_shown(each, room) | {"code": _code(each, known)} for each in shown],
        listed=_by_file(listed, room, known),
        facts={**known, "rest": [[*map(int, code.split()), number] for code, number in sorted(rest.items())]},
        names=known,
        checks=checks(report, mutants),
        stops_early=not any(len(each.given.get("killedBy", ())) > 1 for each in mutants),
        unlisted=totals["found"] - len(listed),
    )


def count(mutants: Iterable[Mutant]) -> dict[str, Any]:
    """How many mutants there are of each kind, and the score: what was found of what is wrong."""
    kinds = Counter(each.kind for each in mutants)
    wrong = kinds["found"] + sum(kinds[kind] for kind in OPEN)
    score = f"{100 * kinds['found'] / wrong:.1f}%" if wrong else ""
    return {
        **{kind: kinds[kind] for kind in KINDS},
        "all": kinds.total(),
        "tried": kinds.total() - kinds["not tried"],
        "wrong": wrong,
        "open": wrong - kinds["found"],
        "score": score,
    }


def _colour(totals: Mapping[str, Any], limits: Mapping[str, float]) -> str:
    score = 100 * totals["found"] / totals["wrong"] if totals["wrong"] else 0
    return "verified" if score >= limits["high"] else "unproven" if score >= limits["low"] else "violated"


def tally(mutants: Iterable[Mutant], groups_of: Callable[[Mutant], Iterable[str]]) -> list[tuple[str, dict[str, Any]]]:
    """The counts of each group, by its name."""
    groups = defaultdict[str, list[Mutant]](list)
    for each in mutants:
        for name in groups_of(each):
            groups[name].append(each)
    numbers = re.compile(r"\d+")
    order = sorted(groups, key=lambda name: numbers.sub(lambda found: found[0].zfill(6), name))
    return [(name, count(groups[name])) for name in order]


def _facts(mutant: Mutant) -> dict[str, str]:
    """What a page can be filtered by."""
    return {
        "kind": mutant.kind,
        "task": ", ".join(mutant.tasks),
        "file": mutant.file,
        "operator": mutant.given["mutatorName"],
    }


def _known(mutants: Iterable[Mutant]) -> dict[str, list[str]]:
    """All values of each of these."""
    facts = [_facts(each) for each in mutants]
    known = {name: sorted({each[name] for each in facts}) for name in ("kind", "task", "file", "operator")}
    return {**known, "kind": [kind for kind in KINDS if kind in known["kind"]]}


def _code(mutant: Mutant, known: Mapping[str, list[str]]) -> str:
    """The same of a mutant, in as few letters as can be: the places in what is known."""
    return " ".join(str(known[name].index(value)) for name, value in _facts(mutant).items())


def _shown(mutant: Mutant, room: Room) -> dict[str, Any]:
    """What a page says of a mutant that lives."""
    first, before, after = mutant.lines
    above = range(max(1, first - room.around), first)
    below = range(first + len(before), min(len(mutant.source), first + len(before) + room.around) + 1)
    return {
        "id": mutant.given["id"],
        "kind": mutant.kind,
        "tasks": ", ".join(mutant.tasks),
        "operator": mutant.given["mutatorName"],
        "file": mutant.file,
        "line": mutant.line,
        "said": mutant.given.get("description", ""),
        "why": mutant.why,
        "above": [(number, mutant.source[number - 1]) for number in above if before],
        "before": list(enumerate(before, first)),
        "replacement": mutant.given.get("replacement", ""),
        "after": after,
        "below": [(number, mutant.source[number - 1]) for number in below if before],
    }


def _by_file(
    mutants: Iterable[Mutant], room: Room, known: Mapping[str, list[str]]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """The mutants that were found, in short, by file."""
    files = defaultdict[str, list[dict[str, Any]]](list)
    for each in mutants:
        reason = each.given.get("statusReason", "")
        files[each.file].append(
            {
                "code": _code(each, known),
                "operator": each.given["mutatorName"],
                "line": each.line,
                "change": each.change(room.letters),
                "by": ", ".join(each.given.get("killedBy", ())),
                "how": "too slow" if each.given["status"] == "Timeout" else _cut(reason, 60),
            }
        )
    return sorted(files.items())


def checks(report: Mapping[str, Any], mutants: Iterable[Mutant]) -> list[dict[str, Any]]:
    """The tests of a report: how many mutants each finds, and of these those that no other is known to find."""
    finds, alone, late = Counter[str](), Counter[str](), Counter[str]()
    for each in mutants:
        killers = each.given.get("killedBy", ())
        finds.update(killers)
        alone.update(killers if len(killers) == 1 else ())
        late.update(killers if each.given.get("testsCompleted", 1) > 1 else ())
    named = {
        test["id"]: test["name"] for file in (report.get("testFiles") or {}).values() for test in file.get("tests", ())
    }
    return [
        {"id": name, "what": named.get(name, ""), "finds": finds[name], "alone": alone[name], "late": late[name]}
        for name in sorted({*named, *finds}, key=lambda name: (-finds[name], name))
    ]


def main(arguments: Sequence[str]) -> int:
    """Write the page of a report."""
    source = Path(arguments[0]) if arguments else REPORT
    target = Path(arguments[1]) if arguments[1:] else source.with_suffix(".html")
    target.write_text(page(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
