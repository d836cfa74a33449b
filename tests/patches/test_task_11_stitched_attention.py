"""Windows that are laid right, whose padding is hidden: what is found, mended, left and refused; and it is run."""

from pathlib import Path

import pytest
from windows import (
    ATTENDS,
    BY_HAND,
    CLAMPED,
    HEAD,
    HIDDEN,
    LOOP,
    MENDED,
    PADDED,
    STITCH,
    STITCHES,
    WRONG_BY_HAND,
    body,
    differs,
)

from bitpatch.patches.applying.engine import plan, status
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome, State

TASK = task_named("task-11")


def planned(root):
    return plan(open_tree(root), [TASK])


def after(root):
    found = planned(root)
    assert found.outcomes[0].outcome is Outcome.APPLIED, found.outcomes[0].reason
    return found.changes[0].after.decode()


def refusal(root):
    found = planned(root)
    assert (found.outcomes[0].outcome, found.changes) == (Outcome.REFUSED, ())
    assert "near miss at bit_transformer/model.py:" in found.outcomes[0].reason
    return found.outcomes[0].reason


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("import torch\n\n\ndef f(x):\n    return torch.softmax(x, -1)\n", id="dense softmax"),
        pytest.param("# start = s - overlap\ndef f(x, T):\n    return x.softmax(-1)\n", id="a comment with the words"),
        pytest.param(STITCH.replace("weights.new_zeros(B, H, T, T)", "torch.empty(T)") + "# softmax\n", id="no square"),
        pytest.param(
            HEAD + "def pairs(x, n):\n    seen = torch.zeros(n, n)\n    for i in range(n):\n"
            "        seen[i, max(i - 1, 0)] = x.softmax(-1)[i]\n    return seen\n",
            id="another square",
        ),
        pytest.param(
            HEAD
            + "def f(q, k, v):\n    scores = q @ F.pad(k, (0, 0, 0, 0)).mT\n    w = scores.softmax(-1)\n    return w @ v, w\n",
            id="a pad of nothing",
        ),
    ],
)
def test_no_site(model_of, text):
    (found,) = status(open_tree(model_of(text)), [TASK])
    assert (found.state, found.findings) == (State.UNRECOGNISED, ())


@pytest.mark.parametrize("name", STITCHES)
def test_maps_of_other_shapes(model_of, name):
    text = HEAD + PADDED + STITCHES[name]
    assert differs(text)
    assert not differs(after(model_of(text)))


@pytest.mark.parametrize("name", ATTENDS)
def test_windows_of_other_shapes(model_of, name):
    text = HEAD + ATTENDS[name]
    assert differs(text)
    assert not differs(after(model_of(text)))


@pytest.mark.parametrize("name", ["a bias that is added", "a mask for causal runs only", "einsum"])
def test_both_orders_with_torch_s_attention_make_the_same(model_of, patched, name):
    made = []
    for order in (("task-9", "task-11"), ("task-11", "task-9")):
        root = model_of(HEAD + ATTENDS[name])
        for task in order:
            patched(root, task)
        made.append((root / "bit_transformer/model.py").read_text())
    assert made[0] == made[1]
    assert not differs(made[0])


@pytest.mark.parametrize("name", BY_HAND)
def test_what_was_done_by_hand_is_mended(model_of, name):
    text = HEAD + BY_HAND[name]
    assert not differs(text)
    assert planned(model_of(text)).outcomes[0].outcome is Outcome.ALREADY_APPLIED


@pytest.mark.parametrize("name", WRONG_BY_HAND)
def test_what_was_done_wrong_is_mended_or_refused(model_of, name):
    text = HEAD + WRONG_BY_HAND[name]
    refusal(model_of(text))


@pytest.mark.parametrize("text", [HIDDEN + STITCH, PADDED + MENDED], ids=["map", "padding"])
def test_half_done_is_partial_and_gets_the_other_half(model_of, text):
    root = model_of(HEAD + text)
    assert status(open_tree(root), [TASK])[0].state is State.PARTIAL
    assert not differs(after(root))


def test_the_columns_begin_where_the_sequence_does(model_of):
    text = after(model_of(HEAD + PADDED + STITCH))
    assert (
        """\
        start = max(s - overlap, 0)
        end = min(s + chunk, T)
        columns = torch.arange(start, end)
        origin = max(overlap - s, 0)
        canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, origin : origin + end - start]
"""
        in text
    )
    assert "[overlap:]\n    hidden = hidden | window_padding(T, chunk, overlap, hidden.device)\n    scores = " in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            PADDED + STITCH.replace(": end - start]", ": end - s + overlap]"),
            "origin : end - s + overlap]",
            id="width that does not count from start",
        ),
        pytest.param(
            PADDED + STITCH.replace("torch.arange(start, end)", "torch.arange(s - overlap, end)"),
            "torch.arange(max(s - overlap, 0), end)",
            id="start in place",
        ),
        pytest.param(PADDED + CLAMPED, "origin : origin + end - start]", id="clamped, but from the padding"),
        pytest.param(LOOP, "start, end = max(s - overlap, 0), min(s + chunk, T)", id="truncated windows"),
    ],
)
def test_edits(model_of, text, expected):
    assert expected in after(model_of(HEAD + text))


def test_truncated_windows_keep_their_origin_and_get_no_mask(model_of):
    text = after(model_of(HEAD + LOOP))
    assert "canvas[:, :, s:end, start:end] = weights.detach()\n" in text
    assert "window_padding" not in text
    assert "origin" not in text


