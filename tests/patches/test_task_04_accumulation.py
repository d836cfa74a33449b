"""Which loops are grouped, in which idioms, and which are named and left."""

import pytest

from bitpatch.patches.applying.engine import plan, status
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome, State

TASK = task_named("task-4")
LOOP = """\
def train_loop(model, data, *, epochs=1):
    steps = len(data) // 8
    optimizer, scheduler = configure_optimizer(model, total_steps=epochs * steps)
    for epoch in range(epochs):
        for batch in data.split(8):
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            print(loss.item())
"""
UPDATE = "            optimizer.step()\n            scheduler.step()\n            optimizer.zero_grad()\n"


@pytest.fixture
def loop(model_of):
    def make(text):
        root = model_of("")
        (root / "bit_transformer/training.py").write_text(text)
        return open_tree(root)

    return make


def after(tree):
    planned = plan(tree, [TASK])
    assert planned.outcomes[0].outcome is Outcome.APPLIED, planned.outcomes[0].reason
    text = planned.changes[0].after.decode()
    return text[text.index("def train_loop") : text.index("def planned_updates")].rstrip() + "\n"


def refusal(tree):
    planned = plan(tree, [TASK])
    assert (planned.outcomes[0].outcome, planned.changes) == (Outcome.REFUSED, ())
    return planned.outcomes[0].reason


def test_a_tree_without_a_loop_is_not_recognised(model_of):
    (found,) = status(open_tree(model_of("")), [TASK])
    assert found.state is State.UNRECOGNISED


BY_HAND = """\
def train_loop(model, data, *, epochs=1, accum_steps=1):
    optimizer, scheduler = configure_optimizer(model, total_steps=epochs)
    for epoch in range(epochs):
        pending = 0
        for batch in data.split(8):
            loss = loss_of(model(batch), batch)
            LOSS.backward()
            pending += 1
            if pending == accum_steps:
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
                pending = 0
"""


def test_accumulation_by_hand_that_weighs_each_loss_is_left_alone(loop):
    planned = plan(loop(BY_HAND.replace("LOSS", "(loss * share_of(batch, data))")), [TASK])
    assert (planned.outcomes[0].outcome, planned.changes) == (Outcome.ALREADY_APPLIED, ())


SHARED = """\


def loss_of(logits, batch, scored=None):
    if scored is None:
        return torch.nn.functional.cross_entropy(logits, batch)
    return torch.nn.functional.cross_entropy(logits, batch, reduction="sum") / scored
"""


def test_a_loss_that_is_shared_where_it_is_told_of_how_many_is_known(loop):
    """What is computed is not None: the loss is the one that it is divided in."""
    text = BY_HAND.replace("loss_of(model(batch), batch)", "loss_of(model(batch), batch, max(1, scored_in(data)))")
    text = "import torch\n\n\n" + text.replace("LOSS", "loss") + SHARED
    planned = plan(loop(text), [TASK])
    assert planned.outcomes[0].outcome is Outcome.ALREADY_APPLIED, planned.outcomes[0].reason


MANAGER = """\


class Manager:
    def __init__(self):
        self.model, self.optimizer, self.lock = None, None, Lock()

    def init(self, **config):
        self.model = BitTransformerLM(**config)
        self.optimizer = AdamW(self.model.parameters())

    def scale_up(self):
        self.model = double_width(self.model)
        self.optimizer = AdamW(self.model.parameters())

    def train_step(self, bits):
        loss = loss_of(self.model(bits), bits)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def train(self, rows):
        return [self.train_step(bits) for bits in rows.split(8)]
"""
GROUPS_BY_HAND = BY_HAND.replace("LOSS", "(loss * share_of(batch, data))")


def test_a_run_on_request_stands_beside_a_loop_that_accumulates_well(loop):
    planned = plan(loop(GROUPS_BY_HAND + MANAGER), [TASK])
    assert (planned.outcomes[0].outcome, planned.changes) == (Outcome.ALREADY_APPLIED, ())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(MANAGER, id="alone"),
        pytest.param(
            GROUPS_BY_HAND
            + MANAGER.replace("def scale_up(self)", "def _fit(self)").replace(
                "        self.model = double_width(self.model)\n", "        self.train([])\n"
            ),
            id="of a trainer's own optimizer",
        ),
        pytest.param(
            GROUPS_BY_HAND + MANAGER.replace(", Lock()", ", 0").replace("scale_up", "load"), id="that nobody else asks"
        ),
    ],
)
def test_a_run_of_a_class_that_answers_no_requests_accumulates_too(loop, text):
    assert "in no `for` loop over micro-batches" in refusal(loop(text))


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        pytest.param("(loss / accum_steps)", "each loss is divided by the same number", id="divided by the option"),
        pytest.param("loss", "its losses are added up, each whole", id="not divided"),
    ],
)
def test_accumulation_by_hand_that_weighs_wrongly_is_named(loop, loss, reason):
    assert reason in refusal(loop(BY_HAND.replace("LOSS", loss)))


