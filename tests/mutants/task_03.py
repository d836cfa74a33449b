"""Wrong and right ways to train in bfloat16."""

from mutant import Mutant

TRAINING = "bit_transformer/training.py"
REVERSIBLE = "bit_transformer/reversible.py"

MODEL_TRAINS = "    model.train()\n"
EPOCHS = "    for epoch in range(epochs):\n"
LOSSES = "        losses, accuracies = [], []\n"
CONTEXT = "            with autocast(device, amp):\n"
FORWARD = "                logits, targets = predict(model, batch, form, forward_kwargs or {})\n"
LOSS = "                loss = next_bit_loss(at_least_float32(logits), targets)\n"
BACKWARD = "            (loss * shares.weigh(scored_bits(targets[:, 1:]))).backward()\n"
CLOSES = "            if closes:\n                shares.average(model)\n"
CLIP = "                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
STEP = "                optimizer.step()\n"
AFTER = "                global_step += 1\n                scheduler.step()\n                optimizer.zero_grad()\n"
UPDATE = CLOSES + CLIP + STEP + AFTER
RECORD = "        history.append(\n"
HISTORY = "    return history\n"
REFUSAL = "    if amp not in AMP:\n        raise ValueError(f\"amp must be one of {', '.join(AMP)}, got {amp!r}\")\n"
OFF = '    if amp == "off":\n        return nullcontext()\n'
BF16 = "    return torch.amp.autocast(device_type=device.type, dtype=torch.bfloat16)\n"
FLAG = '"--amp", choices=AMP, default="off"'
SCALER = "    scaler = torch.amp.GradScaler(device.type, enabled={})\n"
DIRECT = '    if form == "raw":\n        return model(batch, **forward_kwargs)[0], batch\n'
SHAPED = "    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORED)\n"

CLOSURE = (  # the end of a group is a closure that the optimizer calls
    "            def closure():\n"
    + BACKWARD.replace("            (loss", "                (loss")
    + "                if closes:\n                    shares.average(model)\n    "
    + CLIP
    + "                return loss\n\n"
    "            if not closes:\n                closure()\n"
    "            if closes:\n                optimizer.step(closure)\n"
)


def indented(block: str) -> str:
    """The lines of a block, four columns further to the right."""
    return "".join("    " + line for line in block.splitlines(keepends=True))


def edit(name: str, wrong: str, *edits: tuple[str, str]) -> Mutant:
    """A mutant whose edits are all in training.py."""
    return Mutant(name, wrong, tuple((TRAINING, old, new) for old, new in edits))


