"""Wrong and right ways to choose a batch size, and to say how long a schedule is."""

from mutant import Mutant
from strangers import STRANGERS_RIGHT, STRANGERS_WRONG
from wide_loop import BATCH_SIZE

TRAINING = "bit_transformer/training.py"

LOADER = "    loader = row_loader(data, batch_size, num_workers)\n"
STEPS = "    steps_per_epoch = len(loader)\n"
PLANNED = "planned_updates(epochs, steps_per_epoch, extra_steps=extra_steps, accum_steps=accum_steps)"
TOTAL = f"    total_updates = {PLANNED}\n"
EPOCH = "    for epoch in range(epochs):\n"
BATCHES = "with_extra_steps(loader, extra_steps)"
CEILING = "    return epochs * math.ceil((micro_batches + extra_steps) / accum_steps)\n"
SCHEDULER = "                scheduler.step()\n"
RECORD = "        history.append(\n"
ORDER = "    order = torch.Generator().manual_seed(torch.randint(2**63 - 1, ()).item())\n"
SIZE = "        batch_size=batch_size,\n        shuffle=True,\n"
WORKERS = "        num_workers=num_workers,\n        persistent_workers=num_workers > 0,\n        generator=order,\n"
DETACHED = (
    "    loader.generator = torch.Generator()"
    "  # the seeds of workers, drawn from the order's generator, would change it\n"
)
BUILT = "    loader = DataLoader(\n        rows,\n" + SIZE + WORKERS + "    )\n" + DETACHED + "    return loader\n"
TO_DEVICE = "            batch = batch.to(device)\n"
EXTRA = "        for _ in range(extra_steps):\n            yield batch\n"
CONFIGURED = (
    "    optimizer, scheduler = configure_optimizer("
    "model, lr=lr, weight_decay=weight_decay, total_steps=total_updates)\n"
)
SIZE_FORWARDED = "        batch_size=args.batch_size,\n"
WORKERS_FORWARDED = "        num_workers=args.num_workers,\n"


def edit(name: str, wrong: str, *edits: tuple[str, str]) -> Mutant:
    """A mutant whose edits are all in training.py."""
    return Mutant(name, wrong, tuple((TRAINING, old, new) for old, new in edits))


def each_epoch(order: str) -> tuple[tuple[str, str], ...]:
    """Edits that give each epoch the rows in an order, an expression, cut in micro-batches."""
    return (
        (LOADER, "    loader = data.split(batch_size)\n"),
        (BATCHES, f"with_extra_steps(data[{order}].split(batch_size), extra_steps)"),
    )


