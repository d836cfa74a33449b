"""Wrong and right ways to stitch windows of attention."""

from pathlib import Path

from mutant import Mutant

MODEL = "bit_transformer/model.py"
DECODING = "bit_transformer/decoding.py"
SOURCE = (Path(__file__).parents[2] / "reference" / MODEL).read_text(encoding="utf-8")

CHUNKED = SOURCE[SOURCE.index("    def _chunked(") : SOURCE.index("    def _stitch(")]
STITCH = SOURCE[SOURCE.index("    def _stitch(") : SOURCE.index("class TransformerLayer(")]
HEADER = CHUNKED[: CHUNKED.index("\n") + 1]
SIZES = "        B, H, T, D = q.shape\n        chunk, overlap = self.chunk_size, self.overlap\n"
START = "start = max(s - self.overlap, 0)"
END = "end = min(s + self.chunk_size, T)"
ORIGIN = "origin = max(self.overlap - s, 0)"
CANVAS = "canvas[:, :, s:end, columns]"
ROWS = "weights[:, :, n, : end - s, "
COLUMNS = "origin : origin + end - start]"
CUT = "hidden = future[overlap:]"
OUTSIDE = "(positions < 0) | (positions >= T)"
PAD = "hidden = hidden | window_padding"
CHOOSE = "self._dense if self.chunk_size is None else"
VISIBLE = "attn_mask=~hidden"
LOGGED = "weights.detach().unflatten(0, (B, H))"
FILL = 'scores = scores.masked_fill(hidden, float("-inf"))'
VALUES = "F.pad(v, (0, 0, overlap, tail))"
MAPS = "collect_telemetry(logits, x, attn_maps, self.config)"
ASK = "        if causal:\n            future = get_tri_mask(width, q.device)\n"
ATTEND = CHUNKED[CHUNKED.index("        out = F.scaled_dot") : CHUNKED.index("        out = out.unflatten")]
EXPLICIT = """        weights = torch.softmax((q @ k / math.sqrt(D)).masked_fill(hidden, float("-inf")), dim=-1)
        out = self.dropout(weights) @ v.transpose(-2, -1)
"""
JOINED = "        out = out.unflatten(0, (B, H))"


def edit(name: str, wrong: str, *edits: tuple[str, str]) -> Mutant:
    """A tree whose edits are all in model.py."""
    return Mutant(name, wrong, tuple((MODEL, old, new) for old, new in edits))


UNMASKED = (PAD, "hidden = hidden if T else hidden | window_padding")