MUTANTS = [
    edit(
        "model-in-bfloat16",
        "the weights themselves are bfloat16, and so is the optimizer",
        (MODEL_TRAINS, '    if amp == "bf16":\n        model.bfloat16()\n' + MODEL_TRAINS),
        (OFF, '    if amp in ("off", "bf16"):\n        return nullcontext()\n'),
    ),
    edit(
        "device-type-cuda",
        "on the CPU, autocast of another device does nothing",
        (BF16, BF16.replace("device.type", '"cuda"')),
    ),
    edit(
        "device-type-cpu",
        "on any other device, autocast of the CPU does nothing",
        (BF16, BF16.replace("device.type", '"cpu"')),
    ),
    edit(
        "device-type-of-the-machine",
        "the best device of the machine is asked, not the model's",
        (BF16, BF16.replace("device.type", '"cuda" if torch.cuda.is_available() else "cpu"')),
    ),
    edit(
        "clip-dropped",
        "gradients are not clipped under bfloat16",
        (CLIP, CLIP.replace("torch", 'amp == "off" and torch')),
    ),
    edit("clip-after-the-step", "gradients are clipped when they were used", (CLIP + STEP, STEP + CLIP)),
    edit(
        "clip-twice",
        "gradients are clipped after the backward, and again before the step",
        (BACKWARD, BACKWARD + "            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"),
    ),
    edit(
        "clip-bound-looser",
        "the clip's bound is ten times as wide under bfloat16",
        (CLIP, CLIP.replace("1.0", '10.0 if amp == "bf16" else 1.0')),
    ),
    edit("backward-inside", "the backward runs under autocast", (BACKWARD, indented(BACKWARD))),
    edit(
        "update-inside", "backward, clip and step run under autocast", (BACKWARD + UPDATE, indented(BACKWARD + UPDATE))
    ),
    edit(
        "autocast-around-the-run",
        "one context holds the whole loop: its cache keeps the weights of the first forward",
        (MODEL_TRAINS, MODEL_TRAINS + "    context = autocast(device, amp)\n    context.__enter__()\n"),
        (CONTEXT, "            with nullcontext():\n"),
        (HISTORY, "    context.__exit__(None, None, None)\n" + HISTORY),
    ),
    edit(
        "autocast-never-left",
        "autocast is switched on for the process",
        (CONTEXT, "            autocast(device, amp).__enter__()\n            with nullcontext():\n"),
    ),
    edit(
        "autocast-type-left-behind",
        "the process's own autocast type is changed",
        (BF16, "    torch.set_autocast_cache_enabled(False)\n" + BF16),
    ),
    edit(
        "step-inside",
        "the step runs under an autocast of its own",
        (STEP, "                with autocast(device, amp):\n                    optimizer.step()\n"),
    ),
    edit(
        "loss-in-bfloat16",
        "the loss is rounded to bfloat16",
        (LOSS, "                loss = next_bit_loss(at_least_float32(logits), targets).to(logits.dtype)\n"),
    ),
    edit(
        "loss-of-bfloat16-logits-outside",
        "the loss is computed outside, in the type of the logits",
        (LOSS, "            loss = next_bit_loss(logits, targets)\n"),
    ),
    edit(
        "loss-cast-afterwards",
        "the loss is computed in bfloat16, and only its result is float32",
        (LOSS, "            loss = next_bit_loss(logits, targets).float()\n"),
    ),
    edit(
        "log-softmax-in-bfloat16",
        "the logarithm of the probabilities is rounded to bfloat16 before it is averaged in float32",
        (
            SHAPED,
            "    scores = F.log_softmax(logits[:, :-1].flatten(0, 1), dim=-1).to(torch.bfloat16).float()\n"
            "    return F.nll_loss(scores, targets[:, 1:].flatten(), ignore_index=IGNORED)\n",
        ),
    ),
    edit("float16", "the type is float16", (BF16, BF16.replace("bfloat16", "float16"))),
    edit(
        "autocast-of-float32",
        "the context is entered, and asks for float32",
        (BF16, BF16.replace("bfloat16", "float32")),
    ),
    edit(
        "evaluation-in-float32",
        "a forward in evaluation at the end of each epoch is not under autocast",
        (RECORD, "        with torch.no_grad():\n            model.eval()(batch)\n        model.train()\n" + RECORD),
    ),
    edit(
        "first-epoch-only",
        "only the first epoch is under autocast",
        (CONTEXT, CONTEXT.replace("amp", 'amp if epoch == 0 else "off"')),
    ),
    edit(
        "whole-micro-batches-only",
        "the shorter last micro-batch runs in float32",
        (CONTEXT, CONTEXT.replace("amp", 'amp if len(batch) == batch_size else "off"')),
    ),
    edit(
        "raw-form-only",
        "encoded micro-batches run in float32",
        (CONTEXT, CONTEXT.replace("amp", 'amp if form == "raw" else "off"')),
    ),
    edit(
        "direct-form-forgotten",
        "run-length streams run in float32",
        (CONTEXT, CONTEXT.replace("amp", 'amp if form != "direct" else "off"')),
    ),
    edit(
        "loss-only",
        "the forward is outside, and only the loss is under autocast",
        (CONTEXT + FORWARD, FORWARD.removeprefix("    ") + CONTEXT),
    ),
    edit(
        "grad-scaler",
        "a gradient scaler scales the loss, and its gradients are clipped as they are",
        (MODEL_TRAINS, SCALER.format('amp == "bf16"') + MODEL_TRAINS),
        (BACKWARD, BACKWARD.replace("(loss", "scaler.scale(loss", 1)),
        (STEP, "                scaler.step(optimizer)\n                scaler.update()\n"),
    ),
    edit(
        "grad-scaler-disabled",
        "a gradient scaler is made that does nothing",
        (MODEL_TRAINS, SCALER.format(False) + MODEL_TRAINS),
    ),
    edit(
        "default-bf16",
        "the loop trains in bfloat16 without being asked",
        ('    amp: str = "off",\n', '    amp: str = "bf16",\n'),
    ),
    edit(
        "flag-defaults-to-bf16",
        "the command trains in bfloat16 without being asked",
        (FLAG, FLAG.replace('"off"', '"bf16"')),
    ),
    edit("flag-not-forwarded", "--amp is read and forgotten", ("        amp=args.amp,\n", "")),
    edit(
        "flag-takes-anything",
        "the command takes any --amp and trains without it",
        (FLAG, FLAG.replace("choices=AMP, ", "")),
        (REFUSAL, "    amp = amp if amp in AMP else 'off'\n"),
    ),
    edit(
        "unknown-taken-for-off",
        "an unknown amp is quietly off",
        (REFUSAL, ""),
        (OFF, OFF.replace('== "off"', '!= "bf16"')),
    ),
    edit("unknown-taken-for-bf16", "an unknown amp is quietly bfloat16", (REFUSAL, "")),
    edit(
        "unknown-not-named",
        "an unknown amp is an error that does not say of what",
        (REFUSAL, "    {'off': 0, 'bf16': 1}[amp]\n"),
    ),
    edit(
        "off-enters-disabled-autocast",
        "off is autocast(enabled=False), which ends a caller's own",
        (OFF + BF16, BF16.replace(")\n", ', enabled=amp == "bf16")\n')),
    ),
    edit(
        "off-in-bfloat16-logits",
        "off rounds the logits too",
        (LOSS, LOSS.replace("at_least_float32(logits)", "logits.bfloat16().float()")),
    ),
    edit("option-ignored", "the loop takes amp and does nothing with it", (BF16, "    return nullcontext()\n")),
    edit("nothing-trained", "no epoch is run", (EPOCHS, "    for epoch in range(0):\n")),
    edit(
        "stale-weights",
        "the model that runs is a copy in bfloat16, made once",
        (MODEL_TRAINS, MODEL_TRAINS + "    context = autocast(device, amp)\n"),
        (CONTEXT, "            with context:\n                torch.autocast_increment_nesting()\n"),
    ),
    edit(
        "autocast-where-a-group-closes",
        "3 x 4: all but the last micro-batch of a group run in float32",
        (CONTEXT, CONTEXT.replace("amp", 'amp if closes else "off"')),
    ),
    edit(
        "backward-inside-until-a-group-closes",
        "3 x 4: the backwards of a group but for its last run under autocast",
        (
            BACKWARD,
            "                if not closes:\n    "
            + indented(BACKWARD)
            + "            if closes:\n"
            + indented(BACKWARD),
        ),
    ),
    edit(
        "clip-each-micro-batch",
        "3 x 4: gradients are clipped after each backward of a group",
        (CLOSES + CLIP, CLOSES + CLIP.removeprefix("    ") + "            if closes:\n"),
    ),
    edit(
        "short-group-not-clipped",
        "3 x 4: the shorter group at the end of an epoch is stepped without a clip, under bfloat16",
        (CLIP, CLIP.replace("torch", 'amp == "bf16" and shares.total < shares.first * accum_steps or torch')),
    ),
    edit(
        "second-mean",
        "3 x 4: under bfloat16 the loss is divided by accum_steps, and the group by its size once more",
        (LOSS, LOSS + '                loss = loss / (accum_steps if amp == "bf16" else 1)\n'),
    ),
    edit(
        "loss-of-padded-streams-in-bfloat16",
        "3 x direct: the loss of streams is computed where autocast is off, of bfloat16 logits",
        (
            LOSS,
            "                with torch.autocast(device.type, enabled=form != 'direct') if amp == 'bf16' else nullcontext():\n"
            "    " + LOSS.replace("at_least_float32(logits)", "logits"),
        ),
    ),
    edit(
        "schedule-goes-on",
        "3 x 4 x 1: an update is skipped where the gradient is no number, and the schedule goes on",
        (CLIP + STEP, CLIP.replace("torch.nn", "norm = torch.nn") + "                if norm.isfinite():\n    " + STEP),
    ),
    edit(
        "gradient-of-a-skipped-update-stays",
        "3 x 4 x 1: an update is skipped where the gradient is no number, and so are all after it, to which it is added",
        (
            CLIP + STEP + AFTER,
            CLIP.replace("torch.nn", "norm = torch.nn")
            + "                if not norm.isfinite():\n                    continue\n"
            + STEP
            + AFTER,
        ),
    ),
    edit(
        "matmul-precision-left-behind",
        "the precision of the process's matrix products is lowered",
        (MODEL_TRAINS, '    if amp == "bf16":\n        torch.set_float32_matmul_precision("medium")\n' + MODEL_TRAINS),
    ),
    edit(
        "draws-under-bfloat16",
        "bfloat16 seeds the process's generator",
        (MODEL_TRAINS, '    if amp == "bf16":\n        torch.manual_seed(0)\n' + MODEL_TRAINS),
    ),
    edit(
        "warnings-silenced",
        "what autocast says is no longer shown, for the whole process",
        (MODEL_TRAINS, '    if amp == "bf16":\n        warnings.simplefilter("ignore")\n' + MODEL_TRAINS),
    ),
    edit(
        "device-of-the-rows",
        "the context is of the device of the rows, before they are moved",
        (
            "            batch = batch.to(device)\n",
            "            kind = batch.device\n            batch = batch.to(device)\n",
        ),
        (CONTEXT, CONTEXT.replace("device", "kind")),
    ),
    edit(
        "closure-inside",
        "the optimizer is given a closure, whose backward is under autocast",
        (
            BACKWARD + CLOSES + CLIP + STEP,
            CLOSURE.replace(
                "                (loss", "                with autocast(device, amp):\n                    (loss"
            ),
        ),
    ),
    Mutant(
        "recompute-in-float32",
        "what a reversible stack computes again, it computes without autocast",
        ((REVERSIBLE, '"enabled": torch.is_autocast_enabled(device.type),', '"enabled": False,'),),
    ),
    Mutant(
        "recompute-from-the-cache",
        "the recompute finds weights that the forward cast outside any graph",
        (
            (REVERSIBLE, '        "cache_enabled": False,\n', ""),
            (TRAINING, BACKWARD, indented(BACKWARD)),
        ),
    ),
]

