"""Which ways to cut rows into micro-batches are taken for a loader's, and which are named and left."""

import pytest
from samples import LOOP

from bitpatch.patches.task import State

CUT = "        for batch in data.split(8):\n"
GUESS = "    total = epochs * max(1, len(data) // 8)\n"
GUARD = "            if scheduler.last_epoch < total:\n                scheduler.step()\n"
LOADED = "    loader = row_loader(data, batch_size, num_workers)\n"
PLANNED = "    total = planned_updates(epochs, len(loader))\n"
REPEATED = f"""\
{LOOP.replace("data.split(8)", "repeated(data.split(8), extra_steps)")}

def repeated(batches, times):
    for batch in batches:
        yield batch
    for _ in range(times):
        yield batch
"""


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
    assert "micro-batches" in refusal(loop_of(LOOP.replace("data.split(8)", cut)), "task-1")


def test_micro_batches_that_an_epoch_lists_are_loaded_once(loop_of, after):
    listed = "        parts = [data[at : at + 8] for at in range(0, len(data), 8)]\n"
    text = after(loop_of(LOOP.replace(CUT, listed + CUT.replace("data.split(8)", "parts"))), "task-1")
    assert LOADED + PLANNED in text
    assert "        parts = loader\n        for batch in parts:\n" in text


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
        pytest.param(GUESS, "    total = epochs * max(len(data) // 8, 1)\n", PLANNED, id="the most of two, turned"),
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
    assert "    total = epochs * len(batches)\n" in patched, "which is what the run makes"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param("data.split(8)", "data", "where the rows are cut", id="rows of unknown origin"),
        pytest.param("data.split(8)", "prepare(data).split(8)", "where the rows are cut", id="rows without a name"),
        pytest.param("    total = ", "    loader = 1\n    total = ", "name loader is taken", id="name taken"),
        pytest.param("epochs * max(", "3 * max(", "no total of it", id="total of something else"),
        pytest.param("total_steps=total", "", "no total of it", id="no total"),
        pytest.param("split(8)", "split(8, dim=1)", "where the rows are cut", id="columns"),
        pytest.param("split(8)", "split(bs)", "make it a number", id="size of another name"),
        pytest.param("split(8)", "split(8)[:-1]", "a loader of all their rows", id="not all of them"),
        pytest.param("batch in data.split(8)", "batch, y in zip(data.split(8), y)", "where the rows are cut", id="zip"),
        pytest.param("data.split(8)", "reversed(data.split(8))", "where the rows are cut", id="turned round"),
        pytest.param(
            CUT,
            CUT.replace("batch in data.split(8)", "i, batch in enumerate(data.split(8))") + "            y = ys[i]\n",
            "they come shuffled",
            id="labels by the counter",
        ),
        pytest.param(
            CUT, "        data = augment(data)\n" + CUT, "where the rows are cut", id="rows made anew each epoch"
        ),
        pytest.param(
            "    total =", "    batch_size = 8\n    total =", "another meaning: rename batch_size", id="size set inside"
        ),
        pytest.param(
            "    total =",
            "    def planned_updates():\n        return 1\n\n    total =",
            "a name that the patch brings has another meaning: rename planned_updates",
            id="an inner function of the name that is brought",
        ),
        pytest.param(
            "scheduler.last_epoch < total", "scheduler.last_epoch % 2", "not its total", id="every other step"
        ),
        pytest.param("scheduler.last_epoch < total", "scheduler.last_epoch < 50", "not its total", id="another limit"),
        pytest.param("// 8)\n", "// 8) + extra_steps\n", "outside of it", id="extra steps once"),
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


@pytest.mark.parametrize("more", ["+ extra_steps", "+ extra_steps * 1"])
def test_extra_steps_that_are_counted_once_are_those_of_each_epoch(loop_of, after, more):
    text = after(loop_of(REPEATED.replace("// 8)\n", f"// 8) {more}\n")), "task-1")
    assert "    total = planned_updates(epochs, len(loader), extra_steps=extra_steps)\n" in text


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("+ 2 * extra_steps", "something counts outside of it"),
        ("+ 5", "no total of it that could be planned"),
        ("+ extra_steps + 1", "no total of it that could be planned"),
    ],
)
def test_what_else_is_added_to_a_total_is_named(loop_of, refusal, more, reason):
    text = REPEATED.replace("// 8)\n", f"// 8) {more}\n")
    assert reason in refusal(loop_of(text), "task-1")


