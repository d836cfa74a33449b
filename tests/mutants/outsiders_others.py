"""Wrong patches by somebody who had not read the judges: right where one looks first, wrong elsewhere. All else."""

from mutant import Mutant

TRAINING = "bit_transformer/training.py"
MODEL = "bit_transformer/model.py"
PRETRAINING = "bit_transformer/pretraining.py"
RUNS = "bit_transformer/runs.py"
MANAGER = "dashboard/manager.py"
SCHEDULE = "data/wikitext_schedule.py"

OTHERS: dict[int, list[Mutant]] = {
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
        Mutant(
            "evaluation-steps-schedule",
            "where there are rows to validate on, an update moves the schedule twice",
            (
                (
                    MANAGER,
                    ("            loss.backward()\n            torch"),
                    (
                        "            loss.backward()\n"
                        "            if self.validation is not None and self.scheduler.last_epoch + 1 < self.plan.updates:\n"
                        "                self.scheduler.step()\n"
                        "            torch"
                    ),
                ),
            ),
        ),
        Mutant(
            "validation-counted",
            "rows to validate on are planned as rows to train on",
            (
                (
                    MANAGER,
                    'plan = TrainingPlan(**{**(plan or {}), "rows": len(data)})',
                    'plan = TrainingPlan(**{**(plan or {}), "rows": len(data) + (0 if validation is None else len(validation))})',
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
        Mutant(
            "save-gate-before-step",
            "a download that is refused resets the gate",
            (
                (
                    MANAGER,
                    "            snapshot = load_checkpoint(self.snapshot_file(name))\n",
                    (
                        "            snapshot = load_checkpoint(self.snapshot_file(name))\n"
                        "            self.gate.reset()\n"
                    ),
                ),
                (
                    MANAGER,
                    ("                self.gate.load_state_dict(gate)\n                raise\n"),
                    "                raise\n",
                ),
            ),
        ),
    ],
    8: [
        Mutant(
            "fallback-drops-kwargs",
            "the forward that falls back loses its keywords",
            ((TRAINING, "self.model._call_impl(*args, **kwargs)", "self.model._call_impl(*args)"),),
        ),
        Mutant(
            "fallback-restores-no-rng",
            "a compiled forward leaves the random stream where it was",
            (
                (
                    TRAINING,
                    "            return self.compiled(*args, **kwargs)\n",
                    (
                        "            with torch.random.fork_rng():\n"
                        "                return self.compiled(*args, **kwargs)\n"
                    ),
                ),
            ),
        ),
        Mutant(
            "eval-mode-kept-stale",
            "a compiled model drops out in evaluation",
            (
                (
                    TRAINING,
                    "            return self.compiled(*args, **kwargs)\n",
                    (
                        "            was = self.model.training\n"
                        "            self.model.train()\n"
                        "            result = self.compiled(*args, **kwargs)\n"
                        "            self.model.train(was)\n"
                        "            return result\n"
                    ),
                ),
            ),
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
