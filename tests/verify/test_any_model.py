"""Trees of other models, through the four functions of their bitpatch_seams.py: three right ones, and defects of them."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from samples import ROOT

from bitpatch.patches.known import all_tasks
from bitpatch.patches.reading.tree import open_tree
from bitpatch.verify.rendering.report import CheckResult, Outcome, Report
from bitpatch.verify.running.driven import driving
from bitpatch.verify.running.evidence import Verdict
from bitpatch.verify.running.runner import Zygote
from bitpatch.verify.scripts.judging import judge_tree

OTHERS = ROOT / "tests" / "others"
SCHEMA = json.loads((ROOT / "verify" / "schemas" / "verify.json").read_text())
OURS = (5, 6, 7, 11, 12)  # tasks that ask for parts which only a tree of our model has
Judge = Callable[..., Report]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as started:
        yield started


@pytest.fixture
def other(tmp_path: Path) -> Callable[..., Path]:
    """A copy of a tree, with edits: (file, old, new)."""

    def copied(name: str, *edits: tuple[str, str, str]) -> Path:
        tree = Path(shutil.copytree(OTHERS / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")))
        for file, old, new in edits:
            text = (tree / file).read_text()
            assert text.count(old) == 1, f"{old!r} is in {file} {text.count(old)} times"
            (tree / file).write_text(text.replace(old, new))
        return tree

    return copied


@pytest.fixture
def judged(zygote: Zygote) -> Judge:
    def judge(tree: Path, *tasks: int, tell: Callable[[str], None] = print) -> Report:
        driven = driving(open_tree(tree, others="driven"), [])
        assert driven is not None
        numbers = tasks or [task.number for task in all_tasks()]
        more: dict[str, Any] = {"every": not tasks, "tell": tell, "jobs": 2}
        return judge_tree(tree, numbers, driven, (60, 60.0), zygote=zygote, **more)

    return judge


def red(report: Report) -> list[CheckResult]:
    return [each for task in report.tasks for each in task.red]


@pytest.mark.parametrize(
    ("name", "left_out"),
    [("translate", OURS), ("gpt", (3, *OURS)), ("digits", (3, *OURS, 9, 10))],
    ids=["an encoder-decoder with a trainer of its own", "a GPT, whose loop is a script", "an image classifier"],
)
def test_a_right_tree_raises_no_alarm(name: str, left_out: tuple[int, ...], judged: Judge) -> None:
    said: list[str] = []
    report = judged(OTHERS / name, tell=said.append)
    assert [(each.name, each.evidence) for each in red(report)] == []
    assert report.verdict is Outcome.VERIFIED
    assert {task.task for task in report.tasks} == {task.number for task in all_tasks()} - set(left_out)
    assert all(f"task-{each}" in said[0] for each in left_out)
    jsonschema.validate(report.to_json(), SCHEMA)


UNDIVIDED = ("translate/trainer.py", 'target, "sum") / words', "target)")
BACKWARD = ("translate/trainer.py", "            loss.backward()", "                loss.backward()")
FLOOR = ("translate/trainer.py", "-(-len(self.loader) // plan.group)", "(len(self.loader) // plan.group)")
UNUSED = (
    "translate/trainer.py",
    "self.model, self.plan = model, plan",
    "self.model, self.plan = model, plan\n        self.fast = torch.compile(model)",
)
PEEKS = ("translate/net.py", "causal=self.cross is not None", "causal=False")
DROPS = ("translate/net.py", "self.dropout if self.training else 0.0", "self.dropout")
TOP_LEFT = ("translate/net.py", "memory, mask)\n        return", "memory, causal=True)\n        return")
NARROW = (
    "translate/trainer.py",
    "                loss = scored(",
    "                self.model.bfloat16()\n                loss = scored(",
)
MASK = "torch.full((T, T), -math.inf).triu(1)"
ATTENDS = "F.scaled_dot_product_attention(q, k, v, is_causal=True)"
BUILT = ("model.py", ATTENDS, f"F.scaled_dot_product_attention(q, k, v, attn_mask={MASK})")
KEPT_MAP = ("model.py", ATTENDS, "((q @ k.mT / 8**0.5 + self.mask[:T, :T]).softmax(-1) @ v)")
SCALED_TWICE = ("model.py", ATTENDS, "F.scaled_dot_product_attention(q, k, v, is_causal=True)")
TRACED = (
    "model.py",
    "        x = self.blocks",
    "        if torch.compiler.is_compiling():\n            idx = idx.flip(1)\n        x = self.blocks",
)
IN_THE_LOOP = (
    "train.py",
    "        x, y = get_batch()\n",
    "        x, y = get_batch()\n        trained = torch.compile(model)\n",
)
RATE = ("train.py", '    for group in optimizer.param_groups:\n        group["lr"] = lr\n', "")
WHOLE = ("train.py", "(loss / config.micro_batches)", "loss")
CARRIED = ("src/digits/fit.py", "accumulate=2", "accumulate=3")
SEEDED = (
    "src/digits/fit.py",
    "    for _ in range(epochs):\n",
    "    for _ in range(epochs):\n        torch.manual_seed(1)\n",
)
STAYS = ("src/digits/fit.py", "    model.train()\n", "")
HALF = ("src/digits/fit.py", "SGD(model.parameters()", "SGD(model.body.parameters()")


@pytest.mark.parametrize(
    ("name", "edit", "task", "check", "words"),
    [
        ("translate", UNDIVIDED, 4, "each-update-is-the-mean-over-its-group", "not 1"),
        ("translate", BACKWARD, 3, "autocast-is-around-forward", "backward is called under autocast"),
        ("translate", NARROW, 3, "autocast-is-around-forward", "stay float32"),
        ("translate", FLOOR, 1, "the-stated-total-is-that-of-the-run", "is planned for"),
        ("translate", FLOOR, 2, "the-stated-total-is-that-of-the-run", "is planned for"),
        ("translate", UNUSED, 8, "compiled-code-is-what-runs", "is never called"),
        ("translate", PEEKS, 9, "no-position-sees-a-later-one", "changes with later ones"),
        ("translate", DROPS, 9, "attention-drops-nothing-in-evaluation", "dropout_p=0.1"),
        ("translate", TOP_LEFT, 9, "attention-is-explicit-attention", "loss and gradients"),
        ("gpt", BUILT, 10, "a-mask-is-built-once", "64 x 64 is built in 3 of 3 steps"),
        ("gpt", BUILT, 10, "masks-are-not-built-again", "is built again"),
        ("gpt", KEPT_MAP, 9, "attention-keeps-no-map", "square maps are kept"),
        ("gpt", TRACED, 8, "compiled-it-computes-the-same", "difference"),
        ("gpt", IN_THE_LOOP, 8, "compiled-code-is-what-runs", "called again"),
        ("gpt", RATE, 2, "computed-rates-reach-the-optimizer", "lr"),
        ("gpt", WHOLE, 4, "each-update-is-the-mean-over-its-group", "not 1"),
        ("digits", CARRIED, 4, "each-gradient-is-used-once", "never used"),
        ("digits", SEEDED, 1, "random-numbers-do-not-repeat", "begin again"),
        ("digits", STAYS, 1, "evaluation-is-evaluation", "evaluation mode"),
        ("digits", HALF, 2, "the-optimizer-holds-what-learns", "which no optimizer holds"),
    ],
)
def test_a_defect_is_a_violation_of_its_task(
    name: str, edit: tuple[str, str, str], task: int, check: str, words: str, other: Callable[..., Path], judged: Judge
) -> None:
    (found,) = judged(other(name, edit), task).tasks
    wrong = {each.name: each.evidence for each in found.red}
    assert wrong[check].verdict is Verdict.FAIL
    assert words in wrong[check].detail
    assert found.verdict is Outcome.VIOLATED


def test_what_asks_for_our_model_is_not_applicable_and_says_what_settles_it(judged: Judge) -> None:
    checks = [each for task in judged(OTHERS / "digits", *range(1, 13)).tasks for each in task.checks]
    aside = [each for each in checks if "BitTransformerLM" in each.evidence.detail]
    assert len(aside) > 80
    assert {each.evidence.verdict for each in aside} == {Verdict.NOT_APPLICABLE}
    assert all("settle it: " in each.evidence.detail for each in aside)
    assert Verdict.ERROR not in {each.evidence.verdict for each in checks}


def test_a_function_that_is_missing_leaves_unproven_what_asks_for_it(other: Callable[..., Path], judged: Judge) -> None:
    tree = other("digits")
    (tree / "bitpatch_seams.py").write_text("from digits.net import Net\nmodel = Net\ntrain = None\n")
    compiled, total = judged(tree, 8, 1).tasks
    evidence = {each.name: each.evidence for each in (*compiled.checks, *total.checks)}
    assert evidence["compiled-it-computes-the-same"].verdict is Verdict.UNPROVEN
    assert "a function batch(seed) in bitpatch_seams.py" in evidence["compiled-it-computes-the-same"].detail
    assert evidence["the-stated-total-is-that-of-the-run"].verdict is Verdict.NOT_APPLICABLE
    assert "says that the tree has no train" in evidence["the-stated-total-is-that-of-the-run"].detail


def test_a_training_that_raises_proves_nothing(other: Callable[..., Path], judged: Judge) -> None:
    tree = other(
        "digits",
        (
            "src/digits/fit.py",
            "        accuracy(model, ",
            "        raise RuntimeError('no disk')\n        accuracy(model, ",
        ),
    )
    found = judged(tree, 1, 2, 4)
    assert found.verdict is Outcome.ERROR
    assert not [each for each in found.tasks if each.verdict is Outcome.VERIFIED]
    assert any("no disk at src/digits/fit.py:" in each.evidence.detail for each in red(found))


def test_a_loss_that_changes_by_itself_is_compared_with_nothing(other: Callable[..., Path], judged: Judge) -> None:
    tree = other(
        "digits",
        (
            "bitpatch_seams.py",
            "nn.functional.cross_entropy(model(batch[0]), batch[1])",
            "nn.functional.cross_entropy(model(batch[0]), batch[1]) * next(CALLS)\n\n\nCALLS = iter(range(1, 99))",
        ),
    )
    (found,) = judged(tree, 8).tasks
    assert found.verdict is Outcome.UNPROVEN
    assert any("is another one when it is called again" in each.evidence.detail for each in found.red)


def test_the_command_judges_the_tree_in_the_folder_one_is_in(other, run, monkeypatch) -> None:
    monkeypatch.chdir(other("digits", CARRIED))
    code, out, err = run("verify", "4", "8", "--json")
    assert (code, err) == (4, "")
    found = json.loads(out)
    jsonschema.validate(found, SCHEMA)
    assert [each["verdict"] for each in found["tasks"]] == ["violated", "verified"]
    assert {each["at"] for each in found["tasks"][0]["checks"] if each["verdict"] == "fail"} == {
        "src/digits/fit.py:29",
        "src/digits/fit.py:32",
    }


def test_a_tree_that_says_nothing_of_itself_is_refused_with_the_way_to_begin(other, run) -> None:
    tree = other("digits")
    (tree / "bitpatch_seams.py").unlink()
    code, out, err = run("verify", "--tree", tree)
    assert (code, out) == (3, "")
    assert "bitpatch seams --write" in err


@pytest.mark.parametrize("option", [("--since", "HEAD"), ("--sanity-fit",)])
def test_options_for_our_model_are_refused(option, other, run) -> None:
    code, out, err = run("verify", "8", "--tree", other("digits"), *option)
    assert (code, out) == (2, "")
    assert f"{option[0]}: for BitTransformerLM trees" in err
