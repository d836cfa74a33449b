"""Training scripts in many shapes, none of them ours: of each defect one, and those that have none."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from shapes import (
    AUTOCAST,
    BEATS,
    CLIPS,
    EVALUATION,
    FINITE,
    HELD,
    MAPS,
    MASKS,
    RATES,
    REPEATS,
    ROWS,
    TOTAL,
    USED,
    WEIGHTS,
)

from bitpatch.verify.rendering.report import CheckResult, Outcome, Report
from bitpatch.verify.running.evidence import Verdict
from bitpatch.verify.running.runner import Zygote
from bitpatch.verify.scripts.judging import run_script

LOOPS = Path(__file__).parents[2] / "loops"
DEFECTS = {
    "autocast_backward": {AUTOCAST},
    "carried": {WEIGHTS, USED},
    "clip_after": {CLIPS},
    "clip_early": {CLIPS},
    "clip_scaled": {CLIPS},
    "dropped": {USED},
    "eval_dropout": {EVALUATION},
    "eval_graph": {EVALUATION},
    "eval_reseeds": {REPEATS},
    "first_group_one": {WEIGHTS, USED},
    "floor_total": {TOTAL},
    "mean_of_means": {WEIGHTS},
    "no_zero": {USED},
    "params_left_out": {HELD},
    "plain_list": {HELD},
    "rate_unused": {RATES},
    "replaced_model": {HELD},
    "row_never_seen": {ROWS},
    "rows_twice": {ROWS},
    "same_order": {ROWS},
    "sched_first": {BEATS},
    "sched_micro": {BEATS, TOTAL},
    "seed_in_loop": {REPEATS},
    "short_full_div": {WEIGHTS},
    "stays_eval": {EVALUATION},
    "undivided": {WEIGHTS},
    "zero_each_micro": {WEIGHTS, USED},
}
MODEL = """
    import torch
    from torch import nn
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rows, targets = torch.randn(64, 4), torch.randint(0, 3, (64,))
    def loss(first, last):
        return nn.functional.cross_entropy(model(rows[first:last]), targets[first:last])
    def update(first, last):
        optimizer.zero_grad()
        loss(first, last).backward()
        optimizer.step()