SUMMED = """\
import torch
from torch.nn.functional import cross_entropy


def settle(model, optimizer, scored):
    for p in model.parameters():
        if p.grad is not None:
            p.grad.div_(scored)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def train_loop(model, data, *, epochs=1, accum_steps=1):
    optimizer = torch.optim.SGD(model.parameters())
    for epoch in range(epochs):
        pending, scored = 0, 0
        for batch in data.split(8):
            target = batch[:, 1:].reshape(-1)
            loss = cross_entropy(model(batch).reshape(-1, 2), target, reduction="sum", ignore_index=-1)
            loss.backward()
            pending, scored = pending + 1, scored + int((target != -1).sum())
            if pending == accum_steps:
                settle(model, optimizer, scored)
                pending, scored = 0, 0
        if pending:
            settle(model, optimizer, scored)
"""
DIVIDED = "        if p.grad is not None:\n            p.grad.div_(scored)\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("", "", id="in a helper"),
        pytest.param(DIVIDED, "        p.grad.div_(max(scored, 1))\n", id="by one at least"),
        pytest.param("        if pending:\n            settle(model, optimizer, scored)\n", "", id="without a rest"),
    ],
)
def test_gradients_of_sums_that_are_divided_by_what_their_group_scores_are_its_mean(loop, old, new):
    planned = plan(loop(SUMMED.replace(old, new)), [TASK])
    assert planned.outcomes[0].outcome is Outcome.ALREADY_APPLIED, planned.outcomes[0].reason


CLIPPED = "    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(', reduction="sum"', "", id="means"),
        pytest.param("int((target != -1).sum())", "1", id="by how many losses"),
        pytest.param("int((target != -1).sum())", "len(target)", id="by what is padding too"),
        pytest.param(
            "                pending, scored = 0, 0\n", "                pending = 0\n", id="of groups before too"
        ),
        pytest.param(
            "        pending, scored = 0, 0\n        for", "        pending = 0\n        for", id="of epochs before too"
        ),
        pytest.param("p.grad.div_(scored)", "p.grad.mul_(scored)", id="times what it scores"),
        pytest.param("model.parameters():", "model.head.parameters():", id="of a part"),
        pytest.param("p.grad is not None", "p.grad.ndim > 1 and scored > 9", id="of some"),
        pytest.param("p.grad.div_(scored)", "p.grad = p.grad / scored", id="in another way"),
        pytest.param(
            "    for p in model.parameters():\n" + DIVIDED,
            "    torch._foreach_div_([p.grad for p in model.parameters()], scored)\n",
            id="at once",
        ),
        pytest.param("    for p", CLIPPED + "    for p", id="after a clip"),
        pytest.param(
            "        if pending:\n            settle(model, optimizer, scored)",
            "        if pending:\n            optimizer.step()",
            id="but for the rest",
        ),
    ],
)
def test_gradients_that_may_be_divided_by_something_else_are_named_so(loop, old, new):
    assert old in SUMMED
    assert "not seen that gradients are divided by all that" in refusal(loop(SUMMED.replace(old, new)))


def test_a_loss_that_is_divided_though_each_is_an_update_is_named(loop):
    text = LOOP.replace("epochs=1", "epochs=1, accum_steps=1").replace(
        "loss.backward()", "(loss / accum_steps).backward()"
    )
    assert "each micro-batch is an update of its own" in refusal(loop(text))


