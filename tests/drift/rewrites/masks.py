"""Other spellings of a causal mask, and of hiding what it marks."""

from pathlib import Path

from drift.naming import add_import, before
from drift.patterns import restate, substitute
from drift.rewriting import ASKS, OPEN, find, rewrite

FRESH = "torch.triu(torch.ones($n, $n, dtype=torch.bool, device=$d), diagonal=1)"
MODEL = "bit_transformer/model.py"
DENSE_MASK = "torch.triu(torch.ones(T, T, dtype=torch.bool, device=q.device), diagonal=1)"
WIDE_MASK = "torch.triu(torch.ones(width, width, dtype=torch.bool, device=q.device), diagonal=1)"
HIDE = f"if causal:\n    future = {DENSE_MASK}\n    scores = scores.masked_fill(future, float('-inf'))"


def mask(tree: Path, new: str) -> None:
    substitute(tree, FRESH, new, MODEL)


@rewrite("masks", 10, 9)
def mask_not_tril(tree: Path) -> None:
    """The future is what is not in the lower triangle."""
    mask(tree, "~torch.tril(torch.ones($n, $n, dtype=torch.bool, device=$d))")


@rewrite("masks", 10, 9)
def mask_tril_is_zero(tree: Path) -> None:
    """A float lower triangle compared with zero, as in many tutorials."""
    mask(tree, "torch.tril(torch.ones($n, $n, device=$d)) == 0")


@rewrite("masks", 10, 9)
def mask_arange_rows(tree: Path) -> None:
    """Positions compared: the key's over the query's."""
    mask(tree, "torch.arange($n, device=$d)[None, :] > torch.arange($n, device=$d)[:, None]")


@rewrite("masks", 10, 9)
def mask_arange_columns(tree: Path) -> None:
    """Positions compared the other way round, unsqueezed."""
    mask(tree, "torch.arange($n, device=$d).unsqueeze(1) < torch.arange($n, device=$d).unsqueeze(0)")


@rewrite("masks", 10, 9)
def mask_triu_method_bool(tree: Path) -> None:
    """The triangle as a method, made boolean at the end."""
    mask(tree, "torch.ones(($n, $n), device=$d).triu(1).bool()")


@rewrite("masks", 10, 9)
def mask_full_true(tree: Path) -> None:
    """A full tensor of True in place of ones."""
    mask(tree, "torch.full(($n, $n), True, device=$d).triu(diagonal=1)")


@rewrite("masks", 10, 9)
def mask_triu_indices(tree: Path) -> None:
    """Ones on an empty canvas, written by index."""
    mask(tree, "_above_diagonal($n, $d)")
    before(
        find(tree, MODEL),
        "SelfAttention",
        """\
def _above_diagonal(size, device):
    canvas = torch.zeros(size, size, dtype=torch.bool, device=device)
    rows, columns = torch.triu_indices(size, size, offset=1, device=device)
    canvas[rows, columns] = True
    return canvas
""",
    )


@rewrite("masks", 10, 9)
def mask_in_two_steps(tree: Path) -> None:
    """The square of ones has a name of its own before its triangle is taken."""
    restate(
        tree,
        "$m = torch.triu(torch.ones($n, $n, dtype=torch.bool, device=$d), diagonal=1)",
        "square = torch.ones($n, $n, dtype=torch.bool, device=$d)\n$m = square.triu(diagonal=1)",
        MODEL,
    )


@rewrite("masks", 10, 9)
def mask_function(tree: Path) -> None:
    """Both masks come from one module-level function that builds a fresh one each time."""
    mask(tree, "future_positions($n, $d)")
    before(
        find(tree, MODEL),
        "SelfAttention",
        """\
def future_positions(length: int, device: torch.device) -> Tensor:
    return torch.triu(torch.ones(length, length, dtype=torch.bool, device=device), diagonal=1)
""",
    )


