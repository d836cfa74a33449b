"""Which writes are clamped, where the origin moves, and where padding is hidden."""

import pytest

from bitpatch.patches.engine import plan, status, task_named
from bitpatch.patches.task import Outcome, State
from bitpatch.patches.tree import open_tree

TASK = task_named("task-11")
PADDED = """\
import torch
import torch.nn.functional as F


def attend(q, k, v, chunk, overlap):
    B, H, T, D = q.shape
    k = F.pad(k, (0, 0, overlap, -T % chunk)).unfold(2, overlap + chunk, chunk)
    scores = q @ k
    weights = torch.softmax(scores, dim=-1)
    return weights


"""
STITCH = """\
def stitch(weights, T, chunk, overlap):
    canvas = weights.new_zeros(1, 1, T, T)
    for n, s in enumerate(range(0, T, chunk)):
        start = s - overlap
        end = min(s + chunk, T)
        columns = torch.arange(start, end)
        canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, : end - start]
    return canvas
"""
TRUNCATED = """\
import torch


def attend(q, k, T, chunk, overlap):
    canvas = torch.zeros(1, 1, T, T)
    for s in range(0, T, chunk):
        start, end = s - overlap, s + chunk
        window = torch.softmax(q[:, :, s:end] @ k[:, :, start:end], dim=-1)
        canvas[:, :, s:end, start:end] = window
    return canvas
"""


def planned(root):
    return plan(open_tree(root), [TASK])


def after(root):
    found = planned(root)
    assert found.outcomes[0].outcome is Outcome.APPLIED, found.outcomes[0].reason
    return found.changes[0].after.decode()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("import torch\n\n\ndef f(x):\n    return torch.softmax(x, -1)\n", id="dense softmax"),
        pytest.param(
            "def f(x, T):\n    # start = s - overlap\n    return softmax(x)\n", id="a comment with the right words"
        ),
        pytest.param(
            STITCH.replace("weights.new_zeros(1, 1, T, T)", "torch.empty(T)") + "# softmax\n", id="no square canvas"
        ),
    ],
)
def test_no_site(model_of, text):
    (found,) = status(open_tree(model_of(text)), [TASK])
    assert (found.state, found.findings) == (State.UNRECOGNISED, ())


@pytest.mark.parametrize(
    "windows",
    [
        "F.pad(k, (0, 0, overlap, -T % chunk)).unfold(2, overlap + chunk, chunk)",
        "F.pad(k, (0, 0, overlap, -T % chunk)).flatten(0, 1).unfold(1, overlap + chunk, chunk)",
        "torch.flatten(F.pad(k, (0, 0, overlap, -T % chunk)), 0, 1).contiguous().unfold(1, overlap + chunk, chunk)",
        "torch.clone(input=F.pad(k, (0, 0, overlap, -T % chunk))).unfold(2, overlap + chunk, chunk)",
    ],
)
def test_padded_windows(model_of, windows):
    built = "F.pad(k, (0, 0, overlap, -T % chunk)).unfold(2, overlap + chunk, chunk)"
    text = after(model_of(PADDED.replace(built, windows) + STITCH))
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
    assert (
        '    scores = q @ k\n    scores = scores.masked_fill(window_padding(T, chunk, overlap, scores.device), float("-inf"))\n'
        in text
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            "        columns = torch.arange(start, end)\n        canvas[:, :, s:end, columns]",
            "        canvas[:, :, s:end, start:end]",
            "canvas[:, :, s:end, start:end] = weights[:, :, n, : end - s, origin : origin + end - start]",
            id="columns as a slice",
        ),
        pytest.param(
            ": end - start]",
            ": end - s + overlap]",
            "origin : end - s + overlap]",
            id="width that does not count from start",
        ),
        pytest.param(
            "weights[:, :, n, : end - s, : end - start]", "window", "= window[..., origin:]", id="whole window"
        ),
        pytest.param("min(s + chunk, T)", "s + chunk", "end = min(s + chunk, T)", id="end that runs over"),
        pytest.param(
            "torch.arange(start, end)",
            "torch.arange(s - overlap, end)",
            "torch.arange(max(s - overlap, 0), end)",
            id="start in place",
        ),
        pytest.param(
            "weights.new_zeros(1, 1, T, T)",
            "torch.zeros((1, 1, T, T))",
            "start = max(s - overlap, 0)",
            id="zeros of a tuple",
        ),
    ],
)
def test_idioms(model_of, old, new, expected):
    assert old in STITCH
    assert expected in after(model_of(PADDED + STITCH.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            "start = s - overlap",
            "start = max(0, s - overlap)",
            "origin : origin + end - start]",
            id="clamped, but from the padding",
        ),
        pytest.param(
            "        canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, : end - start]",
            "        window = weights[:, :, n, : end - s, : end - start]\n        canvas[:, :, s:end, columns] = window",
            "        origin = max(overlap - s, 0)\n        window = weights[:, :, n, : end - s, origin : origin + end - start]\n        canvas[:, :, s:end, columns] = window\n",
            id="window named first",
        ),
        pytest.param(
            "        canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, : end - start]",
            "        width = end - start\n        canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, :width]",
            "origin : origin + width]",
            id="width named",
        ),
        pytest.param(
            "    for n, s in enumerate(range(0, T, chunk)):",
            "    s = n = 0\n    while s < T:",
            "start = max(s - overlap, 0)",
            id="while loop",
        ),
    ],
)
def test_windows_cut_in_other_ways(model_of, old, new, expected):
    assert old in STITCH
    assert expected in after(model_of(PADDED + STITCH.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("] = weights", "] += weights", id="added up"),
        pytest.param("canvas[:, :, s:end, columns] = ", "put(canvas, s, end, columns, ", id="written by a function"),
        pytest.param("start = s - overlap", "start = -overlap + s", id="start as a sum"),
        pytest.param("start = s - overlap", "start = s - overlap if s >= overlap else 0", id="start by a condition"),
        pytest.param(
            "start = s - overlap\n",
            "start = s - overlap\n        if start < 0:\n            start = 0\n",
            id="start set twice",
        ),
        pytest.param("weights.new_zeros(1, 1, T, T)", "torch.zeros_like(dense)", id="canvas like another"),
        pytest.param(", : end - start]", "]", id="columns not cut"),
        pytest.param("start = s - overlap", "start = max(s - overlap, -T)", id="clamped elsewhere"),
    ],
)
def test_a_stitch_that_cannot_be_read_is_refused(model_of, old, new):
    assert old in STITCH
    text = STITCH.replace(old, new)
    text = text.replace(": end - start]\n", ": end - start])\n") if "put(" in text else text
    found = planned(model_of(PADDED + text))
    assert (found.outcomes[0].outcome, found.changes) == (Outcome.REFUSED, ())
    assert "near miss at bit_transformer/model.py:" in found.outcomes[0].reason


