"""Wrong and right ways to take attention maps only where they are asked for."""

from pathlib import Path

from mutant import Mutant

MODEL = "bit_transformer/model.py"
TELEMETRY = "bit_transformer/telemetry.py"
TRAINING = "bit_transformer/training.py"
SOURCE = (Path(__file__).parents[2] / "reference" / MODEL).read_text(encoding="utf-8")

DENSE = SOURCE[SOURCE.index("    def _dense(") : SOURCE.index("    def _chunked(")]
CHUNKED = SOURCE[SOURCE.index("    def _chunked(") : SOURCE.index("    def _stitch(")]
ATTENTION = SOURCE[SOURCE.index("class SelfAttention(") : SOURCE.index("    def forward(self, x: Tensor, causal")]
RESOLVE = "self.full_attn_logging = chunk_size is None if full_attn_logging is None else full_attn_logging"
CONFIG = '            "full_attn_logging": full_attn_logging,\n'
BUILD = "SelfAttention(d_model, nhead, 0.1, chunk_size, overlap, full_attn_logging)"
TURNED = "        out, attn_map = attend(q, k, v, causal)\n"
STITCHED = "self._stitch(weights.detach().unflatten(0, (B, H)), T) if self.full_attn_logging else None"
CANVAS = "canvas = weights.new_zeros(B, H, T, T)"
LOGGING = "        if self.full_attn_logging:\n"
SIZES = "        B, H, T, D = q.shape\n"
PASSED = "        full_attn_logging=args.full_attn_logging,\n"
FLAG = '"--full_attn_logging", action=argparse.BooleanOptionalAction, default=None'
ENTROPY = '"attention_entropy": attention_entropy(attn_maps) if attn_maps else None,'
REBUILT = "type(model)(**{**model.config, **changes})"
GROWN = "            self.model, self.plan = DOUBLE[dimension](model), plan\n"
COLLECT = "collect_telemetry(logits, x, attn_maps, self.config)"


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


