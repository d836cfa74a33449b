"""Wrong and right ways to call scaled_dot_product_attention."""

from pathlib import Path

from mutant import Mutant

MODEL = "bit_transformer/model.py"
REVERSIBLE = "bit_transformer/reversible.py"
DECODING = "bit_transformer/decoding.py"
SOURCE = (Path(__file__).parents[2] / "reference" / MODEL).read_text(encoding="utf-8")

DENSE = SOURCE[SOURCE.index("    def _dense(") : SOURCE.index("    def _chunked(")]
CHUNKED = SOURCE[SOURCE.index("    def _chunked(") : SOURCE.index("    def _stitch(")]
PROJECTED = SOURCE[SOURCE.index("        q, k, v = (\n") : SOURCE.index("        attend = self._dense")]
PROJECTIONS = SOURCE[SOURCE.index("        self.q_proj =") : SOURCE.index("        self.out_proj =")]
RATE = "dropout_p = self.dropout.p if self.training else 0.0"
CALL = "F.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=dropout_p)"
RETURN = "        return out, "
MASK = "attn_mask=~hidden"
LOGGING = "        if self.full_attn_logging:\n"
EXPLICIT = """        scores = q @ k.transpose(-2, -1) / math.sqrt(D)
        if causal:
            scores = scores.masked_fill(get_tri_mask(T, q.device), float("-inf"))
        weights = torch.softmax(scores, dim=-1)
"""
LEFT = "        hidden = hidden | window_padding(T, chunk, overlap, hidden.device)\n"


def edit(name: str, wrong: str, *edits: tuple[str, str]) -> Mutant:
    """A tree whose edits are all in model.py."""
    return Mutant(name, wrong, tuple((MODEL, old, new) for old, new in edits))


def within(block: str, *edits: tuple[str, str]) -> tuple[str, str]:
    """The edit of a block in which each old text occurs once."""
    new = block
    for old, text in edits:
        assert new.count(old) == 1, f"{new.count(old)} times: {old}"
        new = new.replace(old, text)
    return block, new


def dense(name: str, wrong: str, *edits: tuple[str, str]) -> Mutant:
    return edit(name, wrong, within(DENSE, *edits))


def chunked(name: str, wrong: str, *edits: tuple[str, str]) -> Mutant:
    return edit(name, wrong, within(CHUNKED, *edits))


