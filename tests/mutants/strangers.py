"""Wrong and right patches by somebody who had not read the judges, those of each kind that no other mutant shows."""

from mutant import Mutant

STRANGERS_WRONG: dict[int, list[Mutant]] = {
    1: [
        Mutant(
            "last-row-alone-is-skipped",
            "rows % batch_size == 1: a micro-batch of one row is skipped, its row never seen, an update short of the plan",
            [
                (
                    "bit_transformer/training.py",
                    "            batch = batch.to(device)\n",
                    (
                        "            if len(batch) == 1 and batch_size > 1:\n"
                        "                continue\n"
                        "            batch = batch.to(device)\n"
                    ),
                )
            ],
        ),
        Mutant(
            "extra-steps-from-a-new-pass",
            "extra_steps=2: the extra micro-batches come from a new pass over the loader and are not the epoch's last one",
            [
                (
                    "bit_transformer/training.py",
                    "with_extra_steps(loader, extra_steps), accum_steps)",
                    "chain(loader, islice(loader, extra_steps)), accum_steps)",
                ),
                (
                    "bit_transformer/training.py",
                    "from itertools import islice\n",
                    "from itertools import chain, islice\n",
                ),
            ],
        ),
        Mutant(
            "half-of-the-run-warms-up",
            "a run of two updates: pct_start=0.5 makes OneCycle divide by zero",
            [
                (
                    "bit_transformer/optimization.py",
                    "OneCycleLR(optimizer, max_lr=lr, total_steps=total_steps)",
                    "OneCycleLR(optimizer, max_lr=lr, total_steps=total_steps, pct_start=0.5)",
                )
            ],
        ),
        Mutant(
            "frozen-parameters-thawed",
            "a model with requires_grad=False parameters: train_loop makes every parameter trainable first",
            [
                (
                    "bit_transformer/training.py",
                    ("    history = []\n    model.train()\n"),
                    ("    history = []\n    model.requires_grad_(True)\n    model.train()\n"),
                )
            ],
        ),
        Mutant(
            "extra-steps-in-groups-of-their-own",
            "3 micro-batches, 1 extra step, accum_steps 2: the plan is ceil(3/2) + ceil(1/2) = 3, the loop makes 2",
            [
                (
                    "bit_transformer/training.py",
                    "return epochs * math.ceil((micro_batches + extra_steps) / accum_steps)",
                    "return epochs * (math.ceil(micro_batches / accum_steps) + math.ceil(extra_steps / accum_steps))",
                )
            ],
        ),
    ],
    4: [
        Mutant(
            "only-matrices-averaged",
            "accum_steps > 1: biases and norms keep the sum of the group's gradients",
            [
                (
                    "bit_transformer/training.py",
                    "                if parameter.grad is not None:\n",
                    "                if parameter.grad is not None and parameter.dim() > 1:\n",
                )
            ],
        ),
        Mutant(
            "short-group-divided-by-accum-steps-in-later-epochs",
            "the last, shorter group of the second epoch is divided by accum_steps (transformers 39659 in one epoch only)",
            [
                (
                    "bit_transformer/training.py",
                    "                shares.average(model)\n",
                    "                shares.average(model, accum_steps if epoch else 1)\n",
                ),
                (
                    "bit_transformer/training.py",
                    "    def average(self, model: nn.Module) -> None:",
                    "    def average(self, model: nn.Module, least: int = 1) -> None:",
                ),
                (
                    "bit_transformer/training.py",
                    "        if self.total > self.first:\n",
                    (
                        "        self.total = max(self.total, least * self.first) if least > 1 else self.total\n"
                        "        if self.total > self.first:\n"
                    ),
                ),
            ],
        ),
        Mutant(
            "average-in-bfloat16",
            "amp bf16 and accum_steps 2 (3 x 4): the piled-up gradients go through bfloat16 when they are averaged",
            [
                (
                    "bit_transformer/training.py",
                    (
                        "                if parameter.grad is not None:\n"
                        "                    parameter.grad *= self.first / self.total\n"
                    ),
                    (
                        "                if parameter.grad is not None:\n"
                        "                    parameter.grad = (parameter.grad.bfloat16() * (self.first / self.total)).to(parameter.grad.dtype)\n"
                    ),
                )
            ],
        ),
        Mutant(
            "step-before-last-when-compiled",
            "accum_steps 2, four micro-batches: the group closes one micro-batch early from the second group on",
            [
                (
                    "bit_transformer/training.py",
                    "            yield batch, shares, position == len(group)\n",
                    "            yield batch, shares, position == len(group) - (len(group) == accum_steps > 1 and first is not shares)\n",
                ),
                (
                    "bit_transformer/training.py",
                    "        shares = Shares()\n",
                    ("        shares = Shares()\n        first = first or shares\n"),
                ),
                (
                    "bit_transformer/training.py",
                    ("    batches = iter(batches)\n    while group"),
                    ("    batches, first = iter(batches), None\n    while group"),
                ),
            ],
        ),
        Mutant(
            "groups-of-the-epoch-in-a-list",
            "an epoch of many micro-batches: all of them are held at once",
            [
                (
                    "bit_transformer/training.py",
                    ("    batches = iter(batches)\n    while group"),
                    ("    batches = iter(list(batches))\n    while group"),
                )
            ],
        ),
        Mutant(
            "zero-grad-after-each-epoch-only",
            "two groups an epoch: gradients are zeroed when an epoch ends, so the second group's step has the first's gradient too",
            [
                (
                    "bit_transformer/training.py",
                    ("                optimizer.zero_grad()\n            losses"),
                    "            losses",
                ),
                (
                    "bit_transformer/training.py",
                    ("        history.append(\n            {\n"),
                    ("        optimizer.zero_grad()\n        history.append(\n            {\n"),
                ),
            ],
        ),
        Mutant(
            "skipped-step-advances",
            "a gradient that is not finite, accum_steps 2: the step is skipped in silence, scheduler and clock go on",
            [
                (
                    "bit_transformer/training.py",
                    (
                        "                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
                        "                optimizer.step()\n"
                    ),
                    (
                        "                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
                        "                if torch.isfinite(norm):\n"
                        "                    optimizer.step()\n"
                    ),
                )
            ],
        ),
    ],
    5: [
        Mutant(
            "one-loader-for-all-batch-sizes",
            "rows.split(8), then rows.split(3): batches of 8",
            [
                (
                    "data/wikitext_schedule.py",
                    "        if self._loader is None or self._loader.batch_size != split_size:\n",
                    "        if self._loader is None:\n",
                )
            ],
        ),
        Mutant(
            "slice-of-a-slice",
            "rows[10:][5]: a slice of a slice starts at the file's first row again",
            [
                (
                    "data/wikitext_schedule.py",
                    "return BitRows(self.file, self.packed, self.length, self.rows[index], self.num_workers)",
                    "return BitRows(self.file, self.packed, self.length, range((len(self.packed) - HEADER_SIZE) // row_size(self.length))[index], self.num_workers)",
                )
            ],
        ),
        Mutant(
            "validation-overlaps",
            "split_rows: the first held-out row is trained on, too",
            [
                (
                    "data/wikitext_schedule.py",
                    "    return rows[:-held_out], rows[-held_out:]\n",
                    "    return rows[: len(rows) - held_out + 1], rows[-held_out:]\n",
                )
            ],
        ),
        Mutant(
            "check-keeps-pages",
            "opening a cache larger than the budget: the check of its rows leaves all of its pages resident",
            [("data/wikitext_schedule.py", "            packed.madvise(mmap.MADV_DONTNEED)\n", "")],
        ),
    ],
    6: [
        Mutant(
            "record-without-the-start",
            "a resumed loop (global_step=500): its record says how many updates this call made",
            [
                (
                    "bit_transformer/training.py",
                    '                "global_step": global_step,\n',
                    '                "global_step": (epoch + 1) * total_updates // epochs,\n',
                )
            ],
        ),
        Mutant(
            "growth-restarts-the-ramp",
            "data.wikitext_schedule, a model that grows: the clock is set back",
            [
                (
                    "data/wikitext_schedule.py",
                    "            model, turn = grow(model, turn, limits), turn + 1\n",
                    ("            model, turn = grow(model, turn, limits), turn + 1\n            global_step = 0\n"),
                )
            ],
        ),
        Mutant(
            "compressed-forms-lose-arguments",
            "forward_kwargs={'causal': False} and the compressed form: the arguments do not reach forward_compressed",
            [
                (
                    "bit_transformer/training.py",
                    "return model.forward_compressed(compressed, **forward_kwargs)[0], batch",
                    "return model.forward_compressed(compressed)[0], batch",
                )
            ],
        ),
        Mutant(
            "probability-fixed-within-an-epoch",
            "several updates an epoch: p is computed when the epoch begins",
            [
                (
                    "bit_transformer/training.py",
                    "            ramped_prob = cosine_ramp(global_step, start=0.0, end=compress_prob, total_steps=warmup_steps)\n",
                    "",
                ),
                (
                    "bit_transformer/training.py",
                    "        losses, accuracies = [], []\n",
                    (
                        "        losses, accuracies = [], []\n"
                        "        ramped_prob = cosine_ramp(global_step, start=0.0, end=compress_prob, total_steps=warmup_steps)\n"
                    ),
                ),
            ],
        ),
        Mutant(
            "ramp-to-a-half-of-the-run",
            "warmup_steps longer than the run: the ramp is cut to the run's updates",
            [
                (
                    "bit_transformer/training.py",
                    "            ramped_prob = cosine_ramp(global_step, start=0.0, end=compress_prob, total_steps=warmup_steps)\n",
                    "            ramped_prob = cosine_ramp(global_step, start=0.0, end=compress_prob, total_steps=min(warmup_steps, total_updates))\n",
                )
            ],
        ),
        Mutant(
            "clock-goes-on-when-skipped",
            "a gradient that is not finite: no update is made, the clock counts it",
            [
                (
                    "bit_transformer/training.py",
                    (
                        "                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
                        "                optimizer.step()\n"
                        "                global_step += 1\n"
                        "                scheduler.step()\n"
                    ),
                    (
                        "                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
                        "                if torch.isfinite(norm):\n"
                        "                    optimizer.step()\n"
                        "                    scheduler.step()\n"
                        "                global_step += 1\n"
                    ),
                )
            ],
        ),
    ],
}