"""
Judged = Callable[..., Report]


@pytest.fixture
def judged(judged_text: Judged) -> Judged:
    """A script that begins with a small model is judged."""

    def judge(text: str, *arguments: str, **limits: float) -> Report:
        return judged_text(textwrap.dedent(MODEL) + textwrap.dedent(text), *arguments, **limits)

    return judge


def red(report: Report) -> dict[str, CheckResult]:
    return {each.name: each for each in report.tasks[0].red}


def said(report: Report, name: str) -> tuple[Verdict, str]:
    (found,) = (each.evidence for each in report.tasks[0].checks if each.name == name)
    return found.verdict, found.detail


@pytest.mark.parametrize("name", sorted(path.stem for path in (LOOPS / "right").glob("*.py")))
def test_a_right_script_is_verified(zygote: Zygote, name: str) -> None:
    path = LOOPS / "right" / f"{name}.py"
    report = run_script(zygote, path, (), 200, 60, path.parent)
    assert (report.verdict, red(report)) == (Outcome.VERIFIED, {})


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_named_with_its_line(zygote: Zygote, name: str) -> None:
    path = LOOPS / "wrong" / f"{name}.py"
    report = run_script(zygote, path, (), 200, 60, path.parent)
    found = red(report)
    assert found.keys() == DEFECTS[name]
    assert {each.evidence.verdict for each in found.values()} == {Verdict.FAIL}
    assert all(each.evidence.at.startswith(f"{name}.py:") for each in found.values())


def test_every_wrong_script_has_its_defect_named() -> None:
    assert {path.stem for path in (LOOPS / "wrong").glob("*.py")} == DEFECTS.keys()


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("loss(0, 8).backward(); optimizer.step()\nfor n in range(3): update(0, 8)\nloss(0, 8).backward()", USED, "1 micro"),
        ("for n in range(3): update(0, 8)\nmodel(rows).log_softmax(-1).mean().mul(float('nan')).backward()\noptimizer.step()", FINITE, "update 4"),
        ("import torch.nn.functional as F\ndef fit(k):\n    for n in range(4):\n        optimizer.zero_grad()\n        (F.cross_entropy(model(rows), targets) * k).backward()\n        optimizer.step()\nfit(2.0)", WEIGHTS, "weigh 2"),
        ("s = torch.optim.lr_scheduler.StepLR(optimizer, 1)\nfor n in range(9):\n    update(0, 8)\n    if n != 5: s.step()", BEATS, "after update 6"),
        ("for n in range(9):\n    update(0, 8)\n    torch.ones(64, 64).tril()", MASKS, "64 x 64"),
        ("q = nn.Parameter(torch.ones(1, 1, 64, 4))\n(q @ q.mT).softmax(-1).sum().backward()\nupdate(0, 8)", MAPS, "1 square maps"),
        ("m = torch.ones(64, 64).tril() > 0\nq = torch.ones(1, 1, 64, 4)\nnn.functional.scaled_dot_product_attention(q, q, q, m)\nupdate(0, 8)", MASKS, "is_causal"),
        ("other = torch.optim.SGD(model.parameters(), lr=1.0)\ns = torch.optim.lr_scheduler.StepLR(other, 1)\nfor n in range(3):\n    update(0, 8)\n    s.step()", BEATS, "never steps"),
        ("with torch.autocast('cpu', torch.bfloat16): a = loss(0, 8)\na.backward()\noptimizer.step()\nupdate(0, 8)\nupdate(0, 8)", AUTOCAST, "1 under bfloat16"),
    ],
    ids=["left over", "not finite", "times two", "a beat is left out", "mask built again", "map kept", "dense mask", "another optimizer's", "autocast at times"],
)  # fmt: skip
def test_what_else_is_seen(judged: Judged, text: str, name: str, words: str) -> None:
    found = red(judged(text))
    assert words in found[name].evidence.detail


def test_arguments_reach_the_script_and_files_go_to_a_copy(judged: Judged, tmp_path: Path) -> None:
    (tmp_path / "count.txt").write_text("3")
    report = judged(
        "import sys\nfrom pathlib import Path\nhere = Path(__file__).parent\n"
        "for n in range(int(Path('count.txt').read_text()) + int(sys.argv[2])): update(0, 8)\n"
        "torch.save(model.state_dict(), 'model.pt')\n(here / 'count.txt').write_text('9')\nassert sys.argv[1] == '--more'",
        "--more",
        "2",
    )
    assert report.verdict is Outcome.VERIFIED
    assert report.script is not None
    assert report.script.updates == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["count.txt", "train.py"]
    assert (tmp_path / "count.txt").read_text() == "3"


def test_a_script_of_a_package_imports_from_it(zygote: Zygote, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "start.py").write_text(textwrap.dedent(MODEL))
    (package / "train.py").write_text(
        "from .start import update\nfor n in range(3): update(n, n + 8)\nassert __name__ == '__main__'"
    )
    report = run_script(zygote, package / "train.py", (), 200, 60, tmp_path)
    assert report.verdict is Outcome.VERIFIED


def test_a_script_without_an_end_is_stopped(judged: Judged) -> None:
    endless = "try:\n    while True: update(0, 8)\nexcept Exception: pass"
    report = judged(endless, updates=7)
    assert said(report, "the-script-runs") == (Verdict.PASS, "stopped after 7 updates; 7 updates")
    report = judged("while True: rows.sum()", seconds=1)
    assert said(report, "the-script-runs")[0] is Verdict.UNPROVEN


def test_a_plan_whose_end_was_not_seen_is_unproven(judged: Judged) -> None:
    plan = "s = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9)\nfor n in range(9):\n    update(0, 8)\n    s.step()"
    assert said(judged(plan, updates=5), TOTAL)[0] is Verdict.UNPROVEN
    assert said(judged(plan), TOTAL) == (Verdict.PASS, "OneCycleLR: 9 of 9")


@pytest.mark.parametrize(
    ("schedule", "found"),
    [
        ("OneCycleLR(optimizer, 0.1, total_steps=7)", "9 updates are made: 2 beyond its end"),
        ("CosineAnnealingLR(optimizer, 7)", "9 updates are made: 2 beyond its end"),
        ("CosineAnnealingLR(optimizer, 7, eta_min=0.01)", "7 of 7"),
        ("LinearLR(optimizer, 0.1, total_iters=7)", "7 of 7"),
    ],
    ids=["one cycle", "to nothing", "to a rate that is kept", "a warm-up"],
)
def test_updates_after_the_end_of_a_schedule_are_not_hidden_by_a_guard(
    judged: Judged, schedule: str, found: str
) -> None:
    guarded = "for n in range(9):\n    update(0, 8)\n    if n < 7: s.step()"
    verdict, detail = said(judged(f"s = torch.optim.lr_scheduler.{schedule}\n{guarded}"), TOTAL)
    assert (verdict is Verdict.PASS) is (found == "7 of 7")
    assert found in detail


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("update(0, 8)\nraise ValueError('no data')", "ValueError: no data at train.py:15, after 1 updates"),
        ("raise SystemExit(3)", "exit code 3, after 0 updates"),
        ("def", "SyntaxError"),
    ],
)
def test_a_script_that_fails_is_an_error_with_its_line(judged: Judged, text: str, words: str) -> None:
    verdict, detail = said(judged(text), "the-script-runs")
    assert verdict is Verdict.ERROR
    assert words in detail


def test_a_script_that_trains_nothing_is_unproven(judged: Judged) -> None:
    report = judged("print(model)")
    assert report.verdict is Outcome.UNPROVEN
    assert "nothing was trained" in said(report, "the-script-runs")[1]


def test_the_losses_are_those_of_a_run_that_nobody_watches(judged: Judged, tmp_path: Path) -> None:
    text = """
        losses = []
        for n in range(8):
            update(n, n + 8)
            losses.append(nn.functional.dropout(loss(0, 64), 0.5).item().hex())
        raise SystemExit(" ".join(losses))
    """
    _, watched = said(judged(text), "the-script-runs")
    alone = subprocess.run([sys.executable, tmp_path / "train.py"], capture_output=True, text=True)
    assert len(alone.stderr.split()) == 8
    assert f"exit code {alone.stderr.strip()}," in watched


def test_a_part_of_a_permutation_may_be_gone_through_again(judged: Judged) -> None:
    text = """
        chosen = torch.randperm(64)[:48]
        for epoch in range(3):
            for first in range(0, 48, 8):
                part = chosen[first:first + 8]
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(rows[part]), targets[part]).backward()
                optimizer.step()
    """
    assert red(judged(text)) == {}


def test_layers_that_begin_at_zero_learn_all_the_same(judged: Judged) -> None:
    text = """
        inner, outer = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear(4, 512)
        nn.init.zeros_(outer.weight)
        optimizer = torch.optim.SGD([*inner.parameters(), outer.weight], lr=0.1)
        outer.bias.requires_grad_(False)
        outer(inner(rows)).mean().backward()
        optimizer.step()
    """
    assert red(judged(text)) == {}


def test_what_a_script_saves_is_its_own(judged: Judged) -> None:
    text = """
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        update(0, 8)
        schedule.step()
        everything = [schedule.state_dict(), vars(schedule), vars(optimizer), vars(model), vars(rows)]
        assert not [name for each in everything for name in each if "bitpatch" in name]
    """
    assert said(judged(text), "the-script-runs")[0] is Verdict.PASS


SOME = """
F = nn.functional
kept = (torch.arange(64) % 3 < 2).float()
def each(first, last):
    return -model(rows[first:last]).log_softmax(-1).gather(1, targets[first:last, None])[:, 0]
