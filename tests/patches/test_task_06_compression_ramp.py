"""Which probabilities are put on a ramp, which draws are made their own, and which are named and left."""

import textwrap

import pytest
from samples import LOOP

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import State

TRAINING = "bit_transformer/training.py"


def test_right_words_in_a_comment_are_no_ramp(loop_of, state_of):
    assert state_of(loop_of(LOOP + "# cosine_ramp(global_step)\n"), "task-6") is State.MISSING


def test_the_plain_loop(loop_of, after):
    text = after(loop_of(LOOP), "task-6")
    assert (
        """\
    draws = random.Random(random.getrandbits(64))
    for epoch in range(epochs):
        for batch in data.split(8):
            ramped_prob = cosine_ramp(global_step, start=0.0, end=compress_prob, total_steps=warmup_steps)
            if draws.random() < ramped_prob:
"""
        in text
    )
    assert "            optimizer.step()\n            global_step += 1\n" in text
    assert "compress_prob=0.5, warmup_steps: int = 1000, global_step: int = 0):" in text


@pytest.mark.parametrize(
    "draw",
    [
        *("torch.rand(1).item()", "torch.rand(()).item()", "random.random()", "random.uniform(0, 1)"),
        *("torch.rand(1)", "torch.rand(1)[0]", "float(torch.rand(1))", "torch.rand(size=(1,)).item()"),
    ],
)
def test_draws_are_made_their_own(loop_of, after, draw):
    assert "if draws.random() < ramped_prob:" in after(loop_of(LOOP.replace("random.random()", draw)), "task-6")


CHOICE = """\
            if random.random() < compress_prob:
                logits = model.forward_compressed(batch)
            else:
                logits = model(batch)
"""


@pytest.mark.parametrize(
    "lines",
    [
        'key = "short" if random.random() < compress_prob else "bits"\ngiven = {key: batch}',
        'given = {"short" if random.random() < compress_prob else "bits": batch}',
        'given = {"bits": batch}\nif random.random() < compress_prob:\n    given = {"short": batch}',
    ],
    ids=["by its name", "in the dict", "another dict"],
)
@pytest.mark.parametrize("test", ['"short" in given', '"bits" not in given'])
def test_a_draw_decides_which_key_a_dict_has(loop_of, after, lines, test):
    asked = (
        f'if {test}:\n    logits = model.forward_compressed(given["short"])\nelse:\n    logits = model(given["bits"])\n'
    )
    assert CHOICE in LOOP
    text = LOOP.replace(CHOICE, textwrap.indent(f"{lines}\n{asked}", " " * 12))
    made = after(loop_of(text), "task-6")
    assert "draws.random() < ramped_prob" in made
    assert "end=compress_prob" in made


def test_the_clock_counts_updates_not_micro_batches(loop_of, patched):
    tree = loop_of(LOOP)
    for name in ("task-6", "task-4"):
        patched(tree.root, name)
    text = (tree.root / "bit_transformer/training.py").read_text()
    assert (
        "                shares.average(model)\n                optimizer.step()\n                global_step += 1\n"
        in text
    )


IN_A_FUNCTION = """

def update(model, loss, optimizer, scheduler):
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
"""


@pytest.mark.parametrize("names", [("task-6", "task-4"), ("task-4", "task-6")])
def test_the_clock_counts_the_calls_that_update(loop_of, patched, names):
    head, _, rest = LOOP.partition("            loss.backward()\n")
    tail = rest[rest.index("optimizer.zero_grad()\n") + len("optimizer.zero_grad()\n") :]
    tree = loop_of(f"{head}            update(model, loss, optimizer, scheduler)\n{tail}{IN_A_FUNCTION}")
    for name in names:
        patched(tree.root, name)
    text = (tree.root / "bit_transformer/training.py").read_text()
    assert "shares, closes)\n            if closes:\n                global_step += 1\n" in text


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param("random.random() < compress_prob", "chance(batch)", "no draw decides", id="no probability"),
        pytest.param("random.random() < compress_prob", "chance() < compress_prob", "no draw", id="another draw"),
        pytest.param("    total =", "    global_step = 0\n    total =", "name global_step is taken", id="clock taken"),
        pytest.param("random.random() <", "torch.rand(len(batch)) <", "no draw", id="a draw for each row"),
        pytest.param(
            "            optimizer.step()\n",
            "            if epoch: optimizer.step()\n",
            "no statement of its own: give it a line",
            id="step on the line of a condition",
        ),
        pytest.param("=0.5)", "=0.5, warmup_steps=10)", "it has an option warmup_steps", id="warm-up of the rate"),
        pytest.param(
            "            if r",
            "            compress_prob *= 0.1\n            if r",
            "take its schedule out",
            id="own schedule",
        ),
        pytest.param(
            "    total =", "    cosine_ramp = 1\n    total =", "rename cosine_ramp", id="ramp of another kind"
        ),
        pytest.param("import random\n", "", "no draw decides", id="random not imported"),
        pytest.param(
            "            optimizer.zero_grad()\n",
            "            optimizer.zero_grad()\n"
            "        for _ in range(extra_steps):\n"
            "            loss_of(model(batch), batch).backward()\n"
            "            optimizer.step()\n",
            "training.py:22:13: update, but no draw decides what its loss is made of",
            id="another update of the run, without a draw",
        ),
        pytest.param("            optimizer.step()\n", "", "but what steps the optimizer cannot be told", id="no step"),
    ],
)
def test_near_misses_are_refused(loop_of, refusal, old, new, reason):
    assert old in LOOP
    assert reason in refusal(loop_of(LOOP.replace(old, new)), "task-6")