def test_the_plain_loop(loop):
    assert (
        after(loop(LOOP))
        == """\
def train_loop(model, data, *, epochs=1, accum_steps: int = 1):
    steps = len(data) // 8
    optimizer, scheduler = configure_optimizer(model, total_steps=planned_updates(epochs, steps, accum_steps=accum_steps))
    for epoch in range(epochs):
        for batch, shares, closes in accumulation_groups(data.split(8), accum_steps):
            loss = loss_of(model, batch)
            (loss * shares.weigh(len(batch))).backward()
            if closes:
                shares.average(model)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            print(loss.item())
"""
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            "for batch in data.split(8):",
            "for i, batch in enumerate(data.split(8)):",
            "for i, (batch, shares, closes) in enumerate(accumulation_groups(data.split(8), accum_steps)):",
            id="enumerate",
        ),
        pytest.param(
            "for batch in data.split(8):",
            "for batch in tqdm(data.split(8)):",
            "for batch, shares, closes in accumulation_groups(tqdm(data.split(8)), accum_steps):",
            id="progress bar",
        ),
        pytest.param(
            "for batch in data.split(8):",
            "for (batch,) in zip(data.split(8)):",
            "for (batch,), shares, closes in accumulation_groups(zip(data.split(8)), accum_steps):",
            id="tuples",
        ),
        pytest.param(
            "for batch in data.split(8):",
            "for batch, _ in zip(data.split(8), range(99)):",
            "for (batch, _), shares, closes in accumulation_groups(zip(data.split(8), range(99)), accum_steps):",
            id="pairs",
        ),
        pytest.param(
            "            optimizer.zero_grad()\n",
            "            for p in model.parameters():\n                p.grad = None\n",
            "                scheduler.step()\n                for p in model.parameters():\n                    p.grad = None\n",
            id="zeroed by hand",
        ),
        pytest.param(
            "            optimizer.zero_grad()\n",
            "            optimizer.zero_grad()\n            for group in optimizer.param_groups:\n                group['lr'] = 1\n",
            "                optimizer.zero_grad()\n                for group in optimizer.param_groups:\n",
            id="rate by hand",
        ),
        pytest.param(
            "loss.backward()",
            "torch.autograd.backward(loss)",
            "torch.autograd.backward(loss * shares.weigh(len(batch)))",
            id="backward of torch",
        ),
        pytest.param(
            "loss.backward()",
            "accelerator.backward(loss)",
            "accelerator.backward(loss * shares.weigh(len(batch)))",
            id="backward of a wrapper",
        ),
        pytest.param(
            "            optimizer.zero_grad()\n",
            "            optimizer.zero_grad()\n            average.update_parameters(model)\n",
            "                optimizer.zero_grad()\n                average.update_parameters(model)\n",
            id="average of weights",
        ),
        pytest.param(
            "            optimizer.zero_grad()\n",
            "            optimizer.zero_grad()\n            with torch.no_grad():\n                for kept, new in zip(average, model.parameters()):\n                    kept.lerp_(new, 0.1)\n",
            "                optimizer.zero_grad()\n                with torch.no_grad():\n                    for kept, new in zip(average, model.parameters()):\n",
            id="average of weights by hand",
        ),
        pytest.param(
            "            optimizer.step()\n",
            "            optimizer.step()\n            losses.append(loss.item())\n",
            "                optimizer.zero_grad()\n            losses.append(loss.item())\n",
            id="record between the parts",
        ),
        pytest.param(
            "loss.backward()",
            "(loss + aux).backward()",
            "((loss + aux) * shares.weigh(len(batch))).backward()",
            id="sum of losses",
        ),
        pytest.param(
            "loss.backward()",
            "loss.sum().backward()",
            "(loss.sum() * shares.weigh(len(batch))).backward()",
            id="loss of a call",
        ),
        pytest.param(
            "            optimizer.step()\n",
            "            # keep it finite\n            nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # as ever\n            optimizer.step()\n",
            "            # keep it finite\n            if closes:\n                shares.average(model)\n                nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # as ever\n                optimizer.step()\n",
            id="clip with comments",
        ),
        pytest.param(
            "            scheduler.step()\n",
            "            if scheduler is not None:\n                scheduler.step()\n",
            "                if scheduler is not None:\n                    scheduler.step()\n",
            id="step under a condition",
        ),
        pytest.param(
            "total_steps=epochs * steps)",
            "total_steps=max(1, steps * epochs))",
            "max(1, planned_updates(epochs, steps, accum_steps=accum_steps))",
            id="guarded total",
        ),
        pytest.param(
            "scheduler = configure_optimizer(model, total_steps=epochs * steps)",
            "scheduler = adam(), torch.optim.lr_scheduler.OneCycleLR(adam, 1e-3, epochs * steps)",
            "OneCycleLR(adam, 1e-3, planned_updates(epochs, steps, accum_steps=accum_steps))",
            id="positional total",
        ),
    ],
)
def test_idioms(loop, old, new, expected):
    assert old in LOOP
    header = "import torch\n" if "torch." in new else ""
    assert expected in after(loop(header + LOOP.replace(old, new)))


@pytest.mark.parametrize(
    ("test", "kept"),
    [
        ("batch.numel() == 0", "batch.numel() != 0"),
        ("len(batch) < rows", "not (len(batch) < rows)"),
        ("not batch.any()", "batch.any()"),
    ],
)
def test_what_leaves_items_out_first_does_so_before_they_are_grouped(loop, test, kept):
    first = f"            if {test}:\n                continue\n"
    made = after(
        loop(LOOP.replace("epochs=1", "epochs=1, rows=2").replace("            loss = ", f"{first}            loss = "))
    )
    some = f"(\n            (batch for batch in data.split(8) if {kept}), accum_steps\n        ):\n"
    assert some in made
    assert "continue" not in made


ASKED = """\
        stream = iter(data.split(8))
        while (batch := next(stream, None)) is not None:
"""
ASKED_BEFORE = """\
        stream = iter(data.split(8))
        batch = next(stream, None)
        while batch is not None:
"""
ASKED_FIRST = """\
        stream = iter(data.split(8))
        while True:
            batch = next(stream, None)
            if batch is None:
                break
"""
COUNTED = """\
        at = 0
        while at < len(data):
            batch = data[at : at + 8]
            at += 8
"""


@pytest.mark.parametrize(
    ("head", "last"),
    [(ASKED, ""), (ASKED_BEFORE, "            batch = next(stream, None)\n"), (ASKED_FIRST, "")],
)
def test_a_loop_that_asks_for_the_next_goes_through_groups(loop, head, last):
    text = after(loop(LOOP.replace("        for batch in data.split(8):\n", head) + last))
    plain = after(
        loop(LOOP.replace("        for batch in", "        stream = iter(data.split(8))\n        for batch in"))
    )
    assert text == plain.replace("groups(data.split(8),", "groups(stream,")


def test_a_loop_that_counts_up_goes_through_groups_of_its_counts(loop):
    text = "import torch\n" + LOOP.replace("        for batch in data.split(8):\n", COUNTED)
    text = after(loop(text.replace("loss_of(model, batch)", "torch.nn.functional.cross_entropy(model(batch), batch)")))
    head = "        for at, shares, closes in accumulation_groups(range(0, len(data), 8), accum_steps):\n"
    assert f"{head}            batch = data[at : at + 8]\n            loss = " in text
    assert "at += 8" not in text


