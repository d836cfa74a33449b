"""Other ways from a text to rows of bits."""

from pathlib import Path

from drift.naming import add_import, before
from drift.patterns import restate
from drift.rewriting import find, retext, rewrite

ROWS = "wikitext_schedule.py"


@rewrite("rows", 5)
def rows_comprehension(tree: Path) -> None:
    """The bits of a file are one comprehension over its lines."""
    restate(
        tree,
        """\
bits: list[int] = []
with path.open(encoding="utf-8", newline="") as lines:
    for line in lines:
        bits.extend(text_to_bits(line))
""",
        """\
with open(path, encoding="utf-8", newline="") as lines:
    bits = [bit for line in lines for bit in text_to_bits(line)]
""",
        ROWS,
    )


@rewrite("rows", 5)
def rows_whole_text(tree: Path) -> None:
    """The whole text is read, and encoded at once."""
    restate(
        tree,
        """\
bits: list[int] = []
with path.open(encoding="utf-8", newline="") as lines:
    for line in lines:
        bits.extend(text_to_bits(line))
""",
        'bits = text_to_bits(path.read_bytes().decode("utf-8"))',
        ROWS,
    )


@rewrite("rows", 5)
def rows_added(tree: Path) -> None:
    """Bits are added to the list in place, line by line, from a file that is closed by hand."""
    restate(
        tree,
        """\
bits: list[int] = []
with path.open(encoding="utf-8", newline="") as lines:
    for line in lines:
        bits.extend(text_to_bits(line))
""",
        """\
bits = []
handle = path.open("r", encoding="utf-8", newline="")
try:
    for line in handle:
        bits += text_to_bits(line)
finally:
    handle.close()
""",
        ROWS,
    )


@rewrite("rows", 5)
def rows_generator(tree: Path) -> None:
    """A generator yields the bits of a file."""
    restate(
        tree,
        'bits: list[int] = []\nwith path.open(encoding="utf-8", newline="") as lines:\n    $$body\nreturn bits_to_rows(bits, max_seq_len)',
        "return bits_to_rows(list(bits_of(path)), max_seq_len)",
        ROWS,
    )
    before(
        find(tree, ROWS),
        "load_rows",
        """\
def bits_of(path):
    with path.open(encoding="utf-8", newline="") as lines:
        for line in lines:
            yield from text_to_bits(line)
""",
    )


@rewrite("rows", 5)
def rows_map(tree: Path) -> None:
    """Lines are encoded by map, and chained."""
    restate(
        tree,
        'bits: list[int] = []\nwith path.open(encoding="utf-8", newline="") as lines:\n    $$body',
        'with path.open(encoding="utf-8", newline="") as lines:\n    bits = list(chain.from_iterable(map(text_to_bits, lines)))',
        ROWS,
    )
    add_import(find(tree, ROWS), "from itertools import chain")


@rewrite("rows", 5)
def rows_read_text(tree: Path) -> None:
    """The text is read whole, split in lines that keep their ends, and encoded in a helper."""
    restate(
        tree,
        'bits: list[int] = []\nwith path.open(encoding="utf-8", newline="") as lines:\n    $$body',
        """\
bits: list[int] = []
with path.open(encoding="utf-8", newline="") as handle:
    text = handle.read()
for line in text.splitlines(keepends=True):
    encode_into(bits, line)
""",
        ROWS,
    )
    before(
        find(tree, ROWS),
        "load_rows",
        """\
def encode_into(bits, line):
    bits.extend(text_to_bits(line))
""",
    )


@rewrite("rows", 5)
def rows_built_in_place(tree: Path) -> None:
    """Rows are cut in the function itself, without bits_to_rows."""
    restate(
        tree,
        "return bits_to_rows(bits, max_seq_len)",
        """\
count = len(bits) // max_seq_len
if count == 0:
    raise ValueError(f"{len(bits)} bits do not fill one row of {max_seq_len}: give more text or shorter rows")
return torch.tensor(bits[: count * max_seq_len], dtype=torch.long).reshape(count, max_seq_len)
""",
        ROWS,
    )
    # The name is still imported, as people leave it.


@rewrite("rows", 5)
def rows_reduced(tree: Path) -> None:
    """functools.reduce adds the bits of the lines."""
    restate(
        tree,
        "with path.open(encoding='utf-8', newline='') as lines:\n    $$body\nreturn $r",
        "with path.open(encoding='utf-8', newline='') as lines:\n    bits = reduce(iadd, map(text_to_bits, lines), bits)\nreturn $r",
        ROWS,
        "load_rows",
    )
    add_import(find(tree, ROWS), "from functools import reduce", "from operator import iadd")


@rewrite("rows", 5)
def rows_numpy(tree: Path) -> None:
    """The bits go through NumPy on their way to rows."""
    retext(
        find(tree, ROWS),
        (
            "    return bits_to_rows(bits, max_seq_len)",
            "    count = len(bits) // max_seq_len\n"
            '    if not count:\n        raise ValueError(f"{len(bits)} bits do not fill one row of {max_seq_len}")\n'
            "    array = np.asarray(bits[: count * max_seq_len], dtype=np.int64)\n"
            "    return torch.from_numpy(array.reshape(count, max_seq_len))",
        ),
        ("import torch\n", "import numpy as np\nimport torch\n"),
    )


@rewrite("rows", 5)
def rows_class(tree: Path) -> None:
    """A class reads the bits of a file; load_rows asks it."""
    retext(
        find(tree, ROWS),
        (
            '    bits: list[int] = []\n    with path.open(encoding="utf-8", newline="") as lines:\n        for line in lines:\n            bits.extend(text_to_bits(line))\n    return bits_to_rows(bits, max_seq_len)',
            "    return BitFile(path).rows(max_seq_len)",
        ),
        (
            "def load_rows(",
            """class BitFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def bits(self) -> list[int]:
        with self.path.open(encoding="utf-8", newline="") as lines:
            return [bit for line in lines for bit in text_to_bits(line)]

    def rows(self, length: int) -> Tensor:
        return bits_to_rows(self.bits, length)


def load_rows(""",
        ),
    )
