"""Which attentions are handed to torch, in which idioms, and which are named and left."""

import pytest

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome, State

HEAD = """\
import math

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, width):
        self.dropout = nn.Dropout(0.1)
        self.mix = nn.Linear(width, width)
        self.scale = width**-0.5
        self.temperature = nn.Parameter(torch.ones(()))
        self.factor = width

    def forward(self, q, k, v, causal):
        B, H, T, D = q.shape
"""
SCORES = "        scores = q @ k.transpose(-2, -1) / math.sqrt(D)\n"
MASK = """\
        if causal:
            future = torch.triu(torch.ones(T, T, dtype=torch.bool, device=q.device), diagonal=1)
            scores = scores.masked_fill(future, float("-inf"))
"""
WEIGHTS = "        weights = torch.softmax(scores, dim=-1)\n"
OUT = "        out = self.dropout(weights) @ v\n"
RETURN = "        return out, weights.detach() if self.logging else None\n"
ATTENTION = HEAD + SCORES + MASK + WEIGHTS + OUT + RETURN


HOT = "        hot = out.isnan().any()\n"
READ_AT_TIMES = {
    "a condition that is known too late": HOT + "        return out, weights.detach() if hot else None\n",
    "a condition that does something": "        return out, weights.detach() if self.asks() else None\n",
    "an early return that is known too late": HOT
    + "        if hot:\n            return out, None\n        return out, weights\n",
    "two conditions": "        if causal:\n            self.log(weights)\n        return out, weights if self.logging else None\n",
    "a condition in a condition": "        if causal:\n            if T > 4:\n                self.log(weights)\n        return out\n",
    "a second operand": HOT + "        return out, hot and weights.detach()\n",
}


@pytest.fixture
def tree_of(model_of):
    return lambda text: open_tree(model_of(text))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "import torch\n\n\ndef K(logits):\n    return torch.softmax(logits, dim=-1).log()\n", id="softmax of logits"
        ),
        pytest.param('"""scores = q @ k; softmax(scores) @ v"""\n', id="a docstring with the right words"),
    ],
)
def test_no_site(tree_of, state_of, text):
    assert state_of(tree_of(text), "task-9") is State.UNRECOGNISED


def test_attention_that_torch_computes_is_left_alone(tree_of, state_of):
    text = HEAD + "        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)\n"
    assert state_of(tree_of(text), "task-9") is State.APPLIED


def test_the_map_is_computed_apart_and_the_output_by_torch(tree_of, after):
    text = after(tree_of(ATTENTION), "task-9")
    assert (
        """\
        if self.logging:
            with torch.no_grad():
                scores = q @ k.transpose(-2, -1) / math.sqrt(D)
                if causal:
                    future = torch.triu(torch.ones(T, T, dtype=torch.bool, device=q.device), diagonal=1)
                    scores = scores.masked_fill(future, float("-inf"))
                weights = torch.softmax(scores, dim=-1)
        dropout_p = self.dropout.p if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=dropout_p)
        return out, weights.detach() if self.logging else None
"""
        in text
    )