def test_all_obstacles_are_named_at_once(loop_of, refusal):
    text = LOOP.replace("    total =", "    batch_size = loader = 8\n    total =").replace(
        "last_epoch < total", "last_epoch < 9"
    )
    reason = refusal(loop_of(text), "task-1")
    for obstacle in ("another meaning", "loader is taken", "not its total"):
        assert obstacle in reason


def test_what_a_run_repeats_is_found_in_a_dict_of_a_dict(loop_of, after):
    text = REPEATED.replace("*, epochs=1, extra_steps=0, compress_prob=0.5", "conf")
    text = text.replace("    total = epochs", '    settings = conf["train"]\n    total = settings["epochs"]')
    text = text.replace("range(epochs)", 'range(settings["epochs"])').replace(
        ", extra_steps)", ', conf["train"]["extra_steps"])'
    )
    made = after(loop_of(text.replace("compress_prob", "0.5")), "task-1")
    assert 'planned_updates(settings["epochs"], len(loader), extra_steps=settings["extra_steps"])' in made


def test_what_accumulation_has_planned_is_told_the_extra_steps(loop_of, patched):
    tree = loop_of(REPEATED)
    for name in ("task-4", "task-1"):
        patched(tree.root, name)
    text = (tree.root / "bit_transformer/training.py").read_text()
    assert "planned_updates(epochs, len(loader), extra_steps=extra_steps, accum_steps=accum_steps)" in text
    assert "in accumulation_groups(repeated(loader, extra_steps), accum_steps):" in text


@pytest.mark.parametrize(
    "head",
    [
        "        for at in range(0, len(data), 8):\n            batch = data[at : at + 8]\n",
        "        at = 0\n        while at < len(data):\n            batch = data[at : at + 8]\n            at += 8\n",
        "        for at in range(0, len(data), 8):\n            print(epoch)\n            batch = data[at : at + 8]\n",
        "        for at in range(3):\n            print(at)\n        for at in range(0, len(data), 8):\n"
        "            batch = data[at : at + 8]\n",
        "        starts = list(range(0, len(data), 8))\n        for at in starts:\n            batch = data[at : at + 8]\n",
        "        starts = list(range(0, len(data), 8))\n        for at in starts:\n            batch = get_batch(data, at)\n",
    ],
)
def test_rows_that_are_sliced_by_their_place_are_grouped_and_loaded_in_either_order(loop_of, patched, head):
    loss = LOOP.replace("loss_of(logits, batch)", "torch.nn.functional.cross_entropy(logits, batch)")
    loss += "\n\ndef get_batch(rows, at):\n    return rows[at : at + 8]\n"
    texts = []
    for names in (["task-4", "task-1"], ["task-1", "task-4"]):
        tree = loop_of(loss.replace(CUT, head))
        for name in names:
            patched(tree.root, name)
        texts.append((tree.root / "bit_transformer/training.py").read_text())
    assert texts[0] == texts[1]
    assert "for batch, shares, closes in accumulation_groups(loader, accum_steps):" in texts[0]
    assert "starts" not in texts[0]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("            batch = data[at : at + 8]\n            print(at)\n", id="place shown"),
        pytest.param("            print(batch)\n            batch = data[at : at + 8]\n", id="micro-batch of before"),
        pytest.param(
            "            batch = data[at : at + 8]\n            for at in range(at):\n                pass\n",
            id="place for a range",
        ),
    ],
)
def test_rows_whose_places_are_needed_for_more_are_named(loop_of, refusal, text):
    cut = f"        for at in range(0, len(data), 8):\n{text}"
    assert "a place that is needed for more, or late in a turn" in refusal(loop_of(LOOP.replace(CUT, cut)), "task-1")