@rewrite("masks", 10, 9)
def mask_static_method(tree: Path) -> None:
    """Both masks come from a static method of the attention class."""
    mask(tree, "self._future($n, device=$d)")
    before(
        find(tree, MODEL),
        "SelfAttention._dense",
        """\
@staticmethod
def _future(length, *, device):
    visible = torch.ones(length, length, device=device).tril()
    return visible.eq(0)
""",
    )


@rewrite("masks", 9, 10)
def mask_float_added(tree: Path) -> None:
    """The dense path adds a float mask of minus infinity above the diagonal."""
    restate(
        tree,
        """\
if causal:
    $m = torch.triu(torch.ones(T, T, dtype=torch.bool, device=$d), diagonal=1)
    $s = $s.masked_fill($m, float("-inf"))
""",
        """\
if causal:
    bias = torch.full((T, T), float("-inf"), dtype=$s.dtype, device=$d).triu(1)
    $s = $s + bias
""",
        MODEL,
    )


@rewrite("masks", 9, 10)
def mask_like_scores(tree: Path) -> None:
    """The dense mask takes size and device from the scores themselves."""
    restate(
        tree,
        "$m = torch.triu(torch.ones(T, T, dtype=torch.bool, device=$d), diagonal=1)",
        "$m = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)",
        MODEL,
        "SelfAttention._dense",
    )


@rewrite("masks", 9, 10, expected={10: OPEN})
def mask_as_buffer(tree: Path) -> None:
    """The dense mask is a buffer that is not saved, grown when a row is longer."""
    restate(
        tree,
        "$m = torch.triu(torch.ones(T, T, dtype=torch.bool, device=$d), diagonal=1)",
        """\
if self.hidden_future.shape[0] < T:
    self.hidden_future = torch.ones(T, T, dtype=torch.bool, device=$d).triu(1)
$m = self.hidden_future[:T, :T]
""",
        MODEL,
        "SelfAttention._dense",
    )
    restate(
        tree,
        "self.dropout = nn.Dropout(dropout)",
        'self.dropout = nn.Dropout(dropout)\nself.register_buffer("hidden_future", torch.zeros(0, 0, dtype=torch.bool), persistent=False)',
        MODEL,
        "SelfAttention.__init__",
    )


@rewrite("masks", 10, expected={10: OPEN})
def mask_lru_cached(tree: Path) -> None:
    """A person has cached the masks already, by functools.lru_cache on a function."""
    mask(tree, "_triangle($n, $d)")
    path = find(tree, MODEL)
    before(
        path,
        "SelfAttention",
        """\
@lru_cache(maxsize=64)
def _triangle(size, device):
    return torch.triu(torch.ones(size, size, dtype=torch.bool, device=device), diagonal=1)
""",
    )
    add_import(path, "from functools import lru_cache")


@rewrite("masks", 9, 10)
def hide_in_place(tree: Path) -> None:
    """Scores are filled in place."""
    restate(tree, '$s = $s.masked_fill($m, float("-inf"))', '$s.masked_fill_($m, float("-inf"))', MODEL)


@rewrite("masks", 9, 10)
def hide_by_where(tree: Path) -> None:
    """torch.where chooses between minus infinity and the scores."""
    substitute(tree, '$s.masked_fill($m, float("-inf"))', 'torch.where($m, float("-inf"), $s)', MODEL)


@rewrite("masks", 9, 10)
def hide_by_where_kept(tree: Path) -> None:
    """torch.where keeps the scores where the mask, turned round, allows them."""
    substitute(tree, '$s.masked_fill($m, float("-inf"))', "torch.where(~$m, $s, -math.inf)", MODEL)


@rewrite("masks", 9, 10)
def hide_by_index(tree: Path) -> None:
    """Hidden scores of the dense path are overwritten through a boolean index."""
    restate(
        tree,
        '$s = $s.masked_fill($m, float("-inf"))',
        "$s = $s.clone()\n$s[:, :, $m] = -torch.inf",
        MODEL,
        "SelfAttention._dense",
    )


