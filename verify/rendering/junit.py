"""A result as JUnit XML: a suite a task, a case a check. What is unproven is an error there: no pass, and no skip."""

import re
from xml.etree import ElementTree as Xml

from ..running.evidence import Evidence, Verdict
from .report import SanityFit, detail_of, fit_summary
from .surroundings import Shown

TAGS = {Verdict.FAIL: "failure", Verdict.UNPROVEN: "error", Verdict.ERROR: "error"}
TAGS |= {Verdict.NOT_APPLICABLE: "skipped"}
ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0


def junit(shown: Shown) -> str:
    """The document."""
    root = Xml.Element("testsuites", name="bitpatch")
    for task in shown.report.tasks:
        suite = _suite(root, task.id)
        for result in task.checks:
            site = shown.place(result)
            about = [result.prop, detail_of(result.evidence), result.evidence.reproduce]
            _case(suite, task.id, result.name, result.seconds, result.evidence, [*about, str(site) if site else ""])
    if shown.report.sanity_fit is not None:
        fit = shown.report.sanity_fit
        suite = _suite(root, "sanity-fit")
        _case(suite, "sanity-fit", "sanity-fit", fit.seconds, _evidence(fit), [fit_summary(fit)])
    if shown.report.since is not None:
        tests = shown.report.since.tests
        suite = _suite(root, "own-tests")
        _case(suite, "own-tests", "own-tests", 0.0, Evidence(tests.verdict), list(tests.detail))
    for suite in (*root, root):
        for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
            suite.set(name, str(len(list(suite.iter(tag)))))
        suite.set("time", f"{sum(float(case.get('time', 0)) for case in suite.iter('testcase')):.3f}")
    Xml.indent(root)
    return "<?xml version='1.0' encoding='utf-8'?>\n" + Xml.tostring(root, encoding="unicode") + "\n"


def _suite(root: Xml.Element, name: str) -> Xml.Element:
    return Xml.SubElement(root, "testsuite", name=name)


def _evidence(fit: SanityFit) -> Evidence:
    return Evidence(fit.verdict, detail=fit.detail)


def _case(suite: Xml.Element, task: str, name: str, seconds: float, evidence: Evidence, about: list[str]) -> None:
    case = Xml.SubElement(suite, "testcase", classname=f"bitpatch.{task}", name=legal(name), time=f"{seconds:.3f}")
    if (tag := TAGS.get(evidence.verdict)) is not None:
        first = next((line for line in (detail_of(evidence), *about) if line), "")
        found = Xml.SubElement(
            case, tag, type=str(evidence.verdict), message=legal(first.splitlines()[0] if first else "")
        )
        found.text = legal("\n".join(line for line in about if line))


def legal(text: str) -> str:
    """A text without what XML cannot hold."""
    return ILLEGAL.sub("?", text)
