"""Other flow: loops, conditions, comprehensions, assignments, blocks around."""

import ast
import re
import textwrap
from pathlib import Path

import libcst as cst
from drift.naming import add_import, before, body_span, in_every_file, rename_in
from drift.patterns import restate, substitute, within_of
from drift.rewriting import DoesNotFit, find, read, retext, rewrite, write

TRAINING, MODEL = "bit_transformer/training.py", "bit_transformer/model.py"
LOOP = "for batch in with_extra_steps(data.split(8), extra_steps):\n    $$body"
SCORE = "logits, targets = predict(model, batch, form, forward_kwargs or {})\nloss = next_bit_loss(logits, targets)"


@rewrite("flow", 1, 3, 4)
def loop_while_next(tree: Path) -> None:
    """The micro-batches are taken by next in a while loop."""
    restate(
        tree,
        LOOP,
        """\
stream = with_extra_steps(data.split(8), extra_steps)
batch = next(stream, None)
while batch is not None:
    $$body
    batch = next(stream, None)
""",
        TRAINING,
    )


@rewrite("flow", 1, 3, 4)
def loop_walrus(tree: Path) -> None:
    """A walrus takes the next micro-batch in the loop's condition."""
    restate(
        tree,
        LOOP,
        "stream = with_extra_steps(data.split(8), extra_steps)\nwhile (batch := next(stream, None)) is not None:\n    $$body",
        TRAINING,
    )


@rewrite("flow", 1, 3, 4)
def loop_enumerated(tree: Path) -> None:
    """The micro-batches are enumerated."""
    restate(
        tree,
        LOOP,
        "for step, batch in enumerate(with_extra_steps(data.split(8), extra_steps), start=1):\n    $$body",
        TRAINING,
    )


@rewrite("flow", 1, 3, 4)
def epochs_while(tree: Path) -> None:
    """Epochs are counted in a while loop."""
    restate(
        tree,
        "for epoch in range(epochs):\n    $$body",
        "epoch = 0\nwhile epoch < epochs:\n    $$body\n    epoch += 1",
        TRAINING,
        "train_loop",
    )


@rewrite("flow", 1, 3, 4)
def loop_try_finally(tree: Path) -> None:
    """The epochs run in a try whose finally puts the model in evaluation mode, then back."""
    restate(
        tree,
        "for epoch in range(epochs):\n    $$body\nreturn history",
        "try:\n    for epoch in range(epochs):\n        $$body\nfinally:\n    optimizer.zero_grad()\nreturn history",
        TRAINING,
        "train_loop",
    )


@rewrite("flow", 1, 3, 4)
def loop_with_gradients(tree: Path) -> None:
    """The epochs run with gradients switched on, in words."""
    restate(
        tree,
        "for epoch in range(epochs):\n    $$body",
        "with torch.enable_grad():\n    for epoch in range(epochs):\n        $$body",
        TRAINING,
        "train_loop",
    )


@rewrite("flow", 1, 3, 4)
def loop_guarded(tree: Path) -> None:
    """Without epochs, train_loop returns early."""
    restate(
        tree, "history = []\nmodel.train()", "history = []\nif not epochs:\n    return history\nmodel.train()", TRAINING
    )


@rewrite("flow", 1, 3, 4)
def loop_logged(tree: Path) -> None:
    """A logger hears of each epoch, and asserts stand at the top."""
    restate(
        tree,
        "device = next(model.parameters()).device\n$$rest",
        """\
assert data.dim() == 2, "rows of bits are wanted"
assert 0.0 <= compress_prob <= 1.0
LOGGER.debug("training on %d rows", len(data))
device = next(model.parameters()).device
$$rest
""",
        TRAINING,
        "train_loop",
    )
    path = find(tree, TRAINING)
    before(path, "train_loop", "LOGGER = logging.getLogger(__name__)")
    add_import(path, "import logging")


@rewrite("flow", 1, 3, 4, 6)
def loop_decorated(tree: Path) -> None:
    """A decorator that only times stands on train_loop."""
    path = find(tree, TRAINING)
    before(
        path,
        "train_loop",
        """\
def timed(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            wrapper.seconds = time.perf_counter() - began

    return wrapper
""",
    )
    retext(path, ("\ndef train_loop(", "\n@timed\ndef train_loop("))
    add_import(path, "import functools", "import time")


