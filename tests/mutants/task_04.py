"""Wrong and right ways to accumulate gradients."""

from mutant import Mutant
from strangers import STRANGERS_RIGHT, STRANGERS_WRONG
from wide_loop import ACCUMULATION

TRAINING = "bit_transformer/training.py"

LOADER = "row_loader(data, batch_size, num_workers)"
TOTAL = "planned_updates(epochs, steps_per_epoch, extra_steps=extra_steps, accum_steps=accum_steps)\n"
BATCHES = "with_extra_steps(loader, extra_steps)"
GROUPS = f"        for batch, shares, closes in accumulation_groups({BATCHES}, accum_steps):\n"
FORM = "            form = draw_form(ramped_prob, direct_prob, draws.random)\n"
SCORED = "scored_bits(targets[:, 1:])"
WEIGHT = f"shares.weigh({SCORED})"
BACKWARD = f"            (loss * {WEIGHT}).backward()\n"
AVERAGE = "                shares.average(model)\n"
CONFIGURED = "lr=lr, weight_decay=weight_decay, total_steps=total_updates"
CLIP = "                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
STEP = "                optimizer.step()\n"
COUNT = "                global_step += 1\n"
SCHEDULER = "                scheduler.step()\n"
ZERO = "                optimizer.zero_grad()\n"
UPDATE = "            if closes:\n" + AVERAGE + CLIP + STEP + COUNT + SCHEDULER + ZERO
RECORD = "        history.append(\n"
GROUP = "    while group := list(islice(batches, accum_steps)):\n"
MADE = "        shares = Shares()\n"
CLOSING = "            yield batch, shares, position == len(group)\n"
DIVIDES = "self.first / self.total"
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
        (BACKWARD, BACKWARD.replace(WEIGHT, f"{WEIGHT} / accum_steps")),
    ),
    edit(
        "mean-of-means",
        "a smaller micro-batch counts as much as a whole one",
        (BACKWARD, BACKWARD.replace(SCORED, "1")),
    ),
    edit(
        "weighs-rows",
        "a micro-batch of short streams counts as much as one of long streams, row by row",
        (BACKWARD, BACKWARD.replace(SCORED, "len(batch)")),
    ),
    edit(
        "weighs-padding",
        "padding counts in what a micro-batch weighs, though nothing is learned of it",
        (BACKWARD, BACKWARD.replace(SCORED, "targets[:, 1:].numel()")),
    ),
    edit(
        "weighs-first-bits",
        "the first bit of each row, which nothing predicts, counts in what a micro-batch weighs",
        (BACKWARD, BACKWARD.replace("[:, 1:]", "")),
    ),
    edit(
        "weighs-raw-rows",
        "a stream weighs as many bits as the row that it encodes",
        (BACKWARD, BACKWARD.replace(SCORED, "batch[:, 1:].numel()")),
    ),
    edit(
        "shares-run-on",
        "a group is divided by all that was scored since the epoch began",
        (MADE, ""),
        ("    batches = iter(batches)\n", "    batches, shares = iter(batches), Shares()\n"),
    ),
    edit("never-averaged", "the sum of a group is left in units of its first micro-batch", (AVERAGE, "")),
    edit(
        "averaged-every-micro-batch",
        "what piled up is divided again and again",
        ("            if closes:\n" + AVERAGE, outdented(AVERAGE) + "            if closes:\n"),
    ),
    edit(
        "every-micro-batch-taken-for-whole",
        "the share assumes 8 rows in each micro-batch",
        (BACKWARD, BACKWARD.replace(WEIGHT, "len(batch) / 8 * shares.weigh(1)")),
    ),
    edit(
        "remainder-divided-by-accum-steps",
        "the last, shorter group is divided by accum_steps",
        (MADE, MADE.replace("()", "(longer=accum_steps / len(group))")),
        ("    total: int = 0\n", "    total: int = 0\n    longer: float = 1.0\n"),
        ("        if self.total > self.first:\n", "        if self.total > self.first or self.longer > 1:\n"),
        (DIVIDES, f"{DIVIDES} / self.longer"),
    ),
    edit(
        "remainder-not-flushed",
        "the gradient of the last, shorter group stays for the next epoch",
        (CLOSING, CLOSING.replace("== len(group)", "== accum_steps")),
    ),
    edit(
        "remainder-cleared",
        "the gradient of the last, shorter group is thrown away",
        (CLOSING, CLOSING.replace("== len(group)", "== accum_steps")),
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
        (CLOSING, CLOSING.replace("== len(group)", "== accum_steps")),
        (RECORD, outdented(outdented(CLIP + STEP + COUNT + SCHEDULER + ZERO)) + RECORD),
    ),
    edit(
        "off-by-one-first-group",
        "an epoch's first group has one micro-batch, as `i % accum_steps == 0` gives from 0",
        (
            "    batches = iter(batches)\n",
            "    batches = iter(batches)\n    yield next(batches), Shares(), True\n",
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
        (UPDATE, "            if closes:\n" + AVERAGE + CLIP + STEP + COUNT + ZERO + outdented(SCHEDULER)),
    ),
    edit(
        "scheduler-before-step",
        "each update uses the learning rate of the next",
        (STEP + COUNT + SCHEDULER, SCHEDULER + STEP + COUNT),
    ),
    edit(
        "clip-every-micro-batch",
        "unfinished gradients are clipped",
        (UPDATE, outdented(CLIP) + "            if closes:\n" + AVERAGE + STEP + COUNT + SCHEDULER + ZERO),
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
        (AVERAGE + CLIP, CLIP + AVERAGE),
    ),
    edit(
        "one-backward-a-group",
        "the graphs of the whole group are held until it ends, so no memory is saved",
        (
            BACKWARD,
            f"            loss_of_group = loss * {WEIGHT} + (loss_of_group if losses and not closed else 0)\n"
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
            "        for batch, shares, closes in groups:\n",
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
        ("losses.append(loss.detach())", "losses.append(loss.detach() / accum_steps)"),
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
        (BACKWARD, BACKWARD.replace(WEIGHT, f'(1 if form == "direct" else {WEIGHT})')),
    ),
    edit(
        "compressed-not-scaled",
        "an encoded micro-batch adds its whole loss",
        (BACKWARD, BACKWARD.replace(WEIGHT, f'(1 if form == "compressed" else {WEIGHT})')),
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
        ("losses.append(loss.detach())", f"losses.append(loss.detach() * {SCORED} / shares.total * accum_steps)"),
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

MUTANTS += [
    *ACCUMULATION,
    edit(
        "gradients-kept-apart",
        "torch.autograd.grad into buffers of its own: hooks on gradients, as those that share them, are not called",
        (
            BACKWARD,
            "            parameters = list(model.parameters())\n"
            "            if not losses or closed:\n"
            "                sums = [torch.zeros_like(parameter) for parameter in parameters]\n"
            "            closed = closes\n"
            f"            for total, grad in zip(sums, torch.autograd.grad(loss * {WEIGHT}, parameters)):\n"
            "                total += grad\n",
        ),
        (
            AVERAGE,
            "                for parameter, total in zip(parameters, sums):\n"
            "                    parameter.grad = total\n" + AVERAGE,
        ),
        (ZERO, ""),
    ),
]

MUTANTS += STRANGERS_WRONG[4]

GOOD = [
    *STRANGERS_RIGHT[4],
    edit(
        "counter-of-micro-batches",
        "a counter and a comparison with the last micro-batch, in one loop",
        (
            GROUPS,
            "        for i, batch in enumerate(with_extra_steps(loader, extra_steps)):\n",
        ),
        (
            BACKWARD,
            f"            scored = {SCORED}\n"
            "            summed = scored + (summed if i % accum_steps else 0)\n"
            "            (loss * scored).backward()\n",
        ),
        (
            "            if closes:\n" + AVERAGE,
            "            if (i + 1) % accum_steps == 0 or i + 1 == steps_per_epoch + extra_steps:\n"
            "                for parameter in model.parameters():\n"
            "                    parameter.grad /= summed\n",
        ),
    ),
    edit(
        "flush-after-the-loop",
        "whole groups are closed in the loop, and the last, shorter one after it",
        (CLOSING, CLOSING.replace("== len(group)", "== accum_steps")),
        (RECORD, "        if not closes:\n" + outdented(AVERAGE + CLIP + STEP + COUNT + SCHEDULER + ZERO) + RECORD),
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
        "sums over what is scored, divided just before a clip that was imported by name; cleared before a group",
        (
            "import torch.nn.functional as F\n",
            "import torch.nn.functional as F\nfrom torch.nn.utils import clip_grad_norm_ as clip\n",
        ),
        (
            BACKWARD,
            "            if not losses or closed:\n"
            "                model.zero_grad(set_to_none=False)\n"
            "                summed = 0\n"
            f"            scored = {SCORED}\n"
            "            closed, summed = closes, summed + scored\n"
            "            (loss * scored).backward()\n",
        ),
        (
            AVERAGE + CLIP,
            "                for parameter in model.parameters():\n"
            "                    parameter.grad.div_(summed)\n"
            "                clip(model.parameters(), max_norm=1.0, foreach=False)\n",
        ),
        (ZERO, ""),
    ),
    edit(
        "records-say-more",
        "the share is the gradient of the backward; each record counts its updates, and has tensors and a NaN",
        (BACKWARD, f"            loss.backward(gradient=loss.new_tensor({WEIGHT}))\n"),
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
        "a group's forms are drawn first, and what it scores is counted before its first forward; gradients dropped by hand",
        (
            GROUPS,
            "        batches = with_extra_steps(loader, extra_steps)\n"
            "        groups = iter(lambda: list(islice(batches, accum_steps)), [])\n"
            "        for batch, group, n in ((b, g, n) for g in groups for n, b in enumerate(g)):\n"
            "            closes = n + 1 == len(group)\n",
        ),
        (
            FORM,
            "            if n == 0:\n"
            "                forms = [draw_form(ramped_prob, direct_prob, draws.random) for _ in group]\n"
            "                counts = [scored_in(*each, model.max_seq_len) for each in zip(group, forms)]\n"
            "            form = forms[n]\n",
        ),
        (
            "def with_extra_steps(",
            "def scored_in(batch, form, most):\n"
            "    streams = map(compress_bits, batch) if form == 'direct' else batch\n"
            "    return sum(min(len(stream), most) - 1 for stream in streams)\n\n\n"
            "def with_extra_steps(",
        ),
        (BACKWARD, "            torch.autograd.backward(loss.mul(counts[n]).div(sum(counts)))\n"),
        (AVERAGE, ""),
        (ZERO, "                for parameter in model.parameters():\n                    parameter.grad = None\n"),
    ),
]
