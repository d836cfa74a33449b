"""Attention as others write it: patched to the same numbers, gradients too, or refused at a place for a true reason."""

from dataclasses import dataclass
from inspect import signature

import pytest
import torch

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome

HEAD = """\
import math

import torch
import torch.nn.functional as F
from torch import nn


"""
INIT = """\
class Attend(nn.Module):
    def __init__(self, width=16, heads=2):
        super().__init__()
        self.h, self.d = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.drop = nn.Dropout(0.1)

"""
SPLIT = """\
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.h, self.d).permute(2, 0, 3, 1, 4).unbind(0)
"""
PAST = """\
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
"""
TRIANGLE = "torch.triu(torch.ones(t, t, dtype=torch.bool, device=x.device), 1)"
JOIN = ".transpose(1, 2).reshape(b, t, c)\n"


@dataclass
class Kind:
    """A way to write attention: what follows the imports, what it is tried with, and what a patch has or a refusal says."""

    text: str
    says: str
    task: str = "task-9"
    is_applied: bool = True
    tried: tuple[tuple[int, ...], ...] = ((5,), (1,))  # lengths, and how many keys there are before


KINDS = {
    "a square mask, and one query among many keys": Kind(
        INIT
        + "    def forward(self, x, past=None):\n"
        + SPLIT
        + PAST
        + "        s = q @ k.transpose(-1, -2) * self.d ** -0.5\n"
        + f'        s = s.masked_fill({TRIANGLE}, float("-inf"))\n'
        + f"        return (s.softmax(-1) @ v){JOIN}",
        "is_causal=t > 1",
        tried=((5,), (1, 3)),
    ),
    "the same, by a function that is handed them": Kind(
        "def attend(q, k, v):\n"
        "    t = q.size(-2)\n"
        "    s = q @ k.transpose(-1, -2) * q.size(-1) ** -0.5\n"
        f'    s = s.masked_fill({TRIANGLE.replace("x.", "q.")}, float("-inf"))\n'
        "    return s.softmax(-1) @ v\n\n\n"
        + INIT
        + "    def forward(self, x, past=None):\n"
        + SPLIT
        + PAST
        + f"        return attend(q, k, v){JOIN}",
        "is_causal=t > 1",
        tried=((5,), (1, 3)),
    ),
    "a mask that is handed in, by one of two": Kind(
        "def attend(q, k, v, keep):\n"
        '    s = torch.einsum("...qd,...kd->...qk", q * q.size(-1) ** -0.5, k)\n'
        "    if keep is not None:\n"
        '        s = torch.where(keep, s, float("-inf"))\n'
        '    return torch.einsum("...qk,...kd->...qd", s.softmax(-1), v)\n\n\n'
        + INIT
        + "    def forward(self, x, causal=True):\n"
        + SPLIT
        + "        y = attend(q, k, v, ~"
        + TRIANGLE
        + " if causal else None)\n"
        + "        near = torch.arange(t, device=x.device)[:, None] - torch.arange(t, device=x.device) < 2\n"
        + f"        return (y + attend(q, k, v, near)){JOIN}",
        "if causal else None, is_causal=causal)",
    ),
    "floats that are handed to baddbmm": Kind(
        INIT + "    def bias(self, t, like):\n"
        "        at = torch.arange(t, device=like.device)\n"
        "        made = torch.zeros(t, t, dtype=like.dtype, device=like.device)\n"
        '        made[at[:, None] < at[None, :]] = float("-inf")\n'
        "        return made\n\n"
        "    def attend(self, q, k, v, bias):\n"
        "        if bias is None:\n"
        "            s = torch.bmm(q, k.transpose(1, 2)) * self.d**-0.5\n"
        "        else:\n"
        "            s = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=self.d**-0.5)\n"
        "        return torch.bmm(s.softmax(2), v)\n\n"
        "    def forward(self, x, causal=True):\n"
        + SPLIT
        + "        q, k, v = (each.flatten(0, 1) for each in (q, k, v))\n"
        "        y = self.attend(q, k, v, self.bias(t, x) if causal else None)\n"
        f"        return y.view(b, self.h, t, self.d){JOIN}",
        "attn_mask=bias if not is_causal else None, is_causal=is_causal",
    ),
    "truth values that are handed to baddbmm": Kind(
        INIT + "    def attend(self, q, k, v, bias):\n"
        "        s = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=self.d**-0.5)\n"
        "        return torch.bmm(s.softmax(2), v)\n\n"
        "    def forward(self, x):\n" + SPLIT + "        q, k, v = (each.flatten(0, 1) for each in (q, k, v))\n"
        f"        return self.attend(q, k, v, ({TRIANGLE}).to(x.dtype)).view(b, self.h, t, self.d){JOIN}",
        "may be no mask that torch takes",
        is_applied=False,
    ),
    "queries and keys that have names only once they are scaled": Kind(
        INIT
        + "    def forward(self, x, causal: bool = True):\n"
        + SPLIT
        + "        q, k = q * self.d**-0.25, k * self.d**-0.25\n"
        '        s = torch.einsum("bhid,bhjd->bhij", q, k)\n'
        "        if causal:\n"
        '            s += torch.full((t, t), float("-inf"), device=x.device).triu(1)\n'
        "        s = s - s.amax(dim=-1, keepdim=True)\n"
        "        w = torch.exp(s) / torch.exp(s).sum(dim=-1, keepdim=True)\n"
        f'        return torch.einsum("bhij,bhjd->bhid", w, v){JOIN}',
        "q, k, v, is_causal=causal, scale=1.0",
    ),
    "weights as exponentials of what log-sum-exp leaves": Kind(
        INIT + "    def forward(self, x):\n" + SPLIT + "        s = q @ k.mT / math.sqrt(self.d)\n"
        f"        s = s.masked_fill({TRIANGLE}, torch.finfo(s.dtype).min)\n"
        f"        return (torch.exp(s - torch.logsumexp(s, dim=3, keepdim=True)) @ v){JOIN}",
        "is_causal=True",
    ),
    "a triangle that is a buffer": Kind(
        INIT.replace(
            "        self.drop",
            '        self.register_buffer("seen", torch.tril(torch.ones(9, 9)).view(1, 1, 9, 9))\n        self.drop',
        )
        + "    def forward(self, x):\n"
        + SPLIT
        + '        s = (q @ k.transpose(-2, -1) / math.sqrt(self.d)).masked_fill(self.seen[:, :, :t, :t] == 0, float("-inf"))\n'
        f"        return (self.drop(s.softmax(-1)) @ v){JOIN}",
        "q, k, v, is_causal=True",
    ),
    "a triangle whose last row is the last key's": Kind(
        INIT + "    def forward(self, x, past=None):\n" + SPLIT + PAST + "        keys = k.size(2)\n"
        "        hidden = torch.ones(t, keys, dtype=torch.bool, device=x.device).triu(1 + keys - t)\n"
        '        s = (q @ k.mT / math.sqrt(self.d)).masked_fill(hidden, float("-inf"))\n'
        f"        return (s.softmax(-1) @ v){JOIN}",
        "get_tri_mask(keys, x.device)[keys - t :]",
        task="task-10",
        tried=((5,), (2, 3), (1, 3)),
    ),
    "floats in such a triangle": Kind(
        "def bias(like, queries, keys):\n"
        '    return torch.full((queries, keys), float("-inf"), dtype=like.dtype, device=like.device).triu(1 + keys - queries)\n\n\n'
        + INIT
        + "    def forward(self, x, past=None):\n"
        + SPLIT
        + PAST
        + f"        return (((q @ k.mT / math.sqrt(self.d)) + bias(q, t, k.size(2))).softmax(-1) @ v){JOIN}",
        "torch.zeros(queries, keys, dtype=like.dtype, device=like.device).masked_fill(",
        task="task-10",
        tried=((5,), (2, 3), (1, 3)),
    ),
    "a triangle whose first row is the first key's": Kind(
        INIT
        + "    def forward(self, x, past=None):\n"
        + SPLIT
        + PAST
        + "        hidden = torch.ones(t, k.size(2), dtype=torch.bool, device=x.device).triu(1)\n"
        '        s = (q @ k.mT / math.sqrt(self.d)).masked_fill(hidden, float("-inf"))\n'
        f"        return (s.softmax(-1) @ v){JOIN}",
        "not square",
        task="task-10",
        is_applied=False,
    ),
    "weights made by a function that is handed one of two masks": Kind(
        "def weights(q, k, hidden):\n"
        "    s = q @ k.mT * 0.25\n"
        "    if hidden is not None:\n"
        '        s = s.masked_fill(hidden, float("-inf"))\n'
        "    return s.softmax(-1)\n\n\n"
        + INIT
        + "    def forward(self, x, causal=True):\n"
        + SPLIT
        + "        hidden = torch.zeros(t, t, dtype=torch.bool, device=x.device)\n"
        "        if causal:\n"
        f"            hidden = {TRIANGLE}.flip(0)\n"
        f"        return (weights(q, k, hidden) @ v){JOIN}",
        "attn_mask=~hidden",
    ),
    "a causal mask, and one of lengths": Kind(
        INIT
        + "    def forward(self, x, causal: bool = True, lengths=None):\n"
        + SPLIT
        + "        s = q @ k.mT / math.sqrt(self.d)\n"
        "        if causal:\n"
        f"            future = {TRIANGLE}\n"
        '            s = s.masked_fill(future, float("-inf"))\n'
        "        if lengths is not None:\n"
        "            gone = torch.arange(t, device=x.device) >= lengths[:, None, None, None]\n"
        '            s = s.masked_fill(gone, float("-inf"))\n'
        f"        return (s.softmax(-1) @ v){JOIN}",
        "attn_mask=(~(future | gone) if causal else ~gone) if lengths is not None else None,",
    ),
    "a buffer that somebody else changes": Kind(
        INIT.replace(
            "        self.drop",
            '        self.register_buffer("seen", torch.ones(9, 9).tril().bool())\n        self.drop',
        )
        + "    def forward(self, x):\n"
        + SPLIT
        + '        s = (q @ k.transpose(-2, -1)).masked_fill(~self.seen[:t, :t], float("-inf"))\n'
        f"        return (s.softmax(-1) @ v){JOIN}\n\ndef opened(model):\n    model.seen.fill_(True)\n    return model\n",
        "attn_mask=self.seen[:t, :t]",
    ),
    "a low fill, scaled until it is not low": Kind(
        INIT
        + "    def forward(self, x):\n"
        + SPLIT
        + f"        s = (q @ k.mT).masked_fill({TRIANGLE}, -1e9) * 1e-9\n        return (s.softmax(-1) @ v){JOIN}",
        "scaled once they are masked",
        is_applied=False,
    ),
    "a mask whose device is that of what its scores are made of": Kind(
        INIT
        + "    def forward(self, x):\n"
        + SPLIT
        + f"        s = (q @ k.mT * 0.3).masked_fill({TRIANGLE.replace(', device=x.device', '')}, -math.inf)\n"
        f"        return (s.softmax(-1) @ v){JOIN}",
        "get_tri_mask(t, q.device)",
        task="task-10",
    ),
    "a negative scale, of which torch takes the root": Kind(
        INIT
        + "    def forward(self, x):\n"
        + SPLIT
        + f"        s = (q @ k.mT * -(self.d**-0.5)).masked_fill({TRIANGLE}, -math.inf)\n"
        f"        return (s.softmax(-1) @ v){JOIN}",
        "its scale is negative",
        is_applied=False,
    ),
    "a triangle that is written to another tensor": Kind(
        INIT
        + "    def forward(self, x):\n"
        + SPLIT
        + "        hidden = torch.empty(t, t, dtype=torch.bool)\n"
        + f"        {TRIANGLE.replace(', 1)', ', 1, out=hidden)')}\n"
        f"        return ((q @ k.mT).masked_fill(hidden, -math.inf).softmax(-1) @ v){JOIN}",
        "written to another tensor",
        task="task-10",
        is_applied=False,
    ),
    "exponentials over another sum": Kind(
        INIT + "    def forward(self, x):\n" + SPLIT + "        s = q @ k.mT / math.sqrt(self.d)\n"
        f"        return (torch.exp(s) / torch.exp(s).sum(dim=-2, keepdim=True) @ v){JOIN}",
        "not over the last dimension",
        is_applied=False,
    ),
    "a function of tensors that may have any number of dimensions": Kind(
        "def head(q, k, v):\n    return F.softmax(q @ k.transpose(1, 2) * q.size(-1) ** -0.5, dim=2) @ v\n\n\n"
        + INIT
        + "    def forward(self, x):\n        return head(*(getattr(self, name)(x) for name in ('qkv', 'qkv', 'qkv')))\n",
        "how many dimensions its softmax has is not known",
        is_applied=False,
    ),
    "a mask of keys that all callers make causal": Kind(
        "def bias(like, queries, keys):\n"
        '    return torch.full((queries, keys), float("-inf"), dtype=like.dtype).triu(1 + keys - queries)\n\n\n'
        + INIT
        + "    def forward(self, x):\n"
        + SPLIT
        + f"        return self.attended(*(each.reshape(b, self.h, t, self.d) for each in (q, k, v))){JOIN}\n"
        + "    def attended(self, q, k, v):\n"
        "        s = q @ k.transpose(2, 3) * self.d**-0.5 + bias(q, q.size(2), k.size(2))\n"
        "        return self.drop(s.softmax(-1)) @ v\n",
        "is_causal=True",
    ),
}


