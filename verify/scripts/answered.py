"""What the run of a script showed, as its process answered it."""

from dataclasses import dataclass
from typing import Any

from ..rendering.report import SCRIPT, CheckResult
from ..running.answers import read_evidence
from ..running.evidence import Evidence, Verdict
from .again import NOTHING, Order, read_order
from .asking import RUNS


@dataclass(frozen=True, slots=True)
class Answered:
    """The updates that a script made, a result of each property, and what a second run is to show again."""

    updates: int
    checks: tuple[CheckResult, ...]
    order: Order = NOTHING


def read_script(answer: dict[str, Any], seconds: float) -> Answered:
    """What a process answered, believed only where it has the right shape."""
    results, updates, trouble = answer.get("results"), answer.get("updates"), answer.get("trouble")
    if not isinstance(results, list) or not isinstance(updates, int) or not all(isinstance(e, dict) for e in results):
        results, updates, trouble = [], 0, answer.get("detail", "the answer is not shaped like that of a run")
    if trouble:
        return Answered(updates, (not_run(str(trouble), seconds),))
    found = [(str(each.get("name")), str(each.get("property")), read_evidence(each)) for each in results]
    times = [seconds, *[0.0] * len(found)]  # one run shows them all
    checks = (CheckResult(SCRIPT, *each, time) for each, time in zip(found, times, strict=False))
    return Answered(updates, tuple(checks), read_order(answer))


def not_run(why: str, seconds: float) -> CheckResult:
    """What is said in place of all properties where a script could not be run."""
    return CheckResult(SCRIPT, "the-script-runs", RUNS, Evidence(Verdict.ERROR, detail=why), seconds)