MUTANTS = [
    edit(
        "off-for-everybody",
        "None means no maps, whether there are chunks or not",
        (RESOLVE, "self.full_attn_logging = bool(full_attn_logging)"),
    ),
    edit(
        "on-for-everybody",
        "None means maps, whether there are chunks or not",
        (RESOLVE, "self.full_attn_logging = full_attn_logging is not False"),
    ),
    edit(
        "other-way-round",
        "None means maps where there are chunks",
        (RESOLVE, RESOLVE.replace("is None if", "is not None if")),
    ),
    edit(
        "explicit-true-ignored",
        "chunks never have maps",
        (RESOLVE, "self.full_attn_logging = chunk_size is None and full_attn_logging is not False"),
    ),
    edit(
        "explicit-false-ignored",
        "without chunks there are always maps",
        (RESOLVE, "self.full_attn_logging = chunk_size is None or bool(full_attn_logging)"),
    ),
    edit(
        "off-in-evaluation",
        "an evaluation has no maps",
        (TURNED, TURNED + "        attn_map = attn_map if self.training else None\n"),
    ),
    edit(
        "short-sequences-logged",
        "a sequence within one chunk has maps",
        within(
            CHUNKED,
            (STITCHED, STITCHED.replace("self.full_attn_logging", "logged")),
            (LOGGING, "        logged = self.full_attn_logging or T < chunk\n        if logged:\n"),
        ),
    ),
    edit(
        "default-left-true",
        "None means what it should, but is not the default of the model",
        within(
            SOURCE[SOURCE.index("        act_threshold: float = 0.9,") : SOURCE.index("        self.config = {")],
            ("full_attn_logging: bool | None = None", "full_attn_logging: bool | None = True"),
        ),
    ),
    edit(
        "empty-maps",
        "where there should be none, there are maps of zeros",
        (
            TURNED,
            TURNED + "        attn_map = x.new_zeros(1, 1, x.shape[1], x.shape[1]) if attn_map is None else attn_map\n",
        ),
    ),
    edit(
        "resolved-by-the-model-only",
        "attention alone takes None for False",
        (RESOLVE, "self.full_attn_logging = bool(full_attn_logging)"),
        (
            BUILD,
            BUILD.replace(
                "full_attn_logging)", "chunk_size is None if full_attn_logging is None else full_attn_logging)"
            ),
        ),
    ),
    edit(
        "canvas-thrown-away",
        "the map is made, and not returned",
        within(
            CHUNKED,
            (LOGGING, "        if self is not None:\n"),
            (
                "        return out, " + STITCHED,
                f"        canvas = {STITCHED}".replace(" if self", "\n        return out, canvas if self"),
            ),
        ),
    ),
    edit(
        "square-mask",
        "windows are cut from a mask of T x T",
        within(
            CHUNKED,
            (SIZES, SIZES + "        square = torch.ones(T, T, dtype=torch.bool, device=q.device)\n"),
            ("attn_mask=~hidden", "attn_mask=~hidden & square[0, 0]"),
        ),
    ),
    edit(
        "square-scores",
        "scores of T x T are made in evaluation and training, and left",
        within(CHUNKED, (SIZES, SIZES + "        scores = q @ k.transpose(-2, -1)\n")),
    ),
    edit(
        "copies-for-each-position",
        "nothing is T x T, but T copies of what grows with T are held",
        within(
            CHUNKED,
            (
                SIZES,
                SIZES
                + "        held = []\n        for _ in range(T):\n            held.append(q + 0)\n        q = held[-1]\n",
            ),
        ),
    ),
    edit(
        "config-resolved",
        "the model remembers what None came to",
        (
            CONFIG,
            '            "full_attn_logging": chunk_size is None if full_attn_logging is None else full_attn_logging,\n',
        ),
    ),
    edit(
        "config-forgets",
        "a copy is built as if nothing had been asked for",
        (CONFIG, '            "full_attn_logging": None,\n'),
    ),
    Mutant(
        "growth-resolves",
        "growing asks for what None came to",
        (
            (
                "bit_transformer/scale.py",
                REBUILT,
                'type(model)(**{**model.config, "full_attn_logging": model.layers[0].attention.full_attn_logging, **changes})',
            ),
        ),
    ),
    Mutant(
        "checkpoint-resolves",
        "a checkpoint holds what None came to",
        (
            (
                "bit_transformer/checkpoint.py",
                '        "config": model.config,\n',
                '        "config": {**model.config, "full_attn_logging": model.layers[0].attention.full_attn_logging},\n',
            ),
        ),
    ),
    Mutant(
        "checkpoint-switches-off",
        "a model that comes back has no maps",
        (
            (
                "bit_transformer/checkpoint.py",
                'BitTransformerLM(**content["config"])',
                'BitTransformerLM(**{**content["config"], "full_attn_logging": False})',
            ),
        ),
    ),
    edit(
        "canvas-kept",
        "one canvas is written to by every forward",
        (
            CANVAS,
            "if getattr(self, 'canvas', None) is None or self.canvas.shape != (B, H, T, T):\n            self.canvas = weights.new_zeros(B, H, T, T)\n        canvas = self.canvas",
        ),
    ),
    edit(
        "first-map-for-ever",
        "the first map of a length is that of all later forwards",
        (
            TURNED,
            TURNED
            + "        if attn_map is not None:\n            self.maps = getattr(self, 'maps', {})\n            attn_map = self.maps.setdefault(x.shape[1], attn_map)\n",
        ),
    ),
    edit(
        "map-of-the-forward-before",
        "each forward returns the map that the last one made",
        (
            TURNED,
            TURNED
            + "        if attn_map is not None:\n            attn_map, self.last = getattr(self, 'last', attn_map), attn_map\n",
        ),
    ),
    edit(
        "map-of-another-model",
        "where there should be none, there is the last that any model made",
        (
            TURNED,
            TURNED
            + "        if attn_map is not None:\n            SelfAttention.last = attn_map\n        attn_map = getattr(SelfAttention, 'last', None)\n",
        ),
    ),
    edit(
        "logging-draws",
        "a map takes random numbers from dropout",
        within(CHUNKED, (LOGGING, LOGGING + "            q = q + 0 * torch.rand_like(q)\n")),
    ),
    edit(
        "logging-rounds",
        "outputs pass through float32 where maps are taken",
        within(
            CHUNKED, (LOGGING, LOGGING + "            q, k, v = (each.float().to(each.dtype) for each in (q, k, v))\n")
        ),
    ),
    Mutant(
        "nan-for-absence",
        "an entropy that nobody measured is NaN",
        ((TELEMETRY, ENTROPY, ENTROPY.replace("else None", "else torch.full_like(K, math.nan)")),),
    ),
    Mutant(
        "zero-for-absence",
        "an entropy that nobody measured is 0",
        ((TELEMETRY, ENTROPY, ENTROPY.replace("else None", "else torch.zeros_like(K)")),),
    ),
    Mutant(
        "entropy-of-nothing",
        "no maps have no mean",
        ((TELEMETRY, ENTROPY, ENTROPY.replace(" if attn_maps else None", "")),),
    ),
    Mutant(
        "score-of-the-maps",
        "a score is another one without maps",
        (
            (
                TELEMETRY,
                '"kcs_score": kcs_score(K, C, S, config),',
                '"kcs_score": kcs_score(K, C, S, config) * (1 if attn_maps else 0.5),',
            ),
        ),
    ),
    Mutant(
        "safety-reads-maps",
        "safe inference needs a map",
        (
            (
                "bit_transformer/safety.py",
                '    complexity = telemetry["lz_complexity"].min().item()\n',
                '    complexity = telemetry["lz_complexity"].min().item() + 0 * telemetry["attention_maps"][0].sum().item()\n',
            ),
        ),
    ),
    Mutant(
        "manager-asks-for-maps",
        "the dashboard takes maps of chunks unless told not to",
        (
            (
                "dashboard/manager.py",
                "BitTransformerLM(**config)",
                'BitTransformerLM(**{"full_attn_logging": True, **config})',
            ),
        ),
    ),
    Mutant(
        "flag-left-true",
        "the command line takes maps unless told not to",
        ((TRAINING, FLAG, FLAG.replace("None", "True")),),
    ),
    Mutant(
        "flag-false",
        "the command line takes no maps without chunks, either",
        ((TRAINING, FLAG, FLAG.replace("None", "False")),),
    ),
    Mutant(
        "flag-resolved",
        "the command line resolves None itself, and a checkpoint keeps that",
        (
            (
                TRAINING,
                PASSED,
                "        full_attn_logging=args.chunk_size is None if args.full_attn_logging is None else args.full_attn_logging,\n",
            ),
        ),
    ),
    Mutant("flag-dropped", "the command line's flag reaches no model", ((TRAINING, PASSED, ""),)),
    edit(
        "square-mask-in-evaluation",
        "an evaluation cuts windows from a mask of T x T",
        within(
            CHUNKED,
            (
                SIZES,
                SIZES
                + "        square = torch.ones(1 if self.training else T, T, dtype=torch.bool, device=q.device)\n",
            ),
            ("attn_mask=~hidden", "attn_mask=~hidden & square[0, 0]"),
        ),
    ),
    edit(
        "half-a-square-in-evaluation",
        "an evaluation holds the rows of a triangle, none of which is T x T",
        within(
            CHUNKED,
            (
                SIZES,
                SIZES + "        rows = [] if self.training else [q.new_ones(T - n) for n in range(0, T)]\n",
            ),
            ("attn_mask=~hidden", "attn_mask=~hidden & (len(rows) >= 0)"),
        ),
    ),
    edit(
        "square-in-the-recompute",
        "only the forward that a backward repeats makes scores of T x T",
        within(
            CHUNKED,
            (SIZES, SIZES + "        scores = q @ k.transpose(-2, -1) if torch.is_grad_enabled() else None\n"),
        ),
    ),
    edit(
        "map-with-its-graph",
        "a map of windows keeps scores and their graph alive",
        within(
            CHUNKED,
            ("            with torch.no_grad():\n", "            with torch.enable_grad():\n"),
            ("weights.detach()", "weights"),
        ),
    ),
    edit(
        "logging-drops-in-evaluation",
        "where maps of windows are taken, an evaluation drops weights",
        within(CHUNKED, ("if self.training else 0.0", "if self.training or self.full_attn_logging else 0.0")),
    ),
    edit(
        "no-maps-in-inference-mode",
        "what needs no graph has no maps",
        (TURNED, TURNED + "        attn_map = None if torch.is_inference_mode_enabled() else attn_map\n"),
    ),
    edit(
        "map-of-the-first-row",
        "in evaluation there is a map of one row",
        (
            TURNED,
            TURNED + "        attn_map = attn_map[:1] if attn_map is not None and not self.training else attn_map\n",
        ),
    ),
    Mutant(
        "manager-growth-resolves",
        "the dashboard's growth asks for what None came to",
        (
            (
                "dashboard/manager.py",
                GROWN,
                GROWN
                + "            self.model.config['full_attn_logging'] = self.model.layers[0].attention.full_attn_logging\n",
            ),
        ),
    ),
]

