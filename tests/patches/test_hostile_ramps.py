"""Draws and ramps as strangers write them: what is put on a ramp, run afterwards, and what is left for its true reason."""

import importlib.util
import random
import sys
import textwrap

import pytest
import torch

from bitpatch.patches.applying.engine import plan, status
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.frames import DEEPEST
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.reading.updates import updates_of_runs
from bitpatch.patches.task import Outcome, State

MODEL = """\
import torch
from torch import nn


class BitTransformerLM(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2)
        self.seen = []

    def forward(self, bits):
        self.seen.append("raw")
        return self.head(bits[..., None].float())

    def forward_compressed(self, codes):
        self.seen.append("codes")
        return self.head(torch.stack(list(codes))[..., None].float())
"""
HEAD = "import math\nimport random\n\nimport numpy as np\nimport torch\nimport torch.nn.functional as F\n\n"
LOSS = "loss = F.cross_entropy(logits[:, :-1].reshape(-1, 2), batch[:, 1:].reshape(-1))\n"
CODES = "if {}:\n    logits = model.forward_compressed([row for row in batch])\nelse:\n    logits = model(batch)\n"
RAW = "if {}:\n    logits = model(batch)\nelse:\n    logits = model.forward_compressed([row for row in batch])\n"
END = "loss.backward()\nopt.step()\nopt.zero_grad()\n"
GROUPS = "(loss / 2).backward()\ni += 1\nif i % 2 == 0:\n    opt.step()\n    opt.zero_grad()\n"
OPTIONS = "model, data, epochs=2, compress_prob=1.0, direct_prob=0.0, lr=0.1"


def loop(draw, setup="", before="", end=END, options=OPTIONS):
    inner = textwrap.indent(draw + LOSS + end, " " * 12)
    setup = textwrap.indent(setup, " " * 4)
    return (
        f"{HEAD}{before}\n\ndef train({options}):\n    opt = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        f"    model.train()\n{setup}    for epoch in range(2):\n        for batch in data.split(2):\n{inner}"
    )


TRAINER = (
    HEAD
    + """
class Trainer:
    def __init__(self, model, data, epochs=2, compress_prob=1.0, lr=0.1):
        self.model = model
        self.data = data
        self.epochs = epochs
        self.compress_prob = compress_prob
        self.opt = torch.optim.SGD(model.parameters(), lr=lr)

    def fit(self):
        for _ in range(self.epochs):
            for batch in self.data.split(2):
                self.step(batch)

    def step(self, batch):
        logits = self.predict(batch)
        loss = F.cross_entropy(logits[:, :-1].reshape(-1, 2), batch[:, 1:].reshape(-1))
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()

    def predict(self, batch):
        if random.random() < self.compress_prob:
            return self.model.forward_compressed([row for row in batch])
        return self.model(batch)


def train(model, data, warmup_steps):
    Trainer(model, data, warmup_steps=warmup_steps).fit()
"""
)
STEP = (
    HEAD
    + """
def train_step(model, batch, opt, compress_prob):
    if random.random() < compress_prob:
        logits = model.forward_compressed([row for row in batch])
    else:
        logits = model(batch)
    loss = F.cross_entropy(logits[:, :-1].reshape(-1, 2), batch[:, 1:].reshape(-1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    return loss


def train(model, data, epochs=2, compress_prob=1.0, lr=0.1):
    opt = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        for batch in data.split(2):
            train_step(model, batch, opt, compress_prob)
"""
)
CLOSURE = """\
def run(batch):
    if random.random() < compress_prob:
        return model.forward_compressed([row for row in batch])
    return model(batch)

"""
CUMULATIVE = """\
r = random.random()
if r < {}:
    logits = model(1 - batch)
elif r < {}:
    logits = model.forward_compressed([row for row in batch])
else:
    logits = model(batch)
"""
FORMS = "\n\ndef decide(number, p):\n    return number < p\n\n\ndef pick():\n    return random.random() < RATE\n\n\nRATE = 1.0\n"