TOTALS = {
    "a helper": "    total = count(len(data), epochs)\n",
    "a dict": "    plan = {'epochs': epochs, 'steps': max(1, len(data) // 8)}\n    total = plan['epochs'] * plan['steps']\n",
    "a lambda": "    steps = lambda rows: max(1, len(rows) // 8)\n    total = steps(data) * epochs\n",
    "a sum": "    total = sum(max(1, len(data) // 8) for _ in range(epochs))\n",
    "a conditional": "    steps = len(data) // 8\n    total = epochs * (steps if steps else 1)\n",
    "a float": "    total = int(epochs * max(1.0, len(data) / 8 // 1))\n",
}


@pytest.mark.parametrize("name", TOTALS)
def test_totals_are_planned_whatever_they_are_made_of(loop_of, after, name):
    text = REPEATED.replace(GUESS, TOTALS[name])
    text += "\n\ndef count(rows, times, size=8):\n    return times * max(1, rows // size)\n"
    patched = after(loop_of(text), "task-1")
    assert "planned_updates(" in patched
    assert "extra_steps=extra_steps)" in patched


@pytest.mark.parametrize(
    "total",
    [
        "epochs * (-(-len(data) // 8) + extra_steps)",
        "(math.ceil(len(data) / 8) + extra_steps) * epochs",
    ],
)
def test_a_total_that_is_right_follows_the_loader(loop_of, after, total):
    text = "import math\n" + REPEATED.replace("epochs * max(1, len(data) // 8)", total)
    patched = after(loop_of(text), "task-1")
    assert LOADED in patched


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total)", "planned_updates(epochs, len(loader))"),
        ("torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)", "planned_updates(epochs, len(loader))"),
        ("torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)", "planned_updates(epochs, len(loader))"),
        (
            "torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: 1 - at / total)",
            "planned_updates(epochs, len(loader))",
        ),
    ],
)
def test_schedules_by_hand(loop_of, after, schedule, expected):
    old = "    optimizer, scheduler = configure_optimizer(model, total_steps=total)\n"
    new = f"    optimizer = torch.optim.AdamW(model.parameters())\n    scheduler = {schedule}\n"
    text = LOOP.replace(old, new).replace(GUARD, "            scheduler.step()\n")
    assert expected in after(loop_of(text), "task-1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [(LOOP, "steps_per_epoch=len(loader))"), (REPEATED, "planned_updates(1, len(loader), extra_steps=extra_steps))")],
)
def test_steps_of_an_epoch(loop_of, after, text, expected):
    old = "    optimizer, scheduler = configure_optimizer(model, total_steps=total)\n"
    new = (
        "    optimizer = torch.optim.AdamW(model.parameters())\n"
        "    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, epochs=epochs, steps_per_epoch=len(data) // 8)\n"
    )
    text = text.replace(GUESS, "").replace(old, new).replace(GUARD, "            scheduler.step()\n")
    assert expected in after(loop_of(text), "task-1")


ROW_SET = """\
class RowSet(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, at):
        return self.rows[at]


def train_loop"""
SLICED = "        at = 0\n        while at < len(data):\n            batch = data[at : at + 8]\n            at += 8\n"
LISTED = "        order = list(range(len(data)))\n        for at in range(0, len(order), 8):\n            batch = data[order[at : at + 8]]\n"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({CUT: SLICED}, id="a while loop of slices"),
        pytest.param({CUT: LISTED}, id="places in a list"),
        pytest.param(
            {"data.split(8)": "torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)"}, id="shuffled by hand"
        ),
    ],
)
def test_cuts_of_other_kinds(loop_of, after, changes):
    text = LOOP
    for old, new in changes.items():
        text = text.replace(old, new)
    patched = after(loop_of(text), "task-1")
    assert LOADED + PLANNED in patched
    assert "        for batch in loader:\n            if random" in patched


def test_a_data_set_of_its_own_is_loaded(loop_of, after):
    loader = "torch.utils.data.DataLoader(RowSet(data), batch_size=8)"
    text = LOOP.replace("def train_loop", ROW_SET).replace("data.split(8)", loader)
    assert "loader = row_loader(RowSet(data), batch_size, num_workers)" in after(loop_of(text), "task-1")