def headed(head, old, new):
    """The loop under another head, with one edit more."""
    text = LOOP.replace("        for batch in data.split(8):\n", head)
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("at += 8", "at += 8\n            print(at)", id="count behind the step"),
        pytest.param("            print(loss.item())", "        print(at)", id="count behind the loop"),
        pytest.param("at += 8", "at += len(batch)", id="step that changes"),
        pytest.param("at += 8", "at += 8\n            data.pop()", id="end that changes"),
        pytest.param("at < len(data)", "at < len(data) / 2", id="end that is no number of items"),
        pytest.param("at < len(data)", "at < limit()", id="end that is asked anew"),
        pytest.param("        at = 0\n", "        at = 0\n        seen = at\n", id="more before the loop"),
        pytest.param("at < len(data)", "at <= len(data) - 8", id="end that is reached"),
    ],
)
def test_a_loop_that_counts_in_another_way_is_named(loop, old, new):
    assert "in no `for` loop over micro-batches" in refusal(loop(headed(COUNTED, old, new)))


def test_what_a_loop_counts_is_no_micro_batch_where_nothing_is_learned_from_it(loop):
    text = LOOP.replace("        for batch in data.split(8):\n", COUNTED).replace("data[at : at + 8]", "data")
    assert "loop with a backward call, but not over micro-batches" in refusal(loop(text))


def test_a_turn_that_is_tried_and_raises_what_it_catches_is_grouped(loop):
    first, *body = LOOP[LOOP.index("            loss = ") :].splitlines(keepends=True)
    tried = "            try:\n" + "".join(f"    {line}" for line in [first, *body])
    text = LOOP[: LOOP.index("            loss = ")] + tried
    made = after(loop(text + "            except MemoryError:\n                print('full')\n                raise\n"))
    assert "                if closes:\n                    shares.average(model)\n" in made
    assert "no statement of its own" in refusal(loop(text + "            except MemoryError:\n                pass\n"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("epochs=1):\n", "epochs=1):\n    next = second\n", id="another next"),
        pytest.param("print(loss.item())", "print(next(stream))", id="one more is asked for"),
        pytest.param("            print(loss.item())\n", "        print(batch)\n", id="what ended it is looked at"),
    ],
)
def test_a_loop_that_asks_in_another_way_is_named(loop, old, new):
    assert "in no `for` loop over micro-batches" in refusal(loop(headed(ASKED, old, new)))


SCRIPT = """\
import torch

CONFIG = {"epochs": 1, "extra": 0}
rows = load("rows")
model = make()
optimizer = torch.optim.AdamW(model.parameters())
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=CONFIG["epochs"] * (len(rows) // 8))
for epoch in range(CONFIG["epochs"]):
    for batch in rows.split(8):
        loss = torch.nn.functional.cross_entropy(model(batch)[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    print(CONFIG["extra"])
"""


def test_a_script_is_told_by_what_holds_its_options(loop):
    planned = plan(loop(SCRIPT), [TASK])
    assert planned.outcomes[0].outcome is Outcome.APPLIED, planned.outcomes[0].reason
    text = planned.changes[0].after.decode()
    assert 'CONFIG = {"epochs": 1, "extra": 0, "accum_steps": 1}' in text
    assert 'planned_updates(CONFIG["epochs"], len(rows) // 8, accum_steps=CONFIG["accum_steps"])' in text
    assert '    for batch, shares, closes in accumulation_groups(rows.split(8), CONFIG["accum_steps"]):' in text
    assert text.index("class Shares") < text.index("def accumulation_groups") < text.index("for epoch in")


def test_zeroing_before_the_backward_moves_before_the_loop_and_into_the_update(loop):
    text = LOOP.replace("            optimizer.zero_grad()\n", "")
    text = text.replace(
        "            loss = ", "            # start anew\n            optimizer.zero_grad()\n            loss = "
    )
    assert (
        after(loop(text)).split("range(epochs):\n")[1]
        == """\
        # start anew
        optimizer.zero_grad()
        for batch, shares, closes in accumulation_groups(data.split(8), accum_steps):
            loss = loss_of(model, batch)
            (loss * shares.weigh(len(batch))).backward()
            if closes:
                shares.average(model)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            print(loss.item())
"""
    )


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param(
            "for batch in data.split(8):",
            "for batch in range(0, len(data), 8):",
            "which targets it is a mean over is not seen",
            id="indices",
        ),
        pytest.param(
            "for batch in data.split(8):", "for _ in range(len(data)):", "not over micro-batches", id="counts"
        ),
        pytest.param("loss.backward()", "loss.backward(); n += 1", "no statement of its own", id="shared line"),
        pytest.param("loss.backward()", "loss.backward()\n            other.backward()", "found 2", id="two backwards"),
        pytest.param(
            "            loss.backward()\n",
            "",
            "looked for a training loop over micro-batches with one backward call",
            id="no backward",
        ),
        pytest.param(UPDATE, "", "no optimizer step", id="no step"),
        pytest.param(
            "            scheduler.step()\n",
            "            log(loss)\n            scheduler.step()\n",
            "between the parts",
            id="foreign statement",
        ),
        pytest.param(
            "            optimizer.step()\n            scheduler.step()\n            optimizer.zero_grad()\n            print(loss.item())\n",
            "            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n            optimizer.step()\n            print(norm)\n",
            "use of norm",
            id="norm used later",
        ),
        pytest.param("epochs * steps)", "epochs * len(data) // 8)", "no product of epochs", id="total of rows"),
        pytest.param(
            "            loss = ",
            "            shares = 1\n            loss = ",
            "the name shares is taken",
            id="name taken",
        ),
    ],
)
def test_near_misses_are_refused(loop, old, new, reason):
    assert old in LOOP
    header = "import torch\n" if "torch." in new else ""
    assert reason in refusal(loop(header + LOOP.replace(old, new)))