MUTANTS = [
    edit(
        "total-from-rows",
        "the schedule is as long as there are rows, not micro-batches",
        (STEPS, "    steps_per_epoch = len(data)\n"),
    ),
    edit(
        "total-rounded-down",
        "the last, shorter micro-batch of an epoch is not in the schedule",
        (STEPS, "    steps_per_epoch = max(1, len(data) // batch_size)\n"),
    ),
    edit(
        "total-rounded-down-and-guarded",
        "the schedule is too short, and a guard hides that it ends early",
        (STEPS, "    steps_per_epoch = max(1, len(data) // batch_size)\n"),
        (SCHEDULER, "                if scheduler.last_epoch < total_updates:\n    " + SCHEDULER),
    ),
    edit(
        "total-one-too-many",
        "the schedule counts a last micro-batch that is empty where the rows divide",
        (STEPS, "    steps_per_epoch = len(data) // batch_size + 1\n"),
    ),
    edit(
        "total-at-least-100",
        "a total that is too large never raises, and never reaches the floor",
        (TOTAL, f"    total_updates = max(100, {PLANNED})\n"),
    ),
    edit(
        "total-at-least-10",
        "short runs are given a longer schedule so that they do not crash",
        (TOTAL, f"    total_updates = max(10, {PLANNED})\n"),
    ),
    edit(
        "extra-steps-once-a-run",
        "extra steps are outside the factor of epochs",
        (
            CEILING,
            "    return epochs * math.ceil(micro_batches / accum_steps) + math.ceil(extra_steps / accum_steps)\n",
        ),
    ),
    edit(
        "extra-steps-not-planned",
        "extra steps are not in the schedule",
        (PLANNED, PLANNED.replace("=extra_steps", "=0")),
    ),
    edit(
        "extra-steps-planned-apart",
        "extra steps are planned as groups of their own, but are made with their epoch's",
        (
            CEILING,
            CEILING.replace(
                "(micro_batches + extra_steps) / accum_steps)", "micro_batches / accum_steps) + extra_steps * epochs"
            ),
        ),
    ),
    edit(
        "extra-steps-of-new-rows",
        "extra steps take other micro-batches than the last",
        (
            BATCHES,
            "(batch for n, batch in enumerate((*loader, *[*loader][:extra_steps])) if n < len(loader) + extra_steps)",
        ),
    ),
    edit(
        "extra-steps-repeat-the-first",
        "extra steps repeat the epoch's first micro-batch",
        (
            "    batch = None\n    for batch in batches:\n        yield batch\n",
            "    batch = None\n    for other in batches:\n        batch = other if batch is None else batch\n        yield other\n",
        ),
    ),
    edit(
        "persistent-without-workers",
        "persistent_workers with 0 workers raises",
        (WORKERS, WORKERS.replace("num_workers > 0", "True")),
    ),
    edit(
        "workers-not-persistent",
        "each epoch starts its workers anew",
        (WORKERS, WORKERS.replace("num_workers > 0", "False")),
    ),
    edit(
        "workers-ignored",
        "num_workers is taken and not used",
        (WORKERS, "        generator=order,\n"),
    ),
    edit(
        "workers-kept",
        "the loader outlives the run, and with it the workers",
        ("    history = []\n", "    history = []\n    train_loop.loader = loader\n"),
    ),
    edit(
        "drop-last-with-workers",
        "the last, shorter micro-batch is dropped where workers load the rows",
        (SIZE, SIZE + "        drop_last=num_workers > 0,\n"),
    ),
    edit(
        "loader-anew-from-one-seed",
        "each epoch builds the loader again, from the same seed: all epochs have one order",
        (BATCHES, "with_extra_steps(row_loader(data, batch_size, num_workers), extra_steps)"),
    ),
    edit("not-shuffled", "shuffle is not forwarded", (SIZE, SIZE.replace("True", "False"))),
    edit(
        "not-shuffled-with-workers",
        "rows are shuffled only where no workers load them",
        (SIZE, SIZE.replace("True", "num_workers == 0")),
    ),
    edit(
        "shuffled-once",
        "rows are shuffled before the first epoch, and keep that order",
        (LOADER, "    loader = data[torch.randperm(len(data))].split(batch_size)\n"),
    ),
    edit(
        "first-epoch-in-order",
        "only the second epoch and those after it are shuffled",
        *each_epoch("torch.randperm(len(data)) if epoch else torch.arange(len(data))"),
    ),
    edit(
        "last-epoch-as-the-first",
        "two orders take turns",
        *each_epoch(
            "torch.randperm(len(data), generator=torch.Generator().manual_seed(torch.initial_seed() + epoch % 2))"
        ),
    ),
    edit(
        "micro-batches-shuffled",
        "the micro-batches change places, but hold the same rows in each epoch",
        (LOADER, "    loader = data.split(batch_size)\n"),
        (
            BATCHES,
            "with_extra_steps(random.Random(torch.initial_seed() + epoch).sample(loader, len(loader)), extra_steps)",
        ),
    ),
    edit(
        "rows-within-micro-batches-shuffled",
        "rows change places within their micro-batch only",
        (LOADER, "    loader = data.split(batch_size)\n"),
        (TO_DEVICE, "            batch = batch[torch.randperm(len(batch))].to(device)\n"),
    ),
    edit(
        "only-the-last-micro-batch-shuffled",
        "all rows but those of the last micro-batch stay where they are",
        *each_epoch(
            "[*range(len(data) - batch_size), *random.sample(range(len(data) - batch_size, len(data)), batch_size)] if len(data) > batch_size else ..."
        ),
    ),
    edit(
        "rotated",
        "each epoch starts at another row, and keeps the order",
        *each_epoch(
            "(torch.arange(len(data)) + random.Random(torch.initial_seed() + epoch).randrange(len(data))) % len(data)"
        ),
    ),
    edit(
        "drawn-with-replacement",
        "an epoch's rows are drawn one by one: some twice, some never",
        *each_epoch(
            "torch.randint(len(data), [len(data)], generator=torch.Generator().manual_seed(torch.initial_seed() + epoch))"
        ),
    ),
    edit(
        "caller-rows-shuffled",
        "the tensor that was handed over is shuffled in place",
        (LOADER, "    loader = data.split(batch_size)\n"),
        (BATCHES, "with_extra_steps(data.copy_(data[torch.randperm(len(data))]).split(batch_size), extra_steps)"),
    ),
    edit(
        "order-from-numpy",
        "the order is drawn from numpy's global stream, which the model may draw from",
        *each_epoch('__import__("numpy").random.permutation(len(data))'),
    ),
    edit(
        "one-seed-for-all",
        "the seed of the run does not reach the order",
        (ORDER, "    order = torch.Generator().manual_seed(0)\n"),
    ),
    edit(
        "order-not-repeatable",
        "the order comes from the system's randomness",
        (ORDER, "    order = torch.Generator()\n    order.seed()\n"),
    ),
    edit(
        "last-rows-dropped",
        "the last, shorter micro-batch is dropped",
        (SIZE, SIZE + "        drop_last=len(rows) >= batch_size,\n"),
    ),
    edit(
        "first-row-of-a-micro-batch",
        "the loader gives [batch], and batch[0] is taken once too often: one row is left",
        (TO_DEVICE, "            batch = batch[:1].to(device)\n"),
    ),
    edit(
        "row-of-a-tensor-dataset",
        "batch[0] of the tensor is a row [T], which no model takes",
        (TO_DEVICE, "            batch = batch[0].to(device)\n"),
    ),
    edit(
        "tensor-dataset-not-unpacked",
        "the loader gives [batch], which has no .to",
        (LOADER, LOADER.replace("data,", "torch.utils.data.TensorDataset(data),")),
    ),
    edit(
        "bits-as-numbers",
        "rows are made floating point",
        (LOADER, LOADER.replace("data,", "data.float(),")),
        (
            '    if form == "raw":\n        return model(batch, **forward_kwargs)[0], batch\n',
            '    if form == "raw":\n        return model(batch, **forward_kwargs)[0], batch.long()\n',
        ),
    ),
    edit(
        "scheduler-every-epoch",
        "the scheduler steps once an epoch",
        (SCHEDULER, ""),
        (RECORD, "        scheduler.step()\n" + RECORD),
    ),
    edit(
        "scheduler-stops-one-short",
        "a guard keeps the scheduler from its last step",
        (SCHEDULER, "                if scheduler.last_epoch + 1 < total_updates:\n    " + SCHEDULER),
    ),
    edit(
        "scheduler-before-step",
        "each update uses the rate of the next",
        ("                optimizer.step()\n", "                scheduler.step()\n"),
        (
            "                global_step += 1\n" + SCHEDULER,
            "                global_step += 1\n                optimizer.step()\n",
        ),
    ),
    edit(
        "schedule-turned-round",
        "short runs get a cosine of their own instead of OneCycle",
        (
            "lr=lr, weight_decay=weight_decay, total_steps=total_updates)\n",
            "lr=lr, weight_decay=weight_decay, total_steps=total_updates)\n    if total_updates < 12:\n        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total_updates)\n",
        ),
    ),
    edit(
        "two-updates-at-least",
        "a run of one update is no run",
        (TOTAL, TOTAL + "    if total_updates < 2:\n        return []\n"),
    ),
    edit(
        "loop-defaults-to-64",
        "the default call has another batch size",
        ("batch_size: int = 8", "batch_size: int = 64"),
    ),
    edit(
        "flag-defaults-to-64",
        "the command has another batch size without being asked",
        ('"--batch_size", type=int, default=8', '"--batch_size", type=int, default=64'),
    ),
    edit("batch-size-not-forwarded", "--batch_size is read and forgotten", (SIZE_FORWARDED, "")),
    edit("workers-not-forwarded", "--num_workers is read and forgotten", (WORKERS_FORWARDED, "")),
    edit("batch-size-ignored", "the loop takes the parameter and uses 8", (LOADER, LOADER.replace("batch_size", "8"))),
    edit(
        "batch-size-of-a-power-of-two",
        "the batch size is rounded to a power of two",
        (LOADER, LOADER.replace("batch_size", "2 ** round(math.log2(batch_size))")),
    ),
    edit(
        "less-than-one-taken-for-one",
        "batch_size below 1 is quietly something else",
        (LOADER, LOADER.replace("batch_size", "max(1, batch_size)")),
    ),
    edit("nothing-trained", "no epoch is run", (EPOCH, "    for epoch in range(0):\n")),
]