@pytest.mark.parametrize(
    ("returned", "condition"),
    [
        ("        return out, None if self.logging else weights.detach()\n", "not self.logging"),
        ("        return out, None if not self.logging else weights.detach()\n", "self.logging"),
        (
            "        if not self.logging:\n            return out, None\n        return out, weights.detach()\n",
            "self.logging",
        ),
        (
            "        return out, self.kept(\n            weights.detach()\n        ) if self.logging else None\n\n"
            "    def kept(self, w):\n        self.last.append(w)\n        return w\n",
            "self.logging",
        ),
        (
            "        if D > 4 or causal:\n            return out, None\n        kept = weights.detach()\n        return out, kept\n",
            "not (D > 4 or causal)",
        ),
    ],
    ids=[
        "the other branch",
        "a negation",
        "an early return",
        "a branch of lines above its condition",
        "an early return on two conditions",
    ],
)
def test_the_map_is_computed_where_it_is_asked_for(tree_of, after, returned, condition):
    text = after(tree_of(ATTENTION.replace(RETURN, returned)), "task-9")
    assert (
        f"D = q.shape\n        if {condition}:\n            with torch.no_grad():\n                scores = q" in text
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            RETURN, "        return out\n", "D = q.shape\n        dropout_p", id="weights that nobody else reads"
        ),
        pytest.param(
            RETURN, "        return out, weights\n", "D = q.shape\n        scores = q", id="map that keeps its gradient"
        ),
        pytest.param(
            RETURN,
            "        return out, weights.detach()\n",
            "        with torch.no_grad():\n            scores",
            id="map that is always read",
        ),
        pytest.param(
            RETURN,
            "        if not self.logging:\n            return out, None\n        return out, weights.detach()\n",
            "        if self.logging:\n            with torch.no_grad():\n                scores",
            id="map that is read once the function goes on",
        ),
        pytest.param(
            RETURN,
            "        if causal:\n            out = out + 1\n        return out, weights.detach()\n",
            "        with torch.no_grad():\n            scores",
            id="map that is read beside a condition",
        ),
        pytest.param(MASK, "", "attention(q, k, v, dropout_p=dropout_p)", id="no mask"),
        pytest.param("if causal:", "if True:", "is_causal=True", id="always causal"),
        pytest.param('float("-inf")', "-1e9", "is_causal=causal", id="a fill that no score comes near"),
        pytest.param(
            'float("-inf")', "torch.finfo(scores.dtype).min", "is_causal=causal", id="the least number as a fill"
        ),
        pytest.param(
            'float("-inf")',
            "-torch.finfo(scores.dtype).max",
            "        if self.logging:\n            with torch.no_grad():\n                scores = q @",
            id="the largest number, negated, as a fill",
        ),
        pytest.param(
            'float("-inf")',
            "torch.finfo(scores.dtype).min / 2",
            "is_causal=causal",
            id="half the least number as a fill",
        ),
        pytest.param(
            MASK,
            "        at = torch.arange(T, device=q.device)\n        far = (at - at[:, None]).abs() > H\n"
            "        scores = scores.masked_fill(far, -1e9)\n",
            "attn_mask=~far",
            id="a finite fill of a band that leaves a key to every query",
        ),
        pytest.param(
            MASK,
            "        scores = scores.masked_fill(hidden, -math.inf)\n",
            "attn_mask=~hidden",
            id="a mask of another kind",
        ),
        pytest.param("math.sqrt(D)", "q.size(-1) ** 0.5", "(q, k, v, is_causal", id="root as a power"),
        pytest.param("/ math.sqrt(D)", "* D ** -0.5", "(q, k, v, is_causal", id="times the inverse root"),
        pytest.param(
            "/ math.sqrt(D)", "* self.scale", "dropout_p=dropout_p, scale=self.scale)", id="a scale of its own"
        ),
        pytest.param("/ math.sqrt(D)", "/ math.sqrt(H)", "scale=1 / math.sqrt(H)", id="another root"),
        pytest.param(" / math.sqrt(D)", "", "scale=1.0", id="not scaled"),
        pytest.param("q @ k.transpose(-2, -1)", "torch.matmul(q, k.mT)", "(q, k, v, ", id="matmul"),
        pytest.param("k.transpose(-2, -1)", "k", "(q, k.transpose(-2, -1), v, ", id="keys that were turned before"),
        pytest.param("self.dropout(weights) @ v", "weights @ v", "(q, k, v, is_causal=causal)\n", id="no dropout"),
        pytest.param(
            "self.dropout(weights)",
            "F.dropout(weights, self.p, self.training)",
            "dropout_p = self.p if self.training else 0.0",
            id="functional dropout",
        ),
        pytest.param(
            "self.dropout(weights)",
            "F.dropout(weights, self.p if self.training else 0.0)",
            "        dropout_p = self.p if self.training else 0.0\n",
            id="functional dropout that is told to train by default",
        ),
        pytest.param("torch.softmax(scores, dim=-1)", "scores.softmax(-1)", "(q, k, v, is_causal", id="method"),
        pytest.param("import torch.nn.functional as F\n", "", "nn.functional.scaled_dot", id="no alias"),
        pytest.param(
            "q @ k.transpose(-2, -1) / math.sqrt(D)", "self.scale * (q @ k.mT)", "scale=self.scale", id="scale first"
        ),
        pytest.param(
            "math.sqrt(D)", "math.sqrt(x.size(-1))", "scale=1 / math.sqrt(x.size(-1))", id="width of the input"
        ),
        pytest.param(
            SCORES,
            "        q = q.view(B, H, T, 2, -1)\n" + SCORES,
            "scale=1 / math.sqrt(D)",
            id="queries that are split once their shape is read",
        ),
        pytest.param("causal):", "causal=None):", "is_causal=bool(causal)", id="condition that is no bool"),
        pytest.param(
            SCORES + MASK,
            MASK.splitlines()[1][4:] + "\n        future[:, :2] = False\n" + SCORES + MASK.splitlines()[2][4:] + "\n",
            "attn_mask=~future",
            id="triangle with a prefix cut out",
        ),
        pytest.param(
            RETURN, "        return out, scores\n", "D = q.shape\n        scores = q", id="scores that are read"
        ),
        pytest.param(RETURN, "        return out, future\n", "            future = torch", id="mask that is read"),
        pytest.param(
            OUT,
            "        drop = self.dropout\n        out = drop(weights) @ v\n",
            "        drop = self.dropout\n        dropout_p = drop.p if self.training else 0.0\n",
            id="dropout under another name",
        ),
        pytest.param(
            MASK,
            MASK.replace("diagonal=1", "diagonal=2"),
            "attn_mask=~future if causal else None, dropout_p",
            id="another triangle, under a condition",
        ),
        pytest.param(
            RETURN,
            "        self.calls += 1\n        return out\n",
            "= q.shape\n        dropout_p",
            id="a statement that has nothing to do with it",
        ),
        pytest.param(
            MASK + WEIGHTS,
            MASK + "            self.calls += 1\n" + WEIGHTS,
            "            self.calls += 1\n",
            id="counter under the mask's condition",
        ),
        pytest.param(
            SCORES,
            SCORES[:-1] + "; self.n += 1\n",
            "self.n += 1\n",
            id="two statements in a line",
        ),
        pytest.param(
            WEIGHTS,
            WEIGHTS + "        v.mul_(2)\n",
            "v.mul_(2)\n        dropout_p",
            id="values changed in place before",
        ),
        pytest.param(
            "self.dropout(weights) @ v",
            'torch.einsum("bhts,bhsd->bhtd", weights, v)',
            "(q, k, v, is_causal",
            id="einsum of weights",
        ),
        pytest.param(
            "q @ k.transpose(-2, -1)",
            'torch.einsum("bhtd,bhsd->bhts", q, k)',
            "(q, k, v, is_causal",
            id="einsum of scores",
        ),
        pytest.param(
            MASK,
            "        past = torch.ones(T, T, device=q.device).tril()\n        scores = scores.masked_fill(past == 0, -math.inf)\n",
            "(q, k, v, is_causal=True",
            id="what is not lower",
        ),
        pytest.param(
            MASK,
            "        at = torch.arange(T)\n        scores = torch.where(at[:, None] >= at, scores, -math.inf)\n",
            "(q, k, v, is_causal=True",
            id="positions compared, and where",
        ),
        pytest.param(
            MASK,
            "        if not causal:\n            pass\n        else:\n            scores = scores + torch.full((T, T), -math.inf).triu(1)\n",
            "is_causal=",
            id="added under the other branch",
        ),
        pytest.param(
            OUT + RETURN,
            "        weights = self.dropout(weights)\n        return weights @ v\n",
            "= q.shape\n        dropout_p = self.dropout.p if self.training else 0.0\n        return F.scaled",
            id="dropout as a statement",
        ),
    ],
)
def test_idioms(tree_of, after, old, new, expected):
    assert old in ATTENTION
    assert expected in after(tree_of(ATTENTION.replace(old, new)), "task-9")


