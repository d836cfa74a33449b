"""Other spellings of attention: products, scaling, softmax, and heads."""

from pathlib import Path

from drift.naming import add_import, before
from drift.patterns import restate, substitute
from drift.rewriting import find, retext, rewrite

MODEL = "bit_transformer/model.py"
DENSE, CHUNKED = "SelfAttention._dense", "SelfAttention._chunked"
SCORES = "$q @ $k.transpose(-2, -1) / math.sqrt(D)"


def both(tree: Path, old: str, new: str) -> None:
    substitute(tree, old, new, MODEL, "SelfAttention")


@rewrite("attention", 9)
def softmax_method(tree: Path) -> None:
    """Softmax as a method."""
    both(tree, "torch.softmax($x, dim=-1)", "$x.softmax(-1)")


@rewrite("attention", 9)
def softmax_functional(tree: Path) -> None:
    """Softmax from torch.nn.functional."""
    both(tree, "torch.softmax($x, dim=-1)", "F.softmax($x, dim=-1)")


@rewrite("attention", 9)
def softmax_module(tree: Path) -> None:
    """Softmax as a module made on the spot."""
    both(tree, "torch.softmax($x, dim=-1)", "nn.Softmax(dim=-1)($x)")


@rewrite("attention", 9)
def softmax_last_dimension(tree: Path) -> None:
    """Softmax over a dimension that is counted from the front."""
    both(tree, "torch.softmax($x, dim=-1)", "torch.softmax($x, dim=3)")


@rewrite("attention", 9)
def softmax_by_hand(tree: Path) -> None:
    """Softmax as exponentials of what log-sum-exp leaves."""
    both(tree, "torch.softmax($x, dim=-1)", "torch.exp($x - torch.logsumexp($x, dim=-1, keepdim=True))")


@rewrite("attention", 9)
def product_function(tree: Path) -> None:
    """torch.matmul for the @ of the dense path."""
    substitute(tree, SCORES, "torch.matmul($q, $k.transpose(-2, -1)) / math.sqrt(D)", MODEL, DENSE)
    substitute(tree, "self.dropout($w) @ $v", "torch.matmul(self.dropout($w), $v)", MODEL, DENSE)


@rewrite("attention", 9)
def product_einsum(tree: Path) -> None:
    """einsum for both products of the dense path."""
    substitute(tree, SCORES, 'torch.einsum("bhqd,bhkd->bhqk", $q, $k) / math.sqrt(D)', MODEL, DENSE)
    substitute(tree, "self.dropout($w) @ $v", 'torch.einsum("bhqk,bhkd->bhqd", self.dropout($w), $v)', MODEL, DENSE)


@rewrite("attention", 9)
def product_bmm(tree: Path) -> None:
    """Batches and heads in one dimension, and bmm."""
    restate(
        tree,
        "scores = $q @ $k.transpose(-2, -1) / math.sqrt(D)",
        """\
flat_q, flat_k = $q.reshape(B * H, T, D), $k.reshape(B * H, -1, D)
scores = torch.bmm(flat_q, flat_k.transpose(1, 2)).view(B, H, T, -1) / math.sqrt(D)
""",
        MODEL,
        DENSE,
    )


@rewrite("attention", 9)
def transpose_mt(tree: Path) -> None:
    """.mT for the transpose of keys and windows."""
    both(tree, "$k.transpose(-2, -1)", "$k.mT")


@rewrite("attention", 9)
def transpose_permute(tree: Path) -> None:
    """permute for the transpose of the dense keys, swapaxes for the heads."""
    substitute(tree, "$k.transpose(-2, -1)", "$k.permute(0, 1, 3, 2)", MODEL, DENSE)
    substitute(tree, "$x.transpose(1, 2)", "$x.swapaxes(1, 2)", MODEL, "SelfAttention.forward")


@rewrite("attention", 9)
def scale_by_power(tree: Path) -> None:
    """Multiplied by a power of the head's width instead of divided by its root."""
    both(tree, "$x / math.sqrt(D)", "$x * D**-0.5")


@rewrite("attention", 9)
def scale_queries_first(tree: Path) -> None:
    """The dense queries are scaled before the product."""
    restate(
        tree,
        "scores = $q @ $k.transpose(-2, -1) / math.sqrt(D)",
        "q_scaled = $q / math.sqrt(D)\nscores = q_scaled @ $k.transpose(-2, -1)",
        MODEL,
        DENSE,
    )


