"""Other shapes of a run: who updates, what stands beside the model, in what a micro-batch comes."""

from pathlib import Path

from drift.naming import add_import, before
from drift.patterns import restate, substitute
from drift.rewriting import OPEN, find, rewrite

TRAINING = "bit_transformer/training.py"
RUN = (1, 3, 4, 6, 8)
BATCHES = "with_extra_steps(data.split(8), extra_steps)"
FIRST = "history = []\nmodel.train()"
ZEROED, STEPPED = "optimizer.zero_grad()", "if scheduler.last_epoch < total_updates:\n    scheduler.step()"
UPDATE = f"""\
loss.backward()
torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
optimizer.step()
{STEPPED}
{ZEROED}
"""


def set_up(tree: Path, text: str) -> None:
    restate(tree, FIRST, f"{text}\n{FIRST}", TRAINING, "train_loop")


@rewrite("updates", *RUN, expected={4: OPEN})
def closure_in_dict(tree: Path) -> None:
    """A closure that updates is kept in a dict of hooks."""
    restate(tree, UPDATE, 'hooks["update"](loss)', TRAINING, "train_loop")
    body = UPDATE.replace("\n", "\n    ").rstrip()
    set_up(tree, f'def update(loss):\n    {body}\n\nhooks = {{"update": update}}')


@rewrite("updates", *RUN, expected={4: OPEN})
def update_in_finally(tree: Path) -> None:
    """The optimizer steps in a finally."""
    _, clip, *rest = UPDATE.splitlines()
    body = "\n".join(f"    {line}" for line in rest)
    restate(tree, UPDATE, f"try:\n    loss.backward()\n    {clip}\nfinally:\n{body}", TRAINING, "train_loop")


@rewrite("flow", *RUN)
def batches_in_dicts(tree: Path) -> None:
    """A micro-batch comes as an entry of a dict."""
    restate(
        tree,
        f"for batch in {BATCHES}:\n    batch = batch.to(device)\n    $$rest",
        'for item in with_extra_steps([{"bits": rows} for rows in data.split(8)], extra_steps):\n'
        '    batch = item["bits"].to(device)\n    $$rest',
        TRAINING,
    )


@rewrite("flow", *RUN)
def batches_ahead(tree: Path) -> None:
    """A generator moves each micro-batch before it is asked for."""
    substitute(tree, BATCHES, f"ahead({BATCHES}, device)", TRAINING, "train_loop")
    before(
        find(tree, TRAINING),
        "with_extra_steps",
        """\
def ahead(batches, device):
    last = None
    for batch in batches:
        if last is not None:
            yield last
        last = batch.to(device, non_blocking=True)
    if last is not None:
        yield last
""",
    )


@rewrite("flow", *RUN)
def batches_watched(tree: Path) -> None:
    """A generator counts the micro-batches that pass."""
    substitute(tree, BATCHES, f"watched({BATCHES})", TRAINING, "train_loop")
    before(
        find(tree, TRAINING),
        "with_extra_steps",
        """\
def watched(items):
    for number, item in enumerate(items):
        if number % 1000 == 999:
            print(number)
        yield item
""",
    )


@rewrite("schedule", *RUN)
def schedules_in_list(tree: Path) -> None:
    """The schedule is one of a list, which all step."""
    step = "for each in schedules:\n    if each.last_epoch < total_updates:\n        each.step()"
    restate(tree, STEPPED, step, TRAINING, "train_loop")
    set_up(tree, "schedules = [scheduler]")


@rewrite("updates", *RUN)
def weights_averaged(tree: Path) -> None:
    """A copy of the model follows its weights slowly."""
    restate(
        tree,
        ZEROED,
        f"""\
{ZEROED}
with torch.no_grad():
    for kept, weight in zip(averaged.parameters(), model.parameters(), strict=True):
        kept.lerp_(weight, 0.01)
""",
        TRAINING,
        "train_loop",
    )
    set_up(tree, "averaged = copy.deepcopy(model)")
    add_import(find(tree, TRAINING), "import copy")


@rewrite("updates", *RUN, expected={4: OPEN})
def updates_counted(tree: Path) -> None:
    """The updates of a run are counted, and each thousandth is printed."""
    step = "optimizer.step()"
    counted = f"{step}\nupdates += 1\nif updates % 1000 == 0:\n    print(updates)"
    restate(tree, step, counted, TRAINING, "train_loop")
    set_up(tree, "updates = 0")


@rewrite("config", *RUN, expected=dict.fromkeys(RUN, OPEN))
def options_by_getattr(tree: Path) -> None:
    """The parsed options are those of an object that finds them in a dict."""
    restate(
        tree,
        "torch.manual_seed(args.seed)\nrandom.seed(args.seed)",
        "args = Options(vars(args))\ntorch.manual_seed(args.seed)\nrandom.seed(args.seed)",
        TRAINING,
        "main",
    )
    before(
        find(tree, TRAINING),
        "main",
        """\
class Options:
    def __init__(self, given):
        self._given = given

    def __getattr__(self, name):
        return self._given[name]
""",
    )


@rewrite("flow", *RUN, expected=dict.fromkeys(RUN, OPEN))
def loss_in_data_class(tree: Path) -> None:
    """A function predicts and scores, and returns a data class of what came out."""
    restate(
        tree,
        "logits, targets = predict(model, batch, form, forward_kwargs or {})\nloss = next_bit_loss(logits, targets)",
        "scored = score(model, batch, form, forward_kwargs or {})",
        TRAINING,
        "train_loop",
    )
    for name, used in {"loss": "loss.$m()", "logits": "logits.detach()"}.items():
        substitute(tree, used, used.replace(name, f"scored.{name}", 1), TRAINING, "train_loop")
    accuracy = "next_bit_accuracy($l, targets)"
    substitute(tree, accuracy, accuracy.replace("targets", "scored.targets"), TRAINING, "train_loop")
    before(
        find(tree, TRAINING),
        "with_extra_steps",
        """\
@dataclass
class Scored:
    logits: Tensor
    targets: Tensor
    loss: Tensor


def score(model, batch, form, forward_kwargs):
    logits, targets = predict(model, batch, form, forward_kwargs)
    return Scored(logits, targets, next_bit_loss(logits, targets))
""",
    )
    add_import(find(tree, TRAINING), "from dataclasses import dataclass")