MUTANTS = [
    edit("plain-slice", "the padding of a window is copied where its first keys belong", (COLUMNS, ": end - start]")),
    edit("start-unclamped", "columns left of 0 wrap round to the end of the map", (START, "start = s - self.overlap")),
    edit("end-unclamped", "the last window writes past the end", (END, "end = s + self.chunk_size")),
    edit("offset-for-every-window", "later windows lose their overlap, too", (ORIGIN, "origin = self.overlap")),
    edit(
        "overlap-left-out",
        "the map shows each window's own chunk only",
        (START, "start = s"),
        (ORIGIN, "origin = self.overlap"),
    ),
    edit("padding-unmasked", "the first chunk's softmax leaks to the padding", UNMASKED),
    edit("left-padding-only", "without causality the last window leaks to the right", (OUTSIDE, "positions < 0")),
    edit("right-padding-only", "the first windows leak to the left", (OUTSIDE, "positions >= T")),
    edit(
        "padding-masked-with-a-number",
        "padding gets a low score, which is still a weight",
        (
            PAD,
            "padding = window_padding(T, chunk, overlap, q.device)\n"
            "        hidden = hidden if T else hidden | window_padding",
        ),
        (VISIBLE, "attn_mask=(padding * q.new_tensor(-5.0)).masked_fill(hidden, float('-inf'))"),
        (FILL, FILL.replace("scores.", "(scores - 5 * padding).")),
    ),
    edit(
        "overlaps-added-up",
        "the rows of an overlap also get the next window's weights",
        (CANVAS, f"canvas[:, :, start:s, columns] += {ROWS.replace(': end - s', ':1')}{COLUMNS}\n            {CANVAS}"),
    ),
    edit(
        "rows-from-the-top", "every window is written to the first rows", (CANVAS, "canvas[:, :, : end - s, columns]")
    ),
    edit(
        "first-row-dropped",
        "the first query of each chunk has an empty row",
        (CANVAS, "canvas[:, :, s + 1 : end, columns]"),
        (ROWS, ROWS.replace(": end - s", "1 : end - s")),
    ),
    edit(
        "chunk-sees-its-future", "nothing of the own chunk is hidden", (CUT, f"{CUT} & (torch.arange(width) < overlap)")
    ),
    edit(
        "next-position-visible",
        "each query sees one position of the future",
        (CUT, "hidden = get_tri_mask(width + 1, q.device)[overlap + 1 :, :-1]"),
    ),
    edit(
        "overlap-one-short",
        "the leftmost key of each window is hidden",
        (PAD, "hidden = hidden | (torch.arange(width) < min(overlap, 1)) | window_padding"),
    ),
    edit(
        "overlap-at-most-a-chunk",
        "an overlap that is longer than a chunk is cut",
        (PAD, "hidden = hidden | (torch.arange(width) < overlap - chunk) | window_padding"),
    ),
    edit(
        "dense-when-not-divisible",
        "lengths that the chunk does not divide get dense attention",
        (CHOOSE, "self._dense if self.chunk_size is None or x.shape[1] % self.chunk_size else"),
    ),
    edit(
        "windows-of-a-dense-score",
        "the result is right, but T x T scores are computed where the chunk does not divide",
        (
            SIZES,
            SIZES + "        if T % chunk:\n"
            "            query, key = torch.arange(T)[:, None], torch.arange(T)\n"
            "            begin = query // chunk * chunk\n"
            "            seen = (key >= begin - overlap) & (key <= (query if causal else begin + chunk - 1))\n"
            "            scores = (q @ k.transpose(-2, -1) / math.sqrt(D)).masked_fill(~seen, float('-inf'))\n"
            "            weights = torch.softmax(scores, dim=-1)\n"
            "            return weights @ v, weights.detach() if self.full_attn_logging else None\n",
        ),
    ),
    edit(
        "map-renormalised-output-leaks",
        "the map is put right afterwards, the output is not",
        UNMASKED,
        (
            LOGGED,
            "((w := weights.detach() * ~window_padding(T, chunk, overlap, q.device))"
            " / w.sum(-1, keepdim=True)).unflatten(0, (B, H))",
        ),
    ),
    edit(
        "output-of-other-keys",
        "the map is right, but the values are windows that begin at 0",
        (VALUES, "F.pad(v, (0, 0, 0, overlap + tail))"),
    ),
    edit(
        "padded-queries-see-nothing",
        "a softmax over nothing: the rows are cut off, but their NaN is in every gradient",
        (PAD, "hidden = hidden | (torch.arange(q.shape[1] * chunk).view(-1, chunk, 1) >= T) | window_padding"),
        (ATTEND, EXPLICIT),
    ),
    edit(
        "logging-rounds",
        "outputs pass through float32 where maps are logged",
        (JOINED, "        if self.full_attn_logging:\n            out = out.float().to(q.dtype)\n" + JOINED),
    ),
    edit(
        "first-row-of-the-batch",
        "every row has the map of the first",
        (LOGGED, f"(maps := {LOGGED})[:1].expand_as(maps)"),
    ),
    edit(
        "heads-averaged",
        "every head has the map of the mean head",
        (LOGGED, f"(maps := {LOGGED}).mean(1, keepdim=True).expand_as(maps)"),
    ),
    edit(
        "overlap-detached",
        "no gradient reaches the keys of an overlap from the next chunk",
        (ASK, "        k = torch.cat([k[..., :overlap].detach(), k[..., overlap:]], -1)\n" + ASK),
    ),
    edit(
        "one-window-too-many",
        "where the chunk divides T, a last window holds nothing: its NaN is in the gradient of the last key",
        (
            CHUNKED,
            HEADER
            + """        B, H, T, D = q.shape
        chunk, overlap = self.chunk_size, self.overlap
        N = T // chunk + 1
        rows = torch.arange(N * chunk).view(N, chunk, 1)
        keys = torch.arange(N)[:, None, None] * chunk - overlap + torch.arange(overlap + chunk)
        unseen = (keys < 0) | (keys >= T) | (causal & (keys > rows))
        k, v = (each[:, :, keys[:, 0].clamp(0, T - 1)] for each in (k, v))
        q = F.pad(q, (0, 0, 0, N * chunk - T)).unflatten(2, (N, chunk))
        scores = q @ k.transpose(-2, -1) / math.sqrt(D)
        weights = torch.softmax(scores.masked_fill(unseen, float("-inf")), dim=-1)
        out = (self.dropout(weights) @ v).flatten(2, 3)[:, :, :T]
        return out, self._stitch(weights.detach(), T) if self.full_attn_logging else None

""",
        ),
    ),
    edit("first-map-only", "the telemetry has the first layer's map only", (MAPS, MAPS.replace("maps,", "maps[:1],"))),
    edit(
        "first-map-for-all",
        "the telemetry has the first layer's map for each layer",
        (MAPS, MAPS.replace("maps,", "maps[:1] * len(attn_maps),")),
    ),
    edit(
        "later-maps-rolled",
        "the maps of later layers are shifted by one key",
        (MAPS, MAPS.replace("maps,", "maps[:1] + [m.roll(1, -1) for m in attn_maps[1:]],")),
    ),
    edit(
        "unmasked-fast-path",
        "evaluation without logging sees the future",
        (ASK, ASK.replace("if causal:", "if causal and (self.training or self.full_attn_logging):")),
    ),
    edit(
        "map-in-float64",
        "weights of another dtype cannot be written to the map",
        ("weights.new_zeros(B, H, T, T)", "weights.new_zeros(B, H, T, T, dtype=torch.float64)"),
    ),
    edit(
        "fill-of-float64",
        "what hides is out of float32's range",
        (FILL, FILL.replace('float("-inf")', "torch.finfo(torch.float64).min")),
    ),
    edit(
        "map-after-dropout",
        "the map has holes, and its rows do not sum to 1",
        (LOGGED, LOGGED.replace("weights.detach()", "self.dropout(weights.detach())")),
    ),
    edit(
        "causal-by-flag",
        "is_causal instead of the mask: queries are aligned with a window's first keys, and padding is seen",
        (VISIBLE, "is_causal=causal"),
    ),
    edit(
        "padding-hidden-by-ten-in-bfloat16",
        "in bfloat16 padding gets a low score, which is still a weight",
        (
            VISIBLE,
            "attn_mask=torch.zeros_like(hidden, dtype=q.dtype).masked_fill(hidden, -10.0 if q.dtype == torch.bfloat16 else -math.inf)",
        ),
    ),
    edit(
        "leaks-in-wide-heads",
        "where heads are wide, padding is seen",
        (PAD, "hidden = hidden if D >= 8 else hidden | window_padding"),
    ),
    edit(
        "leaks-in-evaluation",
        "what runs without a graph sees the padding",
        (
            PAD,
            "hidden = hidden if not torch.is_grad_enabled() and not self.full_attn_logging else hidden | window_padding",
        ),
    ),
    edit(
        "padding-of-the-cpu",
        "where padding is, is said on the CPU",
        ("window_padding(T, chunk, overlap, hidden.device)", "window_padding(T, chunk, overlap, 'cpu')"),
    ),
    edit(
        "canvas-of-the-cpu",
        "maps are on the CPU, wherever the model is",
        ("weights.new_zeros(B, H, T, T)", "torch.zeros(B, H, T, T, dtype=weights.dtype)"),
    ),
    edit(
        "canvas-of-the-default-dtype",
        "maps have the dtype that the caller makes tensors of",
        ("weights.new_zeros(B, H, T, T)", "torch.zeros(B, H, T, T, device=weights.device)"),
    ),
    edit(
        "square-in-evaluation",
        "an evaluation makes a map, and drops it",
        (
            "self._stitch(weights.detach().unflatten(0, (B, H)), T) if self.full_attn_logging else None",
            "self._stitch(weights.detach().unflatten(0, (B, H)), T) if self.full_attn_logging else q.new_zeros(T * (not self.training), T)[:0].sum() * 0 or None",
        ),
    ),
    edit(
        "map-with-its-graph",
        "the canvas of windows keeps their graph",
        (
            "            with torch.no_grad():\n                scores = q @ k / math.sqrt(D)  # [B * H",
            "            with torch.enable_grad():\n                scores = q @ k / math.sqrt(D)  # [B * H",
        ),
        (LOGGED, "weights.unflatten(0, (B, H))"),
    ),
    edit(
        "one-row-unpadded",
        "in a batch of one, a window of one position sees padding",
        (PAD, "hidden = hidden if B == 1 and T % chunk == 1 else hidden | window_padding"),
    ),
    Mutant(
        "decoding-slides",
        "what is decoded sees the keys before itself, not those of its chunk and its overlap",
        (
            (
                DECODING,
                "place // attention.chunk_size * attention.chunk_size - attention.overlap, 0)",
                "place - attention.chunk_size + 1 - attention.overlap, 0)",
            ),
        ),
    ),
]

