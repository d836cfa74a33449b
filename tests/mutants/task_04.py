"""Wrong and right ways to accumulate gradients."""

from mutant import Mutant

TRAINING = "bit_transformer/training.py"

LOADER = "row_loader(data, batch_size, num_workers)"
TOTAL = "planned_updates(epochs, steps_per_epoch, extra_steps=extra_steps, accum_steps=accum_steps)\n"
BATCHES = "with_extra_steps(loader, extra_steps)"
GROUPS = f"        for batch, share, closes in accumulation_groups({BATCHES}, accum_steps):\n"
FORM = "            form = draw_form(ramped_prob, direct_prob, draws.random)\n"
BACKWARD = "            (loss * share).backward()\n"
CONFIGURED = "lr=lr, weight_decay=weight_decay, total_steps=total_updates"
CLIP = "                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
STEP = "                optimizer.step()\n"
COUNT = "                global_step += 1\n"
SCHEDULER = "                scheduler.step()\n"
ZERO = "                optimizer.zero_grad()\n"
UPDATE = "            if closes:\n" + CLIP + STEP + COUNT + SCHEDULER + ZERO
RECORD = "        history.append(\n"
GROUP = "    while group := list(islice(batches, accum_steps)):\n"
SHARE = "            yield batch, len(batch) / rows, position == len(group)\n"
CEILING = "    return epochs * math.ceil((micro_batches + extra_steps) / accum_steps)\n"
REFUSAL = '        raise ValueError(f"accum_steps must be at least 1, got {accum_steps}")\n'


def outdented(block: str) -> str:
    """The lines of a block, four columns further to the left."""
    return "".join(line.removeprefix("    ") for line in block.splitlines(keepends=True))


def edit(name: str, wrong: str, *edits: tuple[str, str]) -> Mutant:
    """A mutant whose edits are all in training.py."""
    return Mutant(name, wrong, tuple((TRAINING, old, new) for old, new in edits))