APPLIED = {
    "the other way round": loop(CODES.format("compress_prob > random.random()")),
    "at or below": loop(CODES.format("random.random() <= compress_prob")),
    "a number of torch": loop(CODES.format("torch.rand(1).item() < compress_prob")),
    "a tensor that is tested": loop(CODES.format("torch.rand(1) < compress_prob")),
    "a comparison of tensors": loop(CODES.format("(torch.rand(()) < compress_prob).item()")),
    "one of a tensor": loop(CODES.format("torch.rand(1)[0] < compress_prob")),
    "numpy": loop(CODES.format("np.random.rand() < compress_prob")),
    "uniform": loop(CODES.format("np.random.uniform() < compress_prob")),
    "with another condition": loop(CODES.format("compress_prob > 0 and random.random() < compress_prob")),
    "not below": loop(RAW.format("random.random() >= compress_prob")),
    "not": loop(RAW.format("not random.random() < compress_prob")),
    "what is left of 1": loop("r = random.random()\n" + CODES.format("r > 1 - compress_prob")),
    "what is left has a name": loop("keep = 1 - compress_prob\n" + CODES.format("random.random() > keep")),
    "a named decision": loop(
        "use = random.random() < compress_prob\n"
        "logits = model.forward_compressed([row for row in batch]) if use else model(batch)\n"
    ),
    "a generator of its own": loop(CODES.format("rng.random() < compress_prob"), "rng = random.Random(0)\n"),
    "a generator that shuffles too": loop(
        "rng.shuffle(order)\n" + CODES.format("rng.random() < compress_prob"),
        "rng = random.Random(0)\norder = [1, 2]\n",
    ),
    "behind another draw": loop(CUMULATIVE.format("direct_prob", "direct_prob + compress_prob")),
    "a number that is handed on": loop(
        "r = random.random()\n" + CODES.format("decide(r, compress_prob)"), before=FORMS
    ),
    "a constant in a function": loop(CODES.format("pick()"), before=FORMS),
    "a closure": loop("logits = run(batch)\n", CLOSURE),
    "beside other noise": loop(
        "x = 1 - batch if random.random() < noise else batch\n" + CODES.format("random.random() < compress_prob"),
        options=OPTIONS + ", noise=0.5",
    ),
    "methods": TRAINER,
    "methods, a function that draws": TRAINER.replace(
        "random.random() < self.compress_prob", "chance(self.compress_prob)"
    ).replace("class Trainer", "def chance(p):\n    return random.random() < p\n\n\nclass Trainer"),
    "methods that count already": TRAINER.replace("epochs = epochs", "epochs = epochs\n        self.done = 0").replace(
        "self.opt.step()\n", "self.opt.step()\n        self.done += 1\n"
    ),
    "methods, with a base that tells how far they are": TRAINER.replace(
        "class Trainer:",
        "class Tells:\n    def told(self):\n        return f'{self.epochs} epochs'\n\n\nclass Trainer(Tells):",
    ),
    "methods, with a base that keeps": TRAINER.replace(
        "class Trainer:",
        "class Keeps:\n    def __init__(self, data):\n        self.data = data\n\n\nclass Trainer(Keeps):",
    ).replace("        self.data = data\n        self.epochs", "        super().__init__(data)\n        self.epochs"),
    "a function that makes one update": STEP,
}


@pytest.fixture
def tree_of(tmp_path):
    package = tmp_path / "bit_transformer"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text(MODEL)

    def make(text):
        (package / "training.py").write_text(text)
        return open_tree(tmp_path)

    return make


def applied(tree):
    """A tree's files with the task, and what is said of it."""
    planned = plan(tree, [task_named("task-6")])
    for change in planned.changes:
        (tree.root / change.path).write_bytes(change.after)
    return planned.outcomes[0]


