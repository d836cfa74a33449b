"""How trees spell the options that we know under one name each: what else they may be called, and their values.

And the file by which a tree says itself how it is driven. Judges read this too, so it needs nothing that reads code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

DRIVER = "bitpatch_seams.py"
ASKED = {  # of a bitpatch_seams.py: how each function is called, and what it gives
    "model": ("model()", "A model in training mode, small enough for a CPU."),
    "batch": ("batch(seed)", "One micro-batch, as loss takes it; of another seed another one."),
    "loss": ("loss(model, batch)", "The loss that training goes from, a scalar; it calls the model."),
    "train": ("train()", "A short run of this tree's own training, to its end."),
}

MODEL = {
    "d_model": ("width", "dim", "d", "hidden_size", "embed_dim", "n_embd", "model_dim"),
    "nhead": ("heads", "n_heads", "num_heads", "n_head", "num_attention_heads", "h"),
    "num_layers": ("layers", "depth", "n_layers", "n_layer", "num_blocks", "blocks"),
    "dim_feedforward": ("ff", "hidden", "d_ff", "ff_dim", "dim_ff", "ffn_dim", "feedforward", "mlp_dim", "d_hidden"),
    "max_seq_len": (
        *("max_len", "seq_len", "max_length", "context", "context_length", "block_size", "n_ctx", "length"),
        *("max_context", "n_positions", "max_positions", "sequence_length"),
    ),
    "dropout": ("p_dropout", "drop", "dropout_p"),
    "lambda_K": (),
    "lambda_C": (),
    "lambda_S": (),
    "reversible": ("use_reversible",),
    "use_checkpoint": ("checkpointing", "checkpoint", "gradient_checkpointing", "use_checkpointing"),
    "use_act": ("act", "adaptive"),
    "act_threshold": ("halt_threshold",),
    "chunk_size": ("chunk", "window", "window_size", "block"),
    "overlap": ("lookback", "chunk_overlap", "context_overlap", "halo"),
    "full_attn_logging": (
        *("keep_maps", "attn_logging", "log_attention", "attention_maps", "need_maps", "log_maps", "return_maps"),
        *("record_attention", "store_attention", "save_attention", "keep_attention", "return_attention", "with_maps"),
        *("output_attentions", "record_attn", "store_attn", "log_attn", "return_attn", "record_maps", "save_maps"),
    ),
}
LOOP = {
    "epochs": ("num_epochs", "n_epochs", "max_epochs"),
    "extra_steps": ("extra", "repeats", "extra_updates"),
    "batch_size": ("micro_batch_size", "batch", "bs", "rows_per_batch", "train_batch_size"),
    "num_workers": ("workers", "loader_workers", "n_workers"),
    "accum_steps": (
        *("accumulate", "accumulation", "accumulation_steps", "gradient_accumulation_steps", "grad_accum"),
        *("grad_accum_steps", "accumulate_grad_batches", "accumulation_size"),
    ),
    "amp": ("bf16", "use_amp", "autocast", "use_autocast", "mixed_precision", "precision", "use_bf16"),
    "compile": ("compile_model", "use_compile", "torch_compile", "compiled"),
    "compile_policy": ("compile_mode_policy",),
    "compress_prob": ("compression_prob", "compress", "p_compress", "squeeze_prob"),
    "direct_prob": ("p_direct",),
    "warmup_steps": ("ramp_steps", "compress_warmup", "compress_warmup_steps", "ramp"),
    "global_step": ("start_step", "first_step"),
    "lr": ("learning_rate", "peak_lr", "max_lr", "base_lr"),
    "weight_decay": ("wd", "decay"),
    "forward_kwargs": ("model_kwargs", "forward_args"),
    "log": ("verbose",),
}
COMMAND = {
    "data": ("text", "texts", "corpus", "input", "inputs", "file", "files", "path"),
    "out": ("output", "save", "save_to", "output_path", "save_path"),
    "seed": ("random_seed", "manual_seed"),
}
GATE = {
    "threshold": ("loss_threshold", "limit", "max_loss", "ceiling"),
    "decay": ("beta", "smoothing", "momentum"),
    "burn_in_steps": ("burn_in", "warmup", "warmup_steps", "grace", "patience", "grace_steps"),
    "c_floor": (),
    "s_floor": (),
}
SPELLINGS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "model": MODEL,
    "update": LOOP,
    "command-line": {**MODEL, **LOOP, **COMMAND},
    "gate": GATE,
    "manager": {"folder": ("snapshots", "snapshot_dir", "out", "path", "root"), "loss_threshold": GATE["threshold"]},
}


def spelled(seam: str, names: Iterable[str], settled: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our options of a seam that a tree has among some names, and what it calls each; what is settled comes first."""
    there, given = set(names), dict(settled or {})
    found = {ours: theirs for ours, theirs in given.items() if theirs in there}
    for ours, others in SPELLINGS.get(seam, {}).items():
        free = [name for name in (ours, *others) if name in there and name not in found.values()]
        if free and ours not in found:
            found[ours] = free[0]
    return found


def is_switch(default: ast.expr | None, annotation: ast.expr | None) -> bool:
    """Whether an option is on or off, by its default or its annotation."""
    return (isinstance(default, ast.Constant) and isinstance(default.value, bool)) or (
        isinstance(annotation, ast.Name) and annotation.id == "bool"
    )