"""
SWEEP = """
    from torch.utils.data import DataLoader, TensorDataset
    for rate in (0.1, 0.2, 0.3):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        for x, y in DataLoader(TensorDataset(rows, targets), batch_size=8, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
"""
STEPS = """
    for n in range(9):
        optimizer.zero_grad()
        sum(loss(k, k + 8) for k in range(2 + n % 3)).backward()
        optimizer.step()
"""
MASKED = (
    SOME
    + """
for n in range(9):
    optimizer.zero_grad()
    part = kept[n:n + 20]
    ((each(n, n + 20) * part).sum() / part.sum()).backward()
    optimizer.step()
"""
)
BY_GROUP = (
    SOME
    + """
for n in range(9):
    optimizer.zero_grad()
    total = kept[n:n + 31].sum()
    for first, last in ((n, n + 11), (n + 11, n + 31)):
        ((each(first, last) * kept[first:last]).sum() / total).backward()
    optimizer.step()
"""
)


@pytest.mark.parametrize(
    "text", [SWEEP, STEPS, MASKED, BY_GROUP], ids=["a sweep", "steps", "masked", "by all of a group"]
)
def test_what_is_meant_so_is_no_defect(judged: Judged, text: str) -> None:
    report = judged(text)
    assert (report.verdict, red(report)) == (Outcome.VERIFIED, {})


def test_means_over_what_masks_leave_weigh_as_that_does(judged: Judged) -> None:
    found = red(judged(BY_GROUP.replace("/ total", "/ kept[first:last].sum() / 2")))
    assert "not as their targets do" in found[WEIGHTS].evidence.detail


def test_a_scheduler_between_backward_and_step_is_called_so(judged: Judged) -> None:
    text = "s = torch.optim.lr_scheduler.StepLR(optimizer, 1)\nfor n in range(5):\n    optimizer.zero_grad()\n    for k in range(2): (loss(k, k + 8) / 2).backward()\n    s.step()\n    optimizer.step()"
    assert "between backward and the optimizer's step" in red(judged(text))[BEATS].evidence.detail


GROUPS = """
    from math import cos
    optimizer = torch.optim.SGD([{"params": [model.weight]}, {"params": [model.bias]}], lr=0.1)
    for n in range(12):
        rate = 0.1 * cos(n / 12)
        for group in optimizer.param_groups:
            group["lr"] = rate
        update(n, n + 8)
"""
UNUSED = """
    optimizer = torch.optim.SGD([{"params": [model.weight]}, {"params": [model.bias]}], lr=0.3)
    for n in range(12):
        rate = 3 * 0.1 * (1 - n / 12)
        update(n, n + 8)
"""
BY_HAND = """
    for n in range(9):
        model.zero_grad()
        loss(n, n + 8).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        for each in model.parameters():
            each.data.add_(each.grad, alpha=-0.1)
"""
CLIPPED = "        nn.utils.clip_grad_norm_(model.parameters(), 0.1)\n"


def test_a_rate_reaches_every_group(judged: Judged) -> None:
    assert red(judged(GROUPS)) == {}
    found = red(judged(GROUPS.replace("optimizer.param_groups:", "optimizer.param_groups[:1]:")))
    assert "group 2 of the optimizer's" in found[RATES].evidence.detail


def test_a_rate_that_is_the_optimizers_but_for_rounding_is_known(judged: Judged) -> None:
    assert "rate was the optimizer's" in red(judged(UNUSED))[RATES].evidence.detail


def test_clips_after_an_update_by_hand_are_named(judged: Judged) -> None:
    assert red(judged(BY_HAND)) == {}
    found = red(judged(BY_HAND.replace(CLIPPED, "") + CLIPPED))
    assert "after the step before" in found[CLIPS].evidence.detail
