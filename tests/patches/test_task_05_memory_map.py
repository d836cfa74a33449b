"""Which rows are taken from a mapped file, and which are left or named."""

import pytest
from samples import BASELINE, REFERENCE

from bitpatch.patches.applying.engine import plan, status
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome, State

TASK = task_named("task-5")
PATH = "data/wikitext_schedule.py"
BIT_IO = "bit_transformer/bit_io.py"
CODEC = (BASELINE / BIT_IO).read_text()
HEADER = """\
from pathlib import Path

import torch
from torch import Tensor

from bit_transformer.bit_io import bits_to_rows, text_to_bits
"""
LOADER = '''\


def load_rows(path: Path, length: int) -> Tensor:
    """Rows."""
{}


def main(args):
    rows = load_rows(args.data, 576)
    return rows.shape
'''


@pytest.fixture
def tree_of(model_of):
    """A tree with a bit_io, and a schedule whose load_rows has the given lines."""

    def make(*lines, changes=(), text=None, path=PATH, bit_io=CODEC):
        text = text or HEADER + LOADER.format("\n".join(f"    {line}" for line in lines))
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        root = model_of("")
        for file, content in {path: text, BIT_IO: bit_io}.items():
            (root / file).parent.mkdir(exist_ok=True)
            (root / file).write_bytes(content.encode())
        return root

    return make


def after(root, path=PATH):
    planned = plan(open_tree(root), [TASK])
    (outcome,) = planned.outcomes
    assert outcome.outcome is Outcome.APPLIED, outcome.reason
    for change in planned.changes:
        (root / change.path).write_bytes(change.after)
    (again,) = plan(open_tree(root), [TASK]).outcomes
    assert again.outcome is Outcome.ALREADY_APPLIED, again.reason
    text = (root / path).read_bytes().decode()
    compile(text, path, "exec")
    return text


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["# bits_to_rows(text_to_bits(path.read_text()), length)", "return None"], id="comment"),
        pytest.param(['"""bits_to_rows(text_to_bits(path.read_text()), length)"""', "return None"], id="text"),
        pytest.param(["return other.text_to_bits(path.read_text())"], id="another library"),
        pytest.param(["return bits_to_rows(text_to_bits('abc'), length)"], id="no file"),
    ],
)
def test_no_site(tree_of, lines):
    (found,) = status(open_tree(tree_of(*lines)), [TASK])
    assert (found.state, found.findings) == (State.UNRECOGNISED, ())


def test_the_training_loop_and_the_server_keep_their_rows(tree):
    (tree / PATH).unlink()
    (tree / "bit_transformer" / "corpus.py").unlink()  # what reads rows from mapped files, is mended already
    (found,) = status(open_tree(tree), [TASK])
    assert (found.state, found.findings) == (State.UNRECOGNISED, ())


READ = {
    "in one expression": ["return bits_to_rows(text_to_bits(path.read_text(encoding='utf-8')), length)"],
    "step by step": ["text = path.read_text()", "bits = text_to_bits(text)", "return bits_to_rows(bits, length)"],
    "whole file under a with": [
        "with path.open(encoding='utf-8') as file:",
        "    bits = text_to_bits(file.read())",
        "return bits_to_rows(bits, length)",
    ],
    "line by line": [
        "bits = []",
        "with open(path, encoding='UTF-8') as lines:",
        "    for line in lines:",
        "        bits += text_to_bits(line)",
        "return bits_to_rows(bits, length=length)",
    ],
    "line by line, on one line": [
        "bits: list[int] = []",
        "for line in path.open(): bits.extend(text_to_bits(line))",
        "return bits_to_rows(bits, length)",
    ],
    "returned under the with": [
        "with path.open(encoding='utf-8') as file:",
        "    return bits_to_rows(text_to_bits(file.read()), length)",
    ],
    "a view of whole rows": [
        "bits = text_to_bits(path.read_text())",
        "count = len(bits) // length",
        "return torch.tensor(bits[: count * length], dtype=torch.long).view(count, length)",
    ],
    "a reshape of what is cut": [
        "bits = torch.tensor(text_to_bits(path.read_text()))",
        "bits = bits[: len(bits) // length * length]",
        "return bits.reshape((-1, length))",
    ],
    "unfolded": ["return torch.tensor(text_to_bits(path.read_text())).unfold(0, length, length)"],
    "a list of slices": [
        "bits = text_to_bits(path.read_text())",
        "return torch.tensor([bits[i : i + length] for i in range(0, len(bits) - length + 1, length)])",
    ],
}