def test_two_maps_of_one_loop_share_their_bounds(model_of):
    line = "        canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, : end - start]\n"
    stitch = STITCH.replace(line, line + line.replace("canvas[", "mirror[")).replace(
        "    for n", "    mirror = torch.zeros(1, B, H, T, T)[0]\n    for n"
    )
    text = after(model_of(HEAD + PADDED + stitch.replace("return canvas", "return (canvas + mirror) / 2")))
    assert "max(max(" not in text
    assert not differs(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(STITCH + "# softmax\n", "whether they are padded, cannot be told", id="windows from elsewhere"),
        pytest.param(
            PADDED + STITCH.replace("    canvas =", "    origin = 0\n    canvas ="),
            "the name origin is taken",
            id="name",
        ),
        pytest.param(
            PADDED.replace("chunk", "(less + 1)").replace("v, (less + 1),", "v, less,") + STITCH,
            "no name for the chunk there",
            id="no name for the chunk",
        ),
    ],
)
def test_near_misses_are_refused(model_of, text, reason):
    assert reason in refusal(model_of(HEAD + text))


def test_a_map_that_is_written_by_what_is_not_known_is_left(model_of):
    text = PADDED + body("return lay(weights.new_zeros(1, 1, T, T), weights, T, chunk, overlap)")
    found = planned(model_of(HEAD + text))
    assert found.outcomes[0].outcome is Outcome.REFUSED
    assert "near miss at bit_transformer/model.py:23:12: map that windows" in found.outcomes[0].reason


def test_on_the_baseline(tree, patched):
    text = (patched(tree, "task-11") / "bit_transformer/model.py").read_text()
    assert "        hidden = hidden | window_padding(T, chunk, overlap, hidden.device)\n        scores = " in text
    assert "            start = max(s - self.overlap, 0)\n" in text


def test_keys_that_are_asked_for_and_are_not_there_are_named_and_mended():
    found = planned(Path(__file__).parents[1] / "forks/conf_engine/tree")
    assert found.outcomes[0].outcome is Outcome.APPLIED, found.outcomes[0].reason
    assert "keys are asked for that are not there" in found.outcomes[0].sites[0].note
    assert "            first = max(begin - self.lookback, 0)\n" in found.changes[0].after.decode()


HELPED = """\
def weigh(q, k, causal):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    if causal:
        rows, columns = scores.shape[-2:]
        seen = torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows)
        scores = scores.masked_fill(~seen, float("-inf"))
    return scores.softmax(-1)


def attend(q, k, v, chunk, overlap, causal):
    B, H, T, D = q.shape
    k, v = (F.pad(each, (0, 0, overlap, 0)) for each in (k, v))
    canvas = torch.zeros(B, H, T, T)
    outs = []
    for s in range(0, T, chunk):
        end = min(s + chunk, T)
        keys = k[:, :, s : end + overlap]
        weights = weigh(q[:, :, s:end], keys, causal)
        outs.append(weights @ v[:, :, s : end + overlap])
        columns = torch.arange(s - overlap, end)
        canvas[:, :, s:end, columns] = weights.detach()
    return torch.cat(outs, 2), canvas
"""


@pytest.mark.parametrize("softmax", ["scores.softmax(-1)", "torch.softmax(scores, dim=-1)", "F.softmax(scores, -1)"])
def test_a_function_that_weighs_is_handed_what_is_padding(model_of, softmax):
    text = HEAD + HELPED.replace("scores.softmax(-1)", softmax)
    assert differs(text)
    mended = after(model_of(text))
    assert "def weigh(q, k, causal, padding=None):" in mended
    assert not differs(mended)


def test_windows_without_a_name_are_hidden_as_far_as_they_go(model_of):
    named = "        keys = k[:, :, s : end + overlap]\n        weights = weigh(q[:, :, s:end], keys, causal)\n"
    assert named in HELPED
    text = HEAD + HELPED.replace(named, "        weights = weigh(q[:, :, s:end], k[:, :, s : end + overlap], causal)\n")
    assert differs(text)
    mended = after(model_of(text))
    assert 'scores.masked_fill(padding[:, : scores.size(-1)], float("-inf"))' in mended
    assert not differs(mended)


WEIGHED = """\
class Windows(torch.nn.Module):
    def hidden(self, rows, width, device):
        return torch.ones(rows, width, dtype=torch.bool, device=device).triu(diagonal=width - rows + 1)

    def forward(self, q, k, v, causal):
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
        if causal:
            scores = scores.masked_fill(self.hidden(q.shape[-2], k.shape[-2], q.device), float("-inf"))
        weights = torch.softmax(scores, dim=-1)
        return weights @ v
"""


def test_windows_under_a_mask_that_is_kept_in_either_order(model_of, patched):
    texts = []
    for order in (("task-10", "task-9"), ("task-9", "task-10")):
        root = model_of(HEAD + WEIGHED)
        for name in order:
            patched(root, name)
        texts.append((root / "bit_transformer/model.py").read_text())
    assert texts[0] == texts[1]
    assert "attn_mask=~self.hidden(q.shape[-2], k.shape[-2], q.device) if causal else None" in texts[0]
    assert "return get_tri_mask(width, device)[width - rows:]" in texts[0]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param("k, causal):", "k, causal, padding=0):", "the name padding is taken", id="a name that is taken"),
        pytest.param("return scores.", "return (scores + 0).", "no mask or scores of a name there", id="no name"),
    ],
)
def test_a_function_that_weighs_and_cannot_be_told(model_of, old, new, reason):
    assert reason in refusal(model_of(HEAD + HELPED.replace(old, new)))
