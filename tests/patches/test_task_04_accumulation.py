"""Which loops are grouped, in which idioms, and which are named and left."""

import pytest

from bitpatch.patches.engine import plan, status, task_named
from bitpatch.patches.task import Outcome, State
from bitpatch.patches.tree import open_tree

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


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        pytest.param("(loss / accum_steps)", "each loss is divided by the same number", id="divided by the option"),
        pytest.param("loss", "its losses are added up, each whole", id="not divided"),
    ],
)
def test_accumulation_by_hand_that_weighs_wrongly_is_named(loop, loss, reason):
    assert reason in refusal(loop(BY_HAND.replace("LOSS", loss)))


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
            "for b in tqdm(loader):",
            "for b, shares, closes in accumulation_groups(tqdm(loader), accum_steps):",
            id="progress bar",
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
            "configure_optimizer(model, total_steps=epochs * steps)",
            "configure_optimizer(model, 1e-3, 0.01, epochs * steps)",
            "configure_optimizer(model, 1e-3, 0.01, planned_updates(epochs, steps, accum_steps=accum_steps))",
            id="positional total",
        ),
    ],
)
def test_idioms(loop, old, new, expected):
    assert old in LOOP
    assert expected in after(loop(LOOP.replace(old, new)))


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
            "not over micro-batches",
            id="indices",
        ),
        pytest.param("for batch in data.split(8):", "for (batch,) in loader:", "not over micro-batches", id="tuples"),
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
            ZERO, "            for p in model.parameters():\n                p.grad = None\n", id="zeroed by hand"
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
        pytest.param(
            ZERO,
            ZERO + "            for group in optimizer.param_groups:\n                group['lr'] = 1\n",
            id="rate by hand",
        ),
        pytest.param("loss.backward()", "torch.autograd.backward(loss)", id="backward of torch"),
        pytest.param("loss.backward()", "accelerator.backward(loss)", id="backward of a wrapper"),
        pytest.param("in data.split(8):", "in tqdm(range(0, len(data), 8)):", id="indices in a progress bar"),
        pytest.param("in data.split(8):", "in torch.randperm(9):", id="random indices"),
        pytest.param("loss = loss_of(model, batch)", "loss = loss_of(model, batch[0])", id="fields of a record"),
        pytest.param(
            "            loss = ",
            "            if len(batch) < 2:\n                continue\n            loss = ",
            id="continue",
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
            "total_steps=epochs * steps)",
            "epochs=epochs, steps_per_epoch=steps)",
            "steps_per_epoch=planned_updates(1, steps, accum_steps=accum_steps))",
            id="steps of an epoch",
        ),
    ],
)
def test_what_is_no_part_of_an_update_stays_where_it_is(loop, old, new, expected):
    assert old in LOOP
    assert expected in after(loop(LOOP.replace(old, new)))


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
            f"            loss = {ENTROPY.replace('IGNORED', '2')}\n", "", "ignores other targets", id="another padding"
        ),
        pytest.param(
            "            loss = loss_of(logits, targets)\n",
            "def pad(rows):\n    return rows.masked_fill(rows < 0, IGNORED)\n\n\n",
            "rows are padded here",
            id="a loss that is not seen beside padding",
        ),
        pytest.param(
            "            loss = next_bit_loss(model, batch)\n",
            "def next_bit_loss(model, batch):\n    logits, targets = predict(model, batch)\n"
            f"    return {ENTROPY}\n\n\n",
            "its targets are made in next_bit_loss",
            id="targets that do not come out",
        ),
    ],
)
def test_what_a_micro_batch_weighs_is_not_guessed(loop, lines, above, reason):
    assert reason in refusal(loop(with_loss(lines, above)))


def test_an_update_that_forgets_to_average_is_completed(loop, tree, patched):
    done = patched(tree, "task-4") / "bit_transformer/training.py"
    whole = done.read_text()
    done.write_text(whole.replace("                shares.average(model)\n", ""))
    assert status(open_tree(tree), [TASK])[0].state is State.PARTIAL
    assert (patched(tree, "task-4") / "bit_transformer/training.py").read_text() == whole