MUTANTS = [
    edit("no-division", "each micro-batch adds its whole loss", (BACKWARD, "            loss.backward()\n")),
    edit(
        "divided-twice",
        "the share of the group is divided by accum_steps again, as by a wrapper that averages too",
        (BACKWARD, "            (loss * share / accum_steps).backward()\n"),
    ),
    edit(
        "mean-of-means",
        "a smaller micro-batch counts as much as a whole one",
        (SHARE, SHARE.replace("len(batch) / rows", "1 / len(group)")),
    ),
    edit(
        "every-micro-batch-taken-for-whole",
        "the share assumes 8 rows in each micro-batch",
        (SHARE, SHARE.replace("len(batch) / rows", "len(batch) / (8 * len(group))")),
    ),
    edit(
        "remainder-divided-by-accum-steps",
        "the last, shorter group is divided by accum_steps",
        (SHARE, SHARE.replace("len(batch) / rows", "len(batch) / rows * len(group) / accum_steps")),
    ),
    edit(
        "remainder-not-flushed",
        "the gradient of the last, shorter group stays for the next epoch",
        (SHARE, SHARE.replace("== len(group)", "== accum_steps")),
    ),
    edit(
        "remainder-cleared",
        "the gradient of the last, shorter group is thrown away",
        (SHARE, SHARE.replace("== len(group)", "== accum_steps")),
        (RECORD, "        optimizer.zero_grad()\n" + RECORD),
    ),
    edit(
        "remainder-not-read",
        "the micro-batches of the last, shorter group never enter the model",
        (GROUP, "    while len(group := list(islice(batches, accum_steps))) == accum_steps:\n"),
        ("torch.stack(losses).mean().item()", "torch.stack(losses).mean().item() if losses else 0.0"),
        ("torch.stack(accuracies).mean().item()", "torch.stack(accuracies).mean().item() if losses else 0.0"),
    ),
    edit(
        "flush-without-scheduler",
        "the scheduler does not step with the last, shorter group",
        (SCHEDULER, "                if (len(losses) + 1) % accum_steps == 0:\n    " + SCHEDULER),
    ),
    edit(
        "flush-of-an-empty-group",
        "an epoch ends with a step even if the last group was whole",
        (SHARE, SHARE.replace("== len(group)", "== accum_steps")),
        (RECORD, outdented(outdented(CLIP + STEP + COUNT + SCHEDULER + ZERO)) + RECORD),
    ),
    edit(
        "off-by-one-first-group",
        "an epoch's first group has one micro-batch, as `i % accum_steps == 0` gives from 0",
        (
            "    batches = iter(batches)\n",
            "    batches = iter(batches)\n    yield next(batches), 1.0, True\n",
        ),
    ),
    edit(
        "groups-straddle-epochs",
        "the counter of micro-batches runs on from one epoch to the next",
        ("    history = []\n", "    history, seen = [], 0\n"),
        ("            if closes:\n", "            seen += 1\n            if seen % accum_steps == 0:\n"),
    ),
    edit(
        "zero-grad-every-micro-batch",
        "only the last micro-batch of a group counts",
        (BACKWARD, "            optimizer.zero_grad()\n" + BACKWARD),
    ),
    edit("never-zeroed", "gradients pile up from group to group", (ZERO, "")),
    edit(
        "scheduler-every-micro-batch",
        "the learning rate follows micro-batches",
        (UPDATE, "            if closes:\n" + CLIP + STEP + COUNT + ZERO + outdented(SCHEDULER)),
    ),
    edit(
        "scheduler-before-step",
        "each update uses the learning rate of the next",
        (STEP + COUNT + SCHEDULER, SCHEDULER + STEP + COUNT),
    ),
    edit(
        "clip-every-micro-batch",
        "unfinished gradients are clipped",
        (UPDATE, outdented(CLIP) + "            if closes:\n" + STEP + COUNT + SCHEDULER + ZERO),
    ),
    edit("clip-after-step", "the clip comes too late", (CLIP + STEP, STEP + CLIP)),
    edit("clip-dropped", "nothing is clipped", (CLIP, "")),
    edit(
        "clip-only-with-accumulation",
        "accum_steps=1 is no longer what it was",
        (CLIP, "                if accum_steps > 1:\n    " + CLIP),
    ),
    edit(
        "clip-before-averaging",
        "the sum is clipped, and averaged by hand only then",
        (BACKWARD, "            (loss * len(batch)).backward()\n"),
        (
            CLIP,
            CLIP
            + "                for parameter in model.parameters():\n"
            + "                    parameter.grad *= share / len(batch)\n",
        ),
    ),
    edit(
        "one-backward-a-group",
        "the graphs of the whole group are held until it ends, so no memory is saved",
        (
            BACKWARD,
            "            loss_of_group = loss * share + (loss_of_group if losses and not closed else 0)\n"
            "            closed = closes\n",
        ),
        ("            if closes:\n", "            if closes:\n                loss_of_group.backward()\n"),
    ),
    edit(
        "total-not-adjusted",
        "the schedule is as long as there are micro-batches",
        (TOTAL, f"max(epochs * steps_per_epoch, {TOTAL.strip()})\n"),
    ),
    edit(
        "total-without-remainder",
        "the last, shorter groups are not in the schedule",
        (CEILING, "    return epochs * max(1, (micro_batches + extra_steps) // accum_steps)\n"),
    ),
    edit(
        "total-across-epochs",
        "the ceiling is taken of the whole run, not of each epoch",
        (CEILING, "    return math.ceil(epochs * (micro_batches + extra_steps) / accum_steps)\n"),
    ),
    edit(
        "accum-steps-ignored",
        "the loop takes the parameter and updates at each micro-batch",
        (GROUPS, GROUPS.replace(", accum_steps)", ", 1)")),
    ),
    edit(
        "micro-batches-split",
        "the batch of 8 rows is cut in accum_steps parts, and the effective batch stays what it was",
        (LOADER, LOADER.replace("batch_size", "max(1, batch_size // accum_steps)")),
    ),
    edit(
        "loop-defaults-to-2",
        "the default call accumulates",
        ("    accum_steps: int = 1,\n", "    accum_steps: int = 2,\n"),
    ),
    edit(
        "flag-defaults-to-2",
        "the command accumulates without being asked",
        ('"--accum_steps", type=int, default=1', '"--accum_steps", type=int, default=2'),
    ),
    edit("flag-not-forwarded", "--accum_steps is read and forgotten", ("        accum_steps=args.accum_steps,\n", "")),
    edit(
        "extra-steps-apart",
        "each extra step is an update of its own",
        (
            GROUPS,
            "        groups = list(accumulation_groups(loader, accum_steps))\n"
            "        groups += accumulation_groups(extra_steps * [groups[-1][0]], 1)\n"
            "        for batch, share, closes in groups:\n",
        ),
    ),
    edit(
        "form-drawn-once-a-group",
        "all micro-batches of a group enter the model in one form",
        (FORM, "            if len(losses) % accum_steps == 0:\n    " + FORM),
    ),
    edit(
        "share-of-the-loss-reported",
        "the loss that is reported shrinks with accum_steps",
        ("losses.append(loss.detach())", "losses.append(loss.detach() * share)"),
    ),
    edit(
        "nothing-trained",
        "no epoch is run",
        ("    for epoch in range(epochs):\n", "    for epoch in range(0):\n"),
    ),
    edit(
        "zero-taken-for-one",
        "accum_steps below 1 is quietly something else",
        (REFUSAL, "        accum_steps = 1\n"),
        ("    batches = iter(batches)\n", "    batches, accum_steps = iter(batches), max(1, accum_steps)\n"),
    ),
    edit(
        "zero-divides",
        "accum_steps=0 ends in an error that speaks of something else",
        ("    if accum_steps < 1:\n" + REFUSAL, ""),
    ),
    edit(
        "direct-not-scaled",
        "a run-length stream adds its whole loss",
        (BACKWARD, BACKWARD.replace("share", '(1 if form == "direct" else share)')),
    ),
    edit(
        "compressed-not-scaled",
        "an encoded micro-batch adds its whole loss",
        (BACKWARD, BACKWARD.replace("share", '(1 if form == "compressed" else share)')),
    ),
    edit(
        "forward-kwargs-lost",
        "forward_kwargs reach the model only without accumulation",
        ("form, forward_kwargs or {})", "form, (forward_kwargs if accum_steps == 1 else None) or {})"),
    ),
    edit("clip-bound-grows", "the clip's bound grows with the group", (CLIP, CLIP.replace("1.0", "1.0 * accum_steps"))),
    edit(
        "clip-part-of-the-model",
        "only the gradients of the layers are clipped",
        (CLIP, CLIP.replace("model.parameters", "model.layers.parameters")),
    ),
    edit(
        "rate-scaled",
        "the peak rate grows with accum_steps",
        (CONFIGURED, CONFIGURED.replace("lr=lr", "lr=lr * accum_steps")),
    ),
    edit(
        "decay-scaled",
        "the weight decay grows with accum_steps",
        (CONFIGURED, CONFIGURED.replace("=weight_decay", "=weight_decay * accum_steps")),
    ),
    edit(
        "history-of-scaled-losses",
        "the losses reported are those scaled, times accum_steps: off in groups that are short or uneven",
        ("losses.append(loss.detach())", "losses.append(loss.detach() * share * accum_steps)"),
    ),
    edit(
        "accuracy-of-closing-only",
        "only the last micro-batch of each group counts in the accuracy",
        ("            accuracies.append(", "            if closes:\n                accuracies.append("),
    ),
    edit(
        "total-rounded",
        "the updates of an epoch are rounded to the nearest, half up",
        (CEILING, "    return epochs * max(1, math.floor((micro_batches + extra_steps) / accum_steps + 0.5))\n"),
    ),
]