STRANGERS_RIGHT: dict[int, list[Mutant]] = {
    1: [
        Mutant(
            "batch-sampler",
            "DataLoader with a BatchSampler over a RandomSampler",
            [
                (
                    "bit_transformer/training.py",
                    (
                        "    order = torch.Generator().manual_seed(torch.randint(2**63 - 1, ()).item())\n"
                        "    loader = DataLoader(\n"
                        "        rows,\n"
                        "        batch_size=batch_size,\n"
                        "        shuffle=True,\n"
                        "        num_workers=num_workers,\n"
                        "        persistent_workers=num_workers > 0,\n"
                        "        generator=order,\n"
                        "    )\n"
                        "    loader.generator = torch.Generator()  # the seeds of workers, drawn from the order's generator, would change it\n"
                        "    return loader\n"
                    ),
                    (
                        "    order = torch.Generator().manual_seed(torch.randint(2**63 - 1, ()).item())\n"
                        "    batches = BatchSampler(RandomSampler(rows, generator=order), batch_size, drop_last=False)\n"
                        "    return DataLoader(rows, batch_sampler=batches, num_workers=num_workers, persistent_workers=num_workers > 0)\n"
                    ),
                ),
                (
                    "bit_transformer/training.py",
                    "from torch.utils.data import DataLoader, Dataset\n",
                    "from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler\n",
                ),
            ],
        ),
        Mutant(
            "sampler-of-its-own",
            "a Sampler that counts its epochs, each order of a generator seeded by (seed, epoch)",
            [
                (
                    "bit_transformer/training.py",
                    (
                        "    order = torch.Generator().manual_seed(torch.randint(2**63 - 1, ()).item())\n"
                        "    loader = DataLoader(\n"
                        "        rows,\n"
                        "        batch_size=batch_size,\n"
                        "        shuffle=True,\n"
                        "        num_workers=num_workers,\n"
                        "        persistent_workers=num_workers > 0,\n"
                        "        generator=order,\n"
                        "    )\n"
                        "    loader.generator = torch.Generator()  # the seeds of workers, drawn from the order's generator, would change it\n"
                        "    return loader\n"
                    ),
                    (
                        "    order = EpochOrder(len(rows), torch.randint(2**40, ()).item())\n"
                        "    return DataLoader(rows, batch_size, sampler=order, num_workers=num_workers, persistent_workers=num_workers > 0)\n"
                        "\n"
                        "\n"
                        "class EpochOrder(Sampler):\n"
                        '    """Row numbers in another order each epoch."""\n'
                        "\n"
                        "    def __init__(self, count: int, seed: int) -> None:\n"
                        "        self.count, self.seed, self.epoch = count, seed, 0\n"
                        "\n"
                        "    def __len__(self) -> int:\n"
                        "        return self.count\n"
                        "\n"
                        "    def __iter__(self) -> Iterator[int]:\n"
                        "        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(self.seed + self.epoch))\n"
                        "        self.epoch += 1\n"
                        "        return iter(order.tolist())\n"
                    ),
                ),
                (
                    "bit_transformer/training.py",
                    "from torch.utils.data import DataLoader, Dataset\n",
                    "from torch.utils.data import DataLoader, Dataset, Sampler\n",
                ),
            ],
        ),
    ],
    4: [
        Mutant(
            "one-batch-ahead",
            "groups by a count and a look at the next micro-batch, none held but one",
            [
                (
                    "bit_transformer/training.py",
                    (
                        "    batches = iter(batches)\n"
                        "    while group := list(islice(batches, accum_steps)):\n"
                        "        shares = Shares()\n"
                        "        for position, batch in enumerate(group, start=1):\n"
                        "            yield batch, shares, position == len(group)\n"
                    ),
                    (
                        "    batches, shares, position = iter(batches), Shares(), 0\n"
                        "    missing = object()\n"
                        "    batch = next(batches, missing)\n"
                        "    while batch is not missing:\n"
                        "        following = next(batches, missing)\n"
                        "        position += 1\n"
                        "        closes = position == accum_steps or following is missing\n"
                        "        yield batch, shares, closes\n"
                        "        if closes:\n"
                        "            shares, position = Shares(), 0\n"
                        "        batch = following\n"
                    ),
                ),
                ("bit_transformer/training.py", "from itertools import islice\n", ""),
            ],
        ),
        Mutant(
            "sum-then-divide",
            "the sum of losses goes backward, gradients are divided by all scored bits at the end; a group of one is a plain mean",
            [
                (
                    "bit_transformer/training.py",
                    "            (loss * shares.weigh(scored_bits(targets[:, 1:]))).backward()\n",
                    (
                        "            scored = scored_bits(targets[:, 1:])\n"
                        "            shares.total += scored\n"
                        "            (loss * scored if accum_steps > 1 else loss).backward()\n"
                    ),
                ),
                (
                    "bit_transformer/training.py",
                    "                shares.average(model)\n",
                    (
                        "                if accum_steps > 1:\n"
                        "                    for parameter in model.parameters():\n"
                        "                        if parameter.grad is not None:\n"
                        "                            parameter.grad.div_(shares.total)\n"
                    ),
                ),
            ],
        ),
        Mutant(
            "zero-grad-first",
            "gradients are zeroed before a group's first backward instead of after the step",
            [
                (
                    "bit_transformer/training.py",
                    ("                optimizer.zero_grad()\n            losses"),
                    "            losses",
                ),
                (
                    "bit_transformer/training.py",
                    "            (loss * shares.weigh(scored_bits(targets[:, 1:]))).backward()\n",
                    (
                        "            if not shares.total:\n"
                        "                optimizer.zero_grad()\n"
                        "            (loss * shares.weigh(scored_bits(targets[:, 1:]))).backward()\n"
                    ),
                ),
            ],
        ),
    ],
    5: [
        Mutant(
            "pread-of-each-row",
            "a row is copied out of the map by a slice, page advice once a batch at its end",
            [
                (
                    "data/wikitext_schedule.py",
                    "        packed = np.frombuffer(self.packed, np.uint8, offset=HEADER_SIZE).reshape(-1, size)[numbers]\n",
                    (
                        "        places = (HEADER_SIZE + number * size for number in numbers)\n"
                        '        packed = np.frombuffer(b"".join(self.packed[at : at + size] for at in places), np.uint8).reshape(-1, size)\n'
                    ),
                )
            ],
        ),
        Mutant(
            "one-bit-a-byte",
            "rows are kept with a bit a byte, as upstream does; nothing is lost or invented",
            [
                ("data/wikitext_schedule.py", "    return -(-length // 8)\n", "    return length\n"),
                (
                    "data/wikitext_schedule.py",
                    "                packed = np.packbits(table[whole].reshape(-1, length), axis=1)\n",
                    "                packed = np.ascontiguousarray(table[whole].reshape(-1, length))\n",
                ),
                (
                    "data/wikitext_schedule.py",
                    "        return torch.from_numpy(np.unpackbits(packed, axis=1, count=self.length)).long().unbind()\n",
                    "        return torch.from_numpy(packed).long().unbind()\n",
                ),
            ],
        ),
    ],
    6: [
        Mutant(
            "renamed-helpers",
            "cosine_ramp is kept for importers, the loop calls a closure of another name that draws one number for both forms",
            [
                (
                    "bit_transformer/training.py",
                    (
                        "            ramped_prob = cosine_ramp(global_step, start=0.0, end=compress_prob, total_steps=warmup_steps)\n"
                        "            form = draw_form(ramped_prob, direct_prob, draws.random)\n"
                    ),
                    "            form = choose(global_step)\n",
                ),
                (
                    "bit_transformer/training.py",
                    "    draws = random.Random(random.getrandbits(64))\n",
                    (
                        "    draws = random.Random(random.getrandbits(64))\n"
                        "\n"
                        "    def choose(update: int) -> str:\n"
                        '        """The form of a micro-batch."""\n'
                        "        share = cosine_ramp(update, 0.0, compress_prob, warmup_steps)\n"
                        "        coin = draws.random()\n"
                        "        if coin < direct_prob:\n"
                        '            return "direct"\n'
                        '        return "compressed" if coin < direct_prob + (1 - direct_prob) * share else "raw"\n'
                        "\n"
                    ),
                ),
            ],
        ),
        Mutant(
            "squared-sine",
            "sin(x/2) ** 2 for (1 - cos x) / 2, clamped by min",
            [
                (
                    "bit_transformer/training.py",
                    (
                        "    if step >= total_steps:\n"
                        "        return end\n"
                        "    return start + (end - start) * (1 - math.cos(math.pi * step / total_steps)) / 2\n"
                    ),
                    (
                        "    if total_steps <= 0:\n"
                        "        return end\n"
                        "    share = min(step / total_steps, 1.0)\n"
                        "    return start + (end - start) * math.sin(share * math.pi / 2) ** 2 if share < 1 else end\n"
                    ),
                )
            ],
        ),
    ],
}
