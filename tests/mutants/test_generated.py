"""Operators make what they say, each mutant once; and what is recorded as killed is killed by that check."""

import random
from pathlib import Path

import jsonschema
import pytest
from generated import run
from generated.lines import called_lines, made_lines, owned
from generated.operators import OPERATORS, mutations
from generated.report import DETECTED, fate, report
from generated.run import Generated, Result, generate, judge_all, read_results, write_results
from generated.survivors import EQUIVALENT
from samples import REFERENCE

from bitpatch.verify.running.runner import Zygote

SAMPLE, SEED = 60, 0
LONGEST = 3.0  # seconds a check took in a kill of the sample; others are left to `make mutants`
STALE = "results.jsonl is stale: run make mutants"
EVERY = range(1, 1000)  # line
SAFETY = (REFERENCE / "bit_transformer/safety.py").read_text()


def made(text: str, kind: str) -> list[str]:
    """What one operator makes of a text."""
    return [each.text for each in mutations(text, "file", EVERY, operators={kind: OPERATORS[kind]})]


def function(*body: str, head: str = "def f(a, b):") -> str:
    return "\n".join([head, *(f"    {line}" for line in body)]) + "\n"


TYPED = "def f(a: int, b: int, c: str):"
EXAMPLES = [
    ("comparison", "a < b\n", ["a <= b\n", "a >= b\n"]),
    ("comparison", "a is not b\n", ["a is b\n"]),
    ("arithmetic", "x = a * -b\n", ["x = a / -b\n", "x = a * b\n"]),
    ("arithmetic", "a += 2\n", ["a = 2\n", "a -= 2\n"]),
    ("boolean", "a and not b\n", ["a\n", "not b\n", "a or not b\n", "a and b\n"]),
    ("constant", "x = 3\n", ["x = 4\n", "x = 2\n"]),
    ("constant", "x: 'int' = 'a'\n", ["x: 'int' = 'ax'\n"]),
    ("constant", "'docstring'\nraise ValueError(f'of {1}' + 'a')\n", []),
    ("constant", "add('--a', help='what it is')\n", ["add('--ax', help='what it is')\n"]),
    ("default", "def f(a=True, b: X = None): ...\n", ["def f(a=False, b: X = None): ...\n", "def f(a=True, b: X = True): ...\n"]),
    ("condition", "x = g if a else b\n", ["x = g if not (a) else b\n", "x = g if False else b\n", "x = g if True else b\n"]),
    ("condition", "while a: b()\n", ["while not (a): b()\n", "while False: b()\n"]),
    ("dropped-statement", function("c = g(a)", "g(c)"), [function("c = g(a)", "pass")]),
    ("dropped-statement", function("c = 1", "c, a.b = 2, c"), [function("pass", "c, a.b = 2, c"), function("c = 1", "pass")]),
    ("dropped-argument", "g(a, b=1, *c)\n", ["g(b=1, *c)\n", "g(a, *c)\n"]),
    ("dropped-argument", "print(a, b)\n", []),
    ("swapped-arguments", "g(a, b, c=1)\n", ["g(b, a, c=1)\n"]),
    ("moved-line", function("if a:", "    b()", "# why", "c()"), [function("c()", "if a:", "    b()")]),
    ("moved-line", function("a.b = c", "d = a.b"), [function("d = a.b", "a.b = c")]),
    ("moved-line", function("a.b = c", "d = max(e, 1)"), []),
    ("moved-line", function('"""What it does."""', "a()"), []),
    ("other-receiver", function("a.step()", "b.zero()", "math.sqrt(2)"), [function("b.step()", "b.zero()", "math.sqrt(2)"), function("a.step()", "a.zero()", "math.sqrt(2)")]),
    ("other-parameter", function("g(a, c)", head=TYPED), [function("g(b, c)", head=TYPED)]),
    ("early-return", function("a()", "b()"), [function("a()", "return")]),
    ("early-return", function("for c in a:", "    b()", "    g()", "return 1"), [function("for c in a:", "    b()", f"    {word}", "return 1") for word in ("continue", "break")]),
    ("returned-value", function("return a"), [function("return None")]),
    ("dropped-frame", "@cached\ndef f(): ...\n", ["\ndef f(): ...\n"]),
    ("dropped-frame", function("with a:", "    if b:", "        g(b)"), [function("if True:", "    if b:", "        g(b)")]),
    ("dropped-frame", "with a as b: g(b)\n", []),
    ("dropped-frame", "try:\n    a()\nexcept OSError:\n    b()\n", ["try:\n    a()\nexcept OSError:\n    raise\n"]),
    ("slice-bound", "a[1:b]\n", ["a[:b]\n", "a[1:]\n"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "expected"), EXAMPLES)
def test_operator_makes(kind: str, text: str, expected: list[str]) -> None:
    assert sorted(made(text, kind)) == sorted(expected)


def test_every_operator_has_an_example() -> None:
    assert OPERATORS.keys() == {kind for kind, _, _ in EXAMPLES}


def test_change_without_bytecode_of_its_own_is_no_mutant() -> None:
    assert made("x = 2 if True else 3\n", "condition") == ["x = 2 if not (True) else 3\n"]  # but "if True", "if False"
    texts = [each.text for each in mutations("def f(a):\n    a()\n    a()\n", "file", EVERY)]
    assert len(texts) == len(set(texts))
    assert "def f(a):\n    a()\n    return\n" in texts
    assert "def f(a):\n    a()\n    pass\n" not in texts  # which is the same


def test_names_are_one_each_and_stay_where_other_functions_change() -> None:
    texts = [function("a < b", "g(a < b)"), f"x = 1\n{function('a < b', 'g(a < b)')}"]
    names = [[each.name for each in mutations(text, "file", EVERY)] for text in texts]
    assert {*names[0]} < {*names[1]}
    assert len(names[1]) == len({*names[1]})


def test_line_belongs_to_tasks_that_make_it_alone_or_nearly() -> None:
    alone = {1: "a\nnew(1)\nb\nboth\n", 2: "a\nb\nboth\n"}
    assert made_lines("a\nb\n", "a\nnew(1, 2)\nb\nboth\n", alone) == {2: frozenset({1}), 4: frozenset({1, 2})}


def test_lines_of_the_reference_have_their_tasks() -> None:
    path = "bit_transformer/training.py"
    lines = (REFERENCE / path).read_text().splitlines()
    tasks = {lines[number - 1].strip(): whose for number, whose in owned().made[path].items()}
    assert tasks["with autocast(device, amp):"] == {3}
    assert tasks["global_step += 1"] == {6}
    assert tasks["return epochs * math.ceil((micro_batches + extra_steps) / accum_steps)"] == {1, 2, 4}
    call = {lines.index("    args = build_parser().parse_args(argv)") + 1: frozenset({1})}
    called = {lines[number - 1] for number in called_lines({path: call})[path]}
    assert "def build_parser() -> argparse.ArgumentParser:" in called


SHAPE = {  # of a mutation testing report, as far as we write it
    "required": ["schemaVersion", "thresholds", "files", "testFiles"],
    "properties": {
        "files": {"additionalProperties": {"required": ["language", "source", "mutants"]}},
        "testFiles": {"additionalProperties": {"required": ["tests"]}},
    },
}
PLACE = {"required": ["line", "column"], "additionalProperties": {"type": "integer", "minimum": 1}}
MUTANT = {
    "required": ["id", "mutatorName", "location", "status"],
    "properties": {
        "status": {"enum": ["Killed", "Survived", "NoCoverage", "Timeout", "Ignored", "Pending"]},
        "location": {"required": ["start", "end"], "additionalProperties": PLACE},
        "killedBy": {"type": "array", "items": {"type": "string"}},
        "coveredBy": {"type": "array", "items": {"type": "string"}},
    },
}


def test_report_has_the_shape_of_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    path, check = "bit_transformer/safety.py", "task-7/a-check"
    mutants = [
        Generated(path, each, frozenset({7}), frozenset()) for each in mutations(SAFETY, "safety", range(20, 40))
    ]
    names = [each.mutation.name for each in mutants]
    statuses = ("Killed", "RuntimeError", "Survived", "Survived")
    results = {name: Result(name, status, check) for name, status in zip(names, statuses, strict=False)}
    monkeypatch.setitem(EQUIVALENT, names[2], "the same")
    said = report(mutants, results, {check: "what it looks for"})
    jsonschema.validate(said, SHAPE)
    found = said["files"][f"reference/{path}"]["mutants"]
    jsonschema.validate(found, {"items": MUTANT})
    assert [each["status"] for each in found[:5]] == ["Killed", "Killed", "Ignored", "Survived", "Pending"]
    assert (found[0]["killedBy"], found[3]["coveredBy"]) == ([check], [check])
    for each, mutant in zip(found, mutants, strict=True):
        at = each["location"]["start"]
        assert SAFETY.splitlines()[at["line"] - 1][at["column"] - 1 :][:1] == mutant.mutation.before[:1]


def test_what_was_alive_is_judged_again_once_a_judge_changes() -> None:
    killed, alive = Result("a", "Killed", "task-1/there"), Result("a", "Survived", judges="then")
    assert (killed.is_current(["task-1/there"], "now"), killed.is_current([], "now")) == (True, False)
    assert (alive.is_current([], "then"), alive.is_current([], "now")) == (True, False)


def test_last_word_on_a_mutant_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results.jsonl")
    write_results([Result("b", "Survived"), Result("a", "Killed", "task-1/c")], "w")
    write_results([Result("b", "Killed", "task-1/c")])
    assert {name: each.status for name, each in read_results().items()} == {"a": "Killed", "b": "Killed"}


def test_known_survivors_are_mutants_that_nothing_kills() -> None:
    mutants = {each.mutation.name: each for each in generate(EQUIVALENT)}
    assert mutants.keys() == EQUIVALENT.keys()
    assert [name for name, each in mutants.items() if fate(each, read_results()) != "Ignored"] == []


def test_recorded_kills_of_a_sample_are_kills() -> None:
    with Zygote() as zygote:
        checks = {f"task-{task}/{name}" for task, found in zygote.checks.items() for name, _ in found}
    killed = {name: each for name, each in read_results().items() if each.status == "Killed"}
    there = {name: each for name, each in killed.items() if each.by in checks}
    assert len(there) > 0.9 * len(killed), STALE
    fast = sorted(name for name, each in there.items() if each.seconds < LONGEST * each.tried)
    sample = random.Random(SEED).sample(fast, min(SAMPLE, len(fast)))
    mutants = [(each, [there[each.mutation.name].by]) for each in generate(sample)]
    assert len(mutants) == len(sample) > 0, STALE
    found: list[Result] = []
    judge_all(mutants, jobs=2, seconds=float("inf"), tell=found.append)
    assert [each.mutant for each in found if each.status not in DETECTED] == [], STALE
    assert len(found) == len(sample)
