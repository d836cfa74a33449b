"""Attention that others have torch compute: left alone where it is right, and no patch of ours where it is wrong."""

import pytest

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome

HEAD = """\
import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, width, heads, rate=0.1):
        super().__init__()
        self.heads, self.rate = heads, rate
        self.qkv = nn.Linear(width, 3 * width)
        self.drop = nn.Dropout(rate)

    def forward(self, x, causal=True):
        q, k, v = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in self.qkv(x).chunk(3, -1))
        size, width = q.size(-2), q.size(-1)
        future = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)
        p = self.drop.p if self.training else 0.0
"""
RIGHT = {
    "is_causal": "q, k, v, is_causal=causal, dropout_p=p",
    "is_causal of more than one": "q, k, v, is_causal=causal and size > 1, dropout_p=p",
    "a mask of what is seen": "q, k, v, ~future if causal else None, p",
    "floats": 'q, k, v, torch.zeros(size, size).masked_fill(future, float("-inf")) if causal else None',
    "a mask, or else is_causal": "q, k, v, attn_mask=None if causal else future.mT | ~future, is_causal=causal",
    "a scale of its own": "q / width**0.5, k, v, is_causal=causal, scale=1.0",
    "torch's own scale": "q, k, v, is_causal=causal, scale=width**-0.5",
    "a rate that is none in evaluation": "q, k, v, dropout_p=self.rate * self.training, is_causal=causal",
    "no rate unless training": "q, k, v, dropout_p=0.0 if not self.training else self.rate, is_causal=causal",
}
WRONG = {
    "a mask, and is_causal": ("q, k, v, attn_mask=~future, is_causal=causal", "of which torch takes one"),
    "both at a time": ("q, k, v, attn_mask=~future if causal else None, is_causal=causal", "of which torch takes one"),
    "the opposite sense": ("q, k, v, attn_mask=future if causal else None", "torch lets True be seen"),
    "the opposite sense, of two": ("q, k, v, future | (x[:, None, None, :, 0] > 9) if causal else None", "invert it"),
    "dropout in evaluation": ("q, k, v, is_causal=causal, dropout_p=self.drop.p", "in evaluation too"),
    "dropout of a number": (
        "q, k, v, is_causal=causal, dropout_p=0.1 if not self.training else p",
        "in evaluation too",
    ),
    "dropout in evaluation alone": (
        "q, k, v, is_causal=causal, dropout_p=0.0 if self.training else self.rate",
        "in evaluation too",
    ),
    "scaled twice": ("q / width**0.5, k, v, is_causal=causal, dropout_p=p", "torch scales them again"),
    "multiplied by the root": ("q, k, v, is_causal=causal, scale=width**0.5", "not one over it"),
    "causal whatever is asked": ("q, k, v, is_causal=True, dropout_p=p).add(0 * causal", "is not what causal says"),
    "causal forgotten": ("q, k, v, dropout_p=p).add(causal if self.heads > 9 else 0", "is not what causal says"),
    "causal the other way": ("q, k, v, is_causal=not causal", "causal says that it is not"),
    "heads where positions belong": (
        "x.unflatten(-1, (self.heads, -1)), k, v, is_causal=causal",
        "heads where torch wants positions",
    ),
    "windows": (
        "q.unfold(2, 1, 1).mT, k.unfold(2, 3, 1).mT, v.unfold(2, 3, 1).mT, is_causal=causal",
        "its keys are windows",
    ),
}


def outcome_of(model_of, arguments):
    text = f"{HEAD}        return F.scaled_dot_product_attention({arguments}).transpose(1, 2).flatten(2)\n"
    (outcome,) = plan(open_tree(model_of(text)), [task_named("task-9")]).outcomes
    return outcome


@pytest.mark.parametrize("name", RIGHT)
def test_right_by_hand(model_of, name):
    outcome = outcome_of(model_of, RIGHT[name])
    assert outcome.outcome is Outcome.ALREADY_APPLIED, outcome.reason


@pytest.mark.parametrize("name", WRONG)
def test_wrong_by_hand(model_of, name):
    arguments, why = WRONG[name]
    outcome = outcome_of(model_of, arguments)
    assert outcome.outcome is Outcome.REFUSED
    assert "near miss at bit_transformer/model.py:18:16" in outcome.reason
    assert why in outcome.reason


MULTIHEAD = """\
import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self, width, heads, chunk=4, overlap=2):
        super().__init__()
        self.heads, self.chunk, self.overlap = heads, chunk, overlap
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x, causal=True):
        size = x.size(1)
        future = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)
"""
BY_HAND = "it is asked for weights, as by default, and makes them by hand then"
CAUSAL = "its mask may be a causal one"
MULTIHEADS = {
    "without weights": ("need_weights=False", ""),
    "causal": ("need_weights=False, attn_mask=future if causal else None, is_causal=causal", ""),
    "under a mask of windows": ("need_weights=False, attn_mask=future[2:]", ""),
    "with weights": ("need_weights=True", BY_HAND),
    "with weights by default": ("attn_mask=future", BY_HAND),
    "with weights by their place": ("None, True, future", BY_HAND),
    "with weights at times": ("need_weights=self.training", BY_HAND),
    "under a causal mask alone": ("need_weights=False, attn_mask=future if causal else None", CAUSAL),
    "under a mask by its place": ("None, False, future", CAUSAL),
    "under a mask that is handed in": ("need_weights=False, attn_mask=causal", CAUSAL),
}


@pytest.mark.parametrize("name", MULTIHEADS)
def test_a_module_of_torch_s_that_attends(model_of, name):
    asked, why = MULTIHEADS[name]
    text = f"{MULTIHEAD}        return self.attn(x, x, x, {asked})[0]\n"
    (outcome,) = plan(open_tree(model_of(text)), [task_named("task-9")]).outcomes
    assert outcome.outcome is (Outcome.REFUSED if why else Outcome.ALREADY_APPLIED), outcome.reason
    assert (
        not why
        or f"near miss at bit_transformer/model.py:14:16: attention that torch computes, but {why}" in outcome.reason
    )


def test_windows_that_a_module_of_torch_s_weighs_are_named(model_of):
    text = f"""\
{MULTIHEAD}
        windows = nn.functional.pad(x, (0, 0, self.overlap, -size % self.chunk)).unfold(1, self.chunk + self.overlap, self.chunk)
        windows = windows.mT.flatten(0, 1)
        out, weights = self.attn(windows[:, self.overlap :], windows, windows)
        weights = weights.unflatten(0, (x.size(0), -1))
        full = torch.zeros(x.size(0), size, size)
        for i in range(weights.size(1)):
            s = i * self.chunk
            e = min(s + self.chunk, size)
            columns = torch.arange(s - self.overlap, e)
            full[:, s:e, columns] = weights[:, i, : e - s, : columns.numel()]
        return out, full
"""
    (outcome,) = plan(open_tree(model_of(text)), [task_named("task-11")]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert "cannot be told: nn.MultiheadAttention weighs them at bit_transformer/model.py:17:24" in outcome.reason