WINDOWS = """\
import torch
import torch.nn.functional as F
from torch import nn


def future_in_window(chunk, overlap, device=None):
    query = torch.arange(chunk, device=device) + overlap
    key = torch.arange(overlap + chunk, device=device)
    return key[None, :] > query[:, None]


def windowed(q, k, v, chunk, overlap, causal=True, p=0.0):
    scores = torch.einsum("bhnid,bhnjd->bhnij", q, k) * q.shape[-1] ** -0.5
    if causal:
        scores = scores.masked_fill(future_in_window(chunk, overlap, q.device), -torch.finfo(scores.dtype).max)
    return torch.einsum("bhnij,bhnjd->bhnid", F.dropout(scores.softmax(-1), p), v)


class Attention(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.p = dropout

    def forward(self, q, k, v, causal):
        return windowed(q, k, v, 4, 2, causal, self.p if self.training else 0.0)
"""


def test_windows_that_a_function_masks_under_a_condition(tree_of, after):
    text = after(tree_of(WINDOWS), "task-9")
    assert "attn_mask=~future_in_window(chunk, overlap, q.device) if causal else None" in text
    assert "    dropout_p = p\n" in text


def test_a_rate_that_a_caller_hands_in_for_evaluation_too_is_refused(tree_of):
    text = WINDOWS.replace("self.p if self.training else 0.0", "self.p")
    (outcome,) = plan(tree_of(text), [task_named("task-9")]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert "dropped out in evaluation too" in outcome.reason


def test_dropout_outside_of_a_module_goes_by_its_own_mode(tree_of, after):
    text = """\
import torch
import torch.nn.functional as F
from torch import nn

DROP = nn.Dropout(0.1)


def attend(q, k, v):
    return DROP((q @ k.mT).softmax(-1)) @ v
"""
    assert "    dropout_p = DROP.p if DROP.training else 0.0\n" in after(tree_of(text), "task-9")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param("dim=-1", "dim=1", "not over the last dimension", id="another dimension"),
        pytest.param("torch.softmax(scores", "torch.softmax(scores + bias", "may be no mask", id="bias in the softmax"),
        pytest.param(MASK, MASK + "        scores = scores + bias\n", "may be no mask", id="bias"),
        pytest.param('float("-inf")', "-1e4", "does not fill with float", id="finite mask"),
        pytest.param(
            MASK, "        scores = scores.masked_fill(hidden, -1e9)\n", "does not fill with float", id="finite, of all"
        ),
        pytest.param(
            MASK,
            MASK.replace('float("-inf")', "-1e9") + '        scores = scores.masked_fill(hidden, float("-inf"))\n',
            "rows that are all masked would differ",
            id="finite, beside one that may hide the rest",
        ),
        pytest.param(
            'diagonal=1)\n            scores = scores.masked_fill(future, float("-inf"))',
            "diagonal=0)\n            scores = scores.masked_fill(future, -torch.finfo(scores.dtype).max)",
            "rows that are all masked would differ",
            id="finite, of what leaves the first query none",
        ),
        *(
            pytest.param(
                "self.dropout(weights)", f"F.dropout(weights{p})", "in evaluation too", id=f"dropout{p}, always"
            )
            for p in ("", ", 0.1", ", 0.1, True")
        ),
        pytest.param(
            SCORES, "        scores = self.score(q, k)\n", "a call is not followed", id="scores made elsewhere"
        ),
        pytest.param(
            "self.dropout(weights)",
            "drop(weights)",
            "something is done to its weights",
            id="something done to the weights",
        ),
        pytest.param(
            "self.dropout(weights)",
            "self.mix(weights)",
            "something is done to its weights",
            id="a layer on the weights",
        ),
        pytest.param("/ math.sqrt(D)", "* self.temperature", "may be a tensor", id="a learned scale"),
        pytest.param(
            MASK,
            MASK + "        scores = scores * self.factor\n",
            "once they are masked",
            id="scaled by what may be negative",
        ),
        pytest.param(
            SCORES + MASK,
            "        scores = (q @ k.mT + bias) / math.sqrt(D)\n",
            "scaled once they are masked",
            id="a bias that is scaled too",
        ),
        pytest.param("/ math.sqrt(D)", "* self.temperature.exp()", "may be a tensor", id="a computed scale"),
        pytest.param(
            "scores.masked_fill(", "(scores + bias).masked_fill(", "more than a mask", id="bias under the mask"
        ),
        pytest.param(
            'float("-inf"))\n', 'float("-inf")) * 2\n', "changes more than a mask", id="scores scaled after the mask"
        ),
        pytest.param(
            "torch.ones(T, T, dtype=torch.bool, device=q.device)",
            "torch.ones_like(scores[0, 0], dtype=torch.bool)",
            "made like the scores",
            id="a mask made like the scores",
        ),
        pytest.param(WEIGHTS, WEIGHTS + "        k = k * 2\n", "no name where", id="keys set anew"),
        pytest.param(WEIGHTS, WEIGHTS + "        del q\n", "no name where", id="queries deleted"),
        pytest.param(WEIGHTS, WEIGHTS + "        q.mul_(2)\n", "no name where", id="queries changed in place"),
        pytest.param("B, H, T, D = q", "B, F, T, D = q", "the name F stands for something else", id="F is a size"),
        pytest.param(OUT, OUT + "        out = out + weights @ v\n", "several values", id="weights used twice"),
        pytest.param("dim=-1)", "dim=-1, dtype=torch.float32)", "a dtype of its own", id="softmax in float32"),
        pytest.param(
            "torch.softmax(scores,", "torch.softmax(scores.float(),", "cast is done to them", id="scores widened"
        ),
        pytest.param(
            OUT, "        weights = self.dropout(weights)\n        out = weights @ v\n", "read once", id="dropped map"
        ),
        pytest.param(SCORES, "        dropout_p = 0.5\n" + SCORES, "dropout_p is taken", id="name taken"),
        *(
            pytest.param(RETURN, returned, "its map is read at times alone, and cannot be put under what 2", id=name)
            for name, returned in READ_AT_TIMES.items()
        ),
        pytest.param(
            WEIGHTS + OUT,
            WEIGHTS.rstrip("\n") + "; " + OUT.lstrip(),
            "shares a line with",
            id="a map whose line holds the output too",
        ),
    ],
)
def test_near_misses_are_refused(tree_of, refusal, old, new, reason):
    assert old in ATTENTION
    assert reason in refusal(tree_of(ATTENTION.replace(old, new)), "task-9")


