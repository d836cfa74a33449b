"""Rows that a script takes by hand: which orders are followed, and which are none."""

from collections.abc import Callable

import pytest
from shapes import ROWS, SEED

from bitpatch.verify.rendering.report import Outcome, Report
from bitpatch.verify.running.evidence import Verdict

HEAD = """
import random, numpy as np, torch
from torch import nn
import torch.nn.functional as F
{seeds}
X, Y = torch.randn(100, 6), torch.randint(3, (100,))
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
opt = torch.optim.Adam(model.parameters(), 1e-2)
def step(x, y):
    opt.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    opt.step()
"""
SEEDS = "random.seed(1); np.random.seed(1); torch.manual_seed(1)"
ALONG = "    for i in range(0, 100, 20): step(X[p[i:i + 20]], Y[p[i:i + 20]])\n"
EPOCHS = "for epoch in range(3):\n"
COPIES = "        x, y = zip(*data[i:i + 20]); step(torch.stack(x), torch.stack(y))\n"
ARRAYS = "    for i in range(0, 100, 20): step(torch.from_numpy(A[p[i:i + 20]]), torch.from_numpy(L[p[i:i + 20]]))\n"
SHUFFLED = {
    "torch.randperm": EPOCHS + "    p = torch.randperm(100)\n" + ALONG,
    "random.shuffle": "p = list(range(100))\n" + EPOCHS + "    random.shuffle(p)\n" + ALONG,
    "random.sample": EPOCHS + "    p = random.sample(range(100), 100)\n" + ALONG,
    "a Random": "r, p = random.Random(0), list(range(100))\n" + EPOCHS + "    r.shuffle(p)\n" + ALONG,
    "numpy.random.permutation": EPOCHS + "    p = np.random.permutation(100)\n" + ALONG,
    "numpy.random.shuffle": "p = np.arange(100)\n" + EPOCHS + "    np.random.shuffle(p)\n" + ALONG,
    "a generator": "r = np.random.default_rng(0)\n" + EPOCHS + "    p = r.permutation(100)\n" + ALONG,
    "a generator's shuffle": "r, p = np.random.default_rng(0), np.arange(100)\n" + EPOCHS + "    r.shuffle(p)\n" + ALONG,
    "nobody knows": EPOCHS + "    p = torch.rand(100).argsort()\n" + ALONG,
    "batches": "b = [list(range(i, i + 20)) for i in range(0, 100, 20)]\n" + EPOCHS + "    random.shuffle(b)\n    for p in b: step(X[p], Y[p])\n",
    "a loader by its length": "loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), 16, shuffle=True)\n" + EPOCHS + "    rest = iter(loader)\n    for n in range(len(loader)): step(*next(rest))\n",
    "all at once": EPOCHS + "    p = torch.randperm(100); xs, ys = X[p], Y[p]\n    for i in range(0, 100, 30): step(xs[i:i + 30], ys[i:i + 30])\n",
}  # fmt: skip
DRAWN = {
    "randint": "for n in range(30):\n    p = torch.randint(100, (64,)); step(X[p], Y[p])\n",
    "choice": "for n in range(30):\n    p = np.random.choice(100, 32, replace=False); step(X[p], Y[p])\n",
    "many, with replacement": "for n in range(30):\n    p = np.random.choice(100, 90); step(X[p], Y[p])\n",
    "places": "for n in range(30):\n    p = torch.randint(80, (4,)); step(torch.cat([X[i:i + 16] for i in p]), torch.cat([Y[i:i + 16] for i in p]))\n",
}  # fmt: skip
RIGHT = {
    "slices anywhere": "for n in range(120):\n    i = random.randrange(80); step(X[i:i + 20], Y[i:i + 20])\n",
    "long slices anywhere": "for n in range(120):\n    i = random.randrange(40); step(X[i:i + 60], Y[i:i + 60])\n",
    "short slices anywhere": "for n in range(120):\n    i = random.randrange(97); step(X[i:i + 2], Y[i:i + 2])\n",
    "sorted": "p = sorted(range(100), key=lambda i: X[i, 0].item())\n" + EPOCHS + ALONG,
    "windows": EPOCHS + "    for i in range(0, 80, 10): step(X[i:i + 20], Y[i:i + 20])\n",
    "a part of each pass": EPOCHS + "    p = torch.randperm(100)\n    for n in range(2): step(X[p[n * 20:n * 20 + 20]], Y[p[n * 20:n * 20 + 20]])\n",
    "a part for training": "p = torch.randperm(100); t, v = p[:85], p[85:]\n" + EPOCHS + "    t = t[torch.randperm(85)]\n    for i in range(0, 85, 20): step(X[t[i:i + 20]], Y[t[i:i + 20]])\n    with torch.no_grad(): F.cross_entropy(model(X[v]), Y[v])\n",
    "a view for training": "x, y = X[:85], Y[:85]\n" + EPOCHS + "    for i in range(0, 85, 20): step(x[i:i + 20], y[i:i + 20])\n",
    "mixtures": EPOCHS + "    for i in range(0, 100, 20):\n        x, y, j = X[i:i + 20], Y[i:i + 20], torch.randperm(20)\n        step(0.7 * x + 0.3 * x[j], y)\n        opt.zero_grad(); F.cross_entropy(model(x), y[j]).backward(); opt.step()\n",
    "one by one": "for epoch in range(2):\n    for i in torch.randperm(100).tolist(): step(X[i:i + 1], Y[i:i + 1])\n",
    "an evaluation of some": EPOCHS + "    p = torch.randperm(100)\n" + ALONG + "    some = list(range(100)); random.Random(0).shuffle(some)\n    with torch.no_grad(): F.cross_entropy(model(X[some[:30]]), Y[some[:30]])\n",
    "used twice": EPOCHS + "    p = torch.randperm(100)\n    for i in range(0, 100, 20):\n        b = p[i:i + 20]; opt.zero_grad(); x, z = (model(F.dropout(X[b])) for _ in range(2))\n        ((F.cross_entropy(x, Y[b]) + F.cross_entropy(z, Y[b])) / 2).backward(); opt.step()\n",
    "in folds": "for k in range(4):\n    t = torch.tensor([i for i in range(100) if i // 25 != k])\n    for epoch in range(2):\n        p = t[torch.randperm(75)]\n        for i in range(0, 75, 20): step(X[p[i:i + 20]], Y[p[i:i + 20]])\n",
    "things": "data = list(zip(X, Y))\n" + EPOCHS + "    random.shuffle(data)\n    for i in range(0, 100, 20):\n" + COPIES,
    "arrays": "A, L = X.numpy(), Y.numpy()\n" + EPOCHS + "    p = np.random.permutation(100)\n" + ARRAYS,
    "text, part by part": "T, at = torch.randint(3, (331,)), 0\nmodel = nn.Sequential(nn.Embedding(3, 8), nn.Linear(8, 3)); opt = torch.optim.SGD(model.parameters(), 0.1)\nfor n in range(30):\n    part = T[at:at + 33]; opt.zero_grad(); F.cross_entropy(model(part[:-1]), part[1:]).backward(); opt.step(); at = at + 32 if at + 65 <= 331 else 0\n",
}  # fmt: skip
WRONG = {
    "windows leave gaps": ("T = torch.randint(3, (75,)); model = nn.Sequential(nn.Embedding(3, 8), nn.Linear(8, 3)); opt = torch.optim.SGD(model.parameters(), 0.1)\n" + EPOCHS + "    for i in range(0, 74, 10): n = min(7, 74 - i); step(T[i:i + n], T[i + 1:i + 1 + n])\n", "14 of 67 rows"),
    "slices overlap": (EPOCHS + "    for i in range(0, 98, 20): step(X[i:i + 22], Y[i:i + 22])\n", "row 20 is given 2 times"),
    "slices leave gaps": (EPOCHS + "    for i in range(0, 100, 20): step(X[i:i + 19], Y[i:i + 19])\n", "5 of 100 rows"),
    "the last is cut": (EPOCHS + "    for i in range(0, 99, 20): step(X[i:min(i + 20, 99)], Y[i:min(i + 20, 99)])\n", "1 of 100 rows"),
    "the order's last is cut": (EPOCHS + "    p = torch.randperm(100)\n    for i in range(0, 99, 20): b = p[i:min(i + 20, 99)]; step(X[b], Y[b])\n", "1 of 100 rows"),
    "the order overlaps": (EPOCHS + "    p = random.sample(range(100), 100)\n    for i in range(0, 100, 20): b = p[i:i + 22]; step(X[b], Y[b])\n", "2 times in one pass"),
    "drawn once": ("p = np.random.permutation(100)\n" + EPOCHS + ALONG, "shuffled alike"),
    "a generator begins again": (EPOCHS + "    p = np.random.default_rng(0).permutation(100)\n" + ALONG, "shuffled alike"),
    "things in one order": (EPOCHS + "    data = list(zip(X, Y)); random.Random(0).shuffle(data)\n    for i in range(0, 100, 20):\n" + COPIES, "shuffled alike"),
    "arrays in one order": ("A, L = X.numpy(), Y.numpy()\n" + EPOCHS + "    np.random.seed(3); p = np.random.permutation(100)\n" + ARRAYS, "shuffled alike"),
}  # fmt: skip
Judged = Callable[..., Report]