@pytest.mark.parametrize("lines", READ.values(), ids=READ)
def test_ways_to_read_and_cut(tree_of, lines):
    text = after(tree_of(*lines))
    assert '-> BitRows:\n    """Rows."""\n    return BitRows.of_text(path, length)\n\n\ndef main' in text
    assert "import BITS_PER_BYTE, CODEWORDS" in text
    assert "text_to_bits" not in text
    assert text.index("class BitRows") < text.index("def digest") < text.index("def load_rows")


def test_a_name_for_the_rows_stays(tree_of):
    text = after(tree_of("rows = bits_to_rows(text_to_bits(path.read_text()), length)", "return rows"))
    assert '"""Rows."""\n    rows = BitRows.of_text(path, length)\n    return rows\n' in text
    assert "def load_rows(path: Path, length: int) -> BitRows:" in text


def test_a_path_that_may_be_a_string_is_made_one(tree_of):
    lines = ["return bits_to_rows(text_to_bits(open(path).read()), length)"]
    assert "BitRows.of_text(Path(path), length)" in after(tree_of(*lines, changes=[("path: Path", "path: str")]))
    without = [("path: Path", "path: str"), ("from pathlib import Path\n\n", "")]
    assert "from pathlib import Path\n" in after(tree_of(*lines, changes=without))


def test_statements_that_do_something_else_stay(tree_of):
    text = after(
        tree_of(
            "print(path)", "text = path.read_text()", "total = 3", "return bits_to_rows(text_to_bits(text), length)"
        )
    )
    assert "    print(path)\n    total = 3\n    return BitRows.of_text(path, length)\n" in text


def test_rows_that_are_made_in_place(tree_of):
    body = "\n\ndef main(args):\n    rows = bits_to_rows(text_to_bits(args.data.read_text()), args.bits)\n    return rows.shape\n"
    text = after(tree_of(text=HEADER + body))
    assert "    rows = BitRows.of_text(args.data, args.bits)\n    return rows.shape\n" in text
    assert text.index("class BitRows") < text.index("def main")


def test_other_names_and_aliases(tree_of):
    changes = [("load_rows", "corpus"), ("bits_to_rows, text_to_bits", "bits_to_rows as cut, text_to_bits as encode")]
    text = after(tree_of("data = encode(path.read_text())", "return cut(data, length)", changes=changes))
    assert "def corpus(path: Path, length: int) -> BitRows:" in text
    assert text.index("class BitRows") < text.index("def corpus")
    assert "as encode" not in text


def test_functions_of_a_module(tree_of):
    changes = [
        ("from bit_transformer.bit_io import bits_to_rows, text_to_bits", "from bit_transformer import bit_io as io")
    ]
    text = after(tree_of("return io.bits_to_rows(io.text_to_bits(path.read_text()), length)", changes=changes))
    assert "return BitRows.of_text(path, length)" in text
    assert "from bit_transformer.bit_io import BITS_PER_BYTE, CODEWORDS\n" in text


def test_imports_that_are_used_elsewhere_stay(tree_of):
    changes = [("    return rows.shape", "    return rows.shape, text_to_bits('x')")]
    text = after(tree_of("return bits_to_rows(text_to_bits(path.read_text()), length)", changes=changes))
    assert "import BITS_PER_BYTE, CODEWORDS, text_to_bits\n" in text


@pytest.mark.parametrize("path", ["wikitext_schedule.py", "bit_transformer/wikitext_schedule.py", "corpus.py"])
def test_schedules_elsewhere(tree_of, path):
    inside = path.startswith("bit_transformer")
    changes = [("from bit_transformer.", "from .")] if inside else []
    text = after(
        tree_of("return bits_to_rows(text_to_bits(path.read_text()), length)", path=path, changes=changes), path
    )
    assert f"from {'.' if inside else 'bit_transformer.'}bit_io import BITS_PER_BYTE, CODEWORDS\n" in text


def test_codewords_are_brought_where_the_tree_has_none(tree_of):
    old = CODEC.replace("CODEWORDS", "TABLE").replace("BITS_PER_BYTE", "WIDTH")
    root = tree_of(*READ["in one expression"], bit_io=old)
    after(root)
    text = (root / BIT_IO).read_text()
    assert "\nCODEWORDS = tuple(codeword(byte) for byte in range(256))\n" in text
    assert "\nBITS_PER_BYTE = 9" in text