NANO = ATTENTION.replace("/ math.sqrt(D)", "* (1.0 / math.sqrt(k.size(-1)))").replace(
    "        B, H, T, D = q.shape\n",
    "        B, T, C = q.shape\n        q, k, v = (each.view(B, T, self.n, C // self.n).transpose(1, 2) for each in (q, k, v))\n",
)


def test_a_scale_of_the_width_that_the_heads_are_given_is_a_number(tree_of, after):
    config = ("self.factor = width", "self.factor = width\n        self.n = width.heads")
    named = NANO.replace("(each.view", "[each.view").replace("for each in (q, k, v))", "for each in (q, k, v)]")
    text = after(tree_of(named.replace(*config)), "task-9")
    assert "scale=1.0 / math.sqrt(k.size(-1))" in text


def test_a_mask_that_another_function_gives_is_asked_for_where_it_is_needed(tree_of, after):
    cached = "def get_tri_mask(n, device):\n    return torch.ones(n, n, dtype=torch.bool, device=device).triu(1)\n\n\n"
    window = '        scores = scores.masked_fill(get_tri_mask(T + 2, q.device)[2:], float("-inf"))\n'
    text = ATTENTION.replace("class Attention", cached + "class Attention").replace(MASK, window)
    assert "attn_mask=~get_tri_mask(T + 2, q.device)[2:], dropout_p" in after(tree_of(text), "task-9")