@pytest.fixture
def judged(judged_text: Judged) -> Judged:
    """A script that takes rows is judged."""
    return lambda text, seeds=SEEDS: judged_text(HEAD.format(seeds=seeds) + text)


def said(report: Report, name: str = ROWS) -> tuple[Verdict, str]:
    (found,) = (each.evidence for each in report.tasks[0].checks if each.name == name)
    return found.verdict, found.detail


@pytest.mark.parametrize("order", SHUFFLED)
def test_passes_along_an_order_are_followed(judged: Judged, order: str) -> None:
    report = judged(SHUFFLED[order])
    verdict, detail = said(report)
    assert (report.verdict, verdict) == (Outcome.VERIFIED, Verdict.PASS)
    assert "3 of them shuffled" in detail
    assert said(report, SEED)[0] is Verdict.PASS


@pytest.mark.parametrize("how", DRAWN)
def test_rows_that_are_drawn_as_they_come_make_no_pass(judged: Judged, how: str) -> None:
    verdict, detail = said(judged(DRAWN[how]))
    assert verdict is Verdict.NOT_APPLICABLE
    assert "drawn as they come" in detail
    assert "(train.py:" in detail


@pytest.mark.parametrize("how", RIGHT)
def test_nothing_is_said_against_what_is_right(judged: Judged, how: str) -> None:
    report = judged(RIGHT[how])
    assert (report.verdict, [each.evidence.detail for each in report.tasks[0].red]) == (Outcome.VERIFIED, [])