OWN = """\
    loader = torch.utils.data.DataLoader(data, batch_size=batch_size, shuffle=True, num_workers=num_workers)
    total = epochs * len(loader)
"""
BY_HAND = LOOP.replace(GUESS, OWN).replace("data.split(8)", "loader").replace(GUARD, "            scheduler.step()\n")
BY_HAND = BY_HAND.replace("compress_prob=0.5)", "compress_prob=0.5, batch_size=8, num_workers=0)")


def test_workers_that_stay_where_there_are_none_are_no_loader(loop_of, after):
    text = BY_HAND.replace("num_workers=num_workers)", "num_workers=num_workers, persistent_workers=True)")
    assert "loader = row_loader(data, batch_size, num_workers)" in after(loop_of(text), "task-1")


def test_rows_in_the_same_order_each_epoch_are_no_loader(loop_of, refusal):
    made, total = OWN.splitlines(keepends=True)
    text = BY_HAND.replace(OWN, total.replace("len(loader)", "-(-len(data) // batch_size)"))
    seeded = made.replace("workers)", "workers, generator=torch.Generator().manual_seed(0))")
    text = text.replace("        for batch", f"    {seeded}        for batch")
    assert "micro-batches of a fixed size, but" in refusal(loop_of(text), "task-1")


def test_what_is_done_by_hand_is_known(loop_of, state_of):
    assert state_of(loop_of(BY_HAND), "task-1") is State.APPLIED


def test_a_count_of_ones_own_that_is_called_as_ours_is_known_by_what_it_comes_to(loop_of, state_of):
    own = "\n\ndef planned_updates(rows, size, epochs):\n    return epochs * -(-rows // size)\n"
    text = BY_HAND.replace("epochs * len(loader)", "planned_updates(len(data), batch_size, epochs)")
    assert state_of(loop_of(text + own), "task-1") is State.APPLIED
    assert state_of(loop_of(text + own.replace("-(-rows // size)", "(rows // size)")), "task-1") is not State.APPLIED


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param("shuffle=True", "shuffle=True, drop_last=True", "a loader of all their rows", id="rows dropped"),
        pytest.param("            scheduler.step()\n", "", "does not step", id="a schedule that stands still"),
        pytest.param(
            "            scheduler.step()\n", "        scheduler.step()\n", "does not step", id="once an epoch"
        ),
        pytest.param("epochs * len(loader)", "100", "no total of it", id="a number"),
        pytest.param("epochs * len(loader)", "len(loader)", "no total of it", id="of one epoch"),
    ],
)
def test_what_is_done_by_hand_wrongly_is_named(loop_of, refusal, old, new, reason):
    text = BY_HAND.replace(old, new)
    if "        scheduler.step()\n" == new:
        text = (
            text.replace(
                "        scheduler.step()\n            optimizer.zero_grad()\n", "            optimizer.zero_grad()\n"
            )
            + new
        )
    assert reason in refusal(loop_of(text), "task-1")


def test_a_total_of_rows_is_that_of_the_loader(loop_of, after):
    text = BY_HAND.replace("len(loader)", "len(loader.dataset)")
    assert "total = planned_updates(epochs, len(loader))" in after(loop_of(text), "task-1")


def test_a_run_that_ends_early_has_another_total(loop_of, refusal):
    text = LOOP.replace("compress_prob=0.5)", "compress_prob=0.5, most=1000)").replace(
        "    for epoch", "    done = 0\n    for epoch"
    )
    text += "            done += 1\n            if done >= most:\n                return\n"
    assert "something counts outside of it" in refusal(loop_of(text), "task-1")


OF_A_TRAINER = """\
from dataclasses import dataclass

import torch
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader


@dataclass
class Arguments:
    epochs: int = 1
    rows: int = 8
    workers: int = 0
    extra: int = 0


class Trainer:
    def __init__(self, model, args: Arguments | None = None, train_dataset=None, eval_dataset=None):
        self.model, self.args = model, args or Arguments()
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        self.step = 0

    def loader(self):
        return DataLoader(
            self.train_dataset, batch_size=self.args.rows, shuffle=True, num_workers=self.args.workers,
            persistent_workers=self.args.workers > 0,
        )

    def train(self):
        loader = self.loader()
        total = self.args.epochs * (len(loader) + self.args.extra)
        optimizer = torch.optim.AdamW(self.model.parameters())
        schedule = OneCycleLR(optimizer, 1e-3, total_steps=total)
        for _ in range(self.args.epochs):
            for batch in self.batches(loader):
                self.model(batch).mean().backward()
                optimizer.step()
                if self.step + 1 < total:
                    schedule.step()
                optimizer.zero_grad()
                self.step += 1

    def batches(self, loader):
        for batch in loader:
            yield batch
        for _ in range(self.args.extra):
            yield batch
"""