def test_two_maps_of_one_loop_share_their_bounds(model_of):
    line = "        canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, : end - start]\n"
    text = after(model_of(PADDED + STITCH.replace(line, line + line.replace("weights[", "others["))))
    assert "max(max(" not in text
    assert text.count("origin : origin + end - start]") == 2


def test_a_mask_that_is_set_for_certain_takes_the_padding(model_of):
    text = PADDED.replace(
        "    scores = q @ k\n",
        "    hidden = q > 0\n    if chunk:\n        hidden = q > 1\n    scores = (q @ k).masked_fill(hidden, -1e9)\n",
    )
    assert "        hidden = q > 1\n    hidden = hidden | window_padding(T, chunk, overlap, hidden.device)\n" in after(
        model_of(text)
    )


def test_a_mask_that_may_not_be_set_is_left(model_of):
    text = PADDED.replace(
        "    scores = q @ k\n", "    scores = q @ k\n    if chunk:\n        scores = scores.masked_fill(q > 1, -1e9)\n"
    )
    assert "    scores = scores.masked_fill(window_padding(" in after(model_of(text))


def test_truncated_windows_keep_their_origin_and_get_no_mask(model_of):
    text = after(model_of(TRUNCATED))
    assert "        start, end = max(s - overlap, 0), min(s + chunk, T)\n" in text
    assert "        canvas[:, :, s:end, start:end] = window\n" in text
    assert "window_padding" not in text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            STITCH + "# softmax\n", "whether the windows are padded cannot be told", id="windows from elsewhere"
        ),
        pytest.param(
            PADDED + STITCH.replace("    canvas =", "    origin = 0\n    canvas ="),
            "the name origin is taken",
            id="name taken",
        ),
        pytest.param(
            PADDED.replace("B, H, T, D = q.shape", "T = length(q)"), "no name for the sequence length", id="no length"
        ),
        pytest.param(
            PADDED.replace("softmax(scores,", "softmax(q @ k,"),
            "name the mask or the scores first",
            id="softmax of an expression",
        ),
    ],
)
def test_near_misses_are_refused(model_of, text, reason):
    found = planned(model_of("import torch\n" + text))
    assert (found.outcomes[0].outcome, found.changes) == (Outcome.REFUSED, ())
    assert reason in found.outcomes[0].reason


def test_on_the_baseline(tree, patched):
    text = (patched(tree, "task-11") / "bit_transformer/model.py").read_text()
    assert "        hidden = hidden | window_padding(T, chunk, overlap, hidden.device)\n        scores = " in text
    assert "            start = max(s - self.overlap, 0)\n" in text
