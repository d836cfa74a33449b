"""Other spellings of the windows of attention in chunks, and of the stitched map."""

from pathlib import Path

from drift.naming import before
from drift.patterns import restate, substitute
from drift.rewriting import find, rewrite

MODEL = "bit_transformer/model.py"
DENSE, CHUNKED = "SelfAttention._dense", "SelfAttention._chunked"
SCORES = "$q @ $k.transpose(-2, -1) / math.sqrt(D)"


def both(tree: Path, old: str, new: str) -> None:
    substitute(tree, old, new, MODEL, "SelfAttention")


@rewrite("windows", 11)
def stitch_by_while(tree: Path) -> None:
    """The windows are walked in a while loop."""
    restate(
        tree,
        "for n, s in enumerate(range(0, T, self.chunk_size)):\n    $$body",
        "n = s = 0\nwhile s < T:\n    $$body\n    n += 1\n    s += self.chunk_size",
        MODEL,
        "SelfAttention._stitch",
    )


@rewrite("windows", 11)
def stitch_by_number(tree: Path) -> None:
    """The windows are counted, and each start computed from its number."""
    restate(
        tree,
        "for n, s in enumerate(range(0, T, self.chunk_size)):\n    $$body",
        "for n in range(math.ceil(T / self.chunk_size)):\n    s = n * self.chunk_size\n    $$body",
        MODEL,
        "SelfAttention._stitch",
    )


@rewrite("windows", 11)
def stitch_zip(tree: Path) -> None:
    """The windows are zipped with their starts, one tensor each."""
    restate(
        tree,
        """\
for n, s in enumerate(range(0, T, self.chunk_size)):
    $$before
    canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, : end - start]
""",
        """\
for s, window in zip(range(0, T, self.chunk_size), weights.unbind(2)):
    $$before
    canvas[:, :, s:end, columns] = window[:, :, : end - s, : end - start]
""",
        MODEL,
        "SelfAttention._stitch",
    )


@rewrite("windows", 11)
def stitch_index_list(tree: Path) -> None:
    """The columns are a Python list, and the clipped end an if."""
    restate(
        tree,
        """\
end = min(s + self.chunk_size, T)
columns = torch.arange(start, end, device=weights.device)
""",
        """\
end = s + self.chunk_size
if end > T:
    end = T
columns = list(range(start, end))
""",
        MODEL,
    )


@rewrite("windows", 11)
def stitch_zeros_function(tree: Path) -> None:
    """The canvas is made by torch.zeros, and rows are sliced with lengths in names."""
    substitute(
        tree,
        "weights.new_zeros(B, H, T, T)",
        "torch.zeros((B, H, T, T), dtype=weights.dtype, device=weights.device)",
        MODEL,
    )
    restate(
        tree,
        "canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, : end - start]",
        """\
height, breadth = end - s, end - start
tile = weights[:, :, n]
canvas[:, :, s:end, columns] = tile[..., :height, :breadth]
""",
        MODEL,
    )


@rewrite("windows", 11, 12)
def stitch_function(tree: Path) -> None:
    """The map is stitched by a function of the module, not a method."""
    path = find(tree, MODEL)
    substitute(tree, "self._stitch($w, $t)", "stitch_windows($w, $t, self.chunk_size, self.overlap)", MODEL)
    restate(
        tree,
        "def _stitch(self, weights: Tensor, T: int) -> Tensor:\n    $$body",
        "def _stitch(self, weights: Tensor, T: int) -> Tensor:\n    return stitch_windows(weights, T, self.chunk_size, self.overlap)",
        MODEL,
    )
    before(
        path,
        "SelfAttention",
        """\
def stitch_windows(weights, T, chunk_size, overlap):
    canvas = weights.new_zeros(*weights.shape[:2], T, T)
    for n, s in enumerate(range(0, T, chunk_size)):
        start, end = s - overlap, min(s + chunk_size, T)
        columns = torch.arange(start, end, device=weights.device)
        canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, : end - start]
    return canvas
""",
    )
    restate(tree, "def _stitch(self, weights: Tensor, T: int) -> Tensor:\n    $$body", "", MODEL)


@rewrite("windows", 9, 10, 11)
def windows_by_view(tree: Path) -> None:
    """Queries of a chunk are made by reshape, the padding by new zeros in front."""
    substitute(
        tree,
        "F.pad(q, (0, 0, 0, tail)).unflatten(2, (-1, chunk)).flatten(0, 1)",
        "F.pad(q, [0, 0, 0, tail]).reshape(B * H, -1, chunk, D)",
        MODEL,
        CHUNKED,
    )
    substitute(tree, "-T % chunk", "(chunk - T % chunk) % chunk", MODEL, CHUNKED)


@rewrite("windows", 9, 10)
def windows_mask_inverted(tree: Path) -> None:
    """The window's mask says what is visible, and is turned round once."""
    restate(
        tree,
        """\
hidden = torch.zeros(chunk, width, dtype=torch.bool, device=q.device)
if causal:
    $m = torch.triu(torch.ones(width, width, dtype=torch.bool, device=q.device), diagonal=1)
    hidden = $m[overlap:]
""",
        """\
visible = torch.ones(chunk, width, dtype=torch.bool, device=q.device)
if causal:
    visible = visible.tril(diagonal=overlap)
hidden = visible.logical_not()
""",
        MODEL,
    )


@rewrite("windows", 11)
def stitch_modulo(tree: Path) -> None:
    """Columns are counted modulo the length, which says the wrap in words."""
    substitute(
        tree,
        "torch.arange(start, end, device=weights.device)",
        "torch.arange(start, end, device=weights.device) % T",
        MODEL,
    )


@rewrite("windows", 11)
def stitch_by_row(tree: Path) -> None:
    """Each row of the map is written by itself."""
    restate(
        tree,
        "canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, : end - start]",
        "for row in range(s, end):\n    canvas[:, :, row, columns] = weights[:, :, n, row - s, : end - start]",
        MODEL,
    )


@rewrite("windows", 11)
def stitch_unbound(tree: Path) -> None:
    """Windows are unbound, and columns counted from 0 and shifted."""
    restate(
        tree,
        """\
for n, s in enumerate(range(0, T, self.chunk_size)):
    start = s - self.overlap
    end = min(s + self.chunk_size, T)
    columns = torch.arange(start, end, device=weights.device)
    canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, : end - start]
""",
        """\
for n, window in enumerate(weights.unbind(2)):
    s = n * self.chunk_size
    end = min(s + self.chunk_size, T)
    start = s - self.overlap
    columns = start + torch.arange(end - start, device=weights.device)
    canvas[..., s:end, columns] = window[..., : end - s, : end - start]
""",
        MODEL,
    )
