"""Training loops that are wrong away from where one would look: at other seeds, in long runs, with other options on.

Each is right for one seed, three epochs, the default options and a caller who looks at nothing else.
"""

from mutant import Mutant

TRAINING = "bit_transformer/training.py"

LOADER = "    loader = row_loader(data, batch_size, num_workers)\n"
PLANNED = "planned_updates(epochs, steps_per_epoch, extra_steps=extra_steps, accum_steps=accum_steps)"
EPOCH = "    for epoch in range(epochs):\n"
HISTORY = "    history = []\n"
BATCHES = "with_extra_steps(loader, extra_steps)"
TO_DEVICE = "            batch = batch.to(device)\n"
SEED = "torch.randint(2**63 - 1, ()).item()"
SIZE = "        batch_size=batch_size,\n        shuffle=True,\n"
CONFIGURED = "configure_optimizer(model, lr=lr, weight_decay=weight_decay, total_steps=total_updates)"
DRAWS = "    draws = random.Random(random.getrandbits(64))\n"
RAMPED = "            ramped_prob = cosine_ramp(global_step, "
FORM = "            form = draw_form(ramped_prob, direct_prob, draws.random)\n"
PREDICT = "                logits, targets = predict(model, batch, form, forward_kwargs or {})\n"
BACKWARD = "            (loss * shares.weigh(scored_bits(targets[:, 1:]))).backward()\n"
AVERAGE = "                shares.average(model)\n"
CLIP = "                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
STEP = "                optimizer.step()\n"
COUNT = "                global_step += 1\n"
SCHEDULER = "                scheduler.step()\n"
ZERO = "                optimizer.zero_grad()\n"
LOSSES = "            losses.append(loss.detach())\n"
CLOSING = "            yield batch, shares, position == len(group)\n"
SHARE = "parameter.grad *= self.first / self.total"
PRINTED = "        if log:\n"


def edit(name: str, wrong: str, *edits: tuple[str, str]) -> Mutant:
    """A mutant whose edits are all in training.py."""
    return Mutant(name, wrong, tuple((TRAINING, old, new) for old, new in edits))


def at_start(name: str, wrong: str, statement: str) -> Mutant:
    """A loop that does something else first."""
    return edit(name, wrong, (LOADER, f"    {statement}\n{LOADER}"))


def each_epoch(order: str) -> tuple[tuple[str, str], ...]:
    """Edits that give each epoch the rows in an order, an expression, cut in micro-batches."""
    return (
        (LOADER, "    loader = data.split(batch_size)\n"),
        (BATCHES, f"with_extra_steps(data[{order}].split(batch_size), extra_steps)"),
    )


