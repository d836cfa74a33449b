"""Other spellings of the micro-batches of an epoch, of the number of updates, and of the schedule's step."""

from pathlib import Path

from drift.naming import add_import, before
from drift.patterns import restate, substitute
from drift.rewriting import OPEN, find, retext, rewrite

TRAINING = "bit_transformer/training.py"
TOTAL = "steps_per_epoch = max(1, len(data) // 8)\ntotal_updates = epochs * steps_per_epoch"
GUARD = "if scheduler.last_epoch < total_updates:\n    scheduler.step()"


def batches(tree: Path, new: str) -> None:
    substitute(tree, "data.split(8)", new, TRAINING, "train_loop")


@rewrite("schedule", 1)
def batches_split_function(tree: Path) -> None:
    """torch.split in place of the method."""
    batches(tree, "torch.split(data, 8)")


@rewrite("schedule", 1)
def batches_split_keyword(tree: Path) -> None:
    """The method with its arguments by name."""
    batches(tree, "data.split(split_size=8, dim=0)")


@rewrite("schedule", 1)
def batches_sliced(tree: Path) -> None:
    """Slices of eight rows, from a generator."""
    batches(tree, "(data[start : start + 8] for start in range(0, len(data), 8))")


@rewrite("schedule", 1)
def batches_listed(tree: Path) -> None:
    """Slices in a list, with the number of rows taken from the shape."""
    restate(
        tree,
        "losses, accuracies = [], []\n$$rest",
        """\
losses, accuracies = [], []
micro_batches = [data[at : at + 8] for at in range(0, data.shape[0], 8)]
$$rest
""",
        TRAINING,
        "train_loop",
    )
    batches(tree, "micro_batches")


@rewrite("schedule", 1)
def batches_by_index(tree: Path) -> None:
    """Indices in order, split and looked up."""
    batches(tree, "(data[rows] for rows in torch.arange(len(data)).split(8))")


@rewrite("schedule", 1)
def batches_chunked(tree: Path) -> None:
    """tensor_split at each eighth row."""
    batches(tree, "data.tensor_split(list(range(8, len(data), 8)))")


@rewrite("schedule", 1)
def batches_data_loader(tree: Path) -> None:
    """A DataLoader that does not shuffle, made anew each epoch."""
    # A loader draws a seed from torch's own generator: its own generator keeps the draws as they were.
    batches(tree, "DataLoader(data, batch_size=8, shuffle=False, generator=torch.Generator())")
    add_import(find(tree, TRAINING), "from torch.utils.data import DataLoader")


@rewrite("schedule", 1)
def batches_data_set(tree: Path) -> None:
    """A TensorDataset in a DataLoader that does not shuffle, made once, its rows taken by index 0."""
    restate(
        tree,
        "history = []\nmodel.train()",
        """\
loader = DataLoader(TensorDataset(data), batch_size=8, generator=torch.Generator())
history = []
model.train()
""",
        TRAINING,
    )
    batches(tree, "(item[0] for item in loader)")
    add_import(find(tree, TRAINING), "from torch.utils.data import DataLoader, TensorDataset")


@rewrite("schedule", 1)
def batches_constant(tree: Path) -> None:
    """The eight has a name."""
    substitute(tree, "data.split(8)", "data.split(BATCH)", TRAINING)
    substitute(tree, "len(data) // 8", "len(data) // BATCH", TRAINING)
    before(find(tree, TRAINING), "train_loop", "BATCH = 8  # rows a micro-batch")


@rewrite("schedule", 1)
def batches_function(tree: Path) -> None:
    """A generator function of the module makes the micro-batches."""
    batches(tree, "iterate(data)")
    before(
        find(tree, TRAINING),
        "with_extra_steps",
        """\
def iterate(rows, size=8):
    start = 0
    while start < len(rows):
        yield rows[start : start + size]
        start += size
""",
    )


@rewrite("schedule", 1)
def batches_option(tree: Path) -> None:
    """A person has made the batch size an option, still without shuffling, and told no command line."""
    path = find(tree, TRAINING)
    restate(tree, TOTAL, TOTAL.replace("8", "batch_size"), TRAINING)
    batches(tree, "data.split(batch_size)")
    old = "    weight_decay: float = 0.01,\n) -> list"
    retext(path, (old, old.replace("\n", "\n    batch_size: int = 8,\n", 1)))