@rewrite("masks", 9, 10)
def hide_by_logical_not(tree: Path) -> None:
    """A mask of what is visible, negated where scores are filled."""
    restate(
        tree,
        """\
$m = torch.triu(torch.ones(T, T, dtype=torch.bool, device=$d), diagonal=1)
$s = $s.masked_fill($m, float("-inf"))
""",
        """\
allowed = torch.ones(T, T, dtype=torch.bool, device=$d).tril()
$s = $s.masked_fill(allowed.logical_not(), float("-inf"))
""",
        MODEL,
    )


@rewrite("masks", 9, 10)
def mask_always_built(tree: Path) -> None:
    """The dense mask is built whether it is needed or not, and used if causal."""
    restate(
        tree,
        """\
if causal:
    $m = torch.triu(torch.ones(T, T, dtype=torch.bool, device=$d), diagonal=1)
    $s = $s.masked_fill($m, $v)
""",
        """\
$m = torch.triu(torch.ones(T, T, dtype=torch.bool, device=$d), diagonal=1)
$s = $s.masked_fill($m, $v) if causal else $s
""",
        MODEL,
    )


@rewrite("masks", 9, 10, expected={9: ASKS, 10: OPEN})
def mask_window_added(tree: Path) -> None:
    """A look-back option that is off by default: dense scores older than it are hidden too."""
    restate(
        tree,
        """\
if causal:
    $m = torch.triu(torch.ones(T, T, dtype=torch.bool, device=$d), diagonal=1)
    $s = $s.masked_fill($m, $v)
""",
        """\
if causal:
    $m = torch.triu(torch.ones(T, T, dtype=torch.bool, device=$d), diagonal=1)
    if self.look_back is not None:
        $m = $m | torch.tril(torch.ones(T, T, dtype=torch.bool, device=$d), diagonal=-self.look_back - 1)
    $s = $s.masked_fill($m, $v)
""",
        MODEL,
    )
    restate(
        tree,
        "self.dropout = nn.Dropout(dropout)",
        "self.dropout = nn.Dropout(dropout)\nself.look_back = None",
        MODEL,
        "SelfAttention.__init__",
    )


@rewrite("masks", 9, 10)
def mask_new_ones(tree: Path) -> None:
    """The masks are made by new_ones of the queries, and triu as a method."""
    substitute(tree, DENSE_MASK, "q.new_ones(T, T, dtype=torch.bool).triu(1)", MODEL)
    substitute(tree, WIDE_MASK, "q.new_ones((width, width), dtype=torch.bool).triu(1)", MODEL)


@rewrite("masks", 9, 10)
def mask_where_bias(tree: Path) -> None:
    """torch.where makes a bias of zero or minus infinity out of positions."""
    restate(
        tree,
        HIDE,
        """\
if causal:
    at = torch.arange(T, device=q.device)
    scores = scores + torch.where(at[:, None] >= at[None, :], 0.0, float("-inf")).to(scores.dtype)
""",
        MODEL,
    )


@rewrite("masks", 9, 10)
def mask_window_compared(tree: Path) -> None:
    """The window's mask is made of positions of queries and keys."""
    restate(
        tree,
        f"if causal:\n    future = {WIDE_MASK}\n    hidden = future[overlap:]",
        """\
if causal:
    key = torch.arange(width, device=q.device)
    query = torch.arange(overlap, width, device=q.device)
    hidden = key > query.unsqueeze(-1)
""",
        MODEL,
    )


@rewrite("masks", 9, 10)
def mask_window_either(tree: Path) -> None:
    """A conditional expression chooses the window's mask."""
    restate(
        tree,
        f"hidden = $z\nif causal:\n    future = {WIDE_MASK}\n    hidden = future[overlap:]",
        "hidden = torch.ones(width, width, dtype=torch.bool, device=q.device).triu(1)[overlap:] if causal else $z",
        MODEL,
    )