@rewrite("attention", 9)
def scale_both_sides(tree: Path) -> None:
    """Queries and keys each take a fourth root, as in some mixed-precision code."""
    restate(
        tree,
        "scores = $q @ $k.transpose(-2, -1) / math.sqrt(D)",
        "root = D**-0.25\nscores = ($q * root) @ ($k * root).transpose(-2, -1)",
        MODEL,
        DENSE,
    )


@rewrite("attention", 9)
def scale_attribute(tree: Path) -> None:
    """The scale is an attribute that __init__ computes."""
    both(tree, "$x / math.sqrt(D)", "$x * self.scale")
    restate(
        tree,
        "self.nhead = nhead",
        "self.nhead = nhead\nself.scale = 1.0 / math.sqrt(d_model // nhead)",
        MODEL,
        "SelfAttention.__init__",
    )


@rewrite("attention", 9)
def scale_in_place(tree: Path) -> None:
    """Scores are divided in place, by the root of the last size of the queries."""
    restate(
        tree,
        "scores = $a @ $b / math.sqrt(D)",
        "scores = $a @ $b\nscores /= math.sqrt(q.size(-1))",
        MODEL,
    )


@rewrite("attention", 9)
def dropout_functional(tree: Path) -> None:
    """Attention's dropout as a function that is told whether the module trains."""
    both(tree, "self.dropout($w)", "F.dropout($w, p=self.dropout.p, training=self.training)")


@rewrite("attention", 9)
def dropout_on_weights(tree: Path) -> None:
    """Dropped weights have a name of their own."""
    restate(tree, "out = self.dropout($w) @ $v", "kept = self.dropout($w)\nout = torch.matmul(kept, $v)", MODEL)


@rewrite("attention", 9)
def heads_by_view(tree: Path) -> None:
    """Heads are made by view and permute, and put together by reshape."""
    restate(
        tree,
        """\
q, k, v = (
    projection(x).unflatten(-1, (self.nhead, -1)).transpose(1, 2)
    for projection in (self.q_proj, self.k_proj, self.v_proj)
)
""",
        """\
B, T, C = x.shape
q = self.q_proj(x).view(B, T, self.nhead, C // self.nhead).permute(0, 2, 1, 3)
k = self.k_proj(x).view(B, T, self.nhead, C // self.nhead).permute(0, 2, 1, 3)
v = self.v_proj(x).view(B, T, self.nhead, C // self.nhead).permute(0, 2, 1, 3)
""",
        MODEL,
    )
    substitute(
        tree, "$o.transpose(1, 2).flatten(2)", "$o.permute(0, 2, 1, 3).reshape(B, T, C)", MODEL, "SelfAttention.forward"
    )


@rewrite("attention", 9)
def heads_by_method(tree: Path) -> None:
    """A method splits heads, called three times."""
    restate(
        tree,
        """\
q, k, v = (
    projection(x).unflatten(-1, (self.nhead, -1)).transpose(1, 2)
    for projection in (self.q_proj, self.k_proj, self.v_proj)
)
""",
        "q, k, v = self._split(self.q_proj(x)), self._split(self.k_proj(x)), self._split(self.v_proj(x))",
        MODEL,
    )
    before(
        find(tree, MODEL),
        "SelfAttention.forward",
        """\
def _split(self, x):
    return x.reshape(x.size(0), x.size(1), self.nhead, -1).transpose(1, 2)
""",
    )


@rewrite("attention", 9, 12)
def attend_by_if(tree: Path) -> None:
    """forward chooses the path in an if, with the output projected in each."""
    restate(
        tree,
        """\
attend = self._dense if self.chunk_size is None else self._chunked
out, attn_map = attend(q, k, v, causal)
return self.out_proj(out.transpose(1, 2).flatten(2)), attn_map
""",
        """\
if self.chunk_size:
    out, attn_map = self._chunked(q, k, v, causal)
else:
    out, attn_map = self._dense(q, k, v, causal)
merged = out.transpose(1, 2).contiguous().flatten(2)
return self.out_proj(merged), attn_map
""",
        MODEL,
    )