GOOD = [
    edit(
        "context-in-the-loop",
        "torch.autocast in the loop, on the micro-batch's device, with logits cast by hand",
        (
            CONTEXT,
            '            if amp not in ("bf16", "off"):\n'
            '                raise ValueError(f"unknown amp {amp}")\n'
            '            with torch.autocast(batch.device.type, torch.bfloat16) if amp == "bf16" else nullcontext():\n',
        ),
        (LOSS, LOSS.replace("at_least_float32(logits)", "logits.float()")),
    ),
    edit(
        "loss-outside",
        "the loss is computed after the context, from logits that were cast to float32",
        (
            LOSS,
            LOSS.removeprefix("    ").replace(
                "at_least_float32(logits)", 'logits.float() if amp == "bf16" else logits'
            ),
        ),
    ),
    edit(
        "loss-by-hand",
        "autocast itself casts what the loss needs: log-probabilities in float32, gathered",
        (LOSS, LOSS.replace("at_least_float32(logits)", "logits")),
        (
            SHAPED,
            "    wide = torch.promote_types(logits.dtype, torch.float32)\n"
            "    scores = F.log_softmax(logits[:, :-1], dim=-1, dtype=wide)\n"
            "    known = targets[:, 1:] != IGNORED\n"
            "    return -scores.gather(-1, targets[:, 1:].clamp(min=0)[..., None])[..., 0][known].mean()\n",
        ),
    ),
    edit(
        "decorated-step",
        "forward and loss are a function that autocast decorates",
        (
            CONTEXT + FORWARD + LOSS,
            "            logits, targets, loss = compute(model, batch, form, forward_kwargs or {}, device, amp)\n",
        ),
        (
            "def predict(",
            "def compute(model, batch, form, forward_kwargs, device, amp):\n"
            "    def run():\n"
            "        logits, targets = predict(model, batch, form, forward_kwargs)\n"
            "        return logits, targets, next_bit_loss(at_least_float32(logits), targets)\n"
            "    context = autocast(device, amp)\n"
            '    return run() if amp == "off" else context(run)()\n\n\n'
            "def predict(",
        ),
    ),
    edit(
        "switched-by-hand",
        "autocast is switched on and off by its setters, and is as it was afterwards",
        (
            CONTEXT + FORWARD + LOSS,
            "            on, dtype = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)\n"
            "            if amp not in AMP:\n"
            '                raise ValueError(f"--amp {amp}: bf16 or off")\n'
            '            if amp == "bf16":\n'
            "                torch.set_autocast_enabled(device.type, True)\n"
            "                torch.set_autocast_dtype(device.type, torch.bfloat16)\n"
            "            try:\n" + FORWARD + LOSS + "            finally:\n"
            "                torch.clear_autocast_cache()\n"
            "                torch.set_autocast_enabled(device.type, on)\n"
            "                torch.set_autocast_dtype(device.type, dtype)\n",
        ),
    ),
    edit(
        "only-where-it-is-available",
        "a device without autocast trains in float32; the cache is off",
        (
            OFF + BF16,
            '    if amp == "off" or not torch.amp.is_autocast_available(device.type):\n        return nullcontext()\n'
            + BF16.replace("bfloat16)", "bfloat16, cache_enabled=False)"),
        ),
    ),
    edit(
        "step-with-a-closure",
        "backward and clip of a group's last micro-batch are a closure that the optimizer calls",
        (BACKWARD + CLOSES + CLIP + STEP, CLOSURE),
    ),
    edit(
        "loss-in-disabled-autocast",
        "the loss is computed where autocast is off, within the context",
        (
            LOSS,
            "                with torch.autocast(device.type, enabled=False) if amp == 'bf16' else nullcontext():\n    "
            + LOSS.replace("at_least_float32(logits)", "logits.float() if amp == 'bf16' else logits"),
        ),
    ),
    edit(
        "skipped-update-stops-all",
        "an update whose gradient is no number is skipped, and so is its step of the schedule",
        (
            CLIP + STEP + AFTER,
            CLIP.replace("torch.nn", "norm = torch.nn")
            + "                if norm.isfinite():\n"
            + indented(STEP + AFTER.removesuffix("                optimizer.zero_grad()\n"))
            + "                optimizer.zero_grad()\n",
        ),
    ),
    edit(
        "skipped-update-is-said",
        "an update whose gradient is no number is skipped with a warning; the schedule goes on as planned",
        (
            CLIP + STEP,
            CLIP.replace("torch.nn", "norm = torch.nn")
            + "                if norm.isfinite():\n    "
            + STEP
            + "                else:\n                    warnings.warn('an update was skipped')\n",
        ),
    ),
    edit(
        "optimizer-made-inline",
        "the loop makes its optimizer and schedule itself",
        (
            "    optimizer, scheduler = configure_optimizer(model, lr=lr, weight_decay=weight_decay, total_steps=total_updates)\n",
            "    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)\n"
            "    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=total_updates)\n",
        ),
    ),
]
