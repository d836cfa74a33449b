"""Rows of a text file's bits as strangers make them: right ones are mapped, and give the same rows; others are refused."""

import importlib
import sys
from pathlib import Path

import pytest
from samples import BASELINE

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome

TASK = task_named("task-5")
CODEC = (BASELINE / "bit_transformer/bit_io.py").read_text()
HEAD = """\
import codecs, functools, itertools, math, operator, random
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from bit_transformer.bit_io import bits_to_rows, text_to_bits
"""
RIGHT = {
    "chained": """
def load(path, n):
    with open(path, encoding="utf-8", newline="") as f:
        return bits_to_rows(list(chain.from_iterable(map(text_to_bits, f))), n)
""",
    "line by line in a while": """
def load(path, n):
    out = []
    f = open(path, "r", encoding="utf-8", newline="")
    line = f.readline()
    while line:
        out.extend(text_to_bits(line))
        line = f.readline()
    f.close()
    count = len(out) // n
    return torch.LongTensor(out[: count * n]).view(count, n)
""",
    "nested comprehension": """
def load(path: Path, n: int) -> torch.Tensor:
    bits = [b for line in path.read_text(encoding="utf-8").splitlines(keepends=True) for b in text_to_bits(line)]
    whole = len(bits) - len(bits) % n
    return torch.as_tensor(bits[:whole]).reshape((-1, n))
""",
    "generator of rows": """
def rows_of(path, n):
    row = []
    for line in open(path, newline=""):
        for bit in text_to_bits(line):
            row.append(bit)
            if len(row) == n:
                yield row
                row = []


def load(path, n):
    return torch.tensor([*rows_of(path, n)])
""",
    "method of a class": """
class Corpus:
    def __init__(self, path, n):
        self.path, self.n = Path(path), n

    def _bits(self):
        return text_to_bits(self.path.read_bytes().decode())

    def rows(self):
        bits = self._bits()
        return torch.tensor(bits).unfold(0, self.n, self.n)


def load(path, n):
    return Corpus(path, n).rows()
""",
    "property of a class": """
class Corpus:
    def __init__(self, path):
        self.path = Path(path)

    @functools.cached_property
    def bits(self):
        with self.path.open(encoding="utf-8", newline="") as lines:
            return [bit for line in lines for bit in text_to_bits(line)]

    def rows(self, n):
        return bits_to_rows(self.bits, n)


def load(path, n):
    return Corpus(path).rows(n)
""",
    "blocks of a file": """
def bits_of(path):
    with open(path, encoding="utf-8", newline="") as f:
        for block in iter(lambda: f.read(4096), ""):
            yield from text_to_bits(block)


def load(path, n):
    it, rows = bits_of(path), []
    while len(row := list(itertools.islice(it, n))) == n:
        rows.append(torch.tensor(row))
    return torch.stack(rows)
""",
    "array of numpy's": """
def load(path, n):
    bits = np.array(text_to_bits(Path(path).read_text(encoding="utf-8")), dtype=np.int64)
    return torch.from_numpy(bits[: bits.size // n * n].reshape(-1, n))
""",
    "stacked slices": """
def load(path, n):
    bits = text_to_bits(Path(path).open(encoding="utf8", newline="").read())
    starts = range(0, len(bits) - n + 1, n)
    return torch.stack([torch.tensor(bits[s : s + n]) for s in starts])
""",
    "bytes unpacked": """
def load(path, n):
    data = np.frombuffer(Path(path).read_bytes(), dtype=np.uint8)
    bits = np.unpackbits(data).reshape(-1, 8)
    parity = bits.sum(axis=1, keepdims=True) % 2
    flat = np.concatenate([bits, parity], axis=1).reshape(-1)
    _ = text_to_bits
    return torch.from_numpy(flat[: len(flat) // n * n].reshape(-1, n)).long()
""",
    "summed lists": """
def load(path, n):
    with codecs.open(path, "r", "utf-8") as f:
        bits = sum((text_to_bits(line) for line in f), [])
    return bits_to_rows(bits, length=n)
""",
    "folded": """
def load(path, n):
    lines = open(path, encoding="utf-8", newline="").readlines()
    return bits_to_rows(functools.reduce(operator.iadd, map(text_to_bits, lines), []), n)
""",
    "tensors of lines": """
def load(path, n):
    with open(path, encoding="utf-8", newline="") as f:
        parts = [torch.tensor(text_to_bits(line)) for line in f]
    flat = torch.cat(parts)
    return flat[: flat.numel() // n * n].view(-1, n).contiguous()
""",
    "split, and the short one left": """
def load(path, n):
    pieces = torch.tensor(text_to_bits(Path(path).read_text(encoding="utf-8"))).split(n)
    return torch.stack([piece for piece in pieces if len(piece) == n])
""",
    "nested function": """
def load(path, n):
    bits = []

    def take(line):
        bits.extend(text_to_bits(line))

    with open(path, encoding="utf-8", newline="") as f:
        for line in f:
            take(line)
    return bits_to_rows(bits, n)
""",
    "settings in a dict": """
def made(settings):
    with open(settings["path"], encoding="utf-8", newline="") as f:
        bits = text_to_bits(f.read())
    return bits_to_rows(bits, settings["length"])


def load(path, n):
    return made({"path": path, "length": n})
""",
    "named as options": """
def load(path, n, *, encoding="utf-8"):
    text = Path(path).read_text(encoding=encoding)
    return bits_to_rows(text_to_bits(text), n)
""",
    "characters": """
def load(path, n):
    bits = []
    for ch in Path(path).read_text(encoding="utf-8"):
        bits += text_to_bits(ch)
    rows = []
    while len(bits) >= n:
        rows.append(bits[:n])
        del bits[:n]
    return torch.tensor(rows, dtype=torch.int64)
""",
    "logged": """
def load(path, n):
    bits = []
    with open(path, encoding="utf-8", newline="") as f:
        for line in f:
            bits.extend(text_to_bits(line))
    print("bits:", len(bits))
    if len(bits) < n:
        raise ValueError(f"{path}: {len(bits)} bits")
    return bits_to_rows(bits, n)
""",
}