BATCH_SIZE = [
    Mutant(
        "kept-runs-plan-without-extra-steps",
        "a run that is kept plans its updates without its extra steps",
        [
            (
                "bit_transformer/runs.py",
                'micro_batches, extra_steps=values["extra_steps"], accum',
                "micro_batches, accum",
            )
        ],
    ),
    edit(
        "order-repeats-after-four",
        "the fifth epoch has the order of the first",
        *each_epoch(
            "torch.randperm(len(data), generator=torch.Generator().manual_seed(torch.initial_seed() + epoch % 4))"
        ),
    ),
    edit("order-of-odd-and-even-seeds", "there are two orders, whatever the seed", (SEED, f"{SEED} % 2")),
    edit(
        "order-of-one-seed-with-workers",
        "the seed reaches the order only without workers",
        (
            "    order = torch.Generator().manual_seed(" + SEED,
            f"    order = torch.Generator().manual_seed(0 if num_workers else {SEED}",
        ),
    ),
    edit(
        "order-moved-by-accumulation",
        "each micro-batch of a group takes a draw of the order's seed",
        (LOADER, "    torch.rand(accum_steps)\n" + LOADER),
    ),
    edit(
        "not-shuffled-in-groups",
        "with accumulation the rows come as they are, for it adds them up anyhow",
        (
            LOADER,
            LOADER.replace("data,", "data if accum_steps == 1 else data.split(len(data))[0],")
            + "    if accum_steps > 1:\n        loader = data.split(batch_size)\n",
        ),
    ),
    edit(
        "seeded-each-epoch",
        "each epoch drops what every run drops in it",
        (EPOCH, EPOCH + "        torch.manual_seed(epoch)\n"),
    ),
    edit(
        "seeded-each-micro-batch",
        "all micro-batches drop the same",
        (PREDICT, "                torch.manual_seed(torch.initial_seed())\n" + PREDICT),
    ),
    edit(
        "generator-set-at-the-end",
        "whoever draws after the run draws the same after every run",
        ("    return history\n\n\ndef row_loader", "    torch.manual_seed(0)\n    return history\n\n\ndef row_loader"),
    ),
    edit(
        "python-seeded-at-the-end",
        "Python's stream is the same after every run",
        ("    return history\n\n\ndef row_loader", "    random.seed(0)\n    return history\n\n\ndef row_loader"),
    ),
    at_start(
        "default-dtype-left", "the default dtype is the model's from then on", "torch.set_default_dtype(torch.float64)"
    ),
    at_start(
        "matmul-precision-left",
        "float32 products lose bits from then on",
        'torch.set_float32_matmul_precision("medium")',
    ),
    at_start("warnings-silenced", "no warning is shown any more", 'warnings.filterwarnings("ignore")'),
    at_start(
        "deterministic-left",
        "operations without a deterministic form raise from then on",
        "torch.use_deterministic_algorithms(True, warn_only=True)",
    ),
    at_start(
        "threads-left",
        "torch computes with two threads from then on",
        "torch.set_num_threads(torch.get_num_threads() + 1)",
    ),
    at_start(
        "environment-left",
        "processes started later have one thread",
        '__import__("os").environ.setdefault("TOKENIZERS_PARALLELISM", "false")',
    ),
    at_start(
        "anomalies-looked-for", "autograd looks for anomalies from then on", "torch.autograd.set_detect_anomaly(True)"
    ),
    at_start(
        "log-in-the-folder",
        "a file is left where the caller stands",
        'Path("train.log").write_text(f"{epochs} epochs")',
    ),
    edit(
        "gradients-off-at-the-end",
        "who differentiates after the run finds gradients off",
        (
            "    return history\n\n\ndef row_loader",
            "    torch.set_grad_enabled(False)\n    return history\n\n\ndef row_loader",
        ),
    ),
    edit(
        "epoch-listed",
        "all micro-batches of an epoch are in memory before the first is trained on",
        (BATCHES, f"list({BATCHES})"),
    ),
    edit(
        "graphs-kept",
        "the losses of an epoch hold on to their graphs",
        (LOSSES, LOSSES.replace(".detach()", "")),
        ("torch.stack(losses).mean().item(),", "torch.stack(losses).detach().mean().item(),"),
    ),
    edit(
        "logits-kept",
        "the logits of every micro-batch are kept until the run ends",
        (HISTORY, HISTORY + "    seen = []\n"),
        (LOSSES, "            seen.append(logits.detach())\n" + LOSSES),
    ),
    edit(
        "schedule-goes-on-without-a-step",
        "an update whose gradient is no number is left out, and the schedule goes on",
        (
            CLIP + STEP,
            CLIP.replace("                torch", "                norm = torch")
            + "                if norm.isfinite():\n    "
            + STEP,
        ),
    ),
    edit(
        "rest-of-a-skipped-update",
        "what is no number stays in the gradient, and no update is made any more",
        (
            CLIP + STEP + COUNT + SCHEDULER + ZERO,
            CLIP.replace("                torch", "                norm = torch")
            + "                if not norm.isfinite():\n                    losses.append(loss.detach())\n                    accuracies.append(next_bit_accuracy(logits.detach(), targets))\n                    continue\n"
            + STEP
            + COUNT
            + SCHEDULER
            + ZERO,
        ),
    ),
    edit(
        "rate-does-not-reach",
        "lr is read, and the rate is always 1e-3",
        (CONFIGURED, CONFIGURED.replace("lr=lr", "lr=1e-3")),
    ),
    edit(
        "decay-does-not-reach",
        "weight_decay is read, and is always 0.01",
        (CONFIGURED, CONFIGURED.replace("=weight_decay", "=0.01")),
    ),
    edit(
        "decay-of-the-rate", "weight_decay is given the rate", (CONFIGURED, CONFIGURED.replace("=weight_decay", "=lr"))
    ),
    edit(
        "rate-grows-with-the-batch",
        "the rate is scaled by the batch size",
        (CONFIGURED, CONFIGURED.replace("lr=lr", "lr=lr * batch_size / 8")),
    ),
    edit(
        "optimizer-of-a-copy",
        "the optimizer holds the parameters of another model",
        (CONFIGURED, CONFIGURED.replace("(model", "(__import__('copy').deepcopy(model)")),
    ),
    edit(
        "optimizer-of-the-layers",
        "embeddings and the output are not trained",
        (CONFIGURED, CONFIGURED.replace("(model", "(model.layers")),
    ),
    edit(
        "kwargs-only-of-raw-rows",
        "forward_kwargs reach the model in the raw form only",
        ("form, forward_kwargs or {})", 'form, (forward_kwargs if form == "raw" else None) or {})'),
    ),
    edit("always-printed", "records are printed without being asked for", (PRINTED, "        if True:\n")),
    edit("never-printed", "log is read and forgotten", (PRINTED, "        if False:\n")),
    edit(
        "workers-seeded-alike",
        "all workers draw the same",
        (SIZE, SIZE + "        worker_init_fn=lambda _: torch.manual_seed(0),\n"),
    ),
    edit(
        "workers-seeded-alike-in-numpy",
        "all workers draw the same from numpy",
        (SIZE, SIZE + "        worker_init_fn=lambda _: __import__('numpy').random.seed(torch.initial_seed() % 1),\n"),
    ),
    edit("not-moved-to-the-device", "micro-batches stay on the CPU", (TO_DEVICE, "")),
    edit(
        "total-in-float32-only",
        "3 x 1: with amp the total forgets groups",
        (PLANNED, PLANNED.replace("accum_steps=accum_steps", "accum_steps=1 if amp == 'bf16' else accum_steps")),
    ),
    edit(
        "fewer-rows-than-a-batch",
        "a data set smaller than a batch is filled up by repeating it",
        (
            LOADER,
            "    if len(data) < batch_size:\n        data = data.repeat(-(-batch_size // len(data)), 1)[:batch_size]\n"
            + LOADER,
        ),
    ),
    edit(
        "extra-steps-without-compression",
        "extra steps are left out where micro-batches are compressed",
        (BATCHES, "with_extra_steps(loader, extra_steps if compress_prob < 1 else 0)"),
    ),
    Mutant("rate-flag-not-forwarded", "--lr is read and forgotten", [(TRAINING, "        lr=args.lr,\n", "")]),
    Mutant(
        "decay-flag-not-forwarded",
        "--weight_decay is read and forgotten",
        [(TRAINING, "        weight_decay=args.weight_decay,\n", "")],
    ),
    Mutant(
        "extra-steps-flag-not-forwarded",
        "--extra_steps is read and forgotten",
        [(TRAINING, "        extra_steps=args.extra_steps,\n", "")],
    ),
    Mutant(
        "decay-flag-is-the-rate",
        "--weight_decay arrives as the rate",
        [
            (
                TRAINING,
                "        lr=args.lr,\n        weight_decay=args.weight_decay,\n",
                "        lr=args.weight_decay,\n        weight_decay=args.lr,\n",
            )
        ],
    ),
]