def test_a_map_that_is_read_either_way_stays_where_it_is(tree_of, after):
    text = after(
        tree_of(ATTENTION.replace(RETURN, HOT + "        return out, self.log(weights) if hot else weights\n")),
        "task-9",
    )
    assert SCORES + MASK + WEIGHTS in text
    assert "F.scaled_dot_product_attention(" in text


def test_a_map_that_is_read_behind_its_branch_is_kept_apart_in_it(tree_of, after):
    lines = (SCORES + MASK + WEIGHTS + OUT).replace("\n        ", "\n            ")
    text = (
        HEAD
        + "        if self.chunk:\n            out, weights = self.local(q, k, v)\n        else:\n    "
        + lines.rstrip(" ")
        + RETURN
    )
    text = after(tree_of(text), "task-9")
    assert (
        "            if self.logging:\n                with torch.no_grad():\n                    scores = q @ k"
        in text
    )


HIDDEN = '            scores = scores.masked_fill(future, float("-inf"))\n'
IN_PLACE = {
    "a method": '            scores.masked_fill_(future, float("-inf"))\n',
    "an index": '            scores[..., future] = float("-inf")\n',
    "an index behind whole dimensions": "            scores = scores.clone()\n            scores[:, :, future] = -torch.inf\n",
}


@pytest.mark.parametrize("hiding", [pytest.param(lines, id=name) for name, lines in IN_PLACE.items()])
def test_what_hides_in_place_goes_with_the_scores(tree_of, after, hiding):
    scores = SCORES.replace(" / math.sqrt(D)", "\n        scores /= math.sqrt(D)")
    kept = after(tree_of(ATTENTION.replace(HIDDEN, hiding).replace(SCORES, scores)), "task-9")
    alone = after(
        tree_of(ATTENTION.replace(HIDDEN, hiding).replace(SCORES, scores).replace(RETURN, RETURN[:19] + "\n")), "task-9"
    )
    assert "out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=dropout_p)\n" in kept
    moved = (scores + MASK.replace(HIDDEN, hiding) + WEIGHTS).replace("\n        ", "\n                ")
    assert f"        if self.logging:\n            with torch.no_grad():\n        {moved.rstrip(' ')}" in kept
    assert "scores" not in alone


