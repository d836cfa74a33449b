"""A result as SARIF 2.1.0: one run a task, so that judging some of them says nothing of the others."""

import difflib
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from ... import __version__
from ...patches.task import Change, Site
from ..running.evidence import Verdict
from ..since.found import OwnTests
from .report import LEVELS, CheckResult, SanityFit, TaskReport, detail_of, exit_code, fit_summary
from .surroundings import Shown

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
Json = dict[str, Any]


def sarif(shown: Shown) -> Json:
    """The log: a category for each task that was judged, and one for the sanity fit."""
    runs = [_run(shown, task) for task in shown.report.tasks]
    if shown.report.sanity_fit is not None:
        runs.append(_fitted(shown, shown.report.sanity_fit))
    if shown.report.since is not None:
        runs.append(_tested(shown, shown.report.since.tests))
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": runs}


def _run(shown: Shown, task: TaskReport) -> Json:
    results = [_result(shown, each) for each in task.red]
    fix = _fix(shown, task.task)
    if results and fix is not None:
        results[0]["fixes"] = [fix]
    broken = [each for each in task.red if each.evidence.verdict is Verdict.ERROR]
    notes = [{"level": "error", "message": {"text": _text(each)}} for each in broken]
    return _frame(shown, task.id, [_rule(shown, each) for each in task.checks], results, notes)


def _fitted(shown: Shown, fit: SanityFit) -> Json:
    rule = {"id": "sanity-fit", "shortDescription": {"text": "a short training run learns, and follows its schedule"}}
    results: list[Json] = []
    if fit.verdict is not Verdict.PASS:
        sites = shown.tasks[1].sites if 1 in shown.tasks else ()
        results.append(_placed(shown, "sanity-fit", sites, f"sanity fit: {fit_summary(fit)}", LEVELS[fit.verdict]))
    return _frame(shown, "sanity-fit", [rule], results, [])


def _tested(shown: Shown, tests: OwnTests) -> Json:
    rule = {"id": "own-tests", "shortDescription": {"text": "a change does not take tests of the tree out of force"}}
    results = []
    for path, line, words in tests.lost():
        site = Site.at(path, words, line, 1)
        found = {"ruleId": "own-tests", "level": "error", "message": {"text": words}}
        results.append({**found, "locations": [_location(shown, site)], **_fingerprint("own-tests", path + words)})
    return _frame(shown, "own-tests", [rule], results, [])


def _fingerprint(rule: str, where: str) -> Json:
    return {"partialFingerprints": {"bitpatchCheck/v1": hashlib.sha256(f"{rule}\0{where}".encode()).hexdigest()[:32]}}


def _frame(shown: Shown, category: str, rules: list[Json], results: list[Json], notes: list[Json]) -> Json:
    code = exit_code(shown.report)
    invocation = {"executionSuccessful": not notes, "exitCode": code, "toolExecutionNotifications": notes}
    return {
        "tool": {"driver": {"name": "bitpatch", "version": __version__, "rules": rules}},
        "automationDetails": {"id": f"bitpatch/{category}/"},
        "columnKind": "unicodeCodePoints",
        "invocations": [invocation],
        "results": results,
    }


def _rule(shown: Shown, result: CheckResult) -> Json:
    found = shown.tasks.get(result.task)
    help_text = f"Judge it again: {shown.command(result.task)}"
    if found is not None:
        help_text = f"{found.task.title} ({found.task.contract}). {found.task.why.strip()}\n\n{help_text}"
    return {
        "id": f"{result.subject}/{result.name}",
        "shortDescription": {"text": result.prop or result.name},
        "help": {"text": help_text},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": [result.subject]},
    }


def _result(shown: Shown, result: CheckResult) -> Json:
    rule = f"{result.subject}/{result.name}"
    sites = shown.tasks[result.task].sites if result.task in shown.tasks else ()
    seen = shown.place(result)
    return _placed(shown, rule, sites or ((seen,) if seen else ()), _text(result), LEVELS[result.evidence.verdict])


def _placed(shown: Shown, rule: str, sites: Sequence[Site], text: str, level: str) -> Json:
    found: Json = {"ruleId": rule, "level": level, "message": {"text": text}, "locations": []}
    if sites:
        found["locations"] = [_location(shown, sites[0])]
        found["relatedLocations"] = [
            {"id": place, **_location(shown, site), "message": {"text": site.note}}
            for place, site in enumerate(sites[1:], 1)
        ]
    where = shown.path(sites[0]) if sites else ""
    return found | _fingerprint(rule, where)


def _text(result: CheckResult) -> str:
    evidence = result.evidence
    limit = "" if evidence.limit is None or evidence.measured is None else f" (limit {evidence.limit:.3g})"
    measured = "" if evidence.measured is None else f" Measured {evidence.measured:.3g}{limit}."
    again = f"\nShow it again: {evidence.reproduce}" if evidence.reproduce else ""
    return f"{evidence.verdict}: {result.prop}.{measured} {detail_of(evidence)}{again}"


def _location(shown: Shown, site: Site) -> Json:
    place = site.place
    region = {"startLine": place.line, "startColumn": place.column}
    return {"physicalLocation": {"artifactLocation": _artifact(shown.path(site)), "region": region}}


def _artifact(path: str) -> Json:
    return {"uri": quote(path, errors="surrogateescape")}


def _fix(shown: Shown, task: int) -> Json | None:
    """What `apply` would write, as replacements of whole lines; None where that is nothing, or is not UTF-8."""
    found = shown.tasks.get(task)
    if found is None or not found.changes:
        return None
    try:
        changes = [_artifact_change(shown, each) for each in found.changes]
    except UnicodeDecodeError:
        return None
    return {"description": {"text": f"bitpatch apply {found.task.id}"}, "artifactChanges": changes}


def _artifact_change(shown: Shown, change: Change) -> Json:
    before, after = (raw.decode("utf-8-sig") for raw in (change.before, change.after))  # a mark is in no region
    replacements = list(_replacements(before, after))
    return {"artifactLocation": _artifact(shown.path(change)), "replacements": replacements}


def _replacements(before: str, after: str) -> Iterator[Json]:
    old, new = (re.findall("[^\n]*\n|[^\n]+", text) for text in (before, after))  # what SARIF calls lines
    for tag, first, end, new_first, new_end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            region = {"startLine": first + 1, "startColumn": 1, "endLine": end + 1, "endColumn": 1}
            yield {"deletedRegion": region, "insertedContent": {"text": "".join(new[new_first:new_end])}}