GOOD = [
    edit(
        "window-by-window",
        "each window is a slice of real keys, one after the other",
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
            if causal:
                seen = ~get_tri_mask(end - start, q.device)[s - start :]
            outs.append(F.scaled_dot_product_attention(*window, attn_mask=seen, dropout_p=dropout_p))
            if canvas is not None:
                scores = (window[0] @ window[1].transpose(-2, -1)).detach() / math.sqrt(q.shape[-1])
                if causal:
                    scores = scores.masked_fill(~seen, float("-inf"))
                canvas[:, :, s:end, start:end] = torch.softmax(scores, dim=-1)
        return torch.cat(outs, 2), canvas

""",
        ),
    ),
    edit("telemetry-says-none", "absence is None", (COLLECT, COLLECT.replace("attn_maps", "attn_maps or None"))),
    Mutant(
        "no-key-for-no-entropy",
        "absence is a key that is not there",
        (
            (
                TELEMETRY,
                ENTROPY,
                '**({"attention_maps": attn_maps, "attention_entropy": attention_entropy(attn_maps)} if attn_maps else {}),',
            ),
            (TELEMETRY, '        "attention_maps": attn_maps,\n', ""),
        ),
    ),
    edit(
        "resolved-by-the-model",
        "the model resolves None, attention takes True and False only",
        within(
            ATTENTION,
            (RESOLVE, "self.full_attn_logging = full_attn_logging"),
            ("full_attn_logging: bool | None = None", "full_attn_logging: bool = True"),
        ),
        (
            BUILD,
            BUILD.replace(
                "full_attn_logging)", "chunk_size is None if full_attn_logging is None else full_attn_logging)"
            ),
        ),
    ),
    edit(
        "asked-at-each-forward",
        "attention keeps what was asked for, and resolves it when it runs",
        (RESOLVE, "self.asked = full_attn_logging"),
        (
            "    def _stitch(self,",
            '    @property\n    def full_attn_logging(self) -> bool:\n        """Whether maps are taken."""\n        return self.chunk_size is None if self.asked is None else self.asked\n\n    def _stitch(self,',
        ),
    ),
    Mutant(
        "flag-passed-if-given",
        "the command line leaves the argument out where its flag is",
        (
            (TRAINING, FLAG, FLAG.replace("None", "argparse.SUPPRESS")),
            (
                TRAINING,
                PASSED,
                '        **{name: value for name, value in vars(args).items() if name == "full_attn_logging"},\n',
            ),
        ),
    ),
    edit(
        "nothing-kept-of-nothing",
        "the configuration has no word of what was left out",
        (CONFIG, '            **({} if full_attn_logging is None else {"full_attn_logging": full_attn_logging}),\n'),
    ),
]