@rewrite("schedule", 1)
def total_max_swapped(tree: Path) -> None:
    """The most of the two is taken in the other order, and the total is in one expression."""
    restate(tree, TOTAL, "total_updates = epochs * max(len(data) // 8, 1)", TRAINING)


@rewrite("schedule", 1)
def total_or_one(tree: Path) -> None:
    """An `or` stands for the least of one."""
    restate(tree, TOTAL, "steps_per_epoch = len(data) // 8 or 1\ntotal_updates = steps_per_epoch * epochs", TRAINING)


@rewrite("schedule", 1)
def total_by_division(tree: Path) -> None:
    """A division is cut to a whole number, and an if keeps it from 0."""
    restate(
        tree,
        TOTAL,
        """\
steps_per_epoch = int(data.size(0) / 8)
if steps_per_epoch < 1:
    steps_per_epoch = 1
total_updates = steps_per_epoch * epochs
""",
        TRAINING,
    )


@rewrite("schedule", 1)
def total_by_divmod(tree: Path) -> None:
    """divmod gives whole batches and a rest that is not used."""
    restate(
        tree,
        TOTAL,
        "whole, _rest = divmod(len(data), 8)\nsteps_per_epoch = whole if whole else 1\ntotal_updates = epochs * steps_per_epoch",
        TRAINING,
    )


@rewrite("schedule", 1)
def total_by_function(tree: Path) -> None:
    """A function counts the updates."""
    restate(tree, TOTAL, "total_updates = count_updates(len(data), epochs)", TRAINING)
    before(
        find(tree, TRAINING),
        "with_extra_steps",
        """\
def count_updates(rows: int, epochs: int, size: int = 8) -> int:
    return epochs * max(1, rows // size)
""",
    )


@rewrite("schedule", 1)
def total_in_the_call(tree: Path) -> None:
    """The total is computed where the optimizer is configured, and read back from the schedule."""
    restate(
        tree,
        f"{TOTAL}\noptimizer, scheduler = configure_optimizer(model, lr=lr, weight_decay=weight_decay, total_steps=total_updates)",
        """\
optimizer, scheduler = configure_optimizer(
    model, lr=lr, weight_decay=weight_decay, total_steps=epochs * max(1, len(data) // 8)
)
total_updates = scheduler.total_steps
""",
        TRAINING,
    )


@rewrite("schedule", 1)
def guard_reversed(tree: Path) -> None:
    """The schedule's guard is written the other way round."""
    restate(tree, GUARD, "if total_updates > scheduler.last_epoch:\n    scheduler.step()", TRAINING)


@rewrite("schedule", 1)
def guard_not_reached(tree: Path) -> None:
    """The schedule's guard says not yet reached."""
    restate(tree, GUARD, "if not scheduler.last_epoch >= total_updates:\n    scheduler.step()", TRAINING)


@rewrite("schedule", 1)
def guard_total_steps(tree: Path) -> None:
    """The guard asks the schedule for its own total."""
    restate(tree, GUARD, "if scheduler.last_epoch < scheduler.total_steps:\n    scheduler.step()", TRAINING)


@rewrite("schedule", 1)
def guard_counter(tree: Path) -> None:
    """A counter of updates guards the schedule."""
    restate(tree, GUARD, "if done < total_updates:\n    scheduler.step()\ndone += 1", TRAINING)
    restate(tree, "history = []\nmodel.train()", "history = []\ndone = 0\nmodel.train()", TRAINING)


@rewrite("schedule", 1)
def guard_try(tree: Path) -> None:
    """The schedule steps until it raises, and then no more."""
    restate(
        tree,
        GUARD,
        "try:\n    scheduler.step()\nexcept ValueError:\n    pass  # the schedule has come to its end",
        TRAINING,
    )


@rewrite("schedule", 1)
def extra_by_yield_from(tree: Path) -> None:
    """with_extra_steps makes a list and yields from it."""
    restate(
        tree,
        """\
batch = None
for batch in batches:
    yield batch
if batch is not None:
    for _ in range(extra_steps):
        yield batch
""",
        """\
seen = list(batches)
yield from seen
if seen:
    yield from seen[-1:] * extra_steps
""",
        TRAINING,
    )