MUTANTS = [
    dense(
        "undone",
        "attention is an explicit softmax",
        (LOGGING, "        if self is not None:\n"),
        ("with torch.no_grad():", "with torch.set_grad_enabled(torch.is_grad_enabled()):"),
        (CALL, "self.dropout(weights) @ v"),
    ),
    dense(
        "is-causal-forgotten", "every position sees the future, and the loss gets better", ("is_causal=causal, ", "")
    ),
    dense("always-causal", "causal=False hides the future, too", ("is_causal=causal", "is_causal=True")),
    dense(
        "causal-in-training-only",
        "an evaluation sees the future",
        ("is_causal=causal", "is_causal=causal and self.training"),
    ),
    dense(
        "dense-mask",
        "a T x T mask is built where is_causal would do",
        ("is_causal=causal", "attn_mask=~get_tri_mask(T, q.device) if causal else None"),
    ),
    dense(
        "opposite-mask",
        "True attends, and the mask is True where the future is hidden",
        ("is_causal=causal", "attn_mask=get_tri_mask(T, q.device) if causal and T > 1 else None"),
    ),
    dense("scaled-twice", "scores are divided by D", (CALL, CALL.replace("(q,", "(q / math.sqrt(D),"))),
    dense(
        "scaled-by-the-width",
        "scores are divided by the root of C and not of D",
        ("is_causal=causal", "is_causal=causal, scale=(H * D) ** -0.5"),
    ),
    dense("unscaled", "scores are not divided", ("is_causal=causal", "is_causal=causal, scale=1.0")),
    dense(
        "heads-for-positions",
        "[B, T, H, D] is given, so that heads attend to heads",
        (
            CALL,
            "F.scaled_dot_product_attention(*(each.transpose(1, 2) for each in (q, k, v)), is_causal=causal, dropout_p=dropout_p).transpose(1, 2)",
        ),
    ),
    dense(
        "heads-flattened-wrongly",
        "heads and positions are mixed up on the way out",
        (CALL, CALL + ".transpose(1, 2).reshape(B, H, T, D)"),
    ),
    dense("keys-for-values", "keys and values change places", ("(q, k, v, is", "(q, v, k, is")),
    dense("keys-detached", "no gradient reaches the keys", ("(q, k, v, is", "(q, k.detach(), v, is")),
    dense(
        "rounded",
        "attention passes through float32",
        (
            CALL,
            "F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=causal, dropout_p=dropout_p).to(q.dtype)",
        ),
    ),
    dense("dropout-in-evaluation", "dropout_p does not know of eval()", (RATE, "dropout_p = self.dropout.p")),
    chunked(
        "dropout-in-evaluation-of-chunks", "dropout_p does not know of eval()", (RATE, "dropout_p = self.dropout.p")
    ),
    dense("dropout-forgotten", "nothing is dropped in training", (", dropout_p=dropout_p", "")),
    chunked("dropout-forgotten-in-chunks", "nothing is dropped in training", (", dropout_p=dropout_p", "")),
    dense("dropout-of-a-constant", "the module's rate is ignored", (RATE, "dropout_p = 0.1 if self.training else 0.0")),
    dense("dropout-twice", "weights and outputs are dropped", (RETURN, "        out = self.dropout(out)\n" + RETURN)),
    dense(
        "dropout-of-outputs",
        "channels are dropped, not weights",
        (", dropout_p=dropout_p", ""),
        (RETURN, "        out = self.dropout(out)\n" + RETURN),
    ),
    dense(
        "keep-probability",
        "dropout_p is taken for what is kept",
        (RATE, "dropout_p = 1 - self.dropout.p if self.training and self.dropout.p else 0.0"),
    ),
    dense(
        "explicit-where-logged",
        "where maps are taken, the output is still that of the explicit softmax",
        (RETURN, LOGGING + "            out = self.dropout(weights) @ v\n" + RETURN),
    ),
    dense(
        "called-and-thrown-away",
        "the output is that of the explicit softmax, the call is for show",
        (RETURN, EXPLICIT + "        out = self.dropout(weights) @ v\n" + RETURN),
    ),
    dense(
        "explicit-in-evaluation",
        "only training calls it",
        (CALL, f"{CALL} if self.training else F.scaled_dot_product_attention(q, k, v)"),
        (RETURN, EXPLICIT + "        out = out if self.training else weights @ v\n" + RETURN),
    ),
    dense("map-always-made", "T x T weights are computed where no map is asked for", (LOGGING, "        if True:\n")),
    dense(
        "map-with-its-graph",
        "a map keeps scores and their graph alive",
        ("with torch.no_grad():", "with torch.enable_grad():"),
        ("weights.detach()", "weights"),
    ),
    dense(
        "map-of-the-future",
        "the map is not causal",
        ("                if causal:\n", "                if causal and not self.full_attn_logging:\n"),
    ),
    dense(
        "map-after-dropout",
        "the map has holes, and takes random numbers from the output",
        ("weights = torch.softmax(scores, dim=-1)", "weights = self.dropout(torch.softmax(scores, dim=-1))"),
    ),
    dense("map-unscaled", "the map is that of scores which are not divided", (" / math.sqrt(D)", "")),
    chunked(
        "opposite-mask-of-windows",
        "True attends, and the mask is True where a key is hidden",
        (MASK, "attn_mask=hidden if causal else ~hidden"),
    ),
    chunked(
        "top-left-aligned", "is_causal with more keys than queries hides the own chunk", (MASK, "is_causal=causal")
    ),
    chunked(
        "one-window-takes-is-causal",
        "a row that one window holds needs no mask, says one who forgot the padding before it",
        (MASK, "attn_mask=None if causal and T <= chunk else ~hidden, is_causal=causal and T <= chunk"),
    ),
    chunked("windows-unmasked", "the window's future is seen", (MASK, "attn_mask=None")),
    chunked(
        "hidden-by-a-number", "what is hidden keeps a small weight", (MASK, "attn_mask=-20.0 * hidden.to(q.dtype)")
    ),
    chunked(
        "mask-of-float64",
        "the mask has a dtype of its own, which float32 cannot take",
        (MASK, "attn_mask=torch.zeros(hidden.shape, dtype=torch.float64).masked_fill(hidden, float('-inf'))"),
    ),
    chunked(
        "overflowing-mask",
        "two least numbers add up to minus infinity: a row of them has no softmax",
        (LEFT, LEFT + "        hidden = hidden | (torch.arange(q.shape[1] * chunk).view(-1, chunk, 1) >= T)\n"),
        (
            MASK,
            "attn_mask=torch.zeros(hidden.shape, dtype=q.dtype).masked_fill(hidden, float('-inf')).softmax(-1).log()",
        ),
    ),
    chunked(
        "scaled-twice-in-chunks",
        "scores are divided by D",
        ("            q, k.transpose", "            q / math.sqrt(D), k.transpose"),
    ),
    chunked(
        "values-transposed",
        "a window's keys are taken for channels",
        ("v.transpose(-2, -1), attn", "v.reshape(v.shape[0], -1, width, D), attn"),
    ),
    edit(
        "persistent-mask",
        "a mask goes into the state dict",
        (
            PROJECTIONS,
            PROJECTIONS + '        self.register_buffer("mask", torch.ones(8, 8, dtype=torch.bool).tril())\n',
        ),
    ),
    edit(
        "buffer-of-a-forward",
        "a forward adds to the state dict",
        within(
            DENSE,
            (
                "        B, H, T, D = q.shape\n",
                '        B, H, T, D = q.shape\n        self.register_buffer("mask", torch.ones(T, T, dtype=torch.bool).tril())\n',
            ),
        ),
    ),
    edit(
        "projections-in-one",
        "the state dict has other keys",
        (PROJECTIONS, "        self.qkv_proj = nn.Linear(d_model, 3 * d_model)\n"),
        (PROJECTED, "        q, k, v = self.qkv_proj(x).unflatten(-1, (3, self.nhead, -1)).permute(2, 0, 3, 1, 4)\n"),
    ),
    edit(
        "causal-in-checkpoints",
        "a checkpointed layer is causal, whatever it was asked for",
        ("checkpoint(layer, x, causal, use_reentrant=False)", "checkpoint(layer, x, use_reentrant=False)"),
    ),
    dense(
        "scaled-twice-in-wide-heads",
        "scores are divided by D where that is 16 or more",
        (CALL, CALL.replace("(q,", "(q / math.sqrt(D) if D >= 16 else q,")),
    ),
    dense(
        "scale-capped",
        "wider heads are scaled as those of 64",
        ("is_causal=causal", "is_causal=causal, scale=min(D, 64) ** -0.5"),
    ),
    dense("queries-for-keys", "queries and keys change places", ("(q, k, v, is", "(k, q, v, is")),
    dense(
        "long-sequences-unmasked",
        "where there is more than a block of 64, the future is seen",
        ("is_causal=causal", "is_causal=causal and T <= 64"),
    ),
    dense(
        "future-under-inference-mode",
        "what needs no graph sees the future",
        ("is_causal=causal", "is_causal=causal and not torch.is_inference_mode_enabled()"),
    ),
    dense(
        "square-in-evaluation",
        "an evaluation computes T x T weights that nobody asked for",
        (LOGGING, "        if self.full_attn_logging or not self.training:\n"),
    ),
    dense(
        "dropout-in-evaluation-of-the-open",
        "without causality, dropout_p does not know of eval()",
        (RATE, "dropout_p = self.dropout.p if self.training or not causal else 0.0"),
    ),
    chunked(
        "dropout-in-evaluation-of-overlaps",
        "with an overlap, dropout_p does not know of eval()",
        (RATE, "dropout_p = self.dropout.p if self.training or overlap else 0.0"),
    ),
    chunked(
        "map-of-chunks-with-its-graph",
        "a map of windows keeps scores and their graph alive",
        ("with torch.no_grad():", "with torch.enable_grad():"),
        ("weights.detach()", "weights"),
    ),
    chunked(
        "hidden-by-ten-in-bfloat16",
        "what is hidden keeps a small weight in bfloat16",
        (
            MASK,
            "attn_mask=q.new_zeros(hidden.shape).masked_fill(hidden, -10 if q.dtype == torch.bfloat16 else -math.inf)",
        ),
    ),
    chunked(
        "mask-of-the-default-dtype",
        "the mask has the dtype that the caller makes tensors of",
        (MASK, "attn_mask=torch.zeros(hidden.shape, device=q.device).masked_fill(hidden, -math.inf)"),
    ),
    chunked(
        "mask-of-the-cpu",
        "the mask is on the CPU, wherever the model is",
        (MASK, "attn_mask=~torch.zeros(hidden.shape, dtype=torch.bool) if hidden.is_meta else ~hidden"),
    ),
    dense(
        "precision-left-changed",
        "attention sets the precision of all products of the process",
        (CALL, '(torch.set_float32_matmul_precision("medium"), ' + CALL + ")[1]"),
    ),
    dense(
        "fast-attention-left-off",
        "attention switches torch's fast kernels off, and leaves them so",
        (CALL, "(torch.backends.cuda.enable_flash_sdp(False), " + CALL + ")[1]"),
    ),
    dense(
        "evaluation-draws",
        "an evaluation takes a random number, and drops nothing",
        (RATE, RATE + "\n        torch.rand(())"),
    ),
    Mutant(
        "decoding-is-causal",
        "one query with is_causal sees the first key only",
        ((DECODING, "attention._dense(q, k, v, causal=False)", "attention._dense(q, k, v, causal=True)"),),
    ),
    dense(
        "one-query-is-causal",
        "one query always asks for is_causal, also where more keys were kept",
        ("is_causal=causal", "is_causal=causal or T == 1"),
    ),
    Mutant(
        "causal-in-the-recompute",
        "the recompute of a reversible stack is causal, whatever the forward was",
        (
            (
                REVERSIBLE,
                "ctx.layers, ctx.causal, ctx.halt, ctx.trained = layers, causal, halt, trained",
                "ctx.layers, ctx.causal, ctx.halt, ctx.trained = layers, True, halt, trained",
            ),
        ),
    ),
]

