"""Code of a few lines whose values, numbers or lists grow without end: looked at within seconds, and some memory."""

import resource
import shutil
import subprocess
import sys

import pytest
from samples import BASELINE, CODE_ONLY

SECONDS, BYTES = 30, 2 << 30  # many times what the baseline takes
SCORES = "        scores = q @ k.transpose(-2, -1)"
MASK = "future = torch.triu(torch.ones(T, T, dtype=torch.bool, device=q.device), diagonal=1)"
HIDDEN = "            scores = scores.masked_fill(future, float"
COUNT = "    steps_per_epoch = "


def _above(place, line, times=1):
    return place, line * times + place


GROWING = {
    "a value made of itself twice": _above(SCORES, "        q = q + q\n", 60),
    "an index of itself": _above(SCORES, "        q = q[q]\n", 60),
    "a long chain of views": _above(SCORES, "        q = q.unsqueeze(0).squeeze(0)\n", 3000),
    "a long chain of names": (SCORES, "".join(f"        q{n + 1} = q{n or ''} + 1\n" for n in range(1000)) + SCORES),
    "a sum of nine hundred": _above(SCORES, "        q = q" + " + 1" * 900 + "\n"),
    "two values made of each other": _above(SCORES, "        q, k = q + k, k - q\n", 60),
    "a number made of itself twice": _above(SCORES, "        T = T if causal else T + T\n", 60),
    "an identity of ten thousand million": (MASK, "future = torch.triu(torch.eye(100000) == 0, 1)"),
    "indices of as many": (MASK, "future = torch.zeros(T, T)[torch.triu_indices(100000, 100000, 1)[0]] > 0"),
    "a mask of itself twice": _above(HIDDEN, "            future = future | future\n", 60),
    "a mask in one case and another": _above(HIDDEN, "            future = future if T > 3 else future | future\n", 60),
    "a tensor joined to itself": _above(SCORES, "        q = torch.cat([q, q], -1)\n", 60),
    "a power of a power": _above(COUNT, "    epochs + 10 ** 10 ** 10\n"),
    "a shift": _above(COUNT, "    epochs + (1 << 10 ** 11)\n"),
    "a long list": _above(COUNT, "    [0] * 10 ** 10\n"),
    "a sum of many": _above(COUNT, "    sum(range(10 ** 12))\n"),
    "a list that doubles": _above(COUNT, "    kept = [1]\n    while kept:\n        kept += kept\n"),
    "a list that is put into itself": _above(COUNT, "    kept = [1]\n    while kept:\n        kept.extend(kept)\n"),
}


@pytest.mark.parametrize("name", GROWING)
def test_what_grows_without_end_is_not_followed(tmp_path, name):
    old, new = GROWING[name]
    tree = tmp_path / "tree"
    shutil.copytree(BASELINE, tree, ignore=CODE_ONLY)
    file = tree / "bit_transformer" / ("training.py" if old == COUNT else "model.py")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))

    def limit():
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))

    command = [sys.executable, "-m", "bitpatch", "status", "--tree", str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert (done.returncode, done.stdout.count("\ttask-") + done.stdout.count("\ntask-")) == (0, 11), done.stderr