@pytest.mark.parametrize(
    "hiding",
    [
        pytest.param('            scores[:, future] = float("-inf")\n', id="other dimensions"),
        pytest.param('            scores[:, :1, future] = float("-inf")\n', id="a part of them"),
        pytest.param('            scores[..., future.T] = float("-inf")\n', id="the past"),
    ],
)
def test_what_hides_something_else_in_place_is_refused(tree_of, refusal, hiding):
    assert "a condition changes more than a mask" in refusal(tree_of(ATTENTION.replace(HIDDEN, hiding)), "task-9")


def test_heads_that_are_one_dimension_in_the_product_are_taken_apart(tree_of, after):
    flat = "        a, b = q.reshape(B * H, T, D), k.reshape(B * H, -1, D)\n"
    scores = "        scores = torch.bmm(a, b.transpose(1, 2)).view(B, H, T, -1) / math.sqrt(D)\n"
    text = after(tree_of(ATTENTION.replace(SCORES, flat + scores)), "task-9")
    assert "a.unflatten(0, (B, H)), b.unflatten(0, (B, H)), v, is_causal=causal and T > 1" in text


@pytest.mark.parametrize(
    "sizes", [pytest.param("B, H, D, -1", id="rows"), pytest.param("B, H, T, 2 * T", id="columns"), "-1, H, T, T"]
)
def test_products_that_are_laid_out_otherwise_are_refused(tree_of, refusal, sizes):
    flat = "        a, b = q.reshape(B * H, T, D), k.reshape(B * H, T, D)\n"
    scores = f"        scores = torch.bmm(a, b.transpose(1, 2)).view({sizes}) / math.sqrt(D)\n"
    assert "view is done to them" in refusal(tree_of(ATTENTION.replace(SCORES, flat + scores)), "task-9")


def test_a_mask_out_of_a_cache_of_pairs_is_asked_for_and_goes_with_the_map(tree_of, after):
    cache = """\
KEPT = {}


def future_of(length, device):
    entry = KEPT.get((length, device))
    if entry is None or entry[0]._version != entry[1]:
        mask = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
        entry = KEPT[length, device] = (mask, mask._version)
    return entry[0]


class Attention"""
    mask = "        future = future_of(T, q.device) if causal else None\n"
    scores = "        if future is not None:\n" + HIDDEN
    text = after(tree_of(ATTENTION.replace("class Attention", cache).replace(MASK, mask + scores)), "task-9")
    assert "F.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=dropout_p)" in text
    assert f"            with torch.no_grad():\n        {SCORES}        {mask}" in text


def test_a_map_that_is_kept_where_there_is_a_place_for_it(tree_of, after):
    kept = "        seen = [] if self.logging else None\n        self.calls.append(T)\n"
    returned = "        self.calls.append(T)\n        if seen is not None:\n            seen.append(weights.detach())\n        return out\n"
    text = after(tree_of(ATTENTION.replace(SCORES, kept + SCORES).replace(RETURN, returned)), "task-9")
    assert "        if seen is not None:\n            with torch.no_grad():\n                scores = q @" in text