@pytest.mark.parametrize(
    ("old", "new", "state"),
    [
        pytest.param("", "", State.APPLIED, id="as it is"),
        pytest.param("shuffle=True, ", "", State.UNRECOGNISED, id="in order"),
        pytest.param("(len(loader) + self.args.extra)", "len(loader)", State.PARTIAL, id="extra steps not counted"),
        pytest.param("self.step + 1 < total", "self.step + 2 < total", State.UNRECOGNISED, id="ends early"),
    ],
)
def test_a_trainer_whose_rows_may_be_left_out(loop_of, state_of, old, new, state):
    assert state_of(loop_of(OF_A_TRAINER.replace(old, new)), "task-1") is state


def test_where_a_function_cuts_one_micro_batch_at_a_time_is_named(loop_of, refusal):
    cut = "def get_batch(rows, i, device):\n    return rows[i * 8 : (i + 1) * 8].to(device)\n\n\n"
    loop = LOOP.replace(
        CUT, "        for i in [*range(len(data) // 8), 0]:\n            batch = get_batch(data, i, model.device)\n"
    )
    text = cut + loop
    place = (
        f":{text.splitlines().index('    return rows[i * 8 : (i + 1) * 8].to(device)') + 1}:12: loop over micro-batches"
    )
    assert place in refusal(loop_of(text), "task-1")


SHUFFLED = """\
import torch
import torch.nn.functional as F


def shuffled(rows, extra):
    last = None
    for at in torch.randperm(len(rows)).split(8):
        last = rows[at]
        yield last
    for _ in range(extra):
        yield last


def grouped(items, size):
    group = []
    for each in items:
        group.append(each)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def train_loop(model, rows, *, epochs=1, extra=0, accum=1, lr=0.1):
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    total = epochs * max(1, len(rows) // 8)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / total))
    for _ in range(epochs):
        ready = (batch for batch in shuffled(rows, extra))
        for group in grouped(ready, accum):
            weights = [batch.numel() for batch in group]
            for batch, weight in zip(group, weights):
                (F.cross_entropy(model(batch), batch) * (weight / sum(weights))).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
"""
COUNTED = "planned_updates(epochs, len(loader), extra_steps=extra, accum_steps=accum)"


@pytest.mark.parametrize(
    ("old", "new", "call"),
    [
        pytest.param("shuffled", "shuffled", "for batch in shuffled(loader, extra))", id="in a generator"),
        pytest.param(
            "(batch for batch in shuffled(rows, extra))",
            "shuffled(rows, extra)",
            "= shuffled(loader, extra)",
            id="alone",
        ),
        pytest.param(
            "        ready = (batch for batch in shuffled(rows, extra))\n",
            "",
            "grouped(shuffled(loader, extra), accum)",
            id="in place",
        ),
    ],
)
def test_rows_that_a_function_takes_along_a_permutation_are_loaded(loop_of, after, old, new, call):
    assert old in SHUFFLED
    text = SHUFFLED.replace(old, new)
    text = text if "ready = " in text else text.replace("(ready, ", "(shuffled(rows, extra), ")
    changed = after(loop_of(text), "task-1")
    assert call in changed
    assert "    last = None\n    for last in rows:\n        yield last\n" in changed
    assert "    loader = row_loader(rows, batch_size, num_workers)\n" in changed
    assert f"total = {COUNTED}" in changed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("    last = None", "    last = rows[:8]", id="read elsewhere too"),
        pytest.param("        yield last\n    for", "        yield last, at\n    for", id="places too"),
    ],
)
def test_rows_that_are_needed_for_more_than_to_be_gone_through_are_named(loop_of, refusal, old, new):
    assert old in SHUFFLED
    assert "micro-batches" in refusal(loop_of(SHUFFLED.replace(old, new)), "task-1")
