"""Which probabilities are put on a ramp, which draws are made their own, and which are named and left."""

import pytest
from samples import LOOP

from bitpatch.patches.task import State


def test_right_words_in_a_comment_are_no_ramp(loop_of, state_of):
    assert state_of(loop_of(LOOP + "# cosine_ramp(global_step)\n"), "task-6") is State.MISSING


def test_the_plain_loop(loop_of, after):
    text = after(loop_of(LOOP), "task-6")
    assert (
        """\
    draws = random.Random(random.getrandbits(64))
    for epoch in range(epochs):
        for batch in data.split(8):
            ramped_prob = cosine_ramp(global_step, start=0.0, end=compress_prob, total_steps=warmup_steps)
            if draws.random() < ramped_prob:
"""
        in text
    )
    assert "            optimizer.step()\n            global_step += 1\n" in text
    assert "compress_prob=0.5, warmup_steps: int = 1000, global_step: int = 0):" in text


@pytest.mark.parametrize(
    "draw",
    ["torch.rand(1).item()", "torch.rand(()).item()", "random.random()"],
)
def test_draws_are_made_their_own(loop_of, after, draw):
    assert "if draws.random() < ramped_prob:" in after(loop_of(LOOP.replace("random.random()", draw)), "task-6")


def test_the_clock_counts_updates_not_micro_batches(loop_of, patched):
    tree = loop_of(LOOP)
    for name in ("task-6", "task-4"):
        patched(tree.root, name)
    text = (tree.root / "bit_transformer/training.py").read_text()
    assert "            if closes:\n                optimizer.step()\n                global_step += 1\n" in text


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param(
            "random.random() < compress_prob", "chance(batch)", "no use of compress_prob", id="no probability"
        ),
        pytest.param("random.random() < compress_prob", "chance() < compress_prob", "no draw", id="another draw"),
        pytest.param("    total =", "    global_step = 0\n    total =", "name global_step is taken", id="clock taken"),
        pytest.param("random.random() <", "torch.rand(len(batch)) <", "no draw", id="a draw for each row"),
        pytest.param(
            "random.random() < compress_prob", "(torch.rand(1) < compress_prob).item()", "no draw", id="tensor"
        ),
        pytest.param(
            "            optimizer.step()\n",
            "            if epoch: optimizer.step()\n",
            "on the line of a condition",
            id="step on the line of a condition",
        ),
        pytest.param("=0.5)", "=0.5, warmup_steps=10)", "name warmup_steps is taken", id="warm-up of the rate"),
        pytest.param(
            "            if r", "            compress_prob = 0.1\n            if r", "is set in it", id="own ramp"
        ),
        pytest.param("    total =", "    cosine_ramp = 1\n    total =", "another meaning", id="ramp of another kind"),
        pytest.param("import random\n", "", "import random", id="random not imported"),
        pytest.param("            optimizer.step()\n", "", "but what steps the optimizer cannot be told", id="no step"),
    ],
)
def test_near_misses_are_refused(loop_of, refusal, old, new, reason):
    assert old in LOOP
    assert reason in refusal(loop_of(LOOP.replace(old, new)), "task-6")