@pytest.fixture
def tree_of(model_of):
    def make(text, name="wikitext_schedule.py", codec=CODEC):
        root = model_of("")
        (root / name).write_text(HEAD + text)
        (root / "bit_transformer/bit_io.py").write_text(codec)
        return root

    return make


def encoded(size):
    """A text of so many bytes, and its bits."""
    raw = ("\ufeffa\n\n é\u2028 b\tñ日𝄞 " * 20).encode()[: size - 4].decode(errors="ignore").encode()
    raw += b"x" * (size - len(raw))
    return raw, [bit for byte in raw for bit in (*map(int, f"{byte:08b}"), byte.bit_count() % 2)]


def rows_of(root, size, monkeypatch):
    """The rows that a tree's load gives, of 72 bits, and its kind."""
    for name in modules_of_trees():
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(root))
    (root / "t.txt").write_bytes(encoded(size)[0])
    try:
        rows = importlib.import_module("wikitext_schedule").load(root / "t.txt", 72)
        return [bit for row in rows for bit in row.tolist()], len(rows), type(rows).__name__
    finally:
        for name in modules_of_trees():  # or tests of other files would be given this tree for theirs
            del sys.modules[name]


def modules_of_trees():
    return [each for each in sys.modules if each.startswith(("bit_transformer", "wikitext_schedule"))]


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT)
def test_right_rows_are_mapped(tree_of, text, monkeypatch):
    root = tree_of(text)
    planned = plan(open_tree(root), [TASK])
    assert planned.outcomes[0].outcome is Outcome.APPLIED, planned.outcomes[0].reason
    for change in planned.changes:
        (root / change.path).write_bytes(change.after)
    (again,) = plan(open_tree(root), [TASK]).outcomes
    assert again.outcome is Outcome.ALREADY_APPLIED, again.reason
    for size in (200, 216):
        bits = encoded(size)[1]
        assert rows_of(root, size, monkeypatch) == (bits[: len(bits) // 72 * 72], len(bits) // 72, "BitRows")


PLAIN = """
def load(path, n):
    bits = text_to_bits(Path(path).read_text(encoding="utf-8"))
    return bits_to_rows(bits, n)
"""
WRONG = {
    "stripped lines": (
        """
def load(path, n):
    bits = []
    for line in open(path, encoding="utf-8", newline=""):
        bits += text_to_bits(line.strip())
    return bits_to_rows(bits, n)
""",
        "not all of the text's bits",
    ),
    "shuffled lines": (
        """
def load(path, n):
    lines = open(path, encoding="utf-8", newline="").readlines()
    random.shuffle(lines)
    return bits_to_rows([b for line in lines for b in text_to_bits(line)], n)
""",
        "task-5",
    ),
    "limited": (
        """
def load(path, n, limit=None):
    bits = text_to_bits(Path(path).read_text(encoding="utf-8"))[:limit]
    return bits_to_rows(bits, n)


def main(args):
    return load(args.data, 576, args.limit)
""",
        "near miss at",
    ),
    "half a stride": (
        """
def load(path, n):
    bits = text_to_bits(Path(path).read_text(encoding="utf-8"))
    return torch.tensor(bits).unfold(0, n, n // 2)
""",
        "not all of the text's bits",
    ),
    "last full row lost": (
        """
def load(path, n):
    bits = text_to_bits(Path(path).read_text(encoding="utf-8"))
    return torch.tensor([bits[i : i + n] for i in range(0, len(bits) - n, n)])
""",
        "near miss at",
    ),
    "a row a line": (
        """
def load(path, n):
    rows = []
    for line in open(path, encoding="utf-8", newline=""):
        bits = text_to_bits(line)[:n]
        rows.append(bits + [0] * (n - len(bits)))
    return torch.tensor(rows)
""",
        "not all of the text's bits",
    ),
    "padded to a row": (
        """
def load(path, n):
    bits = text_to_bits(Path(path).read_text(encoding="utf-8"))
    bits += [0] * (-len(bits) % n)
    return bits_to_rows(bits, n)
""",
        "zeros are added",
    ),
    "marked at the end": (
        """
def load(path, n):
    bits = text_to_bits(Path(path).read_text(encoding="utf-8") + chr(10))
    return bits_to_rows(bits, 576)
""",
        "task-5",
    ),
    "bytes of eight bits": (
        PLAIN + "    # packed\n",
        None,
    ),
    "small integers": (
        """
def load(path, n):
    bits = text_to_bits(Path(path).read_text(encoding="utf-8"))
    return torch.tensor(bits[: len(bits) // n * n], dtype=torch.uint8).view(-1, n)
""",
        "of dtype uint8",
    ),
    "with a byte order mark left out": (
        """
def load(path, n):
    return bits_to_rows(text_to_bits(Path(path).read_text(encoding="utf-8-sig")), n)
""",
        "not decoded as plain UTF-8",
    ),
    "errors replaced": (
        """
def load(path, n):
    return bits_to_rows(text_to_bits(open(path, errors="replace").read()), n)
""",
        "not decoded as plain UTF-8",
    ),
    "two files": (
        """
def load(path, n):
    text = open(path + ".a").read() + open(path + ".b").read()
    return bits_to_rows(text_to_bits(text), n)
""",
        "task-5",
    ),
    "set in place": (
        PLAIN + "\n\ndef main(p):\n    rows = load(p, 72)\n    rows[0] = 0\n    return rows\n",
        "no entry",
    ),
    "columns": (PLAIN + "\n\ndef main(p):\n    return load(p, 72)[:, 1:]\n", "no entry"),
    "added to": (PLAIN + "\n\ndef main(p):\n    return load(p, 72) * 2\n", "no operator"),
    "saved": (PLAIN + "\n\ndef main(p, out):\n    torch.save(load(p, 72), out)\n", "torch.save"),
    "asked for its kind": (
        PLAIN + "\n\ndef main(p):\n    rows = load(p, 72)\n    return isinstance(rows, torch.Tensor)\n",
        "isinstance",
    ),
    "permuted": (
        PLAIN + "\n\ndef main(p):\n    rows = load(p, 72)\n    return rows[torch.randperm(len(rows))]\n",
        "no entry",
    ),
    "on a device": (PLAIN + '\n\ndef main(p):\n    return load(p, 72).to("cuda")\n', "no to"),
    "fed whole to a model": (
        PLAIN + "\n\nclass Run:\n    def __init__(self, model, p):\n        self.rows = load(p, 72)\n"
        "        self.model = model\n\n    def go(self):\n        return self.model(self.rows)\n",
        "not seen",
    ),
    "unpacked from a pair": (
        PLAIN + "\n\ndef both(p):\n    return 1, load(p, 72)\n\n\ndef main(p):\n    n, rows = both(p)\n"
        "    return n + 1, rows.sum()\n",
        "no sum",
    ),
}
WRONG.pop("bytes of eight bits")
READ = """
def load(path, n):
    bits = []
    with open(path, encoding="utf-8", newline="") as f:
        for line in f:
            bits += text_to_bits(line)
    return bits_to_rows(bits, n)
"""
AT_MOST = [  # of the text, which shows on others than the sample that is tried first
    ("in f:", "in itertools.islice(f, 500):"),
    ("in f:", "in f.read(100_000):"),
    ("in f:", "in [line for line in f if not line.startswith('#')]:"),
    ("in f:", "in [line for line in f if len(line) < 1000]:"),
    ("text_to_bits(line)", "text_to_bits(line.replace(' @-@ ', '-'))"),
    ("rows(bits, n)", "rows(bits[: min(len(bits), 90_000)], n)"),
    ("text_to_bits(line)\n", "text_to_bits(line)\n            if len(bits) > 10**6:\n                break\n"),
]


@pytest.mark.parametrize(("old", "new"), AT_MOST, ids=[new.strip()[-40:] for _, new in AT_MOST])
def test_what_leaves_out_some_of_other_texts_is_refused(tree_of, old, new):
    assert old in READ
    planned = plan(open_tree(tree_of(READ.replace(old, new))), [TASK])
    assert planned.outcomes[0].outcome is Outcome.REFUSED, planned.changes
    assert "of a longer text, or one with what is asked for here" in planned.outcomes[0].reason


def test_rows_that_are_left_out_afterwards_are_still_left_out(tree_of):
    planned = plan(open_tree(tree_of(READ.replace("rows(bits, n)", "rows(bits, n)[:250]"))), [TASK])
    assert planned.outcomes[0].outcome is Outcome.APPLIED, planned.outcomes[0].reason
    assert any("return BitRows.of_text(Path(path), n)[:250]" in each.after.decode() for each in planned.changes)


@pytest.mark.parametrize(("text", "reason"), WRONG.values(), ids=WRONG)
def test_other_rows_are_refused(tree_of, text, reason):
    planned = plan(open_tree(tree_of(text)), [TASK])
    assert planned.outcomes[0].outcome is Outcome.REFUSED, planned.changes
    assert reason in planned.outcomes[0].reason


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("range(7, -1, -1)", "range(8)", id="least bit first"),
        pytest.param("byte.bit_count() & 1", "1 - (byte.bit_count() & 1)", id="odd parity"),
        pytest.param("byte.bit_count() & 1", "0", id="no parity"),
    ],
)
def test_rows_of_another_code_are_not_mapped(tree_of, old, new):
    planned = plan(open_tree(tree_of(PLAIN, codec=CODEC.replace(old, new))), [TASK])
    assert planned.outcomes[0].outcome is Outcome.REFUSED