STEP, ZERO = "            optimizer.step()\n", "            optimizer.zero_grad()\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            UPDATE,
            "            if (epoch + 1) % 2 == 0:\n" + UPDATE.replace("            ", "                "),
            id="update under an if",
        ),
        pytest.param(
            STEP,
            "            float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))\n" + STEP,
            id="clip in an expression",
        ),
        pytest.param(STEP, "            clip_gradients(model)\n" + STEP, id="helper that is given the model"),
        pytest.param(
            STEP,
            "            for p in model.parameters():\n                p.grad.clamp_(-1, 1)\n" + STEP,
            id="clamped by hand",
        ),
        pytest.param("in data.split(8):", "in tqdm(range(0, len(data), 8)):", id="indices in a progress bar"),
        pytest.param("in data.split(8):", "in torch.randperm(9):", id="random indices"),
        pytest.param("loss = loss_of(model, batch)", "loss = loss_of(model, batch[0])", id="fields of a record"),
        pytest.param(
            "            loss = ",
            "            batch = batch[batch[:, 0] > 0]\n            if len(batch) < 2:\n                continue\n            loss = ",
            id="continue by what is made of an item",
        ),
        pytest.param(
            "            loss = ",
            "            if batch in seen:\n                continue\n            seen.append(batch)\n            loss = ",
            id="continue by what a turn changes",
        ),
        pytest.param(
            "            loss = ",
            "            if random.random() < 0.5:\n                continue\n            loss = ",
            id="continue by a draw",
        ),
        pytest.param("            print(loss.item())", "            if epoch:\n                break", id="break"),
        pytest.param(
            "optimizer, scheduler = configure_optimizer(model, total_steps=epochs * steps)",
            "optimizer, scheduler = make(model)",
            id="no total",
        ),
    ],
)
def test_what_would_go_wrong_in_silence_is_refused(loop, old, new):
    assert old in LOOP
    assert "near miss at bit_transformer/training.py:" in refusal(loop("import torch\n" + LOOP.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            ZERO,
            ZERO + "            pbar.update(1)\n",
            "                optimizer.zero_grad()\n            pbar.update(1)\n",
            id="progress bar",
        ),
        pytest.param(
            "            loss.backward()\n",
            "            loss.backward()\n            meter.update(loss.item())\n",
            "            (loss * shares.weigh(len(batch))).backward()\n            meter.update(loss.item())\n            if closes:\n",
            id="meter",
        ),
        pytest.param(
            ZERO,
            ZERO + "            prof.step()\n",
            "                optimizer.zero_grad()\n            prof.step()\n",
            id="profiler",
        ),
        pytest.param(
            UPDATE,
            "            optimizer.step(); scheduler.step(); optimizer.zero_grad()\n",
            "            if closes:\n                shares.average(model)\n                optimizer.step(); scheduler.step(); optimizer.zero_grad()\n",
            id="one line",
        ),
        pytest.param(
            "            scheduler.step()\n",
            "            if epoch: scheduler.step()\n",
            "                if epoch: scheduler.step()\n",
            id="one-line suite",
        ),
        pytest.param(
            "total_steps=epochs * steps)",
            "total_steps=int(epochs * steps))",
            "int(planned_updates(epochs, steps, accum_steps=accum_steps))",
            id="int of a product",
        ),
        pytest.param(
            "configure_optimizer(model, total_steps=epochs * steps)",
            "adam(), torch.optim.lr_scheduler.OneCycleLR(adam, 1e-3, epochs=epochs, steps_per_epoch=steps)",
            "steps_per_epoch=planned_updates(1, steps, accum_steps=accum_steps))",
            id="steps of an epoch",
        ),
    ],
)
def test_what_is_no_part_of_an_update_stays_where_it_is(loop, old, new, expected):
    assert old in LOOP
    header = "import torch\n" if "torch." in new else ""
    assert expected in after(loop(header + LOOP.replace(old, new)))


def test_a_command_line_that_hands_on_no_option_is_left_alone(loop):
    main = "\n\ndef main(cli):\n    cli.add_argument('--epochs')\n    train_loop(1, 2, epochs=3)\n"
    whole = plan(loop(LOOP + main), [TASK]).changes[0].after.decode()
    assert "accum_steps: int = 1" in whole
    assert main in whole


def test_a_flag_with_dashes_is_the_same_flag(loop):
    added = "    cli.add_argument('--epochs')\n    cli.add_argument('--accum-steps', type=int, default=1)\n"
    main = f"\n\ndef main(cli):\n{added}    args = cli.parse_args()\n    train_loop(1, 2, epochs=args.epochs)\n"
    whole = plan(loop(LOOP + main), [TASK]).changes[0].after.decode()
    assert whole.count("add_argument") == 2
    assert "accum_steps=args.accum_steps" in whole


TIMED = """\
import functools


def timed(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        print("begins")
        return function(*args, **kwargs)

    return wrapper


@timed
"""
MAIN = """

def main(cli):
    cli.add_argument("--epochs", type=int)
    cli.add_argument("--log", type=int)
    args = cli.parse_args()
    train_loop(1, 2, epochs=args.epochs, log=args.log)
"""


