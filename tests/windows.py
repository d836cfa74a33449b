"""Attention in windows as strangers write it, right and wrong, and what it has to come to."""

from __future__ import annotations

import itertools
import textwrap

import torch

HEAD = """\
import math

import torch
import torch.nn.functional as F


"""

# Each computes (out, map) of attend(q, k, v, chunk, overlap, causal), with q, k and v [B, H, T, D].
PADDED = """\
def attend(q, k, v, chunk, overlap, causal):
    B, H, T, D = q.shape
    width, tail = overlap + chunk, -T % chunk
    q = F.pad(q, (0, 0, 0, tail)).unflatten(2, (-1, chunk))
    k = F.pad(k, (0, 0, overlap, tail)).unfold(2, width, chunk)
    v = F.pad(v, (0, 0, overlap, tail)).unfold(2, width, chunk)
    hidden = torch.zeros(chunk, width, dtype=torch.bool)
    if causal:
        hidden = torch.ones(width, width, dtype=torch.bool).triu(1)[overlap:]
    scores = (q @ k / math.sqrt(D)).masked_fill(hidden, float("-inf"))
    weights = torch.softmax(scores, dim=-1)
    out = (weights @ v.transpose(-2, -1)).flatten(2, 3)[:, :, :T]
    return out, stitch(weights.detach(), T, chunk, overlap)


"""
STITCH = """\
def stitch(weights, T, chunk, overlap):
    B, H = weights.shape[:2]
    canvas = weights.new_zeros(B, H, T, T)
    for n, s in enumerate(range(0, T, chunk)):
        start = s - overlap
        end = min(s + chunk, T)
        columns = torch.arange(start, end)
        canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, : end - start]
    return canvas
"""
LOOP = """\
def attend(q, k, v, chunk, overlap, causal):
    B, H, T, D = q.shape
    canvas = torch.zeros(B, H, T, T)
    outs = []
    for s in range(0, T, chunk):
        start, end = s - overlap, s + chunk
        scores = q[:, :, s:end] @ k[:, :, start:end].transpose(-2, -1) / math.sqrt(D)
        if causal:
            positions = torch.arange(T)
            scores = scores.masked_fill(positions[start:end] > positions[s:end, None], float("-inf"))
        weights = torch.softmax(scores, dim=-1)
        outs.append(weights @ v[:, :, start:end])
        canvas[:, :, s:end, start:end] = weights.detach()
    return torch.cat(outs, 2), canvas
"""


def expected(q, k, v, chunk, overlap, causal):
    """Dense attention under the windows' predicate."""
    T = q.shape[2]
    query, key = torch.arange(T)[:, None], torch.arange(T)
    start = query // chunk * chunk
    seen = (key >= start - overlap) & (key < start + chunk) & ((key <= query) | (not causal))
    scores = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).masked_fill(~seen, float("-inf"))
    weights = scores.softmax(-1)
    return weights @ v, weights


def differs(text: str, *, causal: bool | None = None) -> str:
    """The first lengths at which attend is not what it has to be; nothing where it always is."""
    space: dict[str, object] = {}
    exec(compile(text, "model.py", "exec"), space)
    kinds = (True, False) if causal is None else (causal,)
    for T, chunk, overlap, kind in itertools.product((1, 2, 5, 6, 9), (1, 2, 3, 7), (0, 1, 2, 4, 11), kinds):
        torch.manual_seed(T)
        q, k, v = (torch.randn(2, 3, T, 4, dtype=torch.float64) for _ in range(3))
        torch.set_default_dtype(torch.float64)
        try:
            made = space["attend"](q, k, v, chunk, overlap, kind)  # type: ignore[operator]
        except (RuntimeError, IndexError) as error:
            return f"T={T} chunk={chunk} overlap={overlap} causal={kind}: {error}"
        finally:
            torch.set_default_dtype(torch.float32)
        for ours, theirs in zip(made, expected(q, k, v, chunk, overlap, kind), strict=True):
            if ours.shape != theirs.shape or not torch.allclose(ours, theirs):
                return f"T={T} chunk={chunk} overlap={overlap} causal={kind}"
    return ""


def body(text: str) -> str:
    """A stitch of another body."""
    return (
        "def stitch(weights, T, chunk, overlap):\n" + textwrap.indent(textwrap.dedent(text).strip("\n"), "    ") + "\n"
    )