def test_dressed_as_the_file_is(tree_of):
    text = HEADER + LOADER.format("    return bits_to_rows(text_to_bits(path.read_text()), length)")
    text = after(tree_of(text=text.replace("    ", "\t").replace("\n", "\r\n")))
    assert text.count("\n") == text.count("\r\n")
    assert "\r\n\treturn BitRows.of_text(path, length)\r\n" in text
    assert "\tmapped into memory" not in text
    assert "\r\n\tbit first, and starts" in text


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        pytest.param(
            ["return bits_to_rows(text_to_bits(path.read_text().lower()), length)"],
            "not all of the text's bits",
            id="changed",
        ),
        pytest.param(
            ["return bits_to_rows(text_to_bits(path.read_text(encoding='latin-1')), length)"],
            "not decoded as plain UTF-8",
            id="encoding",
        ),
        pytest.param(
            ["return bits_to_rows(text_to_bits(path.read_text(errors='ignore')), length)"],
            "not decoded as plain UTF-8",
            id="errors",
        ),
        pytest.param(
            ["return cut(text_to_bits(path.read_text()))"],
            "how rows are made of them cannot be read",
            id="cut elsewhere",
        ),
        pytest.param(
            ["bits = text_to_bits(path.read_text())", "print(sum(bits))", "return bits_to_rows(bits, length)"],
            "used for something else",
            id="bits are added up",
        ),
        pytest.param(
            ["bits = text_to_bits(path.read_text())", "bits.extend([0] * 9)", "return bits_to_rows(bits, length)"],
            "zeros are added",
            id="padded",
        ),
        pytest.param(
            [
                "bits = []",
                "for line in path.open():",
                "    if line.strip():",
                "        bits += text_to_bits(line)",
                "return bits_to_rows(bits, length)",
            ],
            "not all of the text's bits",
            id="lines are left out",
        ),
        pytest.param(
            [
                "bits = text_to_bits(path.read_text())",
                "return torch.tensor([bits[i : i + length] for i in range(0, len(bits), length)])",
            ],
            "how rows are cut",
            id="short last row",
        ),
        pytest.param(
            ["return bits_to_rows(text_to_bits(path.read_text()), length).float()"], "of dtype float32", id="floats"
        ),
    ],
)
def test_near_misses_are_refused_with_their_place(tree_of, lines, reason):
    planned = plan(open_tree(tree_of(*lines)), [TASK])
    (outcome,) = planned.outcomes
    assert (outcome.outcome, planned.changes) == (Outcome.REFUSED, ())
    assert f"near miss at {PATH}:" in outcome.reason
    assert reason in outcome.reason


