"""Which ways to cut rows into micro-batches are taken for a loader's, and which are named and left."""

import pytest
from samples import LOOP

from bitpatch.patches.task import State

CUT = "        for batch in data.split(8):\n"
GUESS = "    total = epochs * max(1, len(data) // 8)\n"
GUARD = "            if scheduler.last_epoch < total:\n                scheduler.step()\n"
LOADED = "    loader = row_loader(data, batch_size, num_workers)\n"
PLANNED = "    total = planned_updates(epochs, len(loader), extra_steps=extra_steps)\n"


def test_a_loop_without_a_backward_call_is_none(loop_of, refusal):
    assert "found none, nor anything like it" in refusal(loop_of(LOOP.replace("loss.backward()", "pass")), "task-1")


def test_right_words_in_a_comment_are_no_loader(loop_of, state_of):
    text = LOOP.replace(CUT, "        # row_loader(data, batch_size, num_workers)\n" + CUT)
    assert state_of(loop_of(text), "task-1") is State.MISSING


def test_the_plain_loop(loop_of, after):
    text = after(loop_of(LOOP), "task-1")
    assert LOADED + PLANNED in text
    assert "        for batch in loader:\n" in text
    assert "            optimizer.step()\n            scheduler.step()\n            optimizer.zero_grad()\n" in text
    assert "compress_prob=0.5, batch_size: int = 8, num_workers: int = 0):" in text
    assert "from torch.utils.data import DataLoader, Dataset\n" in text


@pytest.mark.parametrize(
    "cut",
    [
        "data.split(split_size=8, dim=0)",
        "data.tensor_split(list(range(8, len(data), 8)))",
        "(data[at : at + 8] for at in range(0, len(data), 8))",
        "(data[at : at + 8] for at in range(0, data.shape[0], 8))",
        "(data[rows] for rows in torch.arange(len(data)).split(8))",
        "torch.utils.data.DataLoader(data, 8, generator=torch.Generator())",
        "(item[0] for item in torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data), batch_size=8))",
    ],
)
def test_micro_batches_are_found_by_what_they_are(loop_of, after, cut):
    text = after(loop_of(LOOP.replace("data.split(8)", cut)), "task-1")
    assert LOADED + PLANNED in text
    assert "        for batch in loader:\n" in text


@pytest.mark.parametrize(
    "cut",
    [
        "(data[at : at + 8] for at in range(0, len(data), 4))",
        "(data[at : at + 8] for at in range(8, len(data), 8))",
        "(data[at : at + 8] for at in range(0, len(data) - 8, 8))",
        "data.tensor_split(8)",
        "torch.utils.data.DataLoader(data, 8, drop_last=True)",
        "data.split(8, 1)",
    ],
)
def test_what_gives_other_rows_is_none(loop_of, refusal, cut):
    assert "where the rows are cut cannot be told" in refusal(loop_of(LOOP.replace("data.split(8)", cut)), "task-1")


def test_micro_batches_that_an_epoch_lists_are_loaded_once(loop_of, after):
    listed = "        parts = [data[at : at + 8] for at in range(0, len(data), 8)]\n"
    text = after(loop_of(LOOP.replace(CUT, listed + CUT.replace("data.split(8)", "parts"))), "task-1")
    assert LOADED + PLANNED in text
    assert "    for epoch in range(epochs):\n        for batch in loader:\n" in text


@pytest.mark.parametrize(
    "test",
    [
        "not scheduler.last_epoch >= total",
        "scheduler.last_epoch < scheduler.total_steps",
        "total > scheduler.last_epoch",
    ],
)
def test_a_guard_is_found_by_what_it_lets_through(loop_of, after, test):
    text = after(loop_of(LOOP.replace("scheduler.last_epoch < total", test)), "task-1")
    assert "            optimizer.step()\n            scheduler.step()\n" in text


@pytest.mark.parametrize("test", ["scheduler.last_epoch < total // 2", "scheduler.last_epoch % 2", "total < 9"])
def test_a_guard_that_lets_less_through_is_named(loop_of, refusal, test):
    text = LOOP.replace("scheduler.last_epoch < total", f"scheduler.last_epoch >= 0 and {test}")
    assert "under a condition that is not its total" in refusal(loop_of(text), "task-1")