@rewrite("schedule", 1)
def extra_by_itertools(tree: Path) -> None:
    """The loop chains the micro-batches and the repeats of the last."""
    restate(
        tree,
        "for batch in with_extra_steps(data.split(8), extra_steps):\n    $$body",
        """\
parts = data.split(8)
for batch in chain(parts, repeat(parts[-1], extra_steps)):
    $$body
""",
        TRAINING,
    )
    add_import(find(tree, TRAINING), "from itertools import chain, repeat")


@rewrite("schedule", 1)
def extra_inlined(tree: Path) -> None:
    """The repeats are appended to a list of the micro-batches in the loop itself."""
    restate(
        tree,
        "for batch in with_extra_steps(data.split(8), extra_steps):\n    $$body",
        """\
parts = list(data.split(8))
parts.extend([parts[-1]] * extra_steps)
for batch in parts:
    $$body
""",
        TRAINING,
    )


@rewrite("schedule", 1)
def loop_by_steps(tree: Path) -> None:
    """The loop counts the steps of an epoch, and takes the last micro-batch for those that are over."""
    restate(
        tree,
        "for batch in with_extra_steps(data.split(8), extra_steps):\n    $$body",
        """\
parts = data.split(8)
for position in range(len(parts) + extra_steps):
    batch = parts[min(position, len(parts) - 1)]
    $$body
""",
        TRAINING,
    )


@rewrite("schedule", 2, expected={2: OPEN})
def default_total_of_100(tree: Path) -> None:
    """configure_optimizer has a default total of 100, and the manager says nothing of it."""
    path = find(tree, "bit_transformer/optimization.py")
    restate(tree, "if total_steps is None:\n    $$raising", "", "bit_transformer/optimization.py")
    retext(
        path,
        ("total_steps: int | None = None", "total_steps: int = 100"),
        (" Raises TypeError\n    without total_steps: no schedule can guess how long a run is.\n", "\n"),
    )
    substitute(
        tree,
        "configure_optimizer($m, lr=$l, weight_decay=$w, total_steps=100)",
        "configure_optimizer($m, lr=$l, weight_decay=$w)",
        "manager.py",
    )


@rewrite("schedule", 1, 2)
def one_cycle_keywords(tree: Path) -> None:
    """OneCycleLR is told its defaults in words, through a dict."""
    restate(
        tree,
        "return optimizer, OneCycleLR(optimizer, max_lr=lr, total_steps=total_steps)",
        """\
settings = {"max_lr": lr, "total_steps": total_steps, "pct_start": 0.3, "anneal_strategy": "cos"}
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, **settings)
return optimizer, schedule
""",
        "bit_transformer/optimization.py",
    )
    add_import(find(tree, "bit_transformer/optimization.py"), "import torch")


@rewrite("schedule", 1, 4)
def guard_suppressed(tree: Path) -> None:
    """contextlib.suppress swallows what a schedule raises past its end."""
    restate(
        tree,
        "if scheduler.last_epoch < total_updates:\n    scheduler.step()",
        "with suppress(ValueError):\n    scheduler.step()",
        TRAINING,
    )
    add_import(find(tree, TRAINING), "from contextlib import suppress")


@rewrite("schedule", 1)
def extra_by_repeat(tree: Path) -> None:
    """itertools.repeat gives the last micro-batch again."""
    restate(
        tree,
        "if batch is not None:\n    for _ in range(extra_steps):\n        yield batch",
        "if batch is not None:\n    yield from itertools.repeat(batch, extra_steps)",
        TRAINING,
    )
    add_import(find(tree, TRAINING), "import itertools")


@rewrite("schedule", 1)
def batches_by_zip(tree: Path) -> None:
    """Starts and ends of the micro-batches are zipped."""
    restate(
        tree,
        "losses, accuracies = [], []\n$$rest",
        """\
losses, accuracies = [], []
starts = range(0, len(data), 8)
pieces = [data[at:to] for at, to in zip(starts, [*starts[1:], len(data)])]
$$rest
""",
        TRAINING,
        "train_loop",
    )
    substitute(tree, "data.split(8)", "pieces", TRAINING, "train_loop")


@rewrite("schedule", 1)
def total_by_sum(tree: Path) -> None:
    """The number of updates is a sum over the epochs."""
    restate(
        tree,
        "steps_per_epoch = max(1, len(data) // 8)\ntotal_updates = epochs * steps_per_epoch",
        "total_updates = sum(max(1, len(data) // 8) for _ in range(epochs))",
        TRAINING,
    )
