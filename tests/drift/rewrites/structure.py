"""Code moved between functions, methods and classes, and code beside it that has nothing to do with it."""

from pathlib import Path

from drift.naming import add_import, append, before, move, remove
from drift.patterns import restate, substitute
from drift.rewriting import DoesNotFit, find, read, retext, rewrite, write

TRAINING, MODEL, MANAGER = "bit_transformer/training.py", "bit_transformer/model.py", "manager.py"
ATTENTION = (9, 10, 11, 12)


@rewrite("structure", *ATTENTION)
def attention_module(tree: Path) -> None:
    """The attention class stands in attention.py."""
    move(tree, MODEL, "attention.py", "SelfAttention")
    trim(find(tree, MODEL), "import math", "import torch.nn.functional as F")


@rewrite("structure", *ATTENTION)
def layers_module(tree: Path) -> None:
    """Attention and layer stand in layers.py."""
    move(tree, MODEL, "layers.py", "SelfAttention", "TransformerLayer")


@rewrite("structure", 7, moves={"bit_transformer.safety:SafetyGate": "bit_transformer.gate:SafetyGate"})
def gate_module(tree: Path) -> None:
    """The gate stands in gate.py."""
    move(tree, "bit_transformer/safety.py", "gate.py", "SafetyGate")


@rewrite("structure", 2)
def plan_module(tree: Path) -> None:
    """The plan stands in a module of its own beside the manager."""
    move(tree, MANAGER, "plan.py", "TrainingPlan")


@rewrite("structure", 3)
def losses_module(tree: Path) -> None:
    """Loss and accuracy stand in losses.py, with the target of padding."""
    move(tree, TRAINING, "losses.py", "next_bit_loss", "next_bit_accuracy")


@rewrite("structure", 6)
def forms_module(tree: Path) -> None:
    """The draw of a form stands in forms.py."""
    move(tree, TRAINING, "forms.py", "draw_form")


@rewrite("structure", 1)
def batches_module(tree: Path) -> None:
    """with_extra_steps stands in batches.py."""
    move(tree, TRAINING, "batches.py", "with_extra_steps")


@rewrite("structure", 1, 3, 4, 6, moves={"bit_transformer.training:train_loop": "bit_transformer.loop:train_loop"})
def loop_module(tree: Path) -> None:
    """The loop and all that it uses stand in loop.py; the command line stays in training.py."""
    path = find(tree, TRAINING)
    text = read(path)
    if "planned_updates" in text:
        raise DoesNotFit("the loop uses more than it did")
    move(
        tree,
        TRAINING,
        "loop.py",
        "train_loop",
        "with_extra_steps",
        "draw_form",
        "predict",
        "next_bit_loss",
        "next_bit_accuracy",
    )


def trim(path: Path, *imports: str) -> None:
    """Take imports away that nothing uses any more."""
    for statement in imports:
        text = read(path)
        name = statement.split()[-1]
        rest = text.replace(f"{statement}\n", "", 1)
        if f"{name}." not in rest:
            write(path, rest)


@rewrite("structure", *ATTENTION)
def attention_base_class(tree: Path) -> None:
    """What both paths share stands in a base class."""
    path = find(tree, MODEL)
    retext(path, ("class SelfAttention(nn.Module):", "class SelfAttention(Projected):"))
    before(
        path,
        "SelfAttention",
        '''\
class Projected(nn.Module):
    """A module with four projections of one width."""

    def make_projections(self, width: int) -> None:
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
''',
    )
    restate(
        tree,
        """\
self.q_proj = $a
self.k_proj = $b
self.v_proj = $c
self.out_proj = $d
""",
        "self.make_projections(d_model)",
        MODEL,
        "SelfAttention.__init__",
    )


@rewrite("structure", *ATTENTION)
def attention_mixin(tree: Path) -> None:
    """The stitching of maps is a mixin."""
    path = find(tree, MODEL)
    method = remove(path, "SelfAttention._stitch")
    retext(path, ("class SelfAttention(nn.Module):", "class SelfAttention(Stitches, nn.Module):"))
    before(path, "SelfAttention", f'class Stitches:\n    """Lays windows on one map."""\n\n{method}')


