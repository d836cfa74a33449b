import json
import math
from pathlib import Path

import jsonschema
import pytest

from bitpatch.verify.rendering import report as module
from bitpatch.verify.rendering.report import CheckResult, Outcome, Report, SanityFit, TaskReport, exit_code, text_of
from bitpatch.verify.running.evidence import Evidence, Picture, Verdict, at_most, failed, passed, unproven

SCHEMA = json.loads(Path(module.__file__).parents[1].joinpath("schemas", "verify.json").read_text())
ERROR = Evidence(Verdict.ERROR, detail="killed by SIGSEGV")
GRAVEST = {
    "nothing": ([], Outcome.UNPROVEN, 5),
    "a pass": ([passed("")], Outcome.VERIFIED, 0),
    "a pass and an unproven": ([passed(""), unproven("")], Outcome.UNPROVEN, 5),
    "an error and an unproven": ([unproven(""), ERROR], Outcome.ERROR, 5),
    "a failure among all others": ([passed(""), ERROR, failed(""), unproven("")], Outcome.VIOLATED, 4),
}


def report_of(*tasks: list[Evidence], sanity_fit: SanityFit | None = None) -> Report:
    reports = tuple(
        TaskReport(
            number,
            tuple(CheckResult(number, f"check-{place}", "rows sum to 1", one, 0.25) for place, one in enumerate(found)),
        )
        for number, found in enumerate(tasks, 11)
    )
    return Report(Path("/tree"), reports, sanity_fit, 1.5)


def a_fit() -> SanityFit:
    return SanityFit(Verdict.PASS, "", (1.0,) * 20 + (0.5,) * 20, (1e-3,) * 39 + (4e-9,), 7.0)


@pytest.mark.parametrize(("found", "outcome", "code"), GRAVEST.values(), ids=GRAVEST)
def test_the_gravest_counts_for_a_task(found: list[Evidence], outcome: Outcome, code: int) -> None:
    report = report_of(found)
    assert (report.tasks[0].verdict, report.verdict, exit_code(report)) == (outcome, outcome, code)


@pytest.mark.parametrize(
    ("tasks", "fit", "code"),
    [
        ([], None, 5),
        ([], Verdict.PASS, 0),
        ([passed("")], Verdict.PASS, 0),
        ([passed("")], Verdict.FAIL, 4),
        ([passed("")], Verdict.UNPROVEN, 5),
        ([passed("")], Verdict.ERROR, 5),
        ([failed("")], Verdict.ERROR, 4),
    ],
)
def test_the_gravest_of_tasks_and_sanity_fit_counts(tasks: list[Evidence], fit: Verdict | None, code: int) -> None:
    sanity_fit = None if fit is None else SanityFit(fit, "", (), (), 0.0)
    assert exit_code(report_of(*([one] for one in tasks), sanity_fit=sanity_fit)) == code


def test_a_violated_task_outweighs_one_in_error() -> None:
    assert exit_code(report_of([ERROR], [failed("")], [passed("")])) == 4


def test_the_json_is_what_the_design_says() -> None:
    report = report_of([at_most(1e-4, 1e-12, "too far", "python -c 1")], sanity_fit=a_fit())
    assert report.to_json() == {
        "tree": "/tree",
        "verdict": "violated",
        "seconds": 1.5,
        "tasks": [
            {
                "id": "task-11",
                "verdict": "violated",
                "checks": [
                    {
                        "name": "check-0",
                        "property": "rows sum to 1",
                        "verdict": "fail",
                        "measured": 1e-4,
                        "limit": 1e-12,
                        "margin": -8.0,
                        "detail": "too far",
                        "reproduce": "python -c 1",
                        "covered": None,
                        "picture": None,
                        "seconds": 0.25,
                    }
                ],
            }
        ],
        "sanity_fit": {
            "verdict": "pass",
            "steps": 40,
            "loss_first": 1.0,
            "loss_last": 0.5,
            "lr_last": 4e-9,
            "seconds": 7.0,
        },
    }


@pytest.mark.parametrize(
    "report",
    [
        report_of(),
        report_of([]),
        report_of([passed("")], [ERROR, unproven("")], sanity_fit=a_fit()),
        report_of([at_most(math.nan, 1.0), at_most(math.inf, 1.0), at_most(0.0, 0.0)]),
        report_of([failed("", picture=Picture("maps", "a map", [[0.5, None]], [[1.0, 0.0]], "key", "query"))]),
        report_of(sanity_fit=SanityFit(Verdict.ERROR, "it crashed", (), (), 0.0)),
        report_of(sanity_fit=SanityFit(Verdict.FAIL, "", (math.nan,) * 30, (1e-3,) * 30, 0.0)),
    ],
    ids=["nothing", "no checks", "all kinds", "no numbers", "a picture", "fit in error", "fit that diverged"],
)
def test_the_json_follows_its_schema(report: Report) -> None:
    text = json.dumps(report.to_json(), allow_nan=False)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(text))


def test_the_schema_refuses_a_report_with_a_key_less_or_more() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    schema = jsonschema.Draft202012Validator(SCHEMA)
    report = report_of([passed("")], sanity_fit=a_fit()).to_json()
    for part in (report, report["tasks"][0], report["tasks"][0]["checks"][0], report["sanity_fit"]):
        for key in list(part):
            value = part.pop(key)
            assert not schema.is_valid(report), key
            part[key] = value
        part["curves"] = []
        assert not schema.is_valid(report)
        del part["curves"]
    assert schema.is_valid(report)


def test_a_measured_value_that_json_has_no_number_for_is_told_in_the_detail() -> None:
    checks = report_of([at_most(math.inf, 1.0, "first row"), at_most(math.nan, 1.0)]).to_json()["tasks"][0]["checks"]
    assert [(check["measured"], check["detail"]) for check in checks] == [
        (None, "measured inf; first row"),
        (None, "measured nan"),
    ]


def test_plain_text_in_a_pipe() -> None:
    report = report_of(
        [at_most(1e-15, 1e-12), at_most(1e-4, 1e-12, "too far\nby [much]", "python -c 1")], [], sanity_fit=a_fit()
    )
    assert text_of(report) == (
        "task-11: violated\n"
        "  check   verdict   measured     limit  margin seconds\n"
        "  check-0 pass         1e-15     1e-12    +3.0    0.25\n"
        "  check-1 fail        0.0001     1e-12    -8.0    0.25\n"
        "  check-1: rows sum to 1\n"
        "    too far\n"
        "    by [much]\n"
        "    reproduce: python -c 1\n"
        "\n"
        "task-12: unproven\n"
        "  no check of this task is known\n"
        "\n"
        "sanity fit: pass  loss 1.000 -> 0.500 bits per bit in 40 updates\n"
        "task-11: violated  1 of 2 checks: check-1\n"
        "task-12: unproven  no check\n"
        "/tree: violated in 1.5 s\n"
    )


def test_what_passed_needs_no_explanation() -> None:
    assert "rows sum to 1" not in text_of(report_of([passed("all 3,000 shapes")]))


def test_of_several_tasks_a_summary_names_the_red_ones_first() -> None:
    lines = text_of(report_of([passed("")], [ERROR, passed("")], [failed("no")], [passed("")])).splitlines()
    first, second, third, last = lines[-4:]
    assert first.startswith("task-13: violated  1 of 1 checks: ")
    assert second.startswith("task-12: error  1 of 2 checks: ")
    assert third == "task-11, task-14: verified"
    assert last.startswith("/tree: violated")


def test_one_task_needs_no_summary() -> None:
    assert text_of(report_of([failed("no")])).count("task-11: violated") == 1