GOOD = [
    edit(
        "imported-by-name",
        "the function has another name, takes positions, and one position needs no causality",
        (
            "import torch.nn.functional as F\n",
            "import torch.nn.functional as F\nfrom torch.nn.functional import scaled_dot_product_attention as sdpa\n",
        ),
        within(DENSE, (CALL, "sdpa(q, k, v, None, dropout_p, causal and T > 1)")),
    ),
    edit(
        "called-from-aten",
        "the operator itself is called",
        within(DENSE, (CALL, "torch.ops.aten.scaled_dot_product_attention(q, k, v, None, dropout_p, causal)")),
    ),
    edit(
        "rate-without-a-module",
        "the rate is a number",
        (
            '        self.dropout = nn.Dropout(dropout)\n\n    def forward(self, x: Tensor, causal: bool = True) -> tuple[Tensor, Tensor | None]:\n        """Attend',
            '        self.dropout_p = dropout\n\n    def forward(self, x: Tensor, causal: bool = True) -> tuple[Tensor, Tensor | None]:\n        """Attend',
        ),
        within(DENSE, (RATE, "dropout_p = self.dropout_p if self.training else 0.0")),
        within(CHUNKED, (RATE, "dropout_p = self.dropout_p * self.training")),
    ),
    Mutant(
        "one-product-for-three",
        "the three projections are one product, and what reads on from kept keys and values makes them itself",
        (
            (
                MODEL,
                PROJECTED,
                "        parts = (self.q_proj, self.k_proj, self.v_proj)\n"
                "        weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])\n"
                "        q, k, v = F.linear(x, weight, bias).unflatten(-1, (3, self.nhead, -1)).permute(2, 0, 3, 1, 4)\n",
            ),
            (
                DECODING,
                "            kept[projection] = F.pad(output, (0, 0, 0, self.model.max_seq_len - len(context)))\n",
                "            for part in (projection.k_proj, projection.v_proj):\n"
                "                kept[part] = F.pad(part(_inputs[0]), (0, 0, 0, self.model.max_seq_len - len(context)))\n",
            ),
            (
                DECODING,
                "        hooks = [projection.register_forward_hook(keep) for pair in pairs for projection in pair]\n",
                "        hooks = [layer.attention.register_forward_hook(keep) for layer in self.model.layers]\n",
            ),
        ),
    ),
    edit(
        "explicit-windows",
        "windows keep their explicit softmax, the plain path does not",
        (
            CHUNKED,
            CHUNKED[: CHUNKED.index(LOGGING)]
            + "        scores = (q @ k / math.sqrt(D)).masked_fill(hidden, float('-inf'))\n"
            + "        weights = torch.softmax(scores, dim=-1)\n"
            + "        out = self.dropout(weights) @ v.transpose(-2, -1)\n"
            + CHUNKED[CHUNKED.index("        out = out.unflatten(") :],
        ),
    ),
    chunked(
        "added-mask",
        "the mask is added to the scores",
        (MASK, "attn_mask=torch.zeros_like(hidden, dtype=q.dtype).masked_fill(hidden, float('-inf'))"),
    ),
    edit(
        "window-by-window",
        "each window is a slice of real keys, and a chunk without overlap asks for is_causal",
        (
            CHUNKED,
            CHUNKED[: CHUNKED.index("\n") + 1]
            + """        T, chunk = q.shape[2], self.chunk_size
        dropout_p = self.dropout.p if self.training else 0.0
        canvas = q.new_zeros(*q.shape[:2], T, T) if self.full_attn_logging else None
        outs = []
        for s in range(0, T, chunk):
            start, end = max(s - self.overlap, 0), min(s + chunk, T)
            window = q[:, :, s:end], k[:, :, start:end], v[:, :, start:end]
            seen = None
            if causal and start < s:
                seen = ~get_tri_mask(end - start, q.device)[s - start :]
            is_causal = causal and start == s
            outs.append(F.scaled_dot_product_attention(*window, attn_mask=seen, dropout_p=dropout_p, is_causal=is_causal))
            if canvas is not None:
                scores = (window[0] @ window[1].transpose(-2, -1)).detach() / math.sqrt(q.shape[-1])
                if causal:
                    scores = scores.masked_fill(get_tri_mask(end - start, q.device)[s - start :], float("-inf"))
                canvas[:, :, s:end, start:end] = torch.softmax(scores, dim=-1)
        return torch.cat(outs, 2), canvas

""",
        ),
    ),
]