def test_what_uses_rows_as_a_data_set_has_may(tree_of):
    text = PLAIN + (
        "\n\ndef pair(rows, share=0.1):\n    held = max(1, int(share * len(rows)))\n    return rows[:-held], rows[-held:]\n"
        "\n\ndef main(model, p):\n    train, held = pair(load(p, 72))\n    for batch in train.split(8):\n        model(batch)\n"
        "    for i in range(0, len(held), 4):\n        model(held[i : i + 4].to('cpu'))\n"
        "    batches = list(held.split(8))\n    return batches + batches[-1:], train.shape[1], train[0], held.size(0)\n"
    )
    planned = plan(open_tree(tree_of(text)), [TASK])
    assert planned.outcomes[0].outcome is Outcome.APPLIED, planned.outcomes[0].reason


BY_HAND = """
class Rows(torch.utils.data.Dataset):
    def __init__(self, file, n):
        self.rows = np.memmap(file, dtype=np.uint8, mode="r").reshape(-1, n)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return torch.from_numpy(self.rows[index].astype(np.int64))


def load(path: Path, n: int):
    import hashlib

    raw = path.read_bytes()
    cache = path.with_name(f"{hashlib.sha256(raw).hexdigest()}.{n}.rows")
    if not cache.exists():
        bits = text_to_bits(raw.decode("utf-8"))
        count = len(bits) // n
        part = cache.with_suffix(".part")
        part.write_bytes(bytes(bits[: count * n]))
        part.replace(cache)
    return Rows(cache, n)
"""