@pytest.mark.parametrize("how", WRONG)
def test_what_is_taken_twice_never_or_always_alike_is_named(judged: Judged, how: str) -> None:
    text, words = WRONG[how]
    verdict, detail = said(judged(text))
    assert verdict is Verdict.FAIL
    assert words in detail


def test_rows_that_have_no_turn_are_told(judged: Judged) -> None:
    text = "for epoch in range(3):\n    for n in range(100 // 30): step(X[n * 30:n * 30 + 30], Y[n * 30:n * 30 + 30])\n"
    assert said(judged(text)) == (
        Verdict.PASS,
        "3 passes, in the order of the data; 10 rows have no turn, fewer than a batch",
    )


@pytest.mark.parametrize(
    ("seeds", "verdict", "words"),
    [
        ("", Verdict.NOT_APPLICABLE, "sets no seed: torch.manual_seed(0) before train.py:"),
        ("random.seed(int.from_bytes(__import__('os').urandom(4), 'big'))", Verdict.NOT_APPLICABLE, "another seed"),
        ("random.seed(1)", Verdict.FAIL, "though train.py:5 sets a seed"),
        ("torch.manual_seed(1)", Verdict.PASS, "300 rows"),
    ],
    ids=["no seed", "another each time", "of another module", "its own"],
)
def test_whether_an_order_is_that_of_the_seed(judged: Judged, seeds: str, verdict: Verdict, words: str) -> None:
    found, detail = said(judged(SHUFFLED["torch.randperm"], seeds), SEED)
    assert found is verdict
    assert words in detail
