"""Names changed, across files where they are known there."""

import re
from pathlib import Path

from drift.naming import add_import, before, rename_everywhere, rename_in, rename_locals
from drift.rewriting import DoesNotFit, find, read, retext, rewrite, write

TRAINING, MODEL = "bit_transformer/training.py", "bit_transformer/model.py"


@rewrite("names", 1, 3, 4, 6)
def locals_of_loop(tree: Path) -> None:
    """Every local of train_loop has another name."""
    rename_locals(find(tree, TRAINING), "train_loop", lambda name: f"{name}_")


@rewrite("names", 1, 3, 4, 6)
def locals_of_loop_short(tree: Path) -> None:
    """The main locals of train_loop are named as in other people's loops."""
    rename_in(
        find(tree, TRAINING),
        "train_loop",
        {
            "optimizer": "opt",
            "scheduler": "sched",
            "batch": "xb",
            "loss": "l",
            "total_updates": "n_total",
            "device": "dev",
        },
    )


@rewrite("names", 9, 10, 11)
def locals_of_attention(tree: Path) -> None:
    """Every local of the attention's methods has another name."""
    for method in ("_dense", "_chunked", "_stitch"):
        rename_locals(find(tree, MODEL), f"SelfAttention.{method}", lambda name: f"{name}_v")


@rewrite("names", 9, 10)
def parameters_of_attention(tree: Path) -> None:
    """Queries, keys and values are written out, in locals and parameters."""
    path = find(tree, MODEL)
    names = {"q": "queries", "k": "keys", "v": "values", "scores": "energy", "weights": "probs"}
    for method in ("_dense", "_chunked"):
        rename_in(path, f"SelfAttention.{method}", names, also_parameters=True)


@rewrite("names", 2)
def locals_of_manager(tree: Path) -> None:
    """Locals of the manager's methods have other names."""
    for method in ("train_step", "train", "evaluate"):
        rename_locals(find(tree, "manager.py"), f"ModelManager.{method}", lambda name: f"a_{name}")


@rewrite("names", 2)
def attributes_of_manager(tree: Path) -> None:
    """The manager's lock, and what it has seen, have other names."""
    rename_everywhere(tree, "_lock", "_mutex")
    rename_everywhere(tree, "_seen", "_last_status")
    rename_everywhere(tree, "_ready_model", "_require_model")


@rewrite("names", 1, 3, 4, 6, moves={"bit_transformer.training:train_loop": "bit_transformer.training:fit_bits"})
def loop_renamed(tree: Path) -> None:
    """train_loop is called fit_bits everywhere."""
    rename_everywhere(tree, "train_loop", "fit_bits")


@rewrite(
    "names",
    1,
    4,
    6,
    moves={"train.epochs": "num_epochs", "train.extra_steps": "repeats", "train.compress_prob": "p_compress"},
)
def loop_options_renamed(tree: Path) -> None:
    """Options of train_loop have other names; those of the command lines stay."""
    path = find(tree, TRAINING)
    names = {"epochs": "num_epochs", "extra_steps": "repeats", "compress_prob": "p_compress"}
    rename_in(path, "train_loop", names, also_parameters=True)
    for old, new in names.items():
        retext(path, (f"{old}=args.{old}", f"{new}=args.{old}"))
    retext(find(tree, "wikitext_schedule.py"), ("epochs=args.epochs", "num_epochs=args.epochs"))


@rewrite("names", 9, 10, 11, 12, moves={"bit_transformer.model:BitTransformerLM": "bit_transformer.model:BitLM"})
def model_renamed(tree: Path) -> None:
    """BitTransformerLM is called BitLM everywhere."""
    rename_everywhere(tree, "BitTransformerLM", "BitLM")


@rewrite("names", 9, 10, 11, 12)
def attention_renamed(tree: Path) -> None:
    """The attention class and its methods have other names."""
    for old, new in {
        "SelfAttention": "CausalBitAttention",
        "_dense": "_attend_all",
        "_chunked": "_attend_windows",
        "_stitch": "_paste",
    }.items():
        rename_everywhere(tree, old, new)


@rewrite("names", 9, 12)
def attributes_of_attention(tree: Path) -> None:
    """The heads are n_head, the projections to_q, to_k, to_v and to_out."""
    path_names = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
    for old, new in path_names.items():
        rename_everywhere(tree, old, new)


@rewrite("names", 12)
def logging_renamed(tree: Path) -> None:
    """Inside of the attention the flag is called keeps_map; the arguments keep their names."""
    retext(find(tree, MODEL), ("self.full_attn_logging", "self.keeps_map"))


@rewrite("names", 3, 6)
def scoring_renamed(tree: Path) -> None:
    """The loop's functions have other names."""
    for old, new in {
        "next_bit_loss": "bit_cross_entropy",
        "next_bit_accuracy": "bit_accuracy",
        "draw_form": "pick_form",
        "predict": "run_model",
        "with_extra_steps": "repeat_last",
    }.items():
        rename_everywhere(tree, old, new)


@rewrite(
    "names",
    1,
    2,
    moves={"bit_transformer.optimization:configure_optimizer": "bit_transformer.optimization:build_optimizer"},
)
def optimizer_renamed(tree: Path) -> None:
    """configure_optimizer is called build_optimizer, and its total num_updates."""
    rename_everywhere(tree, "configure_optimizer", "build_optimizer")
    path = find(tree, "optimization.py")
    rename_in(path, "build_optimizer", {"total_steps": "num_updates"}, also_parameters=True)
    for file in (TRAINING, "manager.py", "runs.py"):
        # The ramp has a total of its own, whose name stays.
        target = find(tree, file)
        changed = re.sub(r"\btotal_steps=(?!warmup_steps)", "num_updates=", read(target))
        if changed == read(target):
            raise DoesNotFit(f"no total_steps in {file}")
        write(target, changed)


@rewrite("names", 5, moves={"data.wikitext_schedule:load_rows": "data.wikitext_schedule:read_bit_rows"})
def rows_renamed(tree: Path) -> None:
    """load_rows is called read_bit_rows, and the row's length row_bits."""
    rename_everywhere(tree, "load_rows", "read_bit_rows")
    rename_in(find(tree, "wikitext_schedule.py"), "read_bit_rows", {"max_seq_len": "row_bits"}, also_parameters=True)


@rewrite("names", 3, 6)
def form_enum(tree: Path) -> None:
    """The forms of a micro-batch are an enum of strings."""
    retext(
        find(tree, TRAINING),
        ('return "direct"', "return Form.DIRECT"),
        (
            'return "compressed" if random.random() < compress_prob else "raw"',
            "return Form.COMPRESSED if random.random() < compress_prob else Form.RAW",
        ),
        ('if form == "raw":', "if form == Form.RAW:"),
        ('if form == "compressed":', "if form == Form.COMPRESSED:"),
        (
            "def draw_form(compress_prob: float, direct_prob: float) -> str:",
            "def draw_form(compress_prob: float, direct_prob: float) -> Form:",
        ),
        ("batch: Tensor, form: str,", "batch: Tensor, form: Form,"),
    )
    before(
        find(tree, TRAINING),
        "train_loop",
        """\
class Form(str, enum.Enum):
    DIRECT = "direct"
    COMPRESSED = "compressed"
    RAW = "raw"
""",
    )
    add_import(find(tree, TRAINING), "import enum")