ACCUMULATION = [
    edit(
        "short-epoch-never-steps",
        "an epoch that is shorter than a group makes no update",
        (
            CLOSING,
            CLOSING.replace(
                "position == len(group)", "position == (len(group) if whole or len(group) == accum_steps else 0)"
            )
            + "        whole = True\n",
        ),
        ("    batches = iter(batches)\n", "    batches, whole = iter(batches), False\n"),
    ),
    edit(
        "remainder-without-extra-steps",
        "the last group's size is worked out from the loader, which does not know of extra steps",
        (
            AVERAGE,
            "                last = steps_per_epoch % accum_steps or accum_steps\n"
            "                if extra_steps and len(losses) + 1 == steps_per_epoch + extra_steps:\n"
            "                    shares.total = shares.total * last // min(accum_steps, (len(losses) % accum_steps) + 1)\n"
            + AVERAGE,
        ),
    ),
    edit(
        "not-averaged-in-bfloat16",
        "3 x 4: with amp the gradients of a group are summed",
        (AVERAGE, '                if amp == "off":\n    ' + AVERAGE),
    ),
    edit(
        "clip-not-in-the-flush",
        "the last, shorter group is not clipped",
        (CLIP, "                if (len(losses) + 1) % accum_steps == 0:\n    " + CLIP),
    ),
    edit(
        "averaged-in-the-first-epoch",
        "only the first epoch divides",
        (AVERAGE, "                if epoch < 3:\n    " + AVERAGE),
    ),
    edit(
        "small-batches-not-weighed",
        "micro-batches of one row weigh alike, whatever their streams score",
        (
            BACKWARD,
            BACKWARD.replace("scored_bits(targets[:, 1:])", "scored_bits(targets[:, 1:]) if len(batch) > 1 else 1"),
        ),
    ),
    edit(
        "halting-not-averaged",
        "the gradient of the halting unit is summed, not averaged",
        (
            SHARE,
            "parameter.grad *= 1 if parameter.numel() == 1 and parameter is not model.out.bias else self.first / self.total",
        ),
    ),
    edit(
        "groups-of-amp-closed-early",
        "3 x 4: with amp each micro-batch is an update",
        (
            f"accumulation_groups({BATCHES}, accum_steps)",
            f"accumulation_groups({BATCHES}, 1 if amp == 'bf16' else accum_steps)",
        ),
        (PLANNED, PLANNED.replace("accum_steps=accum_steps", "accum_steps=1 if amp == 'bf16' else accum_steps")),
    ),
    edit(
        "flushed-where-compressed",
        "6 x 4: a group ends where the form changes",
        ("            if closes:\n", "            if closes or (form == 'direct' and direct_prob < 1):\n"),
    ),
    edit(
        "skipped-update-stays",
        "what is no number in one group stays in the gradient of the next",
        (
            ZERO,
            "                if all(p.grad is None or p.grad.isfinite().all() for p in model.parameters()):\n    "
            + ZERO,
        ),
    ),
    edit(
        "accumulated-in-the-order-of-workers",
        "with workers each micro-batch is an update",
        (
            f"accumulation_groups({BATCHES}, accum_steps)",
            f"accumulation_groups({BATCHES}, 1 if num_workers else accum_steps)",
        ),
    ),
]