def test_a_probability_before_the_loop_is_refused(loop_of, refusal):
    drawn = LOOP.replace("random.random() < compress_prob", "compresses()")
    text = drawn.replace("    total =", "    compresses = lambda: random.random() < compress_prob\n    total =")
    assert "it stands before the loop, where it is computed once" in refusal(loop_of(text), "task-6")


# Rounds --------------------------------------------------------------------------------------------

RECORDED = (
    LOOP.replace("    for epoch", "    history = []\n    for epoch")
    + "        history.append({'loss': loss.item()})\n    return history\n"
)
ROUNDS = """\
from bit_transformer.training import train_loop as train


def main(model, rows):
    for turn in range(3):
        last = train(model, rows, epochs=1)[-1]
        print(last['loss'])
"""


@pytest.fixture
def rounds_of(loop_of):
    """A tree whose schedule, beside its training, is this text."""

    def make(text, training=RECORDED):
        root = loop_of(training).root
        (root / "schedule.py").write_text(text)
        return open_tree(root)

    return make


def schedule_after(tree):
    planned = plan(tree, [task_named("task-6")])
    assert not planned.refused, planned.outcomes[0].reason
    return {change.path: change.after.decode() for change in planned.changes}


def test_each_round_goes_on_where_the_one_before_ended(rounds_of):
    changed = schedule_after(rounds_of(ROUNDS))
    assert "        history.append({'loss': loss.item(), \"global_step\": global_step})\n" in changed[TRAINING]
    assert (
        changed["schedule.py"].split("rows):\n")[1]
        == """\
    global_step = 0
    for turn in range(3):
        last = train(model, rows, epochs=1, global_step=global_step)[-1]
        global_step = last["global_step"]
        print(last['loss'])
"""
    )


def test_a_history_that_is_kept_whole_tells_the_clock_too(rounds_of):
    text = ROUNDS.replace("last = train(model, rows, epochs=1)[-1]", "told = train(model, rows, epochs=1)")
    assert '        global_step = told[-1]["global_step"]\n' in schedule_after(rounds_of(text))["schedule.py"]


def test_a_count_of_updates_that_each_round_begins_anew_is_no_clock(rounds_of):
    counted = RECORDED.replace("    history =", "    done = 0\n    history =")
    counted = counted.replace("optimizer.step()\n", "optimizer.step()\n            done += 1\n")
    changed = schedule_after(rounds_of(ROUNDS, counted))
    assert "global_step += 1" in changed[TRAINING]
    assert "global_step=global_step" in changed["schedule.py"]


def test_a_clock_that_each_round_begins_anew_is_named_at_the_rounds(rounds_of, refusal):
    clock = RECORDED.replace("    history =", "    global_step = 0\n    history =")
    clock = clock.replace("optimizer.step()\n", "optimizer.step()\n            global_step += 1\n")
    assert "schedule.py:6:16: round of training, but global_step, which counts" in refusal(
        rounds_of(ROUNDS, clock), "task-6"
    )
    assert "is taken" not in refusal(rounds_of(ROUNDS, clock), "task-6")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(ROUNDS.replace("epochs=1)", "epochs=1, global_step=turn * 9)"), id="told by hand"),
        pytest.param(ROUNDS.replace("epochs=1)", "**options)"), id="told perhaps"),
        pytest.param(ROUNDS.replace("for turn in range(3):", "if rows:"), id="no rounds"),
    ],
)
def test_callers_that_need_no_clock_are_left_alone(rounds_of, text):
    assert "schedule.py" not in schedule_after(rounds_of(text))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param("last = train(model, rows, epochs=1)[-1]", "print(train(model))", "not kept under", id="not kept"),
        pytest.param("[-1]\n", "[0]\n", "not kept under a name", id="another record"),
        pytest.param("    for turn", "    global_step = 1\n    for turn", "cannot be told", id="name taken"),
        pytest.param(
            "        print", "        more = train(model, rows)\n        print", "cannot be told", id="two in a round"
        ),
    ],
)
def test_rounds_whose_updates_are_not_told_are_refused(rounds_of, refusal, old, new, reason):
    assert old in ROUNDS
    said = refusal(rounds_of(ROUNDS.replace(old, new)), "task-6")
    assert "schedule.py:6:" in said or "schedule.py:7:" in said
    assert reason in said