def test_attention_of_a_mixin_drops_as_the_class_that_it_is_mixed_in_says(tree_of, after):
    mixin, setup = ATTENTION.split("    def __init__")
    setup, forward = setup.split("    def forward")
    text = mixin.replace("(nn.Module)", "") + "    def forward" + forward
    text += "\n\nclass Mixed(Attention, nn.Module):\n    def __init__" + setup
    made = after(tree_of(text), "task-9")
    assert "dropout_p = self.dropout.p if self.dropout.training else 0.0" in made


def test_attention_of_a_mixin_of_two_classes_is_named(tree_of, refusal):
    mixin, setup = ATTENTION.split("    def __init__")
    setup, forward = setup.split("    def forward")
    text = mixin.replace("(nn.Module)", "") + "    def forward" + forward
    for name in ("One", "Other"):
        text += f"\n\nclass {name}(Attention, nn.Module):\n    def __init__" + setup
    assert "besides dropout" in refusal(tree_of(text), "task-9")


def test_a_mask_that_a_helper_writes_to_a_tensor_of_its_own_goes_with_the_map(tree_of, after):
    helper = """\
def future_of(length, device):
    mask = torch.zeros(length, length, dtype=torch.bool, device=device)
    rows, columns = torch.triu_indices(length, length, 1, device=device)
    mask[rows, columns] = True
    return mask


class Attention"""
    made = "torch.triu(torch.ones(T, T, dtype=torch.bool, device=q.device), diagonal=1)"
    text = ATTENTION.replace("class Attention", helper).replace(made, "future_of(T, q.device)")
    assert f"            with torch.no_grad():\n        {SCORES}                if causal:\n" in after(
        tree_of(text), "task-9"
    )


RETURNED = """\
import math

import torch
import torch.nn.functional as F
from torch import nn


def future_of(length):
    return torch.ones(length, length, dtype=torch.bool).triu(1)


class Attention(nn.Module):
    def attend(self, q, k, v, mask):
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
        if mask is not None:
            scores = scores.masked_fill(mask, float("-inf"))
        weights = F.softmax(scores, dim=-1)
        return weights @ v, weights.detach()

    def forward(self, q, k, v, causal):
        hidden = future_of(q.size(-2)) if causal else None
        out, seen = self.attend(q, k, v, hidden)
        return out, seen if self.logging else None
"""
HANDED = "        hidden = future_of(q.size(-2)) if causal else None\n"
READ = "        return out, seen if self.logging else None\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(READ, READ, id="in an expression"),
        pytest.param(
            READ, "        if not self.logging:\n            seen = None\n        return out, seen\n", id="set to None"
        ),
        pytest.param(
            READ,
            "        if seen is None or not self.logging:\n            return out, None\n        return out, seen\n",
            id="left early, or without a map",
        ),
        pytest.param(
            HANDED,
            "        hidden = None\n        if causal:\n            hidden = future_of(q.size(-2))\n",
            id="a statement",
        ),
    ],
)
def test_a_map_that_callers_read_at_times_is_made_at_their_need(tree_of, after, old, new):
    changed = after(tree_of(RETURNED.replace(old, new)), "task-9")
    assert "def attend(self, q, k, v, mask, is_causal=False, need_weights=True):\n        if need_weights:\n" in changed
    assert "is_causal=is_causal), weights.detach() if need_weights else None\n" in changed.replace("\n        )", ")")
    assert "self.attend(q, k, v, hidden, is_causal=causal, need_weights=self.logging)\n" in changed
    assert "if causal and self.logging" in changed


def test_a_map_that_a_caller_always_reads_is_always_made(tree_of, after):
    assert "need_weights" not in after(tree_of(RETURNED.replace(READ, "        return out, seen\n")), "task-9")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param(
            READ,
            "        hot = out.isnan().any()\n        return out, seen if hot else None\n",
            "ask that above",
            id="when",
        ),
        pytest.param(HANDED, "        hidden = future_of(q.size(-2))\n", "its causal mask is made for", id="mask"),
        pytest.param(
            "self, q, k, v, mask)", "self, q, k, v, mask, need_weights=1)", "need_weights is taken", id="name"
        ),
        pytest.param(
            "        return weights @",
            "        hides = mask is not None\n        return weights @",
            "its causal mask is made for",
            id="a mask that something else reads",
        ),
    ],
)
def test_a_map_that_is_made_where_none_is_read_is_refused(tree_of, refusal, old, new, reason):
    assert reason in refusal(tree_of(RETURNED.replace(old, new)), "task-9")