def test_rows_that_are_mapped_right_by_hand_are_left_alone(tree_of):
    planned = plan(open_tree(tree_of(BY_HAND)), [TASK])
    assert (planned.outcomes[0].outcome, planned.changes) == (Outcome.ALREADY_APPLIED, ()), planned.outcomes[0].reason


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param("{hashlib.sha256(raw).hexdigest()}", "{path.stem}", "an old file", id="any old file"),
        pytest.param("len(bits) // n", "-(-len(bits) // n)", "near miss", id="a short last row"),
        pytest.param("bytes(bits[: count * n])", "bytes(bits[n : count * n])", "not the text's bits", id="a row lost"),
        pytest.param('raw.decode("utf-8")', 'raw.decode("utf-8").strip()', "not the text's bits", id="stripped"),
        pytest.param("text_to_bits(raw", "secret(raw", "cannot be read", id="by a function that is not seen"),
    ],
)
def test_rows_that_are_mapped_wrong_by_hand_are_named(tree_of, old, new, reason):
    assert old in BY_HAND
    planned = plan(open_tree(tree_of(BY_HAND.replace(old, new))), [TASK])
    assert planned.outcomes[0].outcome is Outcome.REFUSED
    assert reason in planned.outcomes[0].reason


def test_a_cache_that_is_older_than_its_text_may_be_told_by_its_time(tree_of):
    text = BY_HAND.replace("{hashlib.sha256(raw).hexdigest()}", "{path.stem}")
    text = text.replace(
        "if not cache.exists():", "if not cache.exists() or cache.stat().st_mtime < path.stat().st_mtime:"
    )
    planned = plan(open_tree(tree_of(text)), [TASK])
    assert planned.outcomes[0].outcome is Outcome.ALREADY_APPLIED, planned.outcomes[0].reason