GOOD = [
    edit(
        "truncated-windows",
        "each window is a slice of real keys, so nothing is padded",
        (
            CHUNKED,
            HEADER
            + """        T, chunk = q.shape[2], self.chunk_size
        canvas = q.new_zeros(*q.shape[:2], T, T) if self.full_attn_logging else None
        outs = []
        for s in range(0, T, chunk):
            start, end = max(s - self.overlap, 0), min(s + chunk, T)
            scores = q[:, :, s:end] @ k[:, :, start:end].transpose(-2, -1) / math.sqrt(q.shape[-1])
            if causal:
                scores = scores.masked_fill(get_tri_mask(end - start, q.device)[s - start :], float("-inf"))
            weights = torch.softmax(scores, dim=-1)
            outs.append(self.dropout(weights) @ v[:, :, start:end])
            if canvas is not None:
                canvas[:, :, s:end, start:end] = weights.detach()[..., : end - start]
        return torch.cat(outs, 2), canvas

""",
        ),
    ),
    edit(
        "gathered-windows",
        "keys are gathered by position, and the map is scattered the same way",
        (
            CHUNKED,
            HEADER
            + """        B, H, T, D = q.shape
        chunk = self.chunk_size
        query = torch.arange(T, device=q.device)[:, None]
        width = chunk + self.overlap
        key = query // chunk * chunk - self.overlap + torch.arange(width, device=q.device)  # [T, W]
        unseen = (key < 0) | (key >= T) | (causal & (key > query))
        at = key.clamp(0, T - 1)
        scores = torch.einsum("bhtd,bhtwd->bhtw", q, k[:, :, at]) / math.sqrt(D)
        weights = torch.softmax(scores.masked_fill(unseen, float("-inf")), dim=-1)
        out = torch.einsum("bhtw,bhtwd->bhtd", self.dropout(weights), v[:, :, at])
        if not self.full_attn_logging:
            return out, None
        canvas = weights.new_zeros(B, H, T, T)
        return out, canvas.scatter_add(-1, at.expand(B, H, T, width), weights.detach())

""",
        ),
    ),
    edit(
        "cropped-canvas",
        "windows are laid on a canvas with margins, which are cut off in the end",
        (
            STITCH,
            """    def _stitch(self, weights: Tensor, T: int) -> Tensor:
        B, H, N, chunk, width = weights.shape
        canvas = weights.new_zeros(B, H, N * chunk, self.overlap + N * chunk)
        for n in range(N):
            canvas[:, :, n * chunk : (n + 1) * chunk, n * chunk : n * chunk + width] = weights[:, :, n]
        return canvas[:, :, :T, self.overlap : self.overlap + T]


""",
        ),
    ),
    edit("maps-in-a-tuple", "the telemetry has a tuple of maps", (MAPS, MAPS.replace("attn_maps", "tuple(attn_maps)"))),
    edit(
        "dense-within-a-chunk",
        "one chunk is dense attention",
        (CHOOSE, "self._dense if self.chunk_size is None or x.shape[1] <= self.chunk_size else"),
    ),
]
