"""The three runs of Phase 2, as data: the flags of each, and in one sentence why.

A flag that follows a preset's name on the command line overrides it:

    python -m bit_transformer.training task-a --data text.txt --out runs/a --layers 4
"""

from dataclasses import dataclass
from typing import Any

BITS_A_PARAMETER = 20  # tokens a parameter that are best for the compute spent: Hoffmann et al. 2022, arXiv:2203.15556


@dataclass(frozen=True, slots=True)
class Flag:
    """The value of a flag, and why it has it."""

    value: Any
    why: str


@dataclass(frozen=True, slots=True)
class Preset:
    """A named run: what for, its flags, and what must be true before it starts."""

    purpose: str
    flags: dict[str, Flag]
    needs_data: bool = False  # starts only with BITS_A_PARAMETER bits to train on for each parameter
    retuned: str = ""  # what changed against the run that it scales up

    @property
    def values(self) -> dict[str, Any]:
        """The value of each flag."""
        return {name: flag.value for name, flag in self.flags.items()}


CONTEXTS = Flag(6, "What followed the last six bytes in the text is counted, and need not be learned.")
SWEET_SPOT = {
    "layers": Flag(8, "Eight layers."),
    "d_model": Flag(256, "256 channels, and a feed-forward four times as wide."),
    "nhead": Flag(8, "Eight heads of 32 channels."),
    "causal": Flag(True, "A bit is predicted from those before it."),
    "chunk_size": Flag(128, "Memory grows with the length and not with its square."),
    "overlap": Flag(128, "A chunk also sees the one to its left, so that context reaches across chunks."),
    "act": Flag(True, "Positions stop at the layer where they are done."),
    "reversible": Flag(True, "Activations are computed again instead of kept."),
    "checkpointing": Flag(True, "The same for a stack that is not reversible; a reversible one has no use for it."),
    "batch_size": Flag(64, "Rows a micro-batch."),
    "accum_steps": Flag(2, "Two micro-batches an update: 128 rows."),
    "amp": Flag("bf16", "Half the memory traffic, and the exponents of float32."),
    "dropout": Flag(0.0, "What is read once is not learned by heart; of a CPU's time, dropout took two fifths."),
    "context_orders": CONTEXTS,
    "lr": Flag(1e-3, "The rate that is held until the first plateau."),
    "lr_schedule": Flag("progressive_plateau", "The rate halves when the validation loss no longer falls."),
    "full_attn_logging": Flag(False, "Maps of T x T would undo what chunks save; turn it on to look at some."),
}

PRESETS = {
    "task-a": Preset("the validated sweet spot, with the efficiency features", SWEET_SPOT),
    "task-b": Preset(
        "deployment on a CPU, in INT8",
        {
            "layers": Flag(8, "As deep as task-a."),
            "d_model": Flag(128, "Half as wide: a quarter of the weights."),
            "nhead": Flag(8, "Eight heads of 16 channels."),
            "causal": Flag(True, "A bit is predicted from those before it."),
            "chunk_size": Flag(128, "Memory grows with the length and not with its square."),
            "overlap": Flag(128, "A chunk also sees the one to its left, so that context reaches across chunks."),
            "quantization": Flag("int8", "The model that is kept has INT8 weights."),
            "qat": Flag(True, "It is trained as if it had them already; --qat false rounds at the end only."),
            "reversible": Flag(True, "Activations are computed again instead of kept."),
            "checkpointing": Flag(True, "The same for a stack that is not reversible."),
            "batch_size": Flag(128, "Rows a micro-batch."),
            "accum_steps": Flag(1, "One micro-batch an update."),
            "amp": Flag("bf16", "Half the memory traffic, and the exponents of float32."),
            "dropout": Flag(0.0, "As task-a."),
            "context_orders": CONTEXTS,
            "lr": Flag(2e-3, "A narrower model takes a higher rate."),
        },
    ),
    "task-c": Preset(
        "cautious scale-up, after data expansion and a retuned schedule",
        SWEET_SPOT
        | {
            "layers": Flag(16, "Twice as deep as task-a; --grow_from starts from its weights."),
            "batch_size": Flag(48, "Rows a micro-batch: activations of the recompute are those of one layer."),
            "accum_steps": Flag(3, "Three micro-batches an update: 144 rows."),
            "lr": Flag(6e-4, "A deeper model takes a lower rate."),
            "lr_warmup": Flag(400, "Four times as long as task-a."),
            "patience": Flag(5, "Two evaluations more than task-a before the rate halves."),
        },
        needs_data=True,
        retuned="against task-a: lr 1e-3 -> 6e-4, lr_warmup 100 -> 400, patience 3 -> 5, rows an update 128 -> 144",
    ),
}
