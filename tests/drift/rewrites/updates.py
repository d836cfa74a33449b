"""Other spellings of an optimizer update: gradients emptied, clipped, stepped, and what stands around."""

from pathlib import Path

from drift.naming import add_import, before
from drift.patterns import restate, substitute
from drift.rewriting import find, rewrite

TRAINING = "bit_transformer/training.py"
CLIP = "torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)"
STEP = """\
loss.backward()
torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
optimizer.step()
if scheduler.last_epoch < total_updates:
    scheduler.step()
optimizer.zero_grad()
"""


@rewrite("updates", 3, 4)
def zero_before_backward(tree: Path) -> None:
    """Gradients are emptied right before the backward pass."""
    restate(
        tree, f"{STEP}$$rest", "optimizer.zero_grad()\n" + STEP.replace("optimizer.zero_grad()\n", "$$rest"), TRAINING
    )


@rewrite("updates", 3, 4)
def zero_before_forward(tree: Path) -> None:
    """Gradients are emptied at the top of the loop."""
    restate(
        tree,
        f"$$forward\n{STEP}$$rest",
        f"optimizer.zero_grad()\n$$forward\n{STEP[: STEP.index('optimizer.zero')]}$$rest",
        TRAINING,
        "train_loop",
    )


@rewrite("updates", 4)
def zero_set_to_none(tree: Path) -> None:
    """Gradients are set to None, in words."""
    substitute(tree, "optimizer.zero_grad()", "optimizer.zero_grad(set_to_none=True)", TRAINING)


@rewrite("updates", 4)
def zero_by_model(tree: Path) -> None:
    """The model empties its gradients."""
    substitute(tree, "optimizer.zero_grad()", "model.zero_grad()", TRAINING)


@rewrite("updates", 4)
def zero_by_hand(tree: Path) -> None:
    """A loop sets each gradient to None."""
    restate(tree, "optimizer.zero_grad()", "for parameter in model.parameters():\n    parameter.grad = None", TRAINING)


@rewrite("updates", 3, 4)
def clip_imported(tree: Path) -> None:
    """The clip's function is imported by name."""
    substitute(tree, CLIP, "clip_grad_norm_(model.parameters(), max_norm=1.0)", TRAINING)
    add_import(find(tree, TRAINING), "from torch.nn.utils import clip_grad_norm_")


@rewrite("updates", 3, 4)
def clip_named_norm(tree: Path) -> None:
    """The clip's norm is kept, and its bound a constant."""
    restate(
        tree, CLIP, "grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM, norm_type=2.0)", TRAINING
    )
    before(find(tree, TRAINING), "train_loop", "MAX_NORM = 1.0")


@rewrite("updates", 3, 4)
def clip_from_groups(tree: Path) -> None:
    """The clip takes its parameters from the optimizer's groups."""
    substitute(
        tree,
        CLIP,
        'torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)',
        TRAINING,
    )


@rewrite("updates", 3, 4)
def clip_by_function(tree: Path) -> None:
    """A function of the tree's own clips."""
    restate(tree, CLIP, "clip_gradients(model)", TRAINING)
    before(
        find(tree, TRAINING),
        "with_extra_steps",
        """\
def clip_gradients(model, limit=1.0):
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    return torch.nn.utils.clip_grad_norm_(trained, limit)
""",
    )


@rewrite("updates", 1, 3, 4)
def update_function(tree: Path) -> None:
    """What an update does is a function, given model, optimizer, scheduler and loss."""
    restate(tree, STEP, "apply_update(model, optimizer, scheduler, loss, total_updates)", TRAINING)
    before(
        find(tree, TRAINING),
        "with_extra_steps",
        """\
def apply_update(model, optimizer, scheduler, loss, limit):
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if scheduler.last_epoch < limit:
        scheduler.step()
    optimizer.zero_grad()
""",
    )


@rewrite("updates", 1, 4)
def update_closure(tree: Path) -> None:
    """What an update does is a function inside train_loop."""
    restate(tree, STEP, "update(loss)", TRAINING)
    restate(
        tree,
        "history = []\nmodel.train()",
        """\
history = []

def update(value):
    value.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if scheduler.last_epoch < total_updates:
        scheduler.step()
    optimizer.zero_grad()

model.train()
""",
        TRAINING,
    )


