"""Which defaults become None, where None is resolved, and what is named and left."""

import pytest

from bitpatch.patches.task import State
from bitpatch.patches.tree import open_tree

ATTENTION = """\
class Attention:
    def __init__(self, chunk_size: int | None = None, full_attn_logging: bool = True) -> None:
        self.chunk_size = chunk_size
        self.full_attn_logging = full_attn_logging

    def forward(self, weights):
        return weights if self.full_attn_logging else None
"""
RESOLVED = "        self.full_attn_logging = chunk_size is None if full_attn_logging is None else full_attn_logging\n"


@pytest.fixture
def tree_of(model_of):
    return lambda text: open_tree(model_of(text))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("def f(full_attn_logging=True):\n    return full_attn_logging\n", id="without chunks"),
        pytest.param('"""full_attn_logging: bool | None = None"""\n', id="a docstring with the right words"),
    ],
)
def test_no_site(tree_of, state_of, text):
    assert state_of(tree_of(text), "task-12") is State.UNRECOGNISED


def test_what_is_resolved_by_hand_is_left_alone(tree_of, state_of):
    text = ATTENTION.replace("bool = True", "bool | None = None")
    text = text.replace(
        "= full_attn_logging\n", "= full_attn_logging if full_attn_logging is not None else not chunk_size\n"
    )
    assert state_of(tree_of(text), "task-12") is State.APPLIED


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param("", "", "full_attn_logging: bool | None = None)", id="default"),
        pytest.param("", "", RESOLVED, id="stored"),
        pytest.param(": bool = True", "=True", "full_attn_logging=None)", id="without an annotation"),
        pytest.param("bool = True", "Optional[bool] = True", "Optional[bool] = None)", id="optional already"),
        pytest.param(": bool = True", ': "bool" = True', 'full_attn_logging: "bool | None" = None)', id="quoted"),
        pytest.param(
            "self.full_attn_logging =", "self.full_attn_logging: bool =", "bool = chunk_size is", id="annotated"
        ),
        pytest.param(
            "self, chunk", "self, *, chunk", "None = None, full_attn_logging: bool | None = None)", id="keyword only"
        ),
    ],
)
def test_idioms(tree_of, after, old, new, expected):
    assert expected in after(tree_of(ATTENTION.replace(old, new) if old else ATTENTION), "task-12")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("action=argparse.BooleanOptionalAction, default=True", "BooleanOptionalAction, default=None)"),
        ('action="store_true"', 'action="store_true", default=None)'),
    ],
)
def test_the_command_line_leaves_the_value_open(tree_of, patched, option, expected):
    tree = tree_of(ATTENTION)
    file = tree.root / "bit_transformer/training.py"
    file.write_text(f'parser.add_argument("--full_attn_logging", {option})\n')
    patched(tree.root, "task-12")
    assert expected in file.read_text()


def test_another_default_is_named(tree_of, refusal):
    assert "neither True nor None" in refusal(tree_of(ATTENTION.replace("= True", "= False")), "task-12")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param("= full_attn_logging\n", "= bool(full_attn_logging)\n", "takes None for False", id="converted"),
        pytest.param("= full_attn_logging\n", "= full_attn_logging and x\n", "takes None for False", id="combined"),
        pytest.param(
            "self.full_attn_logging = full", "self.a, self.b = 1, full", "takes None for False", id="one of two"
        ),
        pytest.param("int | None = None,", "int = 0,", "default of chunk_size, but not None", id="no chunks as zero"),
    ],
)
def test_what_none_would_change_is_named(tree_of, refusal, old, new, reason):
    assert old in ATTENTION
    assert reason in refusal(tree_of(ATTENTION.replace(old, new)), "task-12")


def test_a_flag_that_nothing_reads_is_refused(tree_of, refusal):
    text = ATTENTION.replace("return weights if self.full_attn_logging else None", "return weights")
    reason = refusal(tree_of(text), "task-12")
    assert "near miss at bit_transformer/model.py:4:9: full_attn_logging stored, but nothing reads it" in reason
