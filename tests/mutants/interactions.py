"""Wrong patches between the patches: each of two tasks looks right alone, and they are wrong together."""

from mutant import Mutant

TRAINING = "bit_transformer/training.py"
MODEL = "bit_transformer/model.py"
REVERSIBLE = "bit_transformer/reversible.py"
TELEMETRY = "bit_transformer/telemetry.py"
SCALE = "bit_transformer/scale.py"
MANAGER = "dashboard/manager.py"

CEILING = "    return epochs * math.ceil((micro_batches + extra_steps) / accum_steps)\n"
TOTAL = "planned_updates(epochs, steps_per_epoch, extra_steps=extra_steps, accum_steps=accum_steps)"
COUNT = "                global_step += 1\n"
EPOCH = "        losses, accuracies = [], []\n"
RAMP = "cosine_ramp(global_step, "
AUTOCAST = "        torch.autocast(**autocast),\n"
FORK = '        torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type),\n'
REPLAY = "        if state is not None:\n"
FEED_AGAIN = "                update = layer.feed(y1)\n"
STOPS = "mean, spent, stops = leaf((y1 + y2) / 2), leaf(kept[0][depth]), kept[1][depth]\n"
HALTING = "    return torch.where(stops, 1 - spent, probability)\n"
DROPOUT = "dropout_p = self.dropout.p if self.training else 0.0\n        out = F.scaled_dot_product_attention(q, k, v,"
DENSE_OUT = "        return out, weights.detach() if self.full_attn_logging else None\n"
ENTROPY = "attention_entropy(attn_maps) if attn_maps else None"
SCORES = 'telemetry[name].mean().item() for name in ("negentropy", "lz_complexity", "symbiosis")'
PADDING = "window_padding(T, chunk, overlap, hidden.device)"

# The task whose judge must refuse it, and the wrong tree.
INTERACTIONS: list[tuple[int, Mutant]] = []


def between(task: int, name: str, wrong: str, *edits: tuple[str, str, str]) -> None:
    """Add a mutant of reference/, to be killed by the judge of a task."""
    INTERACTIONS.append((task, Mutant(name, wrong, edits)))


# 1 x 4, 2 x 4: one total for all
between(
    1,
    "total-of-micro-batches",
    "1 x 4: the total forgets groups",
    (TRAINING, TOTAL, TOTAL.replace(", accum_steps=accum_steps", "")),
)
between(
    1,
    "extra-steps-ungrouped-in-total",
    "1 x 4: the total takes each extra step for an update",
    (TRAINING, CEILING, "    return epochs * (math.ceil(micro_batches / accum_steps) + extra_steps)\n"),
)
between(
    1,
    "groups-of-the-whole-run-in-total",
    "1 x 4: the total lets groups straddle epochs",
    (TRAINING, CEILING, "    return math.ceil(epochs * (micro_batches + extra_steps) / accum_steps)\n"),
)
between(
    4,
    "extra-groups",
    "1 x 4: an extra step is a whole group more",
    (TRAINING, "with_extra_steps(loader, extra_steps)", "with_extra_steps(loader, extra_steps * accum_steps)"),
)
between(
    4,
    "loader-of-whole-groups",
    "1 x 4: the loader's micro-batches are as large as a group, and are split after it",
    (TRAINING, "row_loader(data, batch_size, num_workers)", "row_loader(data, batch_size * accum_steps, num_workers)"),
)
between(
    2,
    "manager-accumulates-in-total",
    "2 x 4: the shared total has another default than the manager's one update a micro-batch",
    (TRAINING, "extra_steps: int = 0, accum_steps: int = 1)", "extra_steps: int = 0, accum_steps: int = 2)"),
)
between(
    2,
    "extra-steps-taken-for-groups",
    "2 x 4: the manager's extra steps arrive as accum_steps",
    (MANAGER, "extra_steps=self.extra_steps)", "accum_steps=max(1, self.extra_steps))"),
)
between(
    2,
    "extra-steps-only-with-accumulation",
    "2 x 4: the shared total counts extra steps where there are groups, as train_loop's own tests have it",
    (TRAINING, CEILING, CEILING.replace("+ extra_steps", "+ extra_steps * (accum_steps > 1)")),
)