@rewrite("updates", 1, 3, 4, 6)
def epoch_function(tree: Path) -> None:
    """An epoch is a function that returns its losses and accuracies."""
    restate(
        tree,
        """\
losses, accuracies = [], []
for batch in with_extra_steps(data.split(8), extra_steps):
    $$body
history.append($record)
""",
        """\
losses, accuracies = run_epoch(
    model, data, extra_steps, device, compress_prob, direct_prob, forward_kwargs, optimizer, scheduler, total_updates
)
history.append($record)
""",
        TRAINING,
    )
    before(
        find(tree, TRAINING),
        "with_extra_steps",
        """\
def run_epoch(
    model, data, extra_steps, device, compress_prob, direct_prob, forward_kwargs, optimizer, scheduler, total_updates
):
    losses, accuracies = [], []
    for batch in with_extra_steps(data.split(8), extra_steps):
        batch = batch.to(device)
        form = draw_form(compress_prob, direct_prob)
        logits, targets = predict(model, batch, form, forward_kwargs or {})
        loss = next_bit_loss(logits, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if scheduler.last_epoch < total_updates:
            scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        accuracies.append(next_bit_accuracy(logits.detach(), targets))
    return losses, accuracies
""",
    )


@rewrite("updates", 3, 4, 6)
def forward_function(tree: Path) -> None:
    """Form, forward and loss of a micro-batch are a function of their own."""
    restate(
        tree,
        """\
form = draw_form(compress_prob, direct_prob)
logits, targets = predict(model, batch, form, forward_kwargs or {})
loss = next_bit_loss(logits, targets)
""",
        "loss, logits, targets = score(model, batch, compress_prob, direct_prob, forward_kwargs)",
        TRAINING,
    )
    before(
        find(tree, TRAINING),
        "with_extra_steps",
        """\
def score(model, batch, compress_prob, direct_prob, forward_kwargs=None):
    form = draw_form(compress_prob, direct_prob)
    logits, targets = predict(model, batch, form, forward_kwargs or {})
    return next_bit_loss(logits, targets), logits, targets
""",
    )


@rewrite("updates", 3, 4)
def loss_recorded(tree: Path) -> None:
    """Forward and loss stand in a profiler's block."""
    restate(
        tree,
        "logits, targets = predict(model, batch, $f, $k)\nloss = $loss",
        'with torch.profiler.record_function("forward"):\n    logits, targets = predict(model, batch, $f, $k)\n    loss = $loss',
        TRAINING,
    )


@rewrite("updates", 3, 4)
def loss_in_null_context(tree: Path) -> None:
    """Forward and loss stand in a context that does nothing yet."""
    restate(
        tree,
        "logits, targets = predict(model, batch, $f, $k)\nloss = $loss",
        "with nullcontext():\n    logits, targets = predict(model, batch, $f, $k)\n    loss = $loss",
        TRAINING,
    )
    add_import(find(tree, TRAINING), "from contextlib import nullcontext")


@rewrite("updates", 3)
def loss_by_module(tree: Path) -> None:
    """The loss is a module that was made once."""
    substitute(
        tree,
        "F.cross_entropy($l, $t, ignore_index=IGNORED)",
        "CRITERION($l, $t)",
        TRAINING,
        "next_bit_loss",
    )
    before(find(tree, TRAINING), "next_bit_loss", "CRITERION = torch.nn.CrossEntropyLoss(ignore_index=IGNORED)")


@rewrite("updates", 3)
def loss_by_log_softmax(tree: Path) -> None:
    """The loss is negative log-likelihood of a log-softmax, over views."""
    restate(
        tree,
        "return F.cross_entropy($l, $t, ignore_index=IGNORED)",
        """\
scores = F.log_softmax(logits[:, :-1].reshape(-1, 2), dim=-1)
return F.nll_loss(scores, targets[:, 1:].reshape(-1), ignore_index=IGNORED)
""",
        TRAINING,
    )