STITCHES = {  # of weights [B, H, N, chunk, width]: what their author wrote instead
    "columns that are shifted": STITCH.replace("torch.arange(start, end)", "start + torch.arange(end - start)"),
    "windows that are unbound and narrowed": STITCH.replace(
        "for n, s in enumerate(range(0, T, chunk)):",
        "for n, window in enumerate(weights.unbind(2)):\n        s = n * chunk",
    )
    .replace("torch.arange(start, end)", "torch.arange(end - start) + start")
    .replace(
        "weights[:, :, n, : end - s, : end - start]", "torch.narrow(window.narrow(2, 0, end - s), 3, 0, end - start)"
    ),
    "columns as a slice that wraps": body(
        """
        B, H = weights.shape[:2]
        full = torch.zeros((B, H, T, T))
        for i in range(weights.size(2)):
            lo, hi = i * chunk - overlap, min((i + 1) * chunk, T)
            full[:, :, i * chunk : hi, lo:hi] = weights[:, :, i, : hi - i * chunk, : hi - lo]
        return full
        """
    ),
    "while": body(
        """
        B, H = weights.shape[0], weights.shape[1]
        out = weights.new_zeros((B, H, T, T))
        i = pos = 0
        while pos < T:
            stop = min(pos + chunk, T)
            out[:, :, pos:stop, torch.arange(pos - overlap, stop)] = weights[:, :, i, : stop - pos, : stop - pos + overlap]
            i += 1
            pos += chunk
        return out
        """
    ),
    "rows and columns as tensors": body(
        """
        B, H, N = weights.shape[:3]
        whole = torch.zeros(B, H, T, T, dtype=weights.dtype)
        for n in range(N):
            first, last = n * chunk, min(n * chunk + chunk, T)
            rows = torch.arange(first, last)[:, None]
            cols = torch.arange(first - overlap, last)[None, :]
            whole[:, :, rows, cols] = weights[:, :, n, : last - first, : cols.numel()]
        return whole
        """
    ),
    "index_put_": body(
        """
        B, H, N = weights.shape[:3]
        grid = weights.new_zeros(B, H, T, T)
        for n in range(N):
            a, b = n * chunk, min((n + 1) * chunk, T)
            rows, cols = torch.arange(a, b), torch.arange(a - overlap, b)
            piece = weights[:, :, n, : b - a, : len(cols)]
            grid.permute(2, 3, 0, 1).index_put_((rows[:, None], cols[None]), piece.permute(2, 3, 0, 1))
        return grid
        """
    ),
    "index_copy_ into a view": body(
        """
        tiles = weights.unbind(2)
        B, H = tiles[0].shape[:2]
        board = tiles[0].new_zeros(B, H, T, T)
        for n, tile in enumerate(tiles):
            begin = n * chunk
            finish = min(begin + chunk, T)
            where = torch.arange(begin - overlap, finish) % T
            board[:, :, begin:finish].index_copy_(3, where, tile[:, :, : finish - begin, : len(where)])
        return board
        """
    ),
    "a view of the rows": body(
        """
        B, H = weights.shape[:2]
        canvas = weights.new_zeros(B, H, T, T)
        for n, s in enumerate(range(0, T, chunk)):
            end = min(s + chunk, T)
            band = canvas[:, :, s:end]
            tile = weights[:, :, n, : end - s, : overlap + end - s]
            band[..., torch.arange(s - overlap, end)] = tile
        return canvas
        """
    ),
    "column by column": body(
        """
        B, H = weights.shape[:2]
        canvas = weights.new_zeros(B, H, T, T)
        for n, s in enumerate(range(0, T, chunk)):
            end = min(s + chunk, T)
            for j in range(overlap + end - s):
                canvas[:, :, s:end, s - overlap + j] = weights[:, :, n, : end - s, j]
        return canvas
        """
    ),
    "zipped with their starts, the columns a list": body(
        """
        B, H = weights.shape[:2]
        canvas = weights.new_zeros(B, H, T, T)
        for s, window in zip(range(0, T, chunk), weights.unbind(2)):
            end = s + chunk
            if end > T:
                end = T
            columns = list(range(s - overlap, end))
            canvas[:, :, s:end, columns] = window[:, :, : end - s, : len(columns)]
        return canvas
        """
    ),
    "bounds from a helper": """\
def bounds(s, T, chunk, overlap):
    return s - overlap, min(s + chunk, T)


"""
    + body(
        """
        B, H = weights.shape[:2]
        canvas = weights.new_zeros(B, H, T, T)
        for n, s in enumerate(range(0, T, chunk)):
            start, end = bounds(s, T, chunk, overlap)
            canvas[:, :, s:end, torch.arange(start, end)] = weights[:, :, n, : end - s, : end - start]
        return canvas
        """
    ),
    "one window written by a function": """\
def put(canvas, window, s, T, chunk, overlap):
    end = min(s + chunk, T)
    start = s - overlap
    canvas[:, :, s:end, torch.arange(start, end)] = window[:, :, : end - s, : end - start]


"""
    + body(
        """
        B, H = weights.shape[:2]
        canvas = weights.new_zeros(B, H, T, T)
        for n in range(math.ceil(T / chunk)):
            put(canvas, weights[:, :, n], n * chunk, T, chunk, overlap)
        return canvas
        """
    ),
    "clamped, but from the padding": STITCH.replace("s - overlap\n", "max(0, s - overlap)\n"),
    "clamped by a condition, but from the padding": STITCH.replace(
        "s - overlap\n", "s - overlap if s >= overlap else 0\n"
    ),
    "clamped by an if, but from the padding": STITCH.replace(
        "s - overlap\n", "s - overlap\n        if start < 0:\n            start = 0\n"
    ),
    "start as a sum": STITCH.replace("s - overlap", "-overlap + s"),
    "whole windows": STITCH.replace("weights[:, :, n, : end - s, : end - start]", "window[:, :, : end - s]").replace(
        "        start =", "        window = weights[:, :, n, :, : overlap + min(chunk, T - s)]\n        start ="
    ),
    "a window named first": STITCH.replace(
        "        canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, : end - start]",
        "        window = weights[:, :, n, : end - s, : end - start]\n        canvas[:, :, s:end, columns] = window",
    ),
    "a width named": STITCH.replace(
        "        canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, : end - start]",
        "        width = end - start\n        canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, :width]",
    ),
    "an end that runs over": STITCH.replace("min(s + chunk, T)", "s + chunk").replace(
        ": end - s, : end - start]", ": min(chunk, T - s), : end - start]"
    ),
    "counts and a comparison": STITCH.replace(
        "enumerate(range(0, T, chunk))", "enumerate(k * chunk for k in range(-(-T // chunk)))"
    ),
}