HANDED = """\
import math

import torch
import torch.nn.functional as F
from torch import nn

kept = {}


def lower(t, device):
    hit = kept.get((t, device))
    if hit is not None and hit[0]._version == hit[1]:
        return hit[0]
    with torch.inference_mode(False):
        mask = torch.arange(t, device=device)[None] <= torch.arange(t, device=device)[:, None]
    kept[t, device] = (mask, mask._version)
    return mask


def attend(q, k, v, *, causal, drop):
    t, d = q.shape[-2:]
    score = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(d)
    if_causal = score.masked_fill(~lower(t, q.device), float("-inf"))
    prob = torch.softmax(if_causal, -1) if causal else torch.softmax(score, -1)
    return torch.einsum("bhij,bhjd->bhid", drop(prob), v)


class Layer(nn.Module):
    def __init__(self, width, p):
        super().__init__()
        self.wq, self.wk, self.wv = (nn.Linear(width, width) for _ in range(3))
        self.drop = nn.Dropout(p)

    def forward(self, x, causal=True):
        q, k, v = (part(x).unflatten(-1, (4, -1)).transpose(1, 2) for part in (self.wq, self.wk, self.wv))
        return attend(q, k, v, causal=causal, drop=self.drop)
"""


def test_a_dropout_that_is_handed_in_and_a_softmax_in_either_branch(tree_of, after):
    text = after(tree_of(HANDED), "task-9")
    assert (
        "    t, d = q.shape[-2:]\n    dropout_p = drop.p if drop.training else 0.0\n"
        "    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=dropout_p)\n"
    ) in text


@pytest.mark.parametrize(
    ("more", "place"),
    [
        (
            "\n\ndef plain(q, k, v):\n    return attend(q, k, v, causal=True, drop=lambda w: w)\n",
            f"model.py:{HANDED.count(chr(10)) + 4}:12",
        ),
        (
            "\n\ndef plain(q, k, v, drop):\n    return attend(q, k, v, causal=True, drop=drop)\n",
            f"model.py:{HANDED.count(chr(10)) + 4}:12",
        ),
        ("\n\nmix = {'plain': attend}\n", "a caller"),
    ],
    ids=["a lambda", "a parameter", "a table"],
)
def test_what_may_be_no_dropout_is_named(tree_of, refusal, more, place):
    assert f"{place} may hand in something else than a Dropout" in refusal(tree_of(HANDED + more), "task-9")


def test_two_softmaxes_of_other_dimensions_are_named(tree_of, refusal):
    text = HANDED.replace("else torch.softmax(score, -1)", "else torch.softmax(score, 1)")
    assert "something is done to its weights besides dropout" in refusal(tree_of(text), "task-9")


SHARED = """\
import math

import torch
import torch.nn.functional as F
from torch import nn


def bias(rows, columns, like):
    future = torch.ones(columns, columns, dtype=torch.bool, device=like.device).triu(1)
    return torch.zeros(rows, columns, device=like.device).masked_fill(future[columns - rows :], float("-inf"))


def weigh(q, k):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    return (scores + bias(scores.size(-2), scores.size(-1), q)).softmax(-1)


def whole(q, k, v):
    return weigh(q, k) @ v


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (each.view(B, T, 4, -1).transpose(1, 2) for each in self.qkv(x).chunk(3, -1))
        return whole(q, k, v)
"""


def test_a_mask_that_is_cut_from_a_triangle_is_causal_where_all_callers_make_it_so(tree_of, after, state_of):
    assert "    return F.scaled_dot_product_attention(q, k, v, is_causal=True)\n" in after(tree_of(SHARED), "task-9")
    longer = SHARED.replace("whole(q, k, v)\n", "whole(q[:, :, 1:], k, v)\n").replace(
        "def whole(q[:, :, 1:]", "def whole(q"
    )
    assert state_of(tree_of(longer), "task-9") is State.UNRECOGNISED