# 3 x reversible: the recompute is a forward too
between(
    3, "recompute-without-autocast", "3 x reversible: the backward recomputes in float32", (REVERSIBLE, AUTOCAST, "")
)
between(
    3,
    "recompute-always-in-bfloat16",
    "3 x reversible: the backward recomputes in bfloat16, also with amp off",
    (REVERSIBLE, '"enabled": torch.is_autocast_enabled(device.type)', '"enabled": True'),
)
between(
    3,
    "recompute-in-float16",
    "3 x reversible: the backward recomputes in another type",
    (REVERSIBLE, '"dtype": torch.get_autocast_dtype(device.type)', '"dtype": torch.float16'),
)
between(
    4,
    "halting-summed-in-bfloat16",
    "3 x ACT: the weights of the layers do not make up 1",
    (REVERSIBLE, "wide = torch.is_autocast_enabled(like.device.type)", "wide = False"),
)

# reversible x dropout x checkpoint: the random state
between(
    4,
    "dropout-drawn-anew",
    "reversible x dropout: the recompute drops other weights than the forward",
    (REVERSIBLE, REPLAY, "        if False:\n"),
)
between(
    4,
    "dropout-of-the-other-branch",
    "reversible x dropout: the attention is recomputed with the feed-forward's random state",
    (REVERSIBLE, "ctx.autocast, before_attend):", "ctx.autocast, before_feed):"),
)
between(
    4,
    "random-stream-left-moved",
    "reversible x dropout: the backward sets back the random stream that the next forward draws from",
    (REVERSIBLE, FORK, ""),
)
between(
    4,
    "reversible-and-checkpointed",
    "reversible x checkpoint: a block that recomputes is checkpointed, and computed a third time",
    (REVERSIBLE, FEED_AGAIN, "                update = checkpoint(layer.feed, y1, use_reentrant=False)\n"),
    (REVERSIBLE, "import torch\n", "import torch\nfrom torch.utils.checkpoint import checkpoint\n"),
)

# ACT x reversible: halting
between(
    4,
    "halting-forgotten-in-backward",
    "ACT x reversible: the recompute lets every position run through all layers",
    (REVERSIBLE, STOPS, STOPS.replace("kept[1][depth]", "torch.zeros_like(kept[1][depth])")),
)
between(
    4,
    "halting-weights-short-of-one",
    "ACT x reversible: what remains where a position halts is weighed by its probability once more",
    (REVERSIBLE, HALTING, HALTING.replace("1 - spent", "(1 - spent) * probability")),
)
between(
    4,
    "halting-gradient-cut",
    "ACT x reversible: no gradient passes from a layer's weight to those before it",
    (REVERSIBLE, "(grad_y, grad_spent), (mean, spent)", "(grad_y, 0 * grad_spent), (mean, spent)"),
)

# 6 x 4, 6 x resume: one clock
between(
    6,
    "ramp-by-micro-batches",
    "6 x 4: the ramp is through accum_steps times too early",
    (TRAINING, COUNT, ""),
    (
        TRAINING,
        "            batch = batch.to(device)\n",
        "            batch = batch.to(device)\n            global_step += 1\n",
    ),
    (TRAINING, RAMP, "cosine_ramp(global_step - 1, "),
)
between(6, "ramp-by-rows", "6 x 4: the clock counts rows", (TRAINING, COUNT, COUNT.replace("1", "len(batch)")))
between(
    6,
    "ramp-by-groups-of-an-epoch",
    "6 x 4: each epoch starts the ramp again",
    (TRAINING, EPOCH, EPOCH + "        global_step = 0\n"),
)
between(
    6,
    "ramp-restarts-on-resume",
    "6 x resume: the loop takes global_step and starts at 0",
    (TRAINING, "    history = []\n", "    history, global_step = [], 0\n"),
)
between(
    6,
    "resume-counts-in-micro-batches",
    "6 x resume: global_step is taken for micro-batches",
    (TRAINING, "    history = []\n", "    history, global_step = [], global_step // accum_steps\n"),
)
between(
    6,
    "resume-taken-off-the-warmup",
    "6 x resume: what was trained is counted twice",
    (TRAINING, "total_steps=warmup_steps)", "total_steps=warmup_steps - global_step)"),
)

