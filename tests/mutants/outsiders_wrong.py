"""Wrong patches by somebody who had not read the judges: right where one looks first, wrong elsewhere."""

from mutant import Mutant

TRAINING = "bit_transformer/training.py"
MODEL = "bit_transformer/model.py"
PRETRAINING = "bit_transformer/pretraining.py"
RUNS = "bit_transformer/runs.py"
MANAGER = "dashboard/manager.py"
SCHEDULE = "data/wikitext_schedule.py"

OUTSIDERS_WRONG: dict[int, list[Mutant]] = {
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
            "order-of-initial-seed",
            "the order is seeded by torch.initial_seed(): each run of a process has that of the first",
            (
                (
                    TRAINING,
                    "    order = torch.Generator().manual_seed(torch.randint(2**63 - 1, ()).item())\n",
                    "    order = torch.Generator().manual_seed(torch.initial_seed())\n",
                ),
            ),
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
    ],
    2: [
        Mutant(
            "download-keeps-when-plan-same",
            "download in one manager, by the plan there was: optimizer and schedule stay the old model's",
            (
                (
                    MANAGER,
                    (
                        '            self.model, self.data, self.validation, self.plan = snapshot["model"], data, None, plan\n'
                        "            self.optimizer, self.scheduler = configure_optimizer(\n"
                        "                self.model, lr=plan.lr, weight_decay=plan.weight_decay, total_steps=plan.updates\n"
                        "            )\n"
                    ),
                    (
                        "            is_new = plan != self.plan\n"
                        '            self.model, self.data, self.validation, self.plan = snapshot["model"], data, None, plan\n'
                        "            if is_new:\n"
                        "                self.optimizer, self.scheduler = configure_optimizer(\n"
                        "                    self.model, lr=plan.lr, weight_decay=plan.weight_decay, total_steps=plan.updates\n"
                        "                )\n"
                    ),
                ),
            ),
        ),
        Mutant(
            "train-starts-schedule-anew",
            "train() makes optimizer and schedule anew: the rate begins again on each request",
            (
                (
                    MANAGER,
                    "            records = []\n",
                    (
                        "            self.optimizer, self.scheduler = configure_optimizer(\n"
                        "                self.model, lr=self.plan.lr, weight_decay=self.plan.weight_decay, total_steps=self.plan.updates\n"
                        "            )\n"
                        "            records = []\n"
                    ),
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
    ],
    5: [
        Mutant(
            "digest-of-head",
            "of a text only its size and first MiB tell whether it is another",
            (
                (
                    SCHEDULE,
                    '        return hashlib.file_digest(file, "sha256").hexdigest()\n',
                    '        return hashlib.sha256(f"{path.stat().st_size}".encode() + file.read(BLOCK_SIZE)).hexdigest()\n',
                ),
                (
                    SCHEDULE,
                    (
                        "            if read_hash.hexdigest() != text_hash:\n"
                        '                raise ValueError(f"{path} changed while its rows were written: load it again")\n'
                    ),
                    "",
                ),
            ),
        ),
        Mutant(
            "no-workers-by-default",
            "rows are loaded without workers",
            (
                (
                    SCHEDULE,
                    "max_seq_len: int, num_workers: int = 2, folder",
                    "max_seq_len: int, num_workers: int = 0, folder",
                ),
            ),
        ),
        Mutant(
            "offset-instead-of-range",
            "rows of a slice are counted from its start, and have no end",
            (
                (
                    SCHEDULE,
                    "numbers, size = [self.rows[index] for index in indices], row_size(self.length)",
                    "numbers, size = [self.rows.start + index for index in indices], row_size(self.length)",
                ),
            ),
        ),
        Mutant(
            "pickled-slice-is-all",
            "a slice that was pickled is all rows",
            (
                (
                    SCHEDULE,
                    '        return {**self.__dict__, "_loader": None, "packed": self.packed[:HEADER_SIZE]}',
                    '        return {"file": self.file, "length": self.length, "num_workers": self.num_workers, "_loader": None, "packed": self.packed[:HEADER_SIZE]}',
                ),
                (
                    SCHEDULE,
                    '            raise OSError(f"{self.file} is not the file that these rows were read from: load them again")\n',
                    (
                        '            raise OSError(f"{self.file} is not the file that these rows were read from: load them again")\n'
                        "        self.rows = range((len(self.packed) - HEADER_SIZE) // row_size(self.length))\n"
                    ),
                ),
            ),
        ),
        Mutant(
            "stepped-slices",
            "slices with a step are taken without it",
            (
                (
                    SCHEDULE,
                    "numbers, size = [self.rows[index] for index in indices], row_size(self.length)",
                    "numbers, size = [range(self.rows.start, self.rows.stop)[index] for index in indices], row_size(self.length)",
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
    ],
    7: [
        Mutant(
            "runs-resume-new-gate",
            "a run that is resumed has a new gate",
            ((PRETRAINING, '        self.gate.load_state_dict(state["gate"])\n', ""),),
        ),
        Mutant(
            "runs-threshold-default",
            "a run that is kept has the default threshold",
            ((RUNS, 'SafetyGate(values["loss_threshold"])', "SafetyGate()"),),
        ),
    ],
    9: [
        Mutant(
            "rows-over-256-in-halves",
            "rows of more than 256 bits are attended to in pieces",
            (
                (
                    MODEL,
                    "        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=dropout_p)\n",
                    (
                        "        if T > 256 and causal:\n"
                        "            out = torch.cat([F.scaled_dot_product_attention(*(x[:, :, s : s + 256] for x in (q, k, v)), is_causal=True, dropout_p=dropout_p) for s in range(0, T, 256)], dim=2)\n"
                        "        else:\n"
                        "            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=dropout_p)\n"
                    ),
                ),
            ),
        ),
    ],
    10: [
        Mutant(
            "kept-two",
            "two masks are kept",
            ((MODEL, "TRI_MASKS_KEPT = 32", "TRI_MASKS_KEPT = 2"),),
        ),
        Mutant(
            "long-masks-not-kept",
            "masks of more than 512 bits are not kept",
            (
                (
                    MODEL,
                    "    _tri_masks[key] = (mask, mask._version)\n",
                    ("    if seq_len <= 512:\n        _tri_masks[key] = (mask, mask._version)\n"),
                ),
            ),
        ),
    ],
    11: [
        Mutant(
            "long-no-overlap-256",
            "rows of more than 256 bits lose the overlap",
            (
                (
                    MODEL,
                    "        hidden = hidden | window_padding(T, chunk, overlap, hidden.device)\n",
                    (
                        "        hidden = hidden | window_padding(T, chunk, overlap, hidden.device)\n"
                        "        if T > 256 and overlap:\n"
                        "            hidden = hidden | (torch.arange(width, device=q.device) < overlap)\n"
                    ),
                ),
            ),
        ),
    ],
    12: [
        Mutant(
            "one-chunk-is-dense",
            "a chunk that holds max_seq_len bits counts as none",
            (
                (
                    MODEL,
                    "SelfAttention(d_model, nhead, 0.1, chunk_size, overlap, full_attn_logging),",
                    (
                        "SelfAttention(\n"
                        "                    d_model, nhead, 0.1, chunk_size, overlap,\n"
                        "                    True if full_attn_logging is None and chunk_size is not None and chunk_size >= max_seq_len else full_attn_logging,\n"
                        "                ),"
                    ),
                ),
            ),
        ),
        Mutant(
            "no-maps-under-autocast",
            "under autocast there are no maps",
            (
                (
                    MODEL,
                    "        return self.out_proj(out.transpose(1, 2).flatten(2)), attn_map\n",
                    "        return self.out_proj(out.transpose(1, 2).flatten(2)), None if torch.is_autocast_enabled(x.device.type) else attn_map\n",
                ),
            ),
        ),
        Mutant(
            "no-maps-over-256",
            "of rows of more than 256 bits there are no maps",
            (
                (
                    MODEL,
                    "        return self.out_proj(out.transpose(1, 2).flatten(2)), attn_map\n",
                    "        return self.out_proj(out.transpose(1, 2).flatten(2)), None if x.shape[1] > 256 else attn_map\n",
                ),
            ),
        ),
    ],
}