def outputs(text, tried):
    space = {}
    exec(compile(text, "model.py", "exec"), space)
    made = []
    for length, before in ((*each, 0)[:2] for each in tried):
        torch.manual_seed(1)
        model = space["Attend"]().double().eval()
        x = torch.randn(2, length, 16, dtype=torch.float64, requires_grad=True)
        past = [torch.randn(2, 2, before, 8, dtype=torch.float64) for _ in range(2)] if before else []
        out = model(x, past) if before else model(x)
        if "lengths" in signature(model.forward).parameters:
            more = [{"lengths": torch.tensor([length, 1])}, {"causal": False}]
            out = torch.cat([out, *(model(x, **each) for each in (*more, more[0] | more[1]))])
        (out * torch.linspace(0, 1, out.numel(), dtype=torch.float64).view_as(out)).sum().backward()
        made += [out.detach(), x.grad, *(each.grad for each in model.parameters())]
    return made


@pytest.mark.parametrize("name", KINDS)
def test_kinds(model_of, name):
    kind = KINDS[name]
    text = HEAD + kind.text
    planned = plan(open_tree(model_of(text)), [task_named(kind.task)])
    (outcome,) = planned.outcomes
    assert (outcome.outcome is Outcome.APPLIED) is kind.is_applied, outcome.reason
    if not kind.is_applied:
        assert "near miss at bit_transformer/model.py:" in outcome.reason
        assert kind.says in outcome.reason
        return
    after = planned.changes[0].after.decode()
    assert kind.says in after
    for ours, theirs in zip(outputs(after, kind.tried), outputs(text, kind.tried), strict=True):
        torch.testing.assert_close(ours, theirs)
