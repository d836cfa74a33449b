"""What looks like attention and is not, or not for sure: patched to the same numbers, or refused with a place."""

import math

import pytest
import torch

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome

HEAD = """\
import math
from contextlib import suppress

import torch
import torch.nn.functional as F
from torch import nn


"""
SCORES = "scores = q @ k.transpose(-2, -1)"
FUTURE = "torch.triu(torch.ones(T, T, dtype=torch.bool, device=q.device), 1)"
FUNCTIONS = {
    "a padding mask beside the triangle": f"{SCORES}\nscores = scores.masked_fill({FUTURE} | (extra == 0), -math.inf)\nreturn scores.softmax(-1) @ v",
    "a triangle times something": f"{SCORES}\nhide = ({FUTURE} * extra) > 0\nreturn scores.masked_fill(hide, -math.inf).softmax(-1) @ v",
    "a bias added in place": f"{SCORES}\nscores += extra\nweights = scores.softmax(-1)\nreturn weights @ v",
    "scores that are deleted": f"{SCORES}\nweights = scores.softmax(-1)\nout = weights @ v\ndel scores, weights\nreturn out",
    "weights that are named on the way": f"{SCORES}\nout = (weights := scores.softmax(-1)) @ v\nreturn out + weights.sum()",
    "masked under a context": f"{SCORES}\nwith torch.autograd.profiler.record_function('mask'):\n    scores = scores.masked_fill({FUTURE}, -math.inf)\nreturn scores.softmax(-1) @ v",
    "masked under a condition that calls": f"{SCORES}\nif extra.any():\n    scores = scores.masked_fill({FUTURE}, -math.inf)\nreturn scores.softmax(-1) @ v",
    "weights that are kept in a global": f"global LAST\n{SCORES}\nLAST = scores.softmax(-1)\nreturn LAST @ v",
    "weights without gradients": f"with torch.no_grad():\n    {SCORES}\n    weights = scores.softmax(-1)\nreturn weights @ v",
    "values that change where scores are masked": f"{SCORES}\nif True:\n    v = v * 2\n    scores = scores.masked_fill({FUTURE}, -math.inf)\nreturn scores.softmax(-1) @ v",
    "changed by way of a view": f"{SCORES}\nscores[..., 0].mul_(2)\nreturn scores.softmax(-1) @ v",
    "changed by an unknown method": f"{SCORES}\nscores.index_fill_(-1, torch.tensor([0]), -math.inf)\nreturn scores.softmax(-1) @ v",
    "changed in a loop": f"{SCORES}\nfor _ in range(3):\n    scores.mul_(0.5)\nreturn scores.softmax(-1) @ v",
    "masked in a loop": f"{SCORES}\nfor mask in [{FUTURE}, extra == 0]:\n    scores.masked_fill_(mask, -math.inf)\nreturn scores.softmax(-1) @ v",
    "a loop that breaks": f"for turn in range(2):\n    {SCORES}\n    if turn == 0:\n        break\n    scores = scores.masked_fill({FUTURE}, -math.inf)\nreturn scores.softmax(-1) @ v",
    "an alias that is changed": f"first = q\n{SCORES}\nq *= 2.0\nreturn scores.softmax(-1) @ v + 0 * first.sum()",
    "a sum with a factor": f"{SCORES}\nscores = torch.add(scores, torch.full((T, T), -math.inf).triu(1), alpha=2)\nreturn scores.softmax(-1) @ v",
    "truth values that are added": f"{SCORES}\nscores = scores + (extra == 0)\nreturn scores.softmax(-1) @ v",
    "a number that is added": f"{SCORES} / 2.0 + 1e-6\nreturn scores.softmax(-1) @ v",
    "a mask that may not be set": f"{SCORES}\nwith suppress(TypeError):\n    scores = scores.masked_fill(None, -math.inf)\nreturn scores.softmax(-1) @ v",
    "operands that are taken from a list": "rest = [q, k]\nscores = rest.pop(0) @ rest.pop().transpose(-2, -1)\nreturn scores.softmax(-1) @ v",
    "plain": f"{SCORES} / math.sqrt(q.size(-1))\nscores = scores.masked_fill({FUTURE}, -math.inf)\nreturn scores.softmax(-1) @ v",
}
CLASSES = {
    "a scale that a subclass sets": (
        "self.scale = 0.25",
        "scores = scores * self.scale",
        "def __init__(self):\n        super().__init__()\n        self.scale = 1.0",
    ),
    "a hook that a subclass fills": (
        "pass",
        "scores = self.masked(scores)",
        "def masked(self, scores):\n        return scores * 3",
    ),
    "a switch that a subclass turns": (
        "self.window = 0",
        "if self.window:\n            scores = scores * 2",
        "def __init__(self):\n        super().__init__()\n        self.window = 2",
    ),
}


def indented(text, by):
    return "".join(f"{' ' * by}{line}\n" for line in text.split("\n"))


def outputs(text, name):
    space = {}
    exec(compile(text, "model.py", "exec"), space)
    made = []
    for size in (1, 4):
        torch.manual_seed(size)
        q, k, v = (torch.randn(2, 2, size, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
        extra = (torch.arange(size) % 2 == 0).double()
        called = space["Sub"]() if name == "Sub" else space["attend"]
        out = called(q.clone(), k.clone(), v.clone(), extra)
        out.sum().backward()
        made += [out.detach(), *(torch.zeros(1) if each.grad is None else each.grad for each in (q, k, v))]
    return made


def same_or_refused(model_of, text, name):
    planned = plan(open_tree(model_of(text)), [task_named("task-9")])
    (outcome,) = planned.outcomes
    if outcome.outcome is Outcome.REFUSED:
        assert "near miss at bit_transformer/model.py:" in outcome.reason or "found none" in outcome.reason
        assert "please report" not in outcome.reason.lower()
        return False
    after = planned.changes[0].after.decode()
    for ours, theirs in zip(outputs(after, name), outputs(text, name), strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)
    return True


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(model_of, name):
    text = HEAD + "def attend(q, k, v, extra):\n    T = q.size(-2)\n" + indented(FUNCTIONS[name], 4)
    is_applied = same_or_refused(model_of, text, "attend")
    assert is_applied or name != "plain"


@pytest.mark.parametrize("name", CLASSES)
def test_classes(model_of, name):
    setting, change, other = CLASSES[name]
    text = (
        HEAD
        + f"""\
class Base(nn.Module):
    def __init__(self):
        super().__init__()
        {setting}

    def masked(self, scores):
        return scores

    def forward(self, q, k, v, extra):
        B, H, T, D = q.shape
        {SCORES}
        {change}
        return torch.softmax(scores, dim=-1) @ v


class Sub(Base):
    {other}
"""
    )
    same_or_refused(model_of, text, "Sub")


def test_the_harness_sees_a_difference():
    text = HEAD + "def attend(q, k, v, extra):\n    return (q @ k.mT).softmax(-1) @ v\n"
    other = outputs(text.replace("softmax(-1) @ v", "softmax(-1) @ v * 2"), "attend")
    assert not torch.allclose(outputs(text, "attend")[0], other[0])
    assert math.isfinite(float(other[0].sum()))