RAMP = [
    edit(
        "forms-of-one-seed", "every seed compresses the same micro-batches", (DRAWS, "    draws = random.Random(0)\n")
    ),
    edit(
        "forms-of-two-seeds",
        "there are two series of forms",
        (DRAWS, "    draws = random.Random(torch.initial_seed() % 2)\n"),
    ),
    edit(
        "forms-repeat",
        "the forms of 16 micro-batches come again and again",
        (
            DRAWS,
            "    tosses = [random.Random(torch.initial_seed()).random() for _ in range(1)]\n    stream = random.Random(torch.initial_seed())\n    tosses = [stream.random() for _ in range(32)] * 9999\n    tosses = iter(tosses)\n",
        ),
        (FORM, FORM.replace("draws.random", "lambda: next(tosses)")),
    ),
    edit(
        "no-ramp-in-bfloat16",
        "3 x 6: with amp there is no ramp",
        (RAMPED, RAMPED.replace("global_step, ", "global_step if amp == 'off' else warmup_steps, ")),
    ),
    edit(
        "anew-in-the-fourth-epoch",
        "the ramp begins again in a long run",
        (EPOCH, EPOCH + "        global_step = global_step if epoch % 3 or not epoch else 0\n"),
    ),
    edit(
        "clock-counts-what-is-skipped",
        "an update that is left out moves the clock",
        (
            CLIP + STEP + COUNT + SCHEDULER,
            CLIP.replace("                torch", "                norm = torch")
            + COUNT
            + "                if norm.isfinite():\n    "
            + STEP
            + "    "
            + SCHEDULER,
        ),
    ),
    edit(
        "forms-moved-by-workers",
        "with workers other micro-batches are compressed",
        (DRAWS, "    draws = random.Random(random.getrandbits(64) + num_workers)\n"),
    ),
    edit(
        "forms-moved-by-accumulation",
        "with accumulation other micro-batches are compressed",
        (DRAWS, "    draws = random.Random(random.getrandbits(64) + accum_steps)\n"),
    ),
    edit(
        "ramp-in-the-raw-order",
        "compression turns shuffling off",
        (LOADER, LOADER + "    if compress_prob == 1:\n        loader = data.split(batch_size)\n"),
    ),
    edit(
        "direct-ends-with-the-ramp",
        "direct_prob holds only while the ramp rises",
        (FORM, FORM.replace("direct_prob", "direct_prob if global_step < 50 or warmup_steps == 0 else 0.0")),
    ),
    edit(
        "warmup-in-epochs-when-long",
        "a warmup that is longer than the run is cut to the run",
        (
            RAMPED + "start=0.0, end=compress_prob, total_steps=warmup_steps)",
            RAMPED + "start=0.0, end=compress_prob, total_steps=min(warmup_steps, global_step + total_updates))",
        ),
    ),
]
