"""A result for GitHub Actions: annotations on the lines that matter, and a summary of the step in Markdown.

GitHub shows ten annotations of a kind a step, and those on lines of the pull request's diff beside the code; so the
gravest come first, and the last says how many more there are. What a tree prints must not be taken for a command.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from ...patches.task import Site
from ..running.evidence import Verdict
from .report import EXIT_CODES, FIRST, LAST, LEVELS, Outcome, detail_of, fit_summary, mean, text_of
from .surroundings import Shown

MOST = 10  # annotations of a kind that GitHub shows of a step
LONGEST = 4000  # characters of a message
LARGEST = 100_000  # characters of the details in a summary, and of how to see them: GitHub takes 1 MiB in all
SIGNS = {"verified": "✅", "violated": "❌", "unproven": "❔", "error": "⚠️"}
SIGNS |= {"pass": "✅", "fail": "❌", "not applicable": "⚪"}


@dataclass(frozen=True, slots=True)
class Annotation:
    """What is said of a line: kind "error" or "warning"."""

    kind: str
    title: str
    message: str
    site: Site | None

    def command(self, shown: Shown) -> str:
        """The line that Actions read."""
        site = self.site
        place = {"file": shown.path(site), "line": site.place.line, "col": site.place.column} if site else {}
        options = ",".join(f"{name}={_option(str(value))}" for name, value in (place | {"title": self.title}).items())
        return f"::{self.kind} {options}::{_message(self.message[:LONGEST])}"


def commands(shown: Shown) -> str:
    """The result as text, which is not read as commands, then the annotations."""
    word = secrets.token_hex(16)
    text = [f"::stop-commands::{word}", text_of(shown.report).rstrip("\n"), f"::{word}::"]
    return "\n".join([*text, *(each.command(shown) for each in annotations(shown))]) + "\n"


def annotations(shown: Shown) -> list[Annotation]:
    """At most so many of a kind as are shown; the last of more says how many are left."""
    found = list(_annotations(shown))
    kept = []
    for kind in ("error", "warning"):
        some = [each for each in found if each.kind == kind]
        if len(some) > MOST:
            more = f"{len(some) - MOST + 1} more are red: the step's summary names them"
            some = [*some[: MOST - 1], Annotation(kind, f"{len(some) - MOST + 1} more", more, some[MOST - 1].site)]
        kept += some
    return kept


def _annotations(shown: Shown) -> Iterator[Annotation]:
    report = shown.report
    for task in report.tasks:
        for result in task.red:
            evidence = result.evidence
            again = f"\n{evidence.reproduce}" if evidence.reproduce else ""
            message = f"{result.prop}\n{detail_of(evidence)}{again}"
            title = f"{task.id} {result.name}: {evidence.verdict}"
            yield Annotation(LEVELS[evidence.verdict], title, message, shown.place(result))
    if (fit := report.sanity_fit) is not None and fit.verdict is not Verdict.PASS:
        yield Annotation(LEVELS[fit.verdict], f"sanity fit: {fit.verdict}", fit_summary(fit), shown.site(1))
    for path, line, words in report.since.tests.lost() if report.since is not None else ():
        yield Annotation("error", "the tree's own tests shrank", words, Site.at(path, words, line, 1))


def summary(shown: Shown) -> str:
    """The step's summary: the verdict, a table of tasks, then what needs saying of each check that did not pass."""
    return "\n".join(_summary(shown)) + "\n"


def _summary(shown: Shown) -> Iterator[str]:
    report = shown.report
    yield f"## {SIGNS[report.verdict]} bitpatch: {report.verdict} (exit code {EXIT_CODES[report.verdict]})\n"
    yield "| task | verdict | checks | pass | fail | unproven | error | where |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for task in report.tasks:
        verdicts = [str(each.evidence.verdict) for each in task.checks]
        counts = " | ".join(str(verdicts.count(each)) for each in ("pass", "fail", "unproven", "error"))
        site = shown.site(task.task)
        where = f"<code>{_cell(f'{shown.path(site)}:{site.place.line}')}</code>" if site else ""
        name = shown.tasks[task.task].task.title if task.task in shown.tasks else ""
        sign = f"{SIGNS[task.verdict]} {task.verdict}"
        yield f"| {task.id} {_cell(name)} | {sign} | {len(verdicts)} | {counts} | {where} |"
    if report.sanity_fit is not None:
        fit = report.sanity_fit
        fall = f"{mean(fit.losses[:FIRST]):.3f} → {mean(fit.losses[-LAST:]):.3f}" if fit.losses else ""
        yield f"\nSanity fit: {SIGNS[str(fit.verdict)]} {fit.verdict} {fall} {_cell(fit.detail)}"
    if report.since is not None:
        yield "\n" + "\n".join(f"- {_cell(line)}" for line in report.since.lines())
    room = min(LONGEST, LARGEST // max(1, sum(len(task.red) for task in report.tasks)))
    for task in report.tasks:
        if task.verdict is Outcome.VERIFIED:
            continue
        yield f"\n<details><summary><b>{task.id}</b>: {task.verdict}, {len(task.red)} of {len(task.checks)}</summary>\n"
        for result in task.red:
            yield f"- {SIGNS[str(result.evidence.verdict)]} **{result.name}**: {_cell(result.prop)}"
            for text in (detail_of(result.evidence), result.evidence.reproduce):
                if text:
                    yield _fenced(text[:room])
        yield f"\nJudge it again: <code>{_cell(shown.command(task.task))}</code>\n\n</details>"


def _cell(text: str) -> str:
    """A text in a line of Markdown that is neither markup nor the end of a cell."""
    line = " ".join(text.split())
    return line.translate({ord(sign): f"&#{ord(sign)};" for sign in "&<>|`*_[]\\@#"})


def _fenced(text: str) -> str:
    """A text as it is, in a fence that it does not close."""
    fence = "~" * 3
    while fence in text:
        fence += "~"
    lines = [f"{fence}text", *text.splitlines(), fence]
    return "\n".join(f"  {line}" for line in lines)


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _option(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