@rewrite("structure", 9, 10, 12)
def dense_inlined(tree: Path) -> None:
    """The dense path stands in forward, and _dense, which decoding calls, gives it the projected rows."""
    restate(
        tree,
        """\
attend = self._dense if self.chunk_size is None else self._chunked
out, attn_map = attend(q, k, v, causal)
return $done
""",
        """\
if self.chunk_size is not None:
    out, attn_map = self._chunked(q, k, v, causal)
    return $done
T, D = q.shape[-2:]
scores = q @ k.transpose(-2, -1) / math.sqrt(D)
if causal:
    future = torch.triu(torch.ones(T, T, dtype=torch.bool, device=q.device), diagonal=1)
    scores = scores.masked_fill(future, float("-inf"))
weights = torch.softmax(scores, dim=-1)
out = self.dropout(weights) @ v
attn_map = weights.detach() if self.full_attn_logging else None
return $done
""",
        MODEL,
    )


@rewrite("structure", 9)
def attention_function(tree: Path) -> None:
    """Scores, mask and softmax are a function of the module that both paths call."""
    before(
        find(tree, MODEL),
        "SelfAttention",
        """\
def attention_weights(q: Tensor, k_transposed: Tensor, hidden: Tensor | None) -> Tensor:
    scores = q @ k_transposed / math.sqrt(q.shape[-1])
    if hidden is not None:
        scores = scores.masked_fill(hidden, float("-inf"))
    return torch.softmax(scores, dim=-1)
""",
    )
    restate(
        tree,
        """\
scores = q @ k.transpose(-2, -1) / math.sqrt(D)
if causal:
    $m = $mask
    scores = scores.masked_fill($m, float("-inf"))
weights = torch.softmax(scores, dim=-1)
""",
        "$m = $mask if causal else None\nweights = attention_weights(q, k.transpose(-2, -1), $m)",
        MODEL,
    )
    restate(
        tree,
        """\
scores = q @ k / math.sqrt(D)
scores = scores.masked_fill(hidden, float("-inf"))
weights = torch.softmax(scores, dim=-1)
""",
        "weights = attention_weights(q, k, hidden)",
        MODEL,
    )


@rewrite("structure", 9, 12)
def weights_dropped_in_helper(tree: Path) -> None:
    """The last step of both paths, dropout and product, is a method."""
    substitute(tree, "self.dropout($w) @ $v", "self._mix($w, $v)", MODEL, "SelfAttention")
    before(
        find(tree, MODEL),
        "SelfAttention._dense",
        """\
def _mix(self, weights: Tensor, values: Tensor) -> Tensor:
    return torch.matmul(self.dropout(weights), values)
""",
    )


@rewrite("structure", 11)
def window_bounds_helper(tree: Path) -> None:
    """A method gives start and end of a window."""
    restate(
        tree,
        "start = s - self.overlap\nend = min(s + self.chunk_size, T)",
        "start, end = self._bounds(s, T)",
        MODEL,
    )
    before(
        find(tree, MODEL),
        "SelfAttention._stitch",
        """\
def _bounds(self, s: int, T: int) -> tuple[int, int]:
    return s - self.overlap, min(s + self.chunk_size, T)
""",
    )


@rewrite("structure", 10)
def window_mask_helper(tree: Path) -> None:
    """What a window hides is a method."""
    restate(
        tree,
        "hidden = $zeros\nif causal:\n    $m = $mask\n    hidden = $m[overlap:]",
        "hidden = self._hidden_in_window(chunk, overlap, causal, q.device)",
        MODEL,
    )
    before(
        find(tree, MODEL),
        "SelfAttention._chunked",
        """\
@staticmethod
def _hidden_in_window(chunk, overlap, causal, device):
    if not causal:
        return torch.zeros(chunk, overlap + chunk, dtype=torch.bool, device=device)
    width = overlap + chunk
    return torch.triu(torch.ones(width, width, dtype=torch.bool, device=device), diagonal=1)[overlap:]
""",
    )