def test_rows_that_are_used_as_a_tensor_are_refused(tree_of):
    changes = [("return rows.shape", "return rows.to('cpu')")]
    (outcome,) = plan(open_tree(tree_of(*READ["in one expression"], changes=changes)), [TASK]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert "a data set has no to" in outcome.reason


PASSED_ON = """
    for batch in passed_on([rows[s : s + 8] for s in range(0, len(rows), 8)]):
        batch = batch.to("cpu")
        print(batch.masked_fill(batch == 1, 0))


def passed_on(batches):
    for batch in batches:
        yield batch


def evaluate(rows: Tensor):
    return [each.masked_fill(each == 1, 0) for each in passed_on([rows, rows])]
"""


@pytest.mark.parametrize(
    "use",
    [
        pytest.param("assert rows.dim() == rows.ndim == 2 and rows.dtype == torch.long", id="asked as a tensor is"),
        pytest.param("parts = rows.split(8)\n    return [*chain(parts, repeat(parts[-1], 2))]", id="repeated"),
        pytest.param("return [*rows[:4], *rows[4:]][0].sum()", id="rows in a list"),
        pytest.param("batch = rows[0:4]\n    batch = batch.to('cpu')\n    return batch.sum()", id="set anew"),
        pytest.param("return [rows[at] for at in torch.randperm(len(rows)).split(4)]", id="drawn by places"),
        pytest.param(PASSED_ON, id="handed on by what others hand tensors on"),
        pytest.param(
            "return [print(rows) for rows in rows.split(4)]\n\n\ndef of(rows):\n    return rows.sum()", id="name"
        ),
    ],
)
def test_uses_that_a_data_set_has(tree_of, use):
    changes = [("return rows.shape", use), ("import torch\n", "from itertools import chain, repeat\n\nimport torch\n")]
    after(tree_of(*READ["in one expression"], changes=changes))


@pytest.mark.parametrize(
    ("use", "lack"),
    [
        ("for _, part in enumerate([rows[:4], rows[4:]]):\n        part.sum()", "sum"),
        ("for _, part in {'a': rows}.items():\n        part.sum()", "sum"),
        ("parts = [rows[:4], rows[4:]]\n    return parts.pop().sum()", "sum"),
        ("return next(iter([rows[:4]])).sum()", "sum"),
        ("return [*[rows[:4]], rows[4:]][0].sum()", "sum"),
        ("return torch.cat([rows[:4], rows[8:]])", "torch.cat"),
        ("return [each.sum() for each in repeat(rows, 2)]", "sum"),
        ("part = rows[0:4]\n    for _ in range(2):\n        part.sum()\n        part = part.to('cpu')", "sum"),
        ("part = rows[0:4]\n    if args:\n        part = part.to('cpu')\n    return part.sum()", "sum"),
    ],
)
def test_uses_that_a_data_set_has_not_are_seen_through_what_holds_it(tree_of, use, lack):
    changes = [("return rows.shape", use), ("import torch\n", "from itertools import repeat\n\nimport torch\n")]
    (outcome,) = plan(open_tree(tree_of(*READ["in one expression"], changes=changes)), [TASK]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert f"a data set has no {lack}" in outcome.reason


CORPUS = """
class Corpus:
    def __init__(self, path):
        self.bits = text_to_bits(path.read_text())

    def rows(self, length):
        return bits_to_rows(self.bits, length)
"""
ROW_SET = """
class RowSet:
    def __init__(self, bits, length):
        self.bits, self.length = torch.tensor(bits), length

    def __len__(self):
        return len(self.bits) // self.length

    def __getitem__(self, index):
        return self.bits[index * self.length : (index + 1) * self.length]
"""
MODULE = """
class Module:
    def __init__(self, args):
        self.args = args

    def bits(self):
        return text_to_bits(Path(self.args.file).read_text())

    def build(self, length):
        return bits_to_rows(self.bits(), length)
"""


@pytest.mark.parametrize(
    ("beside", "line", "expected"),
    [
        pytest.param(CORPUS, "Corpus(path).rows(length)", "return BitRows.of_text(path, length)", id="a method"),
        pytest.param(
            ROW_SET,
            "RowSet(text_to_bits(path.read_text()), length)",
            "return BitRows.of_text(path, length)",
            id="an object that cuts each row when it is asked for",
        ),
        pytest.param(
            MODULE,
            "Module(SimpleNamespace(file=path)).build(length)",
            "return BitRows.of_text(Path(self.args.file), length)",
            id="a method of a module that keeps its arguments",
        ),
    ],
)
def test_what_reads_a_text_and_what_cuts_its_rows_are_apart(tree_of, beside, line, expected):
    changes = [("\n\ndef load_rows", f"\n{beside}\n\ndef load_rows")]
    assert expected in after(tree_of(f"return {line}", changes=changes))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("index * self.length : (index", "index * self.length + 1 : (index"),
        ("return len(self.bits) // self.length", "return len(self.bits) // self.length - 1"),
        (
            "[index * self.length : (index + 1) * self.length]",
            "[index * self.length : (index + 1) * self.length].int()",
        ),
    ],
    ids=["other bits", "not all of them", "of another dtype"],
)
def test_an_object_that_gives_other_rows_is_refused(tree_of, old, new):
    assert old in ROW_SET
    changes = [("\n\ndef load_rows", f"\n{ROW_SET.replace(old, new)}\n\ndef load_rows")]
    tree = tree_of("return RowSet(text_to_bits(path.read_text()), length)", changes=changes)
    assert plan(open_tree(tree), [TASK]).outcomes[0].outcome is Outcome.REFUSED


def test_bits_that_are_cut_twice_are_read_apart_first(tree_of):
    lines = ["corpus = Corpus(path)", "rows = corpus.rows(length)", "other = corpus.rows(9)", "return rows"]
    tree = tree_of(*lines, changes=[("\n\ndef load_rows", f"\n{CORPUS}\n\ndef load_rows")])
    assert "used for something else too" in plan(open_tree(tree), [TASK]).outcomes[0].reason


def test_rows_outside_of_any_function_are_refused(tree_of):
    text = HEADER + "\nROWS = bits_to_rows(text_to_bits(Path('x').read_text()), 9)\n"
    (outcome,) = plan(open_tree(tree_of(text=text)), [TASK]).outcomes
    assert "outside of any function" in outcome.reason


def test_a_class_of_the_same_name_is_refused(tree_of):
    text = HEADER + "\n\nclass BitRows:\n    pass\n" + LOADER.format(f"    {READ['in one expression'][0]}")
    (outcome,) = plan(open_tree(tree_of(text=text)), [TASK]).outcomes
    assert "another definition of BitRows" in outcome.reason


def test_a_map_of_what_nobody_is_seen_to_write_is_named(tree_of):
    lines = ["import numpy", "return torch.from_numpy(numpy.memmap(path, 'uint8')).view(-1, length)"]
    (outcome,) = plan(open_tree(tree_of(*lines)), [TASK]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert "rows that are mapped into memory, but" in outcome.reason


def test_on_the_baseline(tree, patched):
    done = patched(tree, "task-5", "task-6")  # which keeps the clock of the schedule's rounds
    assert (done / PATH).read_bytes() == (REFERENCE / PATH).read_bytes()