ATTENDS = {  # with STITCH, where it is theirs
    "truncated windows": LOOP,
    "four dimensions, B and H in one": (
        PADDED.replace(
            "q = F.pad(q, (0, 0, 0, tail)).unflatten(2, (-1, chunk))",
            "q = F.pad(q, (0, 0, 0, tail)).unflatten(2, (-1, chunk)).flatten(0, 1)",
        )
        .replace(
            "k = F.pad(k, (0, 0, overlap, tail)).unfold(2, width, chunk)",
            "k = F.pad(k, (0, 0, overlap, tail)).flatten(0, 1).unfold(1, width, chunk)",
        )
        .replace(
            "v = F.pad(v, (0, 0, overlap, tail)).unfold(2, width, chunk)",
            "v = F.pad(v, (0, 0, overlap, tail)).flatten(0, 1).unfold(1, width, chunk)",
        )
        .replace(
            "(weights @ v.transpose(-2, -1)).flatten(2, 3)",
            "(weights @ v.transpose(-2, -1)).unflatten(0, (B, H)).flatten(2, 3)",
        )
        .replace("stitch(weights.detach(),", "stitch(weights.detach().unflatten(0, (B, H)),")
        + STITCH
    ),
    "the largest number, negated, as a fill": PADDED.replace('float("-inf")', "-torch.finfo(q.dtype).max") + STITCH,
    "the largest number, negated, by where": (
        PADDED.replace(
            "(q @ k / math.sqrt(D)).masked_fill(hidden, ", "torch.where(~hidden, q @ k / math.sqrt(D), "
        ).replace('float("-inf")', "-torch.finfo(q.dtype).max")
        + STITCH
    ),
    "what is kept, by where": (
        PADDED.replace("hidden = torch.zeros", "keep = torch.ones")
        .replace(
            "hidden = torch.ones(width, width, dtype=torch.bool).triu(1)[overlap:]",
            "keep = torch.arange(width) <= torch.arange(chunk)[:, None] + overlap",
        )
        .replace(
            '(q @ k / math.sqrt(D)).masked_fill(hidden, float("-inf"))',
            'torch.where(keep, q @ k / math.sqrt(D), float("-inf"))',
        )
        + STITCH
    ),
    "a bias that is added": (
        PADDED.replace("hidden = torch.zeros(chunk, width, dtype=torch.bool)", "bias = torch.zeros(chunk, width)")
        .replace(
            "hidden = torch.ones(width, width, dtype=torch.bool).triu(1)[overlap:]",
            "bias = torch.full((chunk, width), -math.inf).triu(overlap + 1)",
        )
        .replace('(q @ k / math.sqrt(D)).masked_fill(hidden, float("-inf"))', "q @ k / math.sqrt(D) + bias")
        + STITCH
    ),
    "a mask for causal runs only": (
        PADDED.replace(
            "    hidden = torch.zeros(chunk, width, dtype=torch.bool)\n", "    scores = q @ k / math.sqrt(D)\n"
        )
        .replace(
            "        hidden = torch.ones(width, width, dtype=torch.bool).triu(1)[overlap:]",
            "        scores = scores.masked_fill(torch.ones(width, width, dtype=torch.bool).triu(1)[overlap:], -math.inf)",
        )
        .replace('    scores = (q @ k / math.sqrt(D)).masked_fill(hidden, float("-inf"))\n', "")
        + STITCH
    ),
    "a mask or none, for torch and for a method of its own": (
        "class Maps:\n    @torch.no_grad()\n    def weigh(self, q, k, hidden):\n        scores = q @ k / math.sqrt(q.size(-1))\n"
        "        if hidden is not None:\n            scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)\n"
        "        return scores.softmax(dim=-1)\n\n\n"
        + PADDED.replace("hidden = torch.zeros(chunk, width, dtype=torch.bool)", "hidden = None")
        .replace("    q = F.pad(q", "    q = q.reshape(q.size()[:-2] + (T, D))\n    q = F.pad(q")
        .replace('    scores = (q @ k / math.sqrt(D)).masked_fill(hidden, float("-inf"))\n', "")
        .replace("torch.softmax(scores, dim=-1)", "Maps().weigh(q, k, hidden)")
        .replace(
            "    out = (weights @ v.transpose(-2, -1)).flatten",
            "    out = F.scaled_dot_product_attention(\n        q, k.mT, v.mT, attn_mask=None if hidden is None else ~hidden\n    ).flatten",
        )
        + STITCH
    ),
    "scaled_dot_product_attention, and the map apart": (
        PADDED.replace(
            "    out = (weights @ v.transpose(-2, -1)).flatten",
            "    out = F.scaled_dot_product_attention(q, k.mT, v.mT, attn_mask=~hidden).flatten",
        )
        + STITCH
    ),
    "windows gathered by position": (
        PADDED.replace("    q = F", "    take = torch.arange(0, T, chunk)[:, None] + torch.arange(width)\n    q = F")
        .replace(
            "k = F.pad(k, (0, 0, overlap, tail)).unfold(2, width, chunk)",
            "k = F.pad(k, (0, 0, overlap, tail))[:, :, take].transpose(-2, -1)",
        )
        .replace(
            "v = F.pad(v, (0, 0, overlap, tail)).unfold(2, width, chunk)",
            "v = F.pad(v, (0, 0, overlap, tail))[:, :, take].transpose(-2, -1)",
        )
        + STITCH
    ),
    "a list of padded slices, stacked": (
        PADDED.replace(
            "k = F.pad(k, (0, 0, overlap, tail)).unfold(2, width, chunk)",
            "k = torch.stack([F.pad(k, (0, 0, overlap, tail))[:, :, s : s + width] for s in range(0, T, chunk)], 2).mT",
        ).replace(
            "v = F.pad(v, (0, 0, overlap, tail)).unfold(2, width, chunk)",
            "v = torch.stack([F.pad(v, (0, 0, overlap, tail))[:, :, s : s + width] for s in range(0, T, chunk)], 2).mT",
        )
        + STITCH
    ),
    "zeros in front by cat": (
        PADDED.replace(
            "    q = F", "    front, behind = k.new_zeros(B, H, overlap, D), k.new_zeros(B, H, tail, D)\n    q = F"
        )
        .replace("F.pad(k, (0, 0, overlap, tail))", "torch.cat([front, k, behind], dim=2)")
        .replace("F.pad(v, (0, 0, overlap, tail))", "torch.cat((front, v, behind), -2)")
        + STITCH
    ),
    "einsum": (
        PADDED.replace("q @ k / math.sqrt(D)", '(torch.einsum("bhnqd,bhndw->bhnqw", q, k) * D**-0.5)').replace(
            "weights @ v.transpose(-2, -1)", 'torch.einsum("...qw,...dw->...qd", weights, v)'
        )
        + STITCH
    ),
    "one window at a time, a list of them": """\
def attend(q, k, v, chunk, overlap, causal):
    T, D = q.shape[-2:]
    k, v = (F.pad(x, (0, 0, overlap, 0)) for x in (k, v))
    outs, maps = [], []
    for s in range(0, T, chunk):
        size = min(chunk, T - s)
        width = overlap + size
        scores = q[:, :, s : s + size] @ k[:, :, s : s + width].mT / D**0.5
        hidden = torch.zeros(size, width, dtype=torch.bool)
        if causal:
            hidden = torch.ones(size, width, dtype=torch.bool).triu(overlap + 1)
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        outs.append(weights @ v[:, :, s : s + width])
        maps.append(weights)
    return torch.cat(outs, dim=2), lay(maps, T, chunk, overlap)


def lay(maps, T, chunk, overlap):
    B, H = maps[0].shape[:2]
    full = maps[0].new_zeros(B, H, T, T)
    for i, window in enumerate(maps):
        rows = torch.arange(i * chunk, i * chunk + window.size(2))
        columns = torch.arange(i * chunk - overlap, i * chunk + window.size(2))
        full[:, :, rows[:, None], columns] = window
    return full
""",
}