# 7 x 12: absent telemetry
between(
    12,
    "entropy-not-a-number",
    "7 x 12: without maps the telemetry holds a NaN",
    (TELEMETRY, ENTROPY, ENTROPY.replace("None", 'logits.new_full(logits.shape[:1], float("nan"))')),
)
between(
    12,
    "entropy-zero",
    "7 x 12: without maps the telemetry holds a 0 that nothing tells from a measured one",
    (TELEMETRY, ENTROPY, ENTROPY.replace("None", "torch.zeros(len(logits))")),
)
between(
    12,
    "manager-wants-maps",
    "7 x 12: the manager reads what chunked runs do not log",
    (MANAGER, SCORES, SCORES.replace('"symbiosis")', '"symbiosis", "attention_entropy")')),
)

# 9 x 12: the map apart
between(
    9,
    "output-of-the-map",
    "9 x 12: where maps are logged, the output is theirs, which has no gradient",
    (MODEL, DENSE_OUT, "        out = weights @ v if self.full_attn_logging else out\n" + DENSE_OUT),
)
between(
    9,
    "dropout-off-where-logged",
    "9 x 12: logging turns dropout off",
    (MODEL, DROPOUT, DROPOUT.replace("if self.training", "if self.training and not self.full_attn_logging")),
)
between(
    12,
    "maps-apart-yet-always",
    "9 x 12: SDPA asks for no map, so one is computed for each forward, and dropped where it is not logged",
    (
        MODEL,
        "        if self.full_attn_logging:\n            with torch.no_grad():\n                scores = q @ k / ",
        "        if True:\n            with torch.no_grad():\n                scores = q @ k / ",
    ),
    (
        MODEL,
        "return out, self._stitch(weights.detach().unflatten(0, (B, H)), T) if self.full_attn_logging else None",
        "canvas = self._stitch(weights.detach().unflatten(0, (B, H)), T)\n"
        "        return out, canvas if self.full_attn_logging else None",
    ),
)

# 10 x 11: kinds of masks
between(
    10,
    "padding-among-triangles",
    "10 x 11: the cache of triangles keeps padding too, under its width alone",
    (MODEL, PADDING, f"_tri_masks.setdefault((T, width, q.device), ({PADDING}, 0))[0]"),
)
between(
    11,
    "padding-kept-by-width",
    "10 x 11: windows as wide as others have their padding",
    (MODEL, PADDING, f"_padding.setdefault((T, width, -(-T // chunk)), {PADDING})"),
    (MODEL, "TRI_MASKS_KEPT = ", "_padding = {}\nTRI_MASKS_KEPT = "),
)

# 8 x scale_up, checkpoint: unwrapped names
between(
    8,
    "layers-wrapped",
    "8 x checkpoint: each layer is compiled apart, and its names are wrapped",
    (
        TRAINING,
        "        model.compile()\n        model._compiled_call_impl = EagerFallback(model, model._compiled_call_impl)\n",
        "        model.layers = nn.ModuleList(torch.compile(layer) for layer in model.layers)\n",
    ),
)
between(
    8,
    "compiled-call-inherited",
    "8 x scale_up: the grown model calls what was compiled of the small one",
    (
        SCALE,
        "    rebuilt = type(model)(**{**model.config, **changes})\n",
        "    rebuilt = type(model)(**{**model.config, **changes})\n"
        "    rebuilt._compiled_call_impl = model._compiled_call_impl\n",
    ),
)

# Interactions that no judge kills yet, and what it would have to look at.
OPEN: dict[str, str] = {}