def test_an_option_comes_through_a_decorator_that_hands_all_on(loop):
    whole = plan(loop(TIMED + LOOP.replace("epochs=1", "epochs=1, log=0") + MAIN), [TASK]).changes[0].after.decode()
    assert "train_loop(1, 2, epochs=args.epochs, log=args.log, accum_steps=args.accum_steps)" in whole


def test_an_option_that_a_decorator_may_keep_is_named(loop):
    text = TIMED.replace("wrapper(*args,", "wrapper(log, *args,") + LOOP.replace("epochs=1", "epochs=1, log=0") + MAIN
    assert "how the options of the command line get here is not seen" in refusal(loop(text))


def test_a_name_that_is_taken_does_not_end_the_status_of_others(loop):
    found = status(loop("import numpy as math\n" + LOOP), [TASK])
    assert found[0].state is State.UNRECOGNISED
    assert "the name math" in str([str(site) for site in found[0].sites])


def test_a_loop_that_steps_nothing_is_named(loop):
    text = "def train_loop(model):\n    fit(model)\n\n\ndef fit(model):\n    for batch in data:\n        model(batch).backward()\n"
    assert "training.py:7:9: " in refusal(loop(text))


def test_what_is_half_there_is_completed(loop, tree, patched):
    done = patched(tree, "task-4") / "bit_transformer/training.py"
    whole = done.read_text()
    done.write_text(
        whole.replace("        accum_steps=args.accum_steps,\n", "").replace(
            "(loss * shares.weigh(len(batch))).backward()", "loss.backward()"
        )
    )
    (found,) = status(open_tree(tree), [TASK])
    assert found.state is State.PARTIAL
    assert (patched(tree, "task-4") / "bit_transformer/training.py").read_text() == whole


# Updates in other functions than the loop ----------------------------------------------------------

IN_A_METHOD = """\
import torch


class Trainer:
    def __init__(self, model, rows, epochs=1):
        self.model, self.rows, self.epochs = model, rows, epochs
        self.optimizer, self.scheduler = configure_optimizer(model, total_steps=epochs * (len(rows) // 8))

    def train_loop(self):
        for epoch in range(self.epochs):
            for batch in self.rows.split(8):
                self.learn(batch)

    def learn(self, batch):
        logits = self.model(batch)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.flatten())
        self.backward(loss)
        self.step()

    def backward(self, loss):
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()

    def step(self):
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.scheduler.step()
"""


def test_an_update_in_methods_is_told_by_its_loop(loop):
    planned = plan(loop(IN_A_METHOD), [TASK])
    assert planned.outcomes[0].outcome is Outcome.APPLIED, planned.outcomes[0].reason
    assert """\
        for epoch in range(self.epochs):
            self.optimizer.zero_grad(set_to_none=True)
            for batch, shares, closes in accumulation_groups(self.rows.split(8), self.accum_steps):
                self.learn(batch, shares, closes)

    def learn(self, batch, shares, closes):
        logits = self.model(batch)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.flatten())
        self.backward(loss * shares.weigh(scored_bits(batch)))
        if closes:
            shares.average(self.model)
            self.step()
            self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss):
        loss.backward()
""" in planned.changes[0].after.decode()


def test_a_total_in_the_constructor_is_told_by_its_parameter(loop):
    text = plan(loop(IN_A_METHOD), [TASK]).changes[0].after.decode()
    assert "total_steps=planned_updates(epochs, len(rows) // 8, accum_steps=accum_steps)" in text


@pytest.mark.parametrize(
    ("total", "outcome"),
    [
        pytest.param("epochs * math.ceil(steps / accum_steps)", Outcome.ALREADY_APPLIED, id="as many as there are"),
        pytest.param("epochs * (steps // accum_steps)", Outcome.REFUSED, id="rounded down"),
        pytest.param("planned_updates(epochs, steps, accum_steps=2)", Outcome.REFUSED, id="of another number"),
    ],
)
def test_a_total_by_hand_counts_the_groups_that_are_made(loop, total, outcome):
    whole = plan(loop(LOOP), [TASK]).changes[0].after.decode()
    planned = "planned_updates(epochs, steps, accum_steps=accum_steps)"
    assert planned in whole
    assert plan(loop(whole.replace(planned, total)), [TASK]).outcomes[0].outcome is outcome


def test_a_total_by_hand_may_be_counted_by_what_is_called_as_ours(loop):
    whole = plan(loop(LOOP), [TASK]).changes[0].after.decode()
    ours = whole[whole.index("def planned_updates") :].partition("\n\n\n")[0]
    own = "def planned_updates(steps, groups, epochs):\n    return epochs * -(-steps // groups)"
    text = whole.replace(
        "planned_updates(epochs, steps, accum_steps=accum_steps)", "planned_updates(steps, accum_steps, epochs)"
    )
    assert plan(loop(text.replace(ours, own)), [TASK]).outcomes[0].outcome is Outcome.ALREADY_APPLIED


def test_a_loop_without_a_schedule_has_no_total(loop):
    assert "planned_updates" not in plan(loop(WITHOUT_SCHEDULE), [TASK]).changes[0].after.decode()


WITHOUT_SCHEDULE = LOOP.replace("            scheduler.step()\n", "").replace(
    "optimizer, scheduler = configure_optimizer(model, total_steps=epochs * steps)", "optimizer = adam(model)"
)


