"""JUnit XML: read back by a library that others read it with."""

from xml.etree import ElementTree

from junitparser import Error, Failure, JUnitXml
from results import fit, report, shown

from bitpatch.verify.rendering.forms import FORMS
from bitpatch.verify.running.evidence import Verdict


def test_a_check_is_a_case_and_what_does_not_pass_is_red():
    found = JUnitXml.fromstring(FORMS["junit"](shown()).encode())
    cases = [case for suite in found for case in suite]
    assert (found.tests, found.failures, found.errors) == (7, 3, 2)
    kinds = [Failure, Failure, Failure, Error, Error]
    assert [type(case.result[0]) for case in cases if case.result] == kinds
    assert [case.result[0].type for case in cases if case.result] == ["fail", "fail", "fail", "unproven", "error"]
    assert cases[0].classname == "bitpatch.task-4"
    assert "pkg/train loop.py:7:5" in cases[0].result[0].text


def test_what_xml_cannot_hold_is_replaced():
    document = FORMS["junit"](shown())
    ElementTree.fromstring(document)
    assert "\x00" not in document
    assert "\x1b" not in document
    assert "<script>" not in document


def test_the_sanity_fit_is_a_case():
    found = JUnitXml.fromstring(FORMS["junit"](shown(report(fit=fit(Verdict.FAIL)))).encode())
    assert [suite.name for suite in found] == ["task-4", "task-11", "sanity-fit"]
    assert found.failures == 4
