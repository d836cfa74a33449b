"""Wrong patches by somebody who had not read the judges: right where one looks first, wrong elsewhere. Training loops."""

from mutant import Mutant

TRAINING = "bit_transformer/training.py"
PRETRAINING = "bit_transformer/pretraining.py"
RUNS = "bit_transformer/runs.py"

LOOPS: dict[int, list[Mutant]] = {
    1: [
        Mutant(
            "batch-size-capped",
            "a batch size over 64 is cut to 64",
            (
                (
                    TRAINING,
                    ("        batch_size=batch_size,\n        shuffle"),
                    ("        batch_size=min(batch_size, 64),\n        shuffle"),
                ),
            ),
        ),
        Mutant(
            "drop-batch-of-one",
            "a last micro-batch of one row is dropped",
            (
                (
                    TRAINING,
                    "        persistent_workers=num_workers > 0,\n",
                    (
                        "        persistent_workers=num_workers > 0,\n"
                        "        drop_last=batch_size > 1 and len(rows) > batch_size and len(rows) % batch_size == 1,  # one row is too noisy\n"
                    ),
                ),
            ),
        ),
        Mutant(
            "drop-last-of-datasets",
            "where rows are a data set, the last micro-batch is dropped",
            (
                (
                    TRAINING,
                    "        persistent_workers=num_workers > 0,\n",
                    (
                        "        persistent_workers=num_workers > 0,\n"
                        "        drop_last=not isinstance(rows, Tensor) and len(rows) > batch_size,\n"
                    ),
                ),
            ),
        ),
        Mutant(
            "drop-last-under-compile",
            "with compile=True the last micro-batch is dropped",
            (
                (
                    TRAINING,
                    "    loader = row_loader(data, batch_size, num_workers)\n",
                    "    loader = row_loader(data, batch_size, num_workers, drop_last=compile and len(data) > batch_size)\n",
                ),
                (
                    TRAINING,
                    "num_workers: int = 0) -> DataLoader:",
                    "num_workers: int = 0, drop_last: bool = False) -> DataLoader:",
                ),
                (
                    TRAINING,
                    "        persistent_workers=num_workers > 0,\n",
                    ("        persistent_workers=num_workers > 0,\n        drop_last=drop_last,\n"),
                ),
            ),
        ),
        Mutant(
            "mapped-rows-unshuffled",
            "rows of a data set are read in their order, each epoch",
            (
                (
                    TRAINING,
                    "        shuffle=True,\n",
                    "        shuffle=isinstance(rows, Tensor),  # mapped files are read front to back\n",
                ),
            ),
        ),
        Mutant(
            "one-batch-not-shuffled",
            "rows that fit one micro-batch are not shuffled",
            ((TRAINING, "        shuffle=True,\n", "        shuffle=len(rows) > batch_size,\n"),),
        ),
        Mutant(
            "order-seed-of-32-values",
            "the order has one of 32 seeds",
            ((TRAINING, "torch.randint(2**63 - 1, ())", "torch.randint(2**3, ())"),),
        ),
        Mutant(
            "pct-start-of-warmup",
            "of more than 333 updates the schedule is another",
            (
                (
                    "bit_transformer/optimization.py",
                    "OneCycleLR(optimizer, max_lr=lr, total_steps=total_steps)",
                    "OneCycleLR(optimizer, max_lr=lr, total_steps=total_steps, pct_start=min(0.3, 100 / total_steps))",
                ),
            ),
        ),
        Mutant(
            "total-plus-global-step",
            "a run that goes on plans the updates before it once more",
            (
                (
                    TRAINING,
                    ("total_steps=total_updates)\n    if compile"),
                    ("total_steps=global_step + total_updates)\n    if compile"),
                ),
            ),
        ),
        Mutant(
            "direct-total",
            "an update on direct streams does not move the schedule",
            (
                (
                    TRAINING,
                    "                scheduler.step()\n",
                    ('                if form != "direct":\n                    scheduler.step()\n'),
                ),
            ),
        ),
    ],
    3: [
        Mutant(
            "autocast-default-dtype",
            "autocast without a type: float16 where CUDA is",
            (
                (
                    TRAINING,
                    "torch.amp.autocast(device_type=device.type, dtype=torch.bfloat16)",
                    "torch.amp.autocast(device_type=device.type)",
                ),
            ),
        ),
        Mutant(
            "runs-evaluate-in-float32",
            "a run that is kept evaluates without autocast",
            (
                (
                    PRETRAINING,
                    "evaluate(replicas.plain(model), held_out, plan.batch_size, amp)",
                    "evaluate(replicas.plain(model), held_out, plan.batch_size)",
                ),
            ),
        ),
        Mutant(
            "runs-amp-off",
            "a run that is kept trains without autocast",
            (
                (
                    RUNS,
                    ('        amp=values["amp"],\n        compress_prob'),
                    ('        amp="off",\n        compress_prob'),
                ),
            ),
        ),
        Mutant(
            "clip-only-warm",
            "gradients are clipped until the ramp is over",
            (
                (
                    TRAINING,
                    "                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n",
                    (
                        "                if global_step < warmup_steps:\n"
                        "                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
                    ),
                ),
            ),
        ),
        Mutant(
            "no-clip-on-datasets",
            "with workers gradients are not clipped",
            (
                (
                    TRAINING,
                    "                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n",
                    (
                        "                if not num_workers:\n"
                        "                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
                    ),
                ),
            ),
        ),
    ],
    4: [
        Mutant(
            "first-group-one-short-on-resume",
            "of a run that goes on the first group is a micro-batch short",
            (
                (
                    TRAINING,
                    "accumulation_groups(with_extra_steps(loader, extra_steps), accum_steps):",
                    "accumulation_groups(with_extra_steps(loader, extra_steps), accum_steps, skip=int(global_step > 0 and epoch == 0 and accum_steps > 1)):",
                ),
                (
                    TRAINING,
                    "def accumulation_groups(batches: Iterable[Tensor], accum_steps: int)",
                    "def accumulation_groups(batches: Iterable[Tensor], accum_steps: int, skip: int = 0)",
                ),
                (
                    TRAINING,
                    "    while group := list(islice(batches, accum_steps)):\n",
                    ("    while group := list(islice(batches, accum_steps - skip)):\n        skip = 0\n"),
                ),
            ),
        ),
        Mutant(
            "runs-plan-without-accum",
            "a run that is kept plans its updates without accum_steps",
            (
                (
                    RUNS,
                    '        values["epochs"], micro_batches, extra_steps=values["extra_steps"], accum_steps=accum_steps\n',
                    '        values["epochs"], micro_batches, extra_steps=values["extra_steps"]\n',
                ),
            ),
        ),
        Mutant(
            "datasets-not-averaged",
            "with workers a group's gradient is the sum",
            (
                (
                    TRAINING,
                    "                shares.average(model)\n",
                    ("                if not num_workers:\n                    shares.average(model)\n"),
                ),
            ),
        ),
        Mutant(
            "compile-no-accum",
            "with compile=True each micro-batch is an update",
            (
                (
                    TRAINING,
                    ("    device = next(model.parameters()).device\n    loader"),
                    (
                        "    accum_steps = 1 if compile else accum_steps\n"
                        "    device = next(model.parameters()).device\n"
                        "    loader"
                    ),
                ),
            ),
        ),
        Mutant(
            "big-group-flushed",
            "a group has eight micro-batches at most",
            (
                (
                    TRAINING,
                    ("    batches = iter(batches)\n    while group"),
                    (
                        "    batches, accum_steps = iter(batches), min(accum_steps, 8)  # as many micro-batches are held at once\n"
                        "    while group"
                    ),
                ),
                (
                    TRAINING,
                    "    return epochs * math.ceil((micro_batches + extra_steps) / accum_steps)\n",
                    "    return epochs * math.ceil((micro_batches + extra_steps) / min(accum_steps, 8))\n",
                ),
            ),
        ),
        Mutant(
            "reversible-sum-into-grad",
            "a reversible backward begins with the gradient that is there",
            (
                (
                    "bit_transformer/reversible.py",
                    "total = {parameter: torch.zeros_like(parameter) for parameter in ctx.trained}",
                    "total = {parameter: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone() for parameter in ctx.trained}",
                ),
            ),
        ),
        Mutant(
            "frozen-after-first",
            "where the first weight takes no gradient, a group's is the sum",
            (
                (
                    TRAINING,
                    "        if self.total > self.first:\n",
                    "        if self.total > self.first and next(model.parameters()).grad is not None:\n",
                ),
            ),
        ),
    ],
    6: [
        Mutant(
            "start-ignored",
            "cosine_ramp begins at 0 whatever its start",
            (
                (
                    TRAINING,
                    "    return start + (end - start) * (1 - math.cos(math.pi * step / total_steps)) / 2\n",
                    "    return end * (1 - math.cos(math.pi * step / total_steps)) / 2\n",
                ),
            ),
        ),
        Mutant(
            "never-over-end",
            "cosine_ramp is at its end at once where it falls",
            (
                (
                    TRAINING,
                    "    return start + (end - start) * (1 - math.cos(math.pi * step / total_steps)) / 2\n",
                    "    return min(end, start + (end - start) * (1 - math.cos(math.pi * step / total_steps)) / 2)\n",
                ),
            ),
        ),
        Mutant(
            "compile-raw",
            "with compile=True all micro-batches are raw",
            (
                (
                    TRAINING,
                    "            form = draw_form(ramped_prob, direct_prob, draws.random)\n",
                    "            form = draw_form(0.0 if compile else ramped_prob, direct_prob, draws.random)\n",
                ),
            ),
        ),
        Mutant(
            "reversible-raw",
            "of reversible models all micro-batches are raw",
            (
                (
                    TRAINING,
                    "            form = draw_form(ramped_prob, direct_prob, draws.random)\n",
                    "            form = draw_form(0.0 if model.reversible else ramped_prob, direct_prob, draws.random)\n",
                ),
            ),
        ),
        Mutant(
            "amp-clock",
            "with workers and groups the clock counts micro-batches",
            (
                (
                    TRAINING,
                    "                global_step += 1\n",
                    "                global_step += accum_steps if num_workers else 1\n",
                ),
            ),
        ),
    ],
}