IN_A_FUNCTION = (
    LOOP.replace("            loss.backward()\n" + UPDATE, "            update(model, loss, optimizer, scheduler)\n")
    + """

def update(model, loss, optimizer, scheduler, clip=1.0):
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
"""
)


def test_an_update_in_a_function_is_told_by_its_loop(loop):
    text = plan(loop("import torch\n" + IN_A_FUNCTION), [TASK]).changes[0].after.decode()
    weighed = "loss * shares.weigh(len(batch))"
    assert f"update(model, {weighed}, optimizer, scheduler, shares=shares, closes=closes)\n" in text
    assert "def update(model, loss, optimizer, scheduler, clip=1.0, *, shares, closes):\n    loss.backward()\n" in text
    assert "    if closes:\n        shares.average(model)\n        torch.nn.utils.clip_grad_norm_" in text


ON_REQUEST = "\n\ndef on_request(model, loss, state):\n    update(model, loss, state.optimizer, state.scheduler)\n"


def test_a_function_that_updates_on_request_too_makes_groups_of_one_there(loop):
    text = plan(loop("import torch\n" + IN_A_FUNCTION + ON_REQUEST), [TASK]).changes[0].after.decode()
    assert ON_REQUEST in text
    assert (
        """\
def update(model, loss, optimizer, scheduler, clip=1.0, *, shares=None, closes=True):
    loss.backward()
    if closes:
        if shares is not None:
            shares.average(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
"""
        in text
    )


@pytest.mark.parametrize(
    "other",
    [
        pytest.param("\n\nUPDATES = [update]\n", id="kept"),
        pytest.param(
            "\n\ndef tune(model, rows, a, b):\n    for row in rows:\n        update(model, loss_of(model, row), a, b)\n",
            id="in another run",
        ),
    ],
)
def test_a_function_that_updates_elsewhere_in_another_way_is_refused(loop, other):
    reason = refusal(loop("import torch\n" + IN_A_FUNCTION + other))
    assert "update, which its loop is to give shares, is used elsewhere too" in reason


RETURNS = IN_A_FUNCTION.replace("clip=1.0):", "clip=1.0) -> float:").replace(
    "    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)\n",
    "    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)\n",
)
RETURNS = RETURNS.rstrip() + "\n    COUNTS['updates'] += 1\n    return float(norm)\n"
RETURNS = RETURNS.replace("            update(", "            norm = update(").replace(
    "            print(loss.item())", "            done += 1\n            norms.append(norm)"
)


def test_what_a_function_returns_of_an_update_is_there_at_the_end_of_a_group(loop):
    text = plan(loop("import torch\n" + RETURNS), [TASK]).changes[0].after.decode()
    assert "closes=closes)\n            if closes:\n                done += 1\n            norms.append(norm)\n" in text
    assert "closes) -> float | None:" in text
    assert (
        "        optimizer.zero_grad()\n        COUNTS['updates'] += 1\n        return float(norm)\n    return None\n"
        in text
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(RETURNS, id="by calls"),
        pytest.param(
            LOOP.replace(".step()\n", ".step()\n            n += 1\n", 1) + "    print(total / n)\n", id="by steps"
        ),
    ],
)
def test_a_mean_over_what_is_counted_beside_updates_is_named(loop, text):
    text = text.replace(
        "            norms.append(norm)\n", "            norms.append(norm)\n    print(sum(norms) / max(done, 1))\n"
    )
    assert "mean over what is counted beside each update" in refusal(loop("import torch\n" + text))


@pytest.mark.parametrize(
    ("old", "new"),
    [("norms.append(norm)", "print(f'{norm:.2f}')"), ("norm = update(", "total += update(")],
)
def test_what_needs_a_result_of_every_micro_batch_is_named(loop, old, new):
    assert old in RETURNS
    assert "which a group has only at its end" in refusal(loop("import torch\n" + RETURNS.replace(old, new)))


# What a micro-batch weighs -------------------------------------------------------------------------

HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n\nIGNORED = -100\n\n"
FORWARD = "            logits, targets = predict(model, batch)\n"
ENTROPY = "F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORED)"
TARGETS = "(loss * shares.weigh(scored_bits(targets[:, 1:]))).backward()"


def with_loss(lines, above=""):
    assert "            loss = loss_of(model, batch)\n" in LOOP
    return HEAD + above + LOOP.replace("            loss = loss_of(model, batch)\n", FORWARD + lines)


@pytest.mark.parametrize(
    ("lines", "above"),
    [
        pytest.param(f"            loss = {ENTROPY}\n", "", id="in the loop"),
        pytest.param(f"            loss = {ENTROPY} + 0.1 * penalty(logits)\n", "", id="with a penalty"),
        pytest.param(f"            with autocast():\n                loss = {ENTROPY}\n", "", id="under a with"),
        pytest.param(
            f"            if smooth:\n                loss = {ENTROPY}\n            else:\n                loss = {ENTROPY}\n",
            "",
            id="in both branches",
        ),
        pytest.param(
            "            loss = next_bit_loss(logits, targets)\n",
            f"def next_bit_loss(logits, targets):\n    return {ENTROPY}\n\n\n",
            id="in a function",
        ),
        pytest.param(
            "            loss = next_bit_loss(wanted=targets, scores=logits)\n",
            "def next_bit_loss(scores, wanted):\n    flat = wanted[:, 1:].reshape(-1)\n"
            "    return F.cross_entropy(target=flat.long(), input=scores[:, :-1].reshape(-1, 2), reduction='mean')\n\n\n",
            id="in a function with names of its own",
        ),
        pytest.param(
            "            loss = criterion(logits[:, :-1].flatten(0, 1), targets[:, 1:].reshape(-1))\n",
            "criterion = nn.CrossEntropyLoss(ignore_index=-100)\n\n\n",
            id="by a module",
        ),
    ],
)
def test_a_micro_batch_weighs_what_its_loss_is_a_mean_over(loop, lines, above):
    planned = plan(loop(with_loss(lines, above)), [TASK])
    assert planned.outcomes[0].outcome is Outcome.APPLIED, planned.outcomes[0].reason
    text = planned.changes[0].after.decode()
    assert TARGETS in text
    assert "def scored_bits(targets: Tensor)" in text


