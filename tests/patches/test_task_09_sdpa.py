"""Which attentions are handed to torch, in which idioms, and which are named and left."""

import pytest

from bitpatch.patches.source import open_tree
from bitpatch.patches.task import State

HEAD = "import math\n\nimport torch\nimport torch.nn.functional as F\n\n\nclass Attention:\n    def forward(self, q, k, v, causal):\n        B, H, T, D = q.shape\n"
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
        pytest.param(MASK, "", "attention(q, k, v, dropout_p=dropout_p)", id="no mask"),
        pytest.param("if causal:", "if True:", "is_causal=True", id="always causal"),
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
        pytest.param("torch.softmax(scores, dim=-1)", "scores.softmax(-1)", "(q, k, v, is_causal", id="method"),
        pytest.param("import torch.nn.functional as F\n", "", "torch.nn.functional.scaled_dot", id="no alias"),
    ],
)
def test_idioms(tree_of, after, old, new, expected):
    assert old in ATTENTION
    assert expected in after(tree_of(ATTENTION.replace(old, new)), "task-9")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param("dim=-1", "dim=1", "not over the last dimension", id="another dimension"),
        pytest.param(
            "torch.softmax(scores", "torch.softmax(scores + bias", "the scores have no name", id="unnamed scores"
        ),
        pytest.param(MASK, MASK + "        scores = scores + bias\n", "masked twice", id="bias"),
        pytest.param('float("-inf")', "-1e9", "not masked by masked_fill", id="finite mask"),
        pytest.param(MASK, MASK.replace("diagonal=1", "diagonal=2"), "what the mask hides", id="another triangle"),
        pytest.param(WEIGHTS, "        self.calls += 1\n" + WEIGHTS, "a statement between", id="foreign statement"),
        pytest.param(SCORES, "        scores = self.score(q, k)\n", "no scaled product", id="scores made elsewhere"),
        pytest.param("self.dropout(weights)", "drop(weights)", "found none", id="something done to the weights"),
        pytest.param(SCORES, "        dropout_p = 0.5\n" + SCORES, "dropout_p is taken", id="name taken"),
    ],
)
def test_near_misses_are_refused(tree_of, refusal, old, new, reason):
    assert old in ATTENTION
    assert reason in refusal(tree_of(ATTENTION.replace(old, new)), "task-9")