def module_of(tree, name):
    spec = importlib.util.spec_from_file_location(f"hostile_{name}", tree.root / f"bit_transformer/{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def forms(tree, **options):
    """In which forms a model sees eight micro-batches."""
    random.seed(0)
    torch.manual_seed(0)
    model = module_of(tree, "model").BitTransformerLM()
    module_of(tree, "training").train(model, torch.randint(0, 2, (8, 6)), **options)
    return model.seen


@pytest.mark.parametrize("text", APPLIED.values(), ids=APPLIED)
def test_a_probability_of_1_is_reached_after_one_update(tree_of, text):
    tree = tree_of(text)
    assert applied(tree).outcome is Outcome.APPLIED
    assert forms(tree, warmup_steps=1) == ["raw", *["codes"] * 7]


def test_groups_of_micro_batches_are_one_update(tree_of):
    tree = tree_of(loop(CODES.format("random.random() < compress_prob"), "i = 0\n", end=GROUPS))
    assert applied(tree).outcome is Outcome.APPLIED
    assert forms(tree, warmup_steps=1) == ["raw", "raw", *["codes"] * 6]


def test_what_is_added_to_the_probability_stays_as_likely(tree_of):
    text = CUMULATIVE.format("compress_prob", "direct_prob + compress_prob")
    rows = ("model(1 - batch)", "model.forward_compressed([row for row in batch])")
    swapped = text.replace(rows[1], "other").replace(rows[0], rows[1]).replace("other", rows[0])
    tree = tree_of(loop(swapped))
    assert applied(tree).outcome is Outcome.APPLIED
    assert "elif r < direct_prob + ramped_prob:" in (tree.root / "bit_transformer/training.py").read_text()


HALF = "compress_prob * 0.5 * (1 - math.cos(math.pi * min(1.0, {} / {})))"
SINE = "compress_prob * math.sin(0.5 * math.pi * min(1.0, {} / {})) ** 2"
SETUP, BESIDE = "step, warmup = 0, 100\nrng = random.Random(3)\ni = 0\n", END + "step += 1\n"


def by_hand(ramp, draw="rng", end=BESIDE, first=""):
    return loop(f"{first}prob = {ramp}\n" + CODES.format(f"{draw}.random() < prob"), SETUP, end=end)


@pytest.mark.parametrize("ramp", [HALF, SINE])
def test_a_ramp_in_another_idiom_is_done(tree_of, ramp):
    assert applied(tree_of(by_hand(ramp.format("step", "warmup")))).outcome is Outcome.ALREADY_APPLIED


def test_a_ramp_whose_draws_are_everybodys_is_half_done(tree_of):
    tree = tree_of(by_hand(HALF.format("step", "warmup"), draw="random"))
    assert applied(tree).outcome is Outcome.APPLIED
    assert "if draws.random() < prob:" in (tree.root / "bit_transformer/training.py").read_text()


NEAR = {
    "a line": (by_hand("compress_prob * min(1.0, step / warmup)"), "along a line"),
    "a whole cosine": (by_hand(HALF.format("2 * step", "warmup").replace("min(1.0, ", "min(2.0, ")), "whole cosine"),
    "epochs": (by_hand(HALF.format("epoch", "epochs")), "counts epochs"),
    "micro-batches": (by_hand(HALF.format("step", "warmup"), end=GROUPS + "step += 1\n"), "counts micro-batches"),
    "a decay": (loop("compress_prob *= 0.99\n" + CODES.format("random.random() < compress_prob")), "its schedule"),
    "noise alone": (
        loop(
            "x = 1 - batch if random.random() < noise else batch\nlogits = model(x)\n", options=OPTIONS + ", noise=0.5"
        ),
        "does not tell whether it compresses",
    ),
    "a warm-up of the rate": (
        loop(CODES.format("random.random() < compress_prob"), options=OPTIONS + ", warmup_steps=10"),
        "it has an option warmup_steps",
    ),
    "an evaluation draws too": (
        loop("logits = run(batch)\n", CLOSURE, end=END + "print(run(data).sum())\n"),
        "for something else than an update",
    ),
    "an object that evaluates": (
        TRAINER.replace(
            "    def step", "    def evaluate(self):\n        return self.predict(self.data)\n\n    def step"
        ),
        "for something else than an update",
    ),
    "a step at times": (STEP.replace("    opt.step()\n", "    if loss < 1:\n        opt.step()\n"), "at times"),
    "a lambda": (
        loop(CODES.format("chance(compress_prob)"), "chance = lambda p: random.random() < p\n"),
        "it stands before the loop",
    ),
}


@pytest.mark.parametrize(("text", "reason"), NEAR.values(), ids=NEAR)
def test_what_would_rest_on_a_guess_is_refused(tree_of, text, reason):
    outcome = applied(tree_of(text))
    assert outcome.outcome is Outcome.REFUSED
    assert reason in outcome.reason


def test_what_is_found_does_not_rest_on_how_deep_others_have_read(tree_of):
    tree = tree_of(TRAINER)
    asked = updates_of_runs(tree.code)[0].reading
    for node, owner in asked.file.functions:
        tree.code.reading(asked.file, node, owner, deepest=DEEPEST)
    assert status(tree, [task_named("6")])[0].state is State.MISSING