def test_a_script_may_be_stuck_in_a_loop(tree_of):
    text = "\ndef load(path, n):\n    data = open(path).read()\n    while True:\n        data += 'x'\n"
    assert plan(open_tree(tree_of(text)), [TASK]).outcomes[0].outcome is Outcome.REFUSED


def test_rows_in_a_helper_of_another_module(tree_of):
    root = tree_of("from corpus_io import bits_of\n\n\ndef load(path, n):\n    return bits_to_rows(bits_of(path), n)\n")
    (root / "corpus_io.py").write_text(
        "from bit_transformer.bit_io import text_to_bits\n\n\ndef bits_of(path):\n"
        "    return [b for line in open(path, encoding='utf-8', newline='') for b in text_to_bits(line)]\n"
    )
    planned = plan(open_tree(root), [TASK])
    assert planned.outcomes[0].outcome is Outcome.APPLIED, planned.outcomes[0].reason
    assert Path("wikitext_schedule.py") in [Path(change.path) for change in planned.changes]


TABLE = """

class Codec:
    words: dict[int, list[int]] = {}

    @classmethod
    def encode(cls, text):
        out = []
        for byte in text.encode("utf-8"):
            if byte not in cls.words:
                bits = [int(bit) for bit in f"{byte:08b}"]
                cls.words[byte] = bits + [sum(bits) % 2]
            out += cls.words[byte]
        return out
"""
CORPUS = """from bit_transformer.bit_io import Codec


class Corpus(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.table = rows

    @classmethod
    def from_file(cls, path, n):
        stream = Codec.encode(Path(path).read_text(encoding="utf-8"))
        return cls._cut(stream, n)

    @classmethod
    def _cut(cls, stream, n):
        count = len(stream) // n
        return cls(torch.tensor(stream[: count * n]).reshape(count, n))


def load(path, n):
    return Corpus.from_file(path, n)
"""


def test_an_object_whose_rows_another_function_cuts_is_named_once_and_for_no_map(tree_of):
    (outcome,) = plan(open_tree(tree_of(CORPUS, codec=CODEC + TABLE)), [TASK]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert outcome.reason.count("near miss at") == 1
    assert "what cuts them to the table of a Corpus is another function" in outcome.reason


def test_rows_that_an_object_is_given_are_mapped_and_the_class_method_that_does_so_maps_nothing_itself(tree_of):
    cut = "count = len(stream) // n\n        return cls(torch.tensor(stream[: count * n]).reshape(count, n))"
    root = tree_of(CORPUS.replace("return cls._cut(stream, n)", cut), codec=CODEC + TABLE)
    planned = plan(open_tree(root), [TASK])
    assert planned.outcomes[0].outcome is Outcome.APPLIED, planned.outcomes[0].reason
    for change in planned.changes:
        (root / change.path).write_bytes(change.after)
    assert "return cls(BitRows.of_text(Path(path), n))" in (root / "wikitext_schedule.py").read_text()
    assert plan(open_tree(root), [TASK]).outcomes[0].outcome is Outcome.ALREADY_APPLIED