MUTANTS += BATCH_SIZE

MUTANTS += STRANGERS_WRONG[1]

GOOD = [
    *STRANGERS_RIGHT[1],
    edit(
        "permutation-each-epoch",
        "torch.randperm from seed and epoch; a loader, which does not shuffle, where there are workers",
        (
            BUILT,
            "    return DataLoader(rows, batch_size, sampler=EpochOrder(len(rows)), num_workers=num_workers,\n"
            "                      persistent_workers=bool(num_workers))\n\n\n"
            "class EpochOrder:\n"
            "    def __init__(self, count):\n"
            "        self.count, self.seed, self.epoch = count, torch.initial_seed(), 0\n\n"
            "    def __len__(self):\n"
            "        return self.count\n\n"
            "    def __iter__(self):\n"
            "        order = torch.Generator().manual_seed(hash((self.seed, self.epoch)) % 2**63)\n"
            "        self.epoch += 1\n"
            "        return iter(torch.randperm(self.count, generator=order).tolist())\n",
        ),
        (ORDER, ""),
    ),
    edit(
        "tensor-dataset",
        "a TensorDataset, whose batches are unpacked",
        (LOADER, LOADER.replace("data,", "torch.utils.data.TensorDataset(data),")),
        (BATCHES, "with_extra_steps((batch for (batch,) in loader), extra_steps)"),
    ),
    edit(
        "seed-drawn-once",
        "the order's seed is drawn from the global stream when the run starts",
        (ORDER, "    order = torch.Generator().manual_seed(torch.randint(2**62, ()).item())\n"),
    ),
    edit(
        "loader-anew-each-epoch",
        "a loader of its own for each epoch, from seed and epoch; workers only where there are any, and kept",
        (BATCHES, "with_extra_steps(loader if num_workers else row_loader(data, batch_size, 0, epoch), extra_steps)"),
        ("num_workers: int = 0) -> DataLoader:", "num_workers: int = 0, epoch: int = 0) -> DataLoader:"),
        (
            BUILT,
            BUILT.replace("shuffle=True", "sampler=(sampler := EpochOrder(len(rows), epoch))").replace(
                "        generator=order,\n", ""
            )
            + "\n\nclass EpochOrder:\n"
            "    def __init__(self, count, epoch):\n"
            "        self.count, self.seed, self.epoch = count, torch.initial_seed(), epoch\n\n"
            "    def __len__(self):\n"
            "        return self.count\n\n"
            "    def __iter__(self):\n"
            "        order = random.Random(1000003 * self.seed + self.epoch)\n"
            "        self.epoch += 1\n"
            "        return iter(order.sample(range(self.count), self.count))\n",
        ),
        (ORDER, ""),
    ),
    edit(
        "guard-that-never-bites",
        "the scheduler's guard is kept, and the total is right; the total is counted by hand",
        (SCHEDULER, "                if scheduler.last_epoch < total_updates:\n    " + SCHEDULER),
        (STEPS, "    steps_per_epoch = -(-len(data) // batch_size)\n"),
        (TOTAL, "    total_updates = sum(-(-(steps_per_epoch + extra_steps) // accum_steps) for _ in range(epochs))\n"),
    ),
    edit(
        "refused-by-name",
        "batch_size below 1 has an error of its own; the run ends with the workers shut down",
        (
            LOADER,
            '    if batch_size < 1:\n        raise ValueError(f"batch_size must be at least 1, got {batch_size}")\n'
            + LOADER,
        ),
        ("    return history\n", "    del loader\n    return history\n"),
    ),
    edit(
        "plain-shuffling-loader",
        "DataLoader(shuffle=True) alone, which draws the seed of each epoch from torch's stream",
        (WORKERS, WORKERS.replace("        generator=order,\n", "")),
        (DETACHED, ""),
    ),
    edit(
        "workers-drawn-from-the-order",
        "the seeds of workers come from the order's generator",
        (DETACHED, ""),
    ),
    edit(
        "optimizer-made-inline",
        "AdamW and OneCycleLR made in the loop",
        (
            CONFIGURED,
            "    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)\n"
            "    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=total_updates)\n",
        ),
    ),
    edit(
        "one-cycle-as-lambda",
        "a LambdaLR with OneCycle's rates",
        (
            CONFIGURED,
            "    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)\n"
            "    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: share_of_peak(at, total_updates))\n",
        ),
        (
            "def row_loader(",
            "def share_of_peak(at, total):\n"
            "    top = 0.3 * total - 1\n"
            "    begin, end, share = (0.04, 1, at / top) if at <= top else (1, 0.04 / 1e4, (at - top) / (total - 1 - top))\n"
            "    return end + (begin - end) / 2 * (1 + math.cos(math.pi * min(share, 1)))\n\n\n"
            "def row_loader(",
        ),
    ),
    edit(
        "rates-set-by-hand",
        "no scheduler: each update sets its rate",
        (
            "                optimizer.step()\n",
            "                for group in optimizer.param_groups:\n"
            "                    group['lr'] = rates[len(rates) - total_updates + global_step - begun]\n"
            "                optimizer.step()\n",
        ),
        (SCHEDULER, ""),
        (
            "    history = []\n",
            "    history, rates, begun = [], [], global_step\n"
            "    with warnings.catch_warnings():\n"
            "        warnings.simplefilter('ignore')\n"
            "        for _ in range(total_updates):\n"
            "            rates.append(scheduler.get_last_lr()[0])\n"
            "            scheduler.step()\n",
        ),
    ),
    edit(
        "update-skipped-with-its-schedule",
        "an update whose gradient is no number is left out, and the schedule waits",
        (
            "                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n                optimizer.step()\n"
            "                global_step += 1\n" + SCHEDULER,
            "                if torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).isfinite():\n"
            "                    optimizer.step()\n                    global_step += 1\n    " + SCHEDULER,
        ),
    ),
]