@rewrite("updates", 3, 4)
def losses_as_numbers(tree: Path) -> None:
    """Losses and accuracies are kept as Python numbers, and averaged by hand."""
    restate(tree, "losses.append(loss.detach())", "losses.append(loss.item())", TRAINING)
    restate(
        tree,
        "accuracies.append(next_bit_accuracy(logits.detach(), targets))",
        "accuracies.append(next_bit_accuracy(logits.detach(), targets).item())",
        TRAINING,
    )
    substitute(tree, "torch.stack($x).mean().item()", "sum($x) / len($x)", TRAINING)


@rewrite("updates", 3, 4)
def loss_is_finite_asserted(tree: Path) -> None:
    """An assertion wants a finite loss before the backward pass."""
    restate(
        tree,
        "loss.backward()\n$$rest",
        'assert torch.isfinite(loss), "loss is not finite"\nloss.backward()\n$$rest',
        TRAINING,
        "train_loop",
    )


@rewrite("updates", 3)
def backward_function(tree: Path) -> None:
    """torch.autograd.backward in place of the method."""
    restate(tree, "loss.backward()", "torch.autograd.backward(loss)", TRAINING)


@rewrite("updates", 1, 4)
def step_hooks_tuple(tree: Path) -> None:
    """Optimizer and scheduler travel as one pair, taken apart by index."""
    restate(
        tree,
        "optimizer, scheduler = configure_optimizer($m, lr=lr, weight_decay=weight_decay, total_steps=total_updates)",
        "optim = configure_optimizer($m, lr=lr, weight_decay=weight_decay, total_steps=total_updates)\nscheduler = optim[1]",
        TRAINING,
    )
    substitute(tree, "optimizer.$f()", "optim[0].$f()", TRAINING, "train_loop")


@rewrite("updates", 6)
def draw_inlined(tree: Path) -> None:
    """The form of a micro-batch is drawn in the loop itself."""
    restate(
        tree,
        "form = draw_form(compress_prob, direct_prob)",
        """\
if random.random() < direct_prob:
    form = "direct"
elif random.random() < compress_prob:
    form = "compressed"
else:
    form = "raw"
""",
        TRAINING,
    )


@rewrite("updates", 6)
def draw_probabilities_dict(tree: Path) -> None:
    """The two probabilities are kept in a dict."""
    restate(
        tree,
        "form = draw_form(compress_prob, direct_prob)",
        'form = draw_form(probs["compress"], probs["direct"])',
        TRAINING,
    )
    restate(
        tree,
        "history = []\nmodel.train()",
        'probs = {"compress": compress_prob, "direct": direct_prob}\nhistory = []\nmodel.train()',
        TRAINING,
    )


@rewrite("updates", 6)
def draw_other_way_round(tree: Path) -> None:
    """Each draw is compared the other way round, and nested."""
    restate(
        tree,
        """\
if random.random() < direct_prob:
    return "direct"
return "compressed" if random.random() < compress_prob else "raw"
""",
        """\
if direct_prob <= random.random():
    return "compressed" if compress_prob > random.random() else "raw"
return "direct"
""",
        TRAINING,
    )


@rewrite("updates", 6)
def draw_booleans(tree: Path) -> None:
    """The drawn number has a name, and the decision is a boolean."""
    restate(
        tree,
        'return "compressed" if random.random() < compress_prob else "raw"',
        'is_compressed = random.random() < compress_prob\nreturn ("raw", "compressed")[is_compressed]',
        TRAINING,
    )


@rewrite("updates", 6)
def draw_coin(tree: Path) -> None:
    """A function of its own tosses a coin of some probability."""
    substitute(tree, "random.random() < $p", "toss($p)", TRAINING, "draw_form")
    before(
        find(tree, TRAINING),
        "draw_form",
        """\
def toss(probability: float) -> bool:
    return random.random() < probability
""",
    )


@rewrite("updates", 3, 4)
def loss_classes_second(tree: Path) -> None:
    """The loss takes logits with the classes in the second dimension."""
    substitute(
        tree,
        "F.cross_entropy($l, $t, ignore_index=IGNORED)",
        "F.cross_entropy(logits[:, :-1].transpose(1, 2), targets[:, 1:], ignore_index=IGNORED)",
        TRAINING,
        "next_bit_loss",
    )