@pytest.mark.parametrize(
    "guess",
    ["int(data.size(0) / 8)", "divmod(len(data), 8)[0]", "(len(data) // 8 or 1)", "math.ceil(len(data) / 8)"],
)
def test_a_guess_is_found_by_what_it_comes_to(loop_of, after, guess):
    text = "import math\n" + LOOP.replace("max(1, len(data) // 8)", guess)
    assert LOADED + "    total = planned_updates(epochs, " in after(loop_of(text), "task-1")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(CUT, "        for batch in torch.split(data, 8):\n", "for batch in loader:", id="function"),
        pytest.param(CUT, "        for i, batch in enumerate(data.split(8)):\n", "enumerate(loader):", id="counted"),
        pytest.param(
            CUT,
            "        for start in range(0, len(data), 8):\n            batch = data[start : start + 8]\n",
            "        for batch in loader:\n            if random",
            id="slices of a range",
        ),
        pytest.param(
            GUESS, GUESS.replace("max(1, len(data) // 8)", "-(-len(data) // 8)"), PLANNED, id="guess rounded up"
        ),
        pytest.param(
            GUESS,
            GUESS.replace("max(1, len(data) // 8)", "((len(data) + 8 - 1) // 8)"),
            PLANNED,
            id="guess rounded up by hand",
        ),
        pytest.param(
            GUARD,
            "            if scheduler.last_epoch < total: scheduler.step()\n",
            "scheduler.step()\n",
            id="one line",
        ),
        pytest.param(
            GUARD,
            "            # stop in time\n" + GUARD,
            "            # stop in time\n            scheduler.step()\n",
            id="comment above the guard",
        ),
        pytest.param(
            "data.split(8)", "data.split(16)", "batch_size: int = 16, num", id="another size stays the default"
        ),
        pytest.param("data.split(8)", "tqdm(data.split(8))", "in tqdm(loader):", id="progress bar"),
        pytest.param(
            "scheduler.last_epoch < total", "total > scheduler.last_epoch", "    scheduler.step()", id="turned"
        ),
        pytest.param("extra_steps=0, ", "", "planned_updates(epochs, len(loader))\n", id="no extra steps"),
        pytest.param(
            GUESS,
            "    steps = len(data) // 8 + extra_steps\n    total = epochs * steps\n",
            "steps = len(loader) + extra_steps\n    total = epochs * steps\n",
            id="extra steps counted already",
        ),
    ],
)
def test_idioms(loop_of, after, old, new, expected):
    assert old in LOOP
    text = LOOP.replace("// 8", "// 16") if "16" in new else LOOP
    assert expected in after(loop_of(text.replace(old, new)), "task-1")


def test_a_loader_of_ones_own_keeps_its_name(loop_of, after):
    text = "from torch.utils.data import DataLoader\n" + LOOP.replace(
        GUESS, "    batches = DataLoader(data, batch_size=8)\n    total = epochs * len(batches)\n"
    ).replace("data.split(8)", "batches")
    patched = after(loop_of(text), "task-1")
    assert "    batches = row_loader(data, batch_size, num_workers)\n" in patched
    assert "planned_updates(epochs, len(batches), extra_steps=extra_steps)" in patched


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param("data.split(8)", "data", "where the rows are cut", id="rows of unknown origin"),
        pytest.param("data.split(8)", "prepare(data).split(8)", "where the rows are cut", id="rows without a name"),
        pytest.param("    total = ", "    loader = 1\n    total = ", "name loader is taken", id="name taken"),
        pytest.param("epochs * max(", "3 * max(", "no product of epochs", id="total of something else"),
        pytest.param("total_steps=total", "", "no total of it", id="no total"),
        pytest.param("split(8)", "split(8, dim=1)", "where the rows are cut", id="columns"),
        pytest.param("split(8)", "split(bs)", "make it a number", id="size of another name"),
        pytest.param("split(8)", "split(8)[:-1]", "a loader of shuffled rows cannot", id="not all of them"),
        pytest.param("batch in data.split(8)", "batch, y in zip(data.split(8), y)", "shuffled rows cannot", id="zip"),
        pytest.param("data.split(8)", "reversed(data.split(8))", "shuffled rows cannot", id="turned round"),
        pytest.param(
            CUT,
            CUT.replace("batch in data.split(8)", "i, batch in enumerate(data.split(8))") + "            y = ys[i]\n",
            "they come shuffled",
            id="labels by the counter",
        ),
        pytest.param(CUT, "        data = augment(data)\n" + CUT, "set too late", id="rows made anew each epoch"),
        pytest.param(
            "    total =", "    batch_size = 8\n    total =", "gives a name another meaning", id="size set inside"
        ),
        pytest.param(
            "scheduler.last_epoch < total", "scheduler.last_epoch % 2", "not its total", id="every other step"
        ),
        pytest.param("scheduler.last_epoch < total", "scheduler.last_epoch < 50", "not its total", id="another limit"),
        pytest.param("// 8)\n", "// 8) + extra_steps\n", "outside of the product", id="extra steps once"),
        pytest.param("len(data) // 8", "len(rows) // 8", "does not count them", id="total of other rows"),
        pytest.param(
            CUT,
            "        for s in range(0, len(data), 8):\n            batch = data[s : s + 16]\n",
            "where the rows are cut",
            id="slices that overlap",
        ),
    ],
)
def test_near_misses_are_refused(loop_of, refusal, old, new, reason):
    assert old in LOOP
    assert reason in refusal(loop_of(LOOP.replace(old, new)), "task-1")


def test_all_obstacles_are_named_at_once(loop_of, refusal):
    text = LOOP.replace("split(8)", "split(bs)[:-1]").replace("    total =", "    batch_size = 8\n    total =")
    reason = refusal(loop_of(text), "task-1")
    for obstacle in ("another meaning", "make it a number", "a loader of shuffled rows cannot", "does not count them"):
        assert obstacle in reason


def test_what_accumulation_has_planned_is_told_the_extra_steps(loop_of, patched):
    tree = loop_of(LOOP)
    for name in ("task-4", "task-1"):
        patched(tree.root, name)
    text = (tree.root / "bit_transformer/training.py").read_text()
    assert "planned_updates(epochs, len(loader), extra_steps=extra_steps, accum_steps=accum_steps)" in text
    assert "in accumulation_groups(loader, accum_steps):" in text
