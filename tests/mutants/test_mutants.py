"""Each judge passes reference/ and the good trees, and fails baseline/ and every mutant: law 8.

Every check against every mutant takes long: `make mutants` does that, and records the killers in
kills.json. Here each check kills somewhere, some other mutants meet their killer, and some good
trees all checks. That reference/ passes is what the gate sees (tests/test_gate.py).
"""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cases import KNOWN, ROOT, TASKS, Case, choose_killers, good, judged, known_kills, mutants, read_kills, telling
from interactions import INTERACTIONS, OPEN
from mutant import Mutant
from samples import parameters_of

from bitpatch.verify.running.evidence import Evidence, Verdict
from bitpatch.verify.running.runner import Zygote

EVERY_TREE = "BITPATCH_EVERY_TREE" in os.environ  # else a sample of the good ones and of the mutants
UNRECORDED = "no killer of it is recorded yet: make mutants"
STALE = "kills.json is stale: run make mutants"

Judge = Callable[[Case], dict[str, Evidence]]


def good_trees() -> Iterator[object]:
    """A case for each right tree, or for one in 24 of them, to be judged by all checks of its task."""
    cases = [Case(task, each.name) for task in TASKS for each in good(task)]
    for case in cases if EVERY_TREE else cases[::24]:
        yield pytest.param(case, id=f"task-{case.task}-{case.tree}")


def wrong_trees() -> Iterator[object]:
    """A case for each mutant, to be judged by the killers chosen for it; skipped where none was recorded yet.

    Unless all are asked for: for those by which each check shows what it is there for, and every sixteenth of the others.
    """
    for task in TASKS:
        recorded = read_kills(task)
        chosen = choose_killers(recorded)
        shown = {check: name for name, checks in reversed(chosen.items()) for check in checks}
        for number, mutant in enumerate(mutants(task)):
            if not (EVERY_TREE or mutant.name in shown.values() or number % 16 == 0):
                continue
            marks = [pytest.mark.xfail(reason=OPEN[mutant.name])] if mutant.name in OPEN else []
            if mutant.name not in OPEN and not chosen.get(mutant.name):
                marks = [pytest.mark.skip(reason=UNRECORDED)]
            only = chosen.get(mutant.name, ()) if mutant.name not in OPEN else None
            yield pytest.param(Case(task, mutant.name, only), id=f"task-{task}-{mutant.name}", marks=marks)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as zygote:
        yield zygote


@pytest.fixture(scope="module")
def judge(request: pytest.FixtureRequest, zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """What the checks of a case say of it; those of the tests to come run while these wait."""
    cases = [given["case"] for given in parameters_of(request.session, __file__) if "case" in given]
    known = {task: {name for name, _ in checks} for task, checks in zygote.checks.items()}
    cases = [case for case in cases if {*(case.only or ())} <= known.get(case.task, set())]  # others fail by themselves
    found: dict[Case, dict[str, Evidence]] = defaultdict(dict)
    folder = tmp_path_factory.mktemp("trees")
    with closing(judged(zygote, cases, folder)) as results:

        def evidence(case: Case) -> dict[str, Evidence]:
            wanted = case.only if case.only is not None else [name for name, _ in zygote.checks.get(case.task, ())]
            while len(found[case]) < len(wanted):
                whose, result = next(results)
                found[whose][result.name] = result.evidence
            return found[case]

        yield evidence
    shutil.rmtree(folder)


def with_verdict(evidence: dict[str, Evidence], verdict: Verdict) -> list[str]:
    return [name for name, each in evidence.items() if each.verdict is verdict]


def not_passed(evidence: dict[str, Evidence]) -> dict[str, str]:
    return {
        name: f"{each.verdict}: {each.detail}" for name, each in evidence.items() if each.verdict is not Verdict.PASS
    }


@pytest.mark.parametrize("case", [Case(task, "baseline") for task in TASKS], ids=lambda case: f"task-{case.task}")
def test_baseline_fails_and_ends_in_no_error(judge: Judge, case: Case) -> None:
    evidence = judge(case)
    assert with_verdict(evidence, Verdict.FAIL)
    assert with_verdict(evidence, Verdict.ERROR) == []


@pytest.mark.parametrize("case", list(good_trees()))
def test_good_tree_in_another_idiom_passes(judge: Judge, case: Case) -> None:
    assert not_passed(judge(case)) == {}


@pytest.mark.parametrize("case", list(wrong_trees()))
def test_mutant_is_killed(judge: Judge, zygote: Zygote, case: Case) -> None:
    assert set(case.only or ()) <= {name for name, _ in zygote.checks.get(case.task, ())}, STALE
    evidence = judge(case)
    killers = with_verdict(evidence, Verdict.FAIL)
    assert killers if case.only is None else len(killers) == len(case.only), not_passed(evidence) or "all checks pass"


@pytest.mark.parametrize("task", TASKS)
def test_record_names_what_there_is(zygote: Zygote, task: int) -> None:
    checks = {name for name, _ in zygote.checks.get(task, ())}
    recorded = read_kills(task)
    assert recorded.keys() == {mutant.name for mutant in mutants(task)}, STALE
    assert {check for killers in recorded.values() for check in killers} == checks, STALE


@pytest.mark.parametrize("task", TASKS)
def test_every_check_is_tried_as_a_killer(task: int) -> None:
    recorded = read_kills(task)
    checks = {check for killers in recorded.values() for check in killers}
    assert [check for check, victims in telling(recorded, checks).items() if not victims] == []
    assert {check for chosen in choose_killers(recorded).values() for check in chosen} == checks


def test_reports_know_what_is_recorded() -> None:
    assert json.loads(KNOWN.read_text(encoding="utf-8")) == known_kills(), STALE


def test_document_names_every_mutant() -> None:
    document = (ROOT / "docs" / "mutants.md").read_text(encoding="utf-8")
    names = [mutant.name for task in TASKS for mutant in mutants(task)]
    assert [name for name in names if f"| {name} |" not in document] == [], STALE


@pytest.mark.parametrize("task", TASKS)
def test_names_of_trees_are_unique(task: int) -> None:
    names = [each.name for each in (*mutants(task), *good(task))]
    assert len({*names, "reference", "baseline"}) == len(names) + 2


def test_every_interaction_has_a_judge() -> None:
    names = [mutant.name for _, mutant in INTERACTIONS]
    assert len(set(names)) == len(names)
    assert OPEN.keys() <= set(names)
    assert {task for task, _ in INTERACTIONS} <= TASKS.keys()


def test_each_check_chooses_a_mutant_of_its_own() -> None:
    kills = {"first": ["a", "b"], "second": ["b"], "third": ["a", "c"], "fourth": ["d"]}
    assert choose_killers(kills) == {"first": ("a",), "second": ("b",), "third": ("c",), "fourth": ("d",)}


def test_check_that_has_no_mutant_of_its_own_shares_one() -> None:
    assert choose_killers({"only": ["a", "b"], "other": ["c"], "last": ["d"]})["only"] == ("a", "b")


def test_mutant_that_nearly_all_kill_tells_nothing() -> None:
    assert telling({"all": ["a", "b", "c"], "most": ["a", "b"], "one": ["c"]}, ["a", "b", "c"]) == {
        "a": [],
        "b": [],
        "c": ["one"],
    }


def test_edit_that_finds_its_text_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("a = 1\na = 1\n")
    with pytest.raises(AssertionError, match="2 times"):
        Mutant("twice", "nothing", [("file.py", "a = 1", "a = 2")]).apply(tmp_path)