CLAMPED = STITCH.replace("s - overlap\n", "max(s - overlap, 0)\n")
MENDED = CLAMPED.replace(
    "        canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, : end - start]",
    "        skip = max(overlap - s, 0)\n"
    "        canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, skip : skip + end - start]",
)
HIDING = "    hidden = hidden | (positions < 0)[:, None] | (positions >= T)[:, None]\n    scores = "
HIDDEN = PADDED.replace(
    "    scores = ",
    "    positions = torch.arange(0, T, chunk)[:, None] - overlap + torch.arange(width)\n" + HIDING,
)
TRUNCATED = LOOP.replace("s - overlap, s + chunk", "max(0, s - overlap), min(T, s + chunk)")
BY_HAND = {  # what is right already
    "mended": HIDDEN + MENDED,
    "truncated windows": TRUNCATED,
    "truncated windows, and the columns of the map that are asked for": TRUNCATED.replace(
        "= weights.detach()", "= weights.detach()[..., : end - start]"
    ),
    "a canvas with margins that are cut off": HIDDEN
    + body(
        """
        B, H, N, size, width = weights.shape
        canvas = weights.new_zeros(B, H, N * size, overlap + N * size)
        for n in range(N):
            canvas[:, :, n * size : (n + 1) * size, n * size : n * size + width] = weights[:, :, n]
        return canvas[:, :, :T, overlap : overlap + T]
        """
    ),
    "windows padded to rows of the map, and joined": HIDDEN
    + body(
        """
        rows = []
        for n, s in enumerate(range(0, T, chunk)):
            end = min(s + chunk, T)
            window = weights[:, :, n, : end - s, max(overlap - s, 0) : overlap + end - s]
            rows.append(F.pad(window, (max(s - overlap, 0), T - end)))
        return torch.cat(rows, dim=2)
        """
    ),
    "scattered to clamped columns": """\
def attend(q, k, v, chunk, overlap, causal):
    B, H, T, D = q.shape
    query = torch.arange(T)[:, None]
    width = chunk + overlap
    key = query // chunk * chunk - overlap + torch.arange(width)
    unseen = (key < 0) | (key >= T)
    if causal:
        unseen = unseen | (key > query)
    at = key.clamp(0, T - 1)
    scores = torch.einsum("bhtd,bhtwd->bhtw", q, k[:, :, at]) / math.sqrt(D)
    weights = torch.softmax(scores.masked_fill(unseen, float("-inf")), dim=-1)
    out = torch.einsum("bhtw,bhtwd->bhtd", weights, v[:, :, at])
    return out, weights.new_zeros(B, H, T, T).scatter_add(-1, at.expand(B, H, T, width), weights)
""",
}
WRONG_BY_HAND = {  # which nobody can mend but the author
    "offset for every window": HIDDEN + MENDED.replace("max(overlap - s, 0)", "overlap"),
    "overlap left out": HIDDEN + MENDED.replace("max(s - overlap, 0)", "s").replace("max(overlap - s, 0)", "overlap"),
    "rows from the top": HIDDEN + MENDED.replace("canvas[:, :, s:end, columns]", "canvas[:, :, : end - s, columns]"),
    "overlaps added up": HIDDEN
    + MENDED.replace(
        "        canvas[",
        "        canvas[:, :, start:s, columns] += weights[:, :, n, :1, skip : skip + end - start]\n        canvas[",
    ),
    "padding hidden by a number": PADDED.replace(
        "    weights =", "    scores = scores - 5.0 * (torch.arange(width) < overlap)\n    weights ="
    ).replace("def attend(q, k, v, chunk,", "def attend(q, k, v, window_padding, chunk,")
    + MENDED,
}