def test_rounds_of_a_loop_that_returns_no_records_are_refused(rounds_of, refusal):
    assert "schedule.py:6:16: training loop called in rounds" in refusal(rounds_of(ROUNDS, LOOP), "task-6")


# Micro-batches that are made ahead, and updates in a function ---------------------------------------

AHEAD = """\
import random

import torch


def read(batch, p_rle):
    return batch if random.random() >= p_rle else compress(batch)


def groups(items, size):
    some = []
    for each in items:
        some.append(each)
        if len(some) == size:
            yield some
            some = []


def update(model, optimizer, group):
    for batch in group:
        loss_of(model(batch), batch).backward()
    optimizer.step()
    optimizer.zero_grad()


def train_loop(model, data, *, epochs=1, p_rle=0.5):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    log = []
    for epoch in range(epochs):
        losses = []
        ready = (read(batch, p_rle) for batch in data.split(8))
        for group in groups(ready, 2):
            losses.append(update(model, optimizer, group))
        log.append({"epoch": epoch, "updates": len(losses)})
    return log
"""
REACHED = "read(batch, cosine_ramp(global_step, start=0.0, end=p_rle, total_steps=warmup_steps), draws.random)"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("groups(ready, 2)", "groups(ready, 2)", id="in groups"),
        pytest.param("groups(ready, 2)", "zip(ready)", id="each alone"),
        pytest.param("group in groups(ready, 2)", "turn, group in enumerate(groups(ready, 2))", id="counted"),
        pytest.param(
            "read(batch, p_rle) for batch in data", "read(batch, p_rle)\n            for batch in data", id="lines"
        ),
    ],
)
def test_what_a_generator_draws_goes_by_the_updates_that_are_made_by_then(loop_of, after, old, new):
    assert old in AHEAD
    text = after(loop_of(AHEAD.replace(old, new)), "task-6")
    assert REACHED in text
    assert "            losses.append(update(model, optimizer, group))\n            global_step += 1\n" in text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            "(read(batch, p_rle) for batch in data.split(8))", "[read(b, p_rle) for b in data.split(8)]", id="list"
        ),
        pytest.param("groups(ready, 2)", "groups(list(ready), 2)", id="list of them"),
        pytest.param("for each in items", "for each in sorted(items)", id="sorted on the way"),
        pytest.param("        for group", "        first = next(ready)\n        for group", id="read elsewhere too"),
    ],
)
def test_what_is_drawn_ahead_of_the_updates_is_refused(loop_of, refusal, old, new):
    assert old in AHEAD
    assert "it stands before the loop" in refusal(loop_of(AHEAD.replace(old, new)), "task-6")


LEARN = """\
from bit_transformer.training import train_loop


def learn(hub, rows):
    log = train_loop(hub["model"], rows, **hub["plan"])
    good = log[-1]["epoch"] > 0
    hub["done"] += sum(each["updates"] for each in log) if good else 0
    return good


def serve(hub, source):
    for rows in source:
        print(learn(hub, rows))
"""


@pytest.mark.parametrize(
    ("old", "new", "count"),
    [
        pytest.param("hub", "hub", 'hub["done"]', id="entry"),
        pytest.param('hub["done"]', "hub.done", "hub.done", id="attribute"),
        pytest.param(" if good else 0", "", 'hub["done"]', id="always"),
    ],
)
def test_a_round_goes_on_from_the_updates_that_its_caller_sums_up(rounds_of, old, new, count):
    changed = schedule_after(rounds_of(LEARN.replace(old, new), AHEAD))
    assert f'**hub["plan"], global_step={count})' in changed["schedule.py"]
    assert '{"epoch": epoch, "updates": len(losses)}' in changed[TRAINING]


def test_a_round_that_is_told_what_it_goes_on_from_is_left(rounds_of):
    text = LEARN.replace('**hub["plan"])', '**hub["plan"], global_step=hub["other"])').replace("+=", "=")
    assert "schedule.py" not in schedule_after(rounds_of(text, AHEAD))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param('each["updates"]', 'each["epoch"]', id="something else"),
        pytest.param("good else 0", 'good else hub["lost"]', id="another count"),
        pytest.param("    return good", '    hub["done"] += 1\n    return good', id="counted elsewhere too"),
        pytest.param('hub["done"]', "done", id="in no round but this"),
    ],
)
def test_a_round_whose_caller_counts_otherwise_is_refused(rounds_of, refusal, old, new):
    assert old in LEARN
    assert "give it global_step" in refusal(rounds_of(LEARN.replace(old, new), AHEAD), "task-6")