@rewrite("attention", 9, 12)
def map_by_if(tree: Path) -> None:
    """The map is returned by an if statement in place of a conditional expression."""
    restate(
        tree,
        "return out, $map if self.full_attn_logging else None",
        """\
if not self.full_attn_logging:
    return out, None
return out, $map
""",
        MODEL,
    )


@rewrite("attention", 12)
def logging_default_constant(tree: Path) -> None:
    """The default of full_attn_logging stands in a constant."""
    path = find(tree, MODEL)
    retext(
        path,
        ("full_attn_logging: bool = True,", "full_attn_logging: bool = LOG_ATTENTION,"),
        ("self.full_attn_logging = full_attn_logging\n", "self.full_attn_logging = bool(full_attn_logging)\n"),
    )
    before(path, "SelfAttention", "LOG_ATTENTION = True  # maps of every layer")


@rewrite("attention", 9, 12)
def scores_method(tree: Path) -> None:
    """A method makes the weights of the dense path, scores, mask and softmax together."""
    restate(
        tree,
        """\
B, H, T, D = q.shape
scores = $scores
if causal:
    $$mask
weights = $weights
out = self.dropout(weights) @ v
""",
        """\
weights = self._weights(q, k, causal)
out = self.dropout(weights) @ v
""",
        MODEL,
        DENSE,
    )
    before(
        find(tree, MODEL),
        DENSE,
        """\
def _weights(self, q, k, causal):
    T, D = q.shape[-2:]
    scores = q @ k.transpose(-2, -1) / math.sqrt(D)
    if causal:
        future = torch.triu(torch.ones(T, T, dtype=torch.bool, device=q.device), diagonal=1)
        scores = scores.masked_fill(future, float("-inf"))
    return torch.softmax(scores, dim=-1)
""",
    )


@rewrite("attention", 9)
def attention_float_softmax(tree: Path) -> None:
    """The softmax of the dense path goes through a named dtype and back, as much half-precision code does."""
    substitute(tree, "torch.softmax($x, dim=-1)", "torch.softmax($x, dim=-1, dtype=$x.dtype).type_as($x)", MODEL, DENSE)


@rewrite("attention", 9, 10, 11, 12)
def attention_recorded(tree: Path) -> None:
    """Both paths run under a profiler's label."""
    restate(
        tree,
        "out, attn_map = attend(q, k, v, causal)",
        'with record_function("attention"):\n    out, attn_map = attend(q, k, v, causal)',
        MODEL,
    )
    add_import(find(tree, MODEL), "from torch.profiler import record_function")


@rewrite("attention", 9, 11, 12)
def attributes_by_setattr(tree: Path) -> None:
    """The attention's options are set in a loop over their names."""
    restate(
        tree,
        "self.nhead = nhead\nself.chunk_size = chunk_size\nself.overlap = overlap\nself.full_attn_logging = full_attn_logging",
        """\
options = {"nhead": nhead, "chunk_size": chunk_size, "overlap": overlap, "full_attn_logging": full_attn_logging}
for name, value in options.items():
    setattr(self, name, value)
""",
        MODEL,
    )


@rewrite("attention", 9, 12)
def map_early_return(tree: Path) -> None:
    """Both paths return early where no map is logged."""
    restate(
        tree,
        "return out, weights.detach() if self.full_attn_logging else None",
        "if not self.full_attn_logging:\n    return out, None\nreturn out, weights.detach()",
        MODEL,
    )
    restate(
        tree,
        "return out, $stitched if self.full_attn_logging else None",
        "if not self.full_attn_logging:\n    return out, None\nreturn out, $stitched",
        MODEL,
    )


@rewrite("attention", 9, 11, 12)
def attend_by_table(tree: Path) -> None:
    """A table of methods by whether there are chunks chooses the path."""
    restate(
        tree,
        "attend = $a if self.chunk_size is None else $b",
        "attend = {True: self._dense, False: self._chunked}[self.chunk_size is None]",
        MODEL,
    )


@rewrite("attention", 9, 11, 12)
def attend_by_match(tree: Path) -> None:
    """A match statement on the chunk's size chooses the path."""
    restate(
        tree,
        "attend = $a if self.chunk_size is None else $b\nout, attn_map = attend(q, k, v, causal)",
        """\
match self.chunk_size:
    case None:
        out, attn_map = self._dense(q, k, v, causal)
    case _:
        out, attn_map = self._chunked(q, k, v, causal)
""",
        MODEL,
    )