@pytest.mark.parametrize(("ignored", "above"), [("2", ""), ("SKIP", "SKIP = -1\n")])
def test_targets_that_are_ignored_by_another_number_are_counted_by_it(loop, ignored, above):
    text = with_loss(f"            loss = {ENTROPY.replace('IGNORED', ignored)}\n", above)
    assert f"shares.weigh(int((targets[:, 1:] != {ignored}).sum()))" in after(loop(text))


@pytest.mark.parametrize(
    ("lines", "above", "reason"),
    [
        pytest.param(
            f"            loss = {ENTROPY} + F.cross_entropy(other, wanted)\n", "", "several means", id="two targets"
        ),
        pytest.param(
            f"            loss = {ENTROPY[:-1]}, reduction='sum')\n", "", "no plain mean over its targets", id="sum"
        ),
        pytest.param(
            f"            loss = {ENTROPY[:-1]}, weight=rare)\n", "", "no plain mean over its targets", id="weighted"
        ),
        pytest.param(
            "            loss = loss_of(logits, targets)\n",
            "def pad(rows):\n    return rows.masked_fill(rows < 0, IGNORED)\n\n\n",
            "rows are padded here",
            id="a loss that is not seen beside padding",
        ),
    ],
)
def test_what_a_micro_batch_weighs_is_not_guessed(loop, lines, above, reason):
    assert reason in refusal(loop(with_loss(lines, above)))


MADE = """\
def made(model, batch) -> Tensor:
    logits, targets = predict(model, batch)
    if model.training:
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


"""
ELSEWHERE = """

def loss_now(model, batch):
    return made(model, batch).item()
"""


def with_made(above=MADE, behind=ELSEWHERE):
    return HEAD + above + LOOP.replace("loss_of(", "made(") + behind


def test_a_function_that_makes_a_loss_says_how_much_it_scores(loop):
    planned = plan(loop(with_made()), [TASK])
    assert planned.outcomes[0].outcome is Outcome.APPLIED, planned.outcomes[0].reason
    text = planned.changes[0].after.decode()
    assert (
        "            loss, scored = made(model, batch)\n            (loss * shares.weigh(scored)).backward()\n" in text
    )
    assert "def made(model, batch) -> tuple[Tensor, int]:" in text
    assert "batch[:, 1:].flatten()), scored_bits(batch[:, 1:])\n" in text
    assert "ignore_index=IGNORED), scored_bits(targets)\n" in text
    assert "return made(model, batch)[0].item()" in text


@pytest.mark.parametrize(
    ("bring", "use"),
    [
        ("from . import training", "training.made(model, batch)"),
        ("from .training import made as loss_of", "loss_of(model, batch)"),
        ("import bit_transformer.training as t", "t.made(model, batch)"),
    ],
)
def test_all_that_ask_for_such_a_loss_take_the_loss_alone(loop, bring, use):
    tree = loop(with_made())
    (tree.root / "bit_transformer/asking.py").write_text(f"{bring}\n\n\ndef ask(model, batch):\n    return {use}\n")
    changes = plan(open_tree(tree.root), [TASK]).changes
    assert f"    return {use}[0]\n".encode() in next(each.after for each in changes if each.path.endswith("asking.py"))


@pytest.mark.parametrize(
    ("above", "behind"),
    [
        pytest.param(MADE, "\n\nMAKERS = [made]\n", id="kept"),
        pytest.param("@torch.compile\n" + MADE, "", id="decorated"),
        pytest.param(MADE.replace("batch[:, 1:].flatten())", "batch[:, 1:].flatten(), reduction='sum')"), "", id="sum"),
        pytest.param("scored = 1\n\n\n" + MADE, "", id="name taken"),
        pytest.param(
            MADE,
            "\n\ndef tune(model, rows, a):\n    for row in rows:\n        loss = made(model, row)\n"
            "        loss.backward()\n        a.step()\n        a.zero_grad()\n",
            id="in another run",
        ),
    ],
)
def test_a_function_that_cannot_say_how_much_it_scores_is_named(loop, above, behind):
    reason = refusal(loop(with_made(above, behind)))
    assert "its targets are made in made" in reason or "no plain mean" in reason


def test_an_update_that_forgets_to_average_is_completed(loop, tree, patched):
    done = patched(tree, "task-4") / "bit_transformer/training.py"
    whole = done.read_text()
    done.write_text(whole.replace("                shares.average(model)\n", ""))
    assert status(open_tree(tree), [TASK])[0].state is State.PARTIAL
    assert (patched(tree, "task-4") / "bit_transformer/training.py").read_text() == whole