GOOD = [
    edit(
        "counter-of-micro-batches",
        "a counter and a comparison with the last micro-batch, in one loop",
        (
            GROUPS,
            "        batches = list(with_extra_steps(loader, extra_steps))\n"
            "        for i, batch in enumerate(batches):\n"
            "            start = i - i % accum_steps\n"
            "            group_rows = sum(map(len, batches[start : start + accum_steps]))\n",
        ),
        (BACKWARD, "            (loss * len(batch) / group_rows).backward()\n"),
        ("            if closes:\n", "            if (i + 1) % accum_steps == 0 or i + 1 == len(batches):\n"),
    ),
    edit(
        "flush-after-the-loop",
        "whole groups are closed in the loop, and the last, shorter one after it",
        (SHARE, SHARE.replace("== len(group)", "== accum_steps")),
        (RECORD, "        if not closes:\n" + outdented(CLIP + STEP + COUNT + SCHEDULER + ZERO) + RECORD),
    ),
    edit(
        "rows-in-order",
        "rows come in slices of the data, in the same order each epoch",
        (GROUPS, GROUPS.replace("loader", "data.split(batch_size)")),
    ),
    edit(
        "loss-in-float32",
        "the loss is computed in float32 whatever the model's type",
        ("F.cross_entropy(logits[:, :-1].flatten(0, 1)", "F.cross_entropy(logits[:, :-1].float().flatten(0, 1)"),
    ),
    edit(
        "averaged-by-hand",
        "sums over rows, divided just before a clip that was imported by name; cleared before a group",
        (
            "import torch.nn.functional as F\n",
            "import torch.nn.functional as F\nfrom torch.nn.utils import clip_grad_norm_ as clip\n",
        ),
        (
            BACKWARD,
            "            if not losses or closed:\n"
            "                model.zero_grad(set_to_none=False)\n"
            "                rows = 0\n"
            "            closed, rows = closes, rows + len(batch)\n"
            "            (loss * len(batch)).backward()\n",
        ),
        (
            CLIP,
            "                for parameter in model.parameters():\n"
            "                    parameter.grad.div_(rows)\n"
            "                clip(model.parameters(), max_norm=1.0, foreach=False)\n",
        ),
        (ZERO, ""),
    ),
    edit(
        "gradients-kept-apart",
        "torch.autograd.grad into buffers of its own, that are handed over at the update",
        (
            BACKWARD,
            "            parameters = list(model.parameters())\n"
            "            if not losses or closed:\n"
            "                sums = [torch.zeros_like(parameter) for parameter in parameters]\n"
            "            closed = closes\n"
            "            for total, grad in zip(sums, torch.autograd.grad(loss * share, parameters)):\n"
            "                total += grad\n",
        ),
        (
            CLIP,
            "                for parameter, total in zip(parameters, sums):\n"
            "                    parameter.grad = total\n" + CLIP,
        ),
        (ZERO, ""),
    ),
    edit(
        "records-say-more",
        "the share is the gradient of the backward; each record counts its updates, and has tensors and a NaN",
        (BACKWARD, "            loss.backward(gradient=loss.new_tensor(share))\n"),
        (
            '                "accuracy": torch.stack(accuracies).mean().item(),\n',
            '                "accuracy": torch.stack(accuracies).mean(),\n'
            '                "best_loss": torch.stack(losses).min(),\n'
            '                "direct_loss": math.nan,\n'
            '                "updates": planned_updates(1, len(losses), accum_steps=accum_steps),\n',
        ),
    ),
    edit(
        "lists-of-groups",
        "a loop over groups around the loop over their micro-batches; gradients are dropped by hand",
        (
            GROUPS,
            "        batches = list(with_extra_steps(loader, extra_steps))\n"
            "        groups = [batches[at : at + accum_steps] for at in range(0, len(batches), accum_steps)]\n"
            "        for batch, group, closes in [(b, g, n == len(g)) for g in groups for n, b in enumerate(g, 1)]:\n",
        ),
        (BACKWARD, "            torch.autograd.backward(loss.mul(len(batch)).div(len(torch.cat(group))))\n"),
        (ZERO, "                for parameter in model.parameters():\n                    parameter.grad = None\n"),
    ),
]