@rewrite("flow", 1, 3, 4, 6)
def loop_class(tree: Path) -> None:
    """Training is a class whose run method holds the loop; train_loop makes one and runs it."""
    path = find(tree, TRAINING)
    names = ("model", "data", "epochs", "extra_steps", "compress_prob", "direct_prob")
    names += ("log", "forward_kwargs", "lr", "weight_decay")
    rename_in(path, "train_loop", {name: f"SELF_OF_{name}" for name in names})
    text = read(path).replace("SELF_OF_", "self.")
    start, end = body_span(text, within_of(ast.parse(text), "train_loop"))
    block = text[start:end]
    first = block.find("    device = next")
    if first < 0:
        raise DoesNotFit("train_loop starts in another way")
    given = ", ".join(names)
    stored = "".join(f"        self.{name} = {name}\n" for name in names)
    run = textwrap.indent(block[first:], "    ")
    trainer = f"class Trainer:\n    def __init__(self, {given}):\n{stored}\n    def run(self):\n{run}\n\n"
    write(path, f"{text[:start]}{trainer}{block[:first]}    return Trainer({given}).run()\n{text[end:]}")


@rewrite("flow", 3, 6)
def predict_loops(tree: Path) -> None:
    """Rows are compressed in a loop that appends."""
    restate(
        tree,
        "compressed = [compress_bits(row) for row in batch]",
        "compressed = []\nfor row in batch:\n    compressed.append(compress_bits(row))",
        TRAINING,
    )


@rewrite("flow", 3, 6)
def predict_elif(tree: Path) -> None:
    """predict is an if, elif and else, with one way out."""
    restate(
        tree,
        """\
if form == "raw":
    return model(batch, **forward_kwargs)[0], batch
compressed = $c
if form == "compressed":
    return model.forward_compressed(compressed, **forward_kwargs)[0], batch
$$rows
return model(rows, **forward_kwargs)[0], rows.masked_fill(is_padding, IGNORED)
""",
        """\
if form == "raw":
    (logits, _telemetry), targets = model(batch, **forward_kwargs), batch
elif form == "compressed":
    logits, _telemetry = model.forward_compressed($c, **forward_kwargs)
    targets = batch
else:
    compressed = $c
    $$rows
    logits, _telemetry = model(rows, **forward_kwargs)
    targets = rows.masked_fill(is_padding, IGNORED)
return logits, targets
""",
        TRAINING,
    )


@rewrite("flow", 9, 10, 11)
def assignments_split(tree: Path) -> None:
    """Pairs that are assigned at once are assigned one by one."""
    restate(
        tree, "chunk, overlap = self.chunk_size, self.overlap", "chunk = self.chunk_size\noverlap = self.overlap", MODEL
    )
    restate(tree, "width, tail = overlap + chunk, -T % chunk", "width = overlap + chunk\ntail = -T % chunk", MODEL)


@rewrite("flow", 9, 11)
def shapes_one_by_one(tree: Path) -> None:
    """Sizes are asked for one by one."""
    restate(
        tree,
        "B, H, T, D = q.shape\n$$rest",
        "B, H = q.size(0), q.size(1)\nT, D = q.size(2), q.size(-1)\n$$rest",
        MODEL,
        "SelfAttention",
    )


@rewrite("flow", 9, 10)
def condition_inverted(tree: Path) -> None:
    """The dense path asks first whether it is not causal."""
    restate(
        tree, "if causal:\n    $$then", "if not causal:\n    pass\nelse:\n    $$then", MODEL, "SelfAttention._dense"
    )


@rewrite("flow", 1, 3, 4)
def history_dict_call(tree: Path) -> None:
    """The record of an epoch is a dict call, printed by an f-string."""
    restate(
        tree,
        "history.append($record)\nif log:\n    $$print",
        """\
record = dict(
    epoch=epoch,
    loss=torch.stack(losses).mean().item(),
    accuracy=torch.stack(accuracies).mean().item(),
    lr=scheduler.get_last_lr()[0],
)
history.append(record)
if log:
    print(f"epoch {epoch}: loss {record['loss']:.4f}, accuracy {record['accuracy']:.3f}, lr {record['lr']:.2e}")
""",
        TRAINING,
        "train_loop",
    )