@rewrite("structure", *ATTENTION)
def dead_code_beside(tree: Path) -> None:
    """An older attention that nothing calls is still there."""
    append(
        find(tree, MODEL),
        '''\
class LegacySelfAttention(nn.Module):
    """The first version; kept for old notebooks."""

    def forward(self, q, k, v):
        T = q.shape[-2]
        future = torch.triu(torch.ones(T, T, dtype=torch.bool), diagonal=1)
        scores = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).masked_fill(future, float("-inf"))
        return torch.softmax(scores, dim=-1) @ v
''',
    )


@rewrite("structure", 1, 2, 3, 4, 6)
def dead_loop_beside(tree: Path) -> None:
    """A small loop for a smoke test stands beside train_loop, which nothing calls."""
    append(
        find(tree, TRAINING),
        '''\
def smoke_test(model: BitTransformerLM, rows: Tensor) -> float:
    """A few steps of plain SGD, to see that the loss falls."""
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in rows.split(8):
        loss = next_bit_loss(model(batch)[0], batch)
        loss.backward()
        sgd.step()
        sgd.zero_grad()
    return loss.item()
''',
    )


@rewrite("structure", 1, 3, 4, 6, 9)
def tempting_names_beside(tree: Path) -> None:
    """A class has a method called train_loop, and a docstring holds a class SelfAttention."""
    append(
        find(tree, TRAINING),
        '''\
class Schedule:
    """Plans of runs. Not to be mistaken for:

    class SelfAttention(nn.Module):
        def forward(self, x):
            return torch.softmax(x @ x.mT, dim=-1)
    """

    def train_loop(self, total_steps: int = 100) -> list[int]:
        return [step for step in range(total_steps) if step % 8 == 0]
''',
    )


@rewrite("structure", 3, 8)
def model_wrapped_in_main(tree: Path) -> None:
    """main moves its model to the device that there is, through a function."""
    restate(
        tree,
        "text = $text\ndata = $data",
        "model = to_device(model)\ntext = $text\ndata = $data",
        TRAINING,
        "main",
    )
    append(
        find(tree, TRAINING),
        """\
def to_device(model: BitTransformerLM) -> BitTransformerLM:
    return model.to(next(model.parameters()).device)
""",
    )


@rewrite("structure", 1, 2)
def optimizer_class(tree: Path) -> None:
    """configure_optimizer calls a class that builds both."""
    restate(
        tree,
        "optimizer = make_adamw(model, lr, weight_decay)\nreturn optimizer, OneCycleLR(optimizer, max_lr=lr, total_steps=total_steps)",
        "return Builder(model, lr, weight_decay).build(total_steps)",
        "optimization.py",
    )
    append(
        find(tree, "optimization.py"),
        '''\
class Builder:
    """Makes an optimizer with its schedule."""

    def __init__(self, model: nn.Module, lr: float, weight_decay: float) -> None:
        self.model, self.lr, self.weight_decay = model, lr, weight_decay

    def build(self, total_steps: int) -> tuple[AdamW, OneCycleLR]:
        optimizer = make_adamw(self.model, self.lr, self.weight_decay)
        return optimizer, OneCycleLR(optimizer, max_lr=self.lr, total_steps=total_steps)
''',
    )


@rewrite("structure", 10, 9)
def model_forward_checked(tree: Path) -> None:
    """The model's forward is wrapped by a decorator that does nothing."""
    path = find(tree, MODEL)
    before(
        path,
        "SelfAttention",
        """\
def traced(method):
    @wraps(method)
    def wrapper(self, *args, **kwargs):
        return method(self, *args, **kwargs)

    return wrapper
""",
    )
    for method in ("_dense", "_chunked"):
        retext(path, (f"    def {method}(self", f"    @traced\n    def {method}(self"))
    add_import(path, "from functools import wraps")