@rewrite("flow", 1, 3, 4)
def verbose_threaded(tree: Path) -> None:
    """A parameter that only counts forwards is threaded through loop and predict."""
    substitute(tree, "predict($m, $b, $f, $k)", "predict($m, $b, $f, $k, counter)", TRAINING, "train_loop")
    restate(tree, "history = []\nmodel.train()", "history = []\ncounter = {}\nmodel.train()", TRAINING)
    path = find(tree, TRAINING)
    old = "forward_kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:"
    retext(path, (old, old.replace(")", ", counter=None)", 1)))


class Untyped(cst.CSTTransformer):
    """Takes the types of parameters and returns away."""

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        # The dashboard reads the types of the model's constructor.
        return original_node if original_node.name.value == "__init__" else updated_node.with_changes(returns=None)

    def leave_Param(self, original_node: cst.Param, updated_node: cst.Param) -> cst.Param:
        plain = updated_node.with_changes(annotation=None)
        return plain.with_changes(equal=cst.MaybeSentinel.DEFAULT)


@rewrite("flow", 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12)
def hints_removed(tree: Path) -> None:
    """Types of parameters and returns are gone, but those that the servers read."""

    def untyped(path: Path, text: str) -> str | None:
        return None if path.name == "mcp_server.py" else cst.parse_module(text).visit(Untyped()).code

    in_every_file(tree, untyped)


@rewrite("flow", 1, 3, 4, 6)
def locals_annotated(tree: Path) -> None:
    """Locals of the loop have types."""

    def annotate(path: Path, text: str) -> str | None:
        text = text.replace("    history = []\n", "    history: list[dict[str, float]] = []\n")
        text = text.replace("    loss = next_bit_loss(", "    loss: Tensor = next_bit_loss(")
        return re.sub(r"    total_updates = ", "    total_updates: int = ", text)

    in_every_file(tree, annotate, [find(tree, TRAINING)])


@rewrite("flow", 1, 3, 4)
def model_trains_by_flag(tree: Path) -> None:
    """The model is put in training mode by a keyword, at the top of each epoch too."""
    restate(tree, "losses, accuracies = [], []", "model.train(mode=True)\nlosses, accuracies = [], []", TRAINING)


@rewrite("flow", 3, 6)
def predict_match(tree: Path) -> None:
    """predict chooses by a match statement."""
    restate(
        tree,
        """\
if form == "raw":
    return $raw
compressed = $c
if form == "compressed":
    return $r
$$rest
""",
        """\
match form:
    case "raw":
        return $raw
    case "compressed":
        return model.forward_compressed([compress_bits(row) for row in batch], **forward_kwargs)[0], batch
    case _:
        compressed = $c
        $$rest
""",
        TRAINING,
        "predict",
    )


@rewrite("flow", 3, 4, 6)
def predict_named_tuple(tree: Path) -> None:
    """predict returns a named tuple, whose fields are read by name."""
    restate(
        tree,
        SCORE,
        "scored = predict(model, batch, form, forward_kwargs or {})\nloss = next_bit_loss(scored.logits, scored.bits)",
        TRAINING,
    )
    substitute(
        tree,
        "next_bit_accuracy(logits.detach(), targets)",
        "next_bit_accuracy(scored.logits.detach(), scored.bits)",
        TRAINING,
    )
    restate(tree, "return $a, batch", "return Scored($a, batch)", TRAINING, "predict")
    restate(
        tree,
        "return $a, rows.masked_fill(is_padding, IGNORED)",
        "return Scored(logits=$a, bits=rows.masked_fill(is_padding, IGNORED))",
        TRAINING,
        "predict",
    )
    before(
        find(tree, TRAINING),
        "train_loop",
        """\
class Scored(NamedTuple):
    logits: Tensor
    bits: Tensor
""",
    )
    add_import(find(tree, TRAINING), "from typing import NamedTuple")


@rewrite("flow", 1, 3, 4, 6)
def loop_continues(tree: Path) -> None:
    """A micro-batch without rows is left out by an early continue."""
    restate(
        tree,
        "batch = batch.to(device)\nform = $f\n$$rest",
        "if batch.numel() == 0:\n    continue\nbatch = batch.to(device)\nform = $f\n$$rest",
        TRAINING,
    )
