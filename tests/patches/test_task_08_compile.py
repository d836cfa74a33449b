"""Where the model is compiled, and what is left alone."""

import textwrap

import pytest
from samples import BASELINE, LOOP

from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import State

CONFIGURED = "    optimizer, scheduler = configure_optimizer(model, total_steps=total)\n"
COMPILED = "    if compile:\n        compile_where_supported(model, compile_policy)\n"


def test_compiling_by_hand_is_left_alone(loop_of, state_of):
    text = LOOP.replace(CONFIGURED, "    model = torch.compile(model)\n" + CONFIGURED)
    assert state_of(loop_of(text), "task-8") is State.APPLIED


def test_right_words_in_a_comment_do_not_compile(loop_of, state_of):
    assert state_of(loop_of(LOOP + "# torch.compile(model)\n"), "task-8") is State.MISSING


def test_the_model_is_compiled_once_the_optimizer_has_it(loop_of, after):
    text = after(loop_of(LOOP), "task-8")
    assert CONFIGURED + COMPILED + "    for epoch" in text
    assert 'compress_prob=0.5, compile: bool = False, compile_policy: str = "strict"):' in text
    assert "class EagerFallback:" in text
    assert "import platform\n" in text


def test_without_an_optimizer_of_that_name_it_is_compiled_before_the_epochs(loop_of, after):
    text = after(loop_of(LOOP.replace("= configure_optimizer(", "= made_elsewhere(")), "task-8")
    assert COMPILED + "    for epoch" in text


def test_it_is_compiled_inside_the_lock_that_guards_it(loop_of, after):
    before, loop = LOOP.replace("= configure_optimizer(", "= made_elsewhere(").split("    for epoch", 1)
    locked = textwrap.indent(f"    log = []\n    for epoch{loop}", "    ")
    text = after(loop_of(f"{before}    with LOCK:\n{locked}"), "task-8")
    assert "        log = []\n" + textwrap.indent(COMPILED, "    ") + "        for epoch" in text


@pytest.mark.parametrize(
    ("kept", "asked"),
    [
        ("self.chunk_size", 'getattr(module, "chunk_size", None)'),
        ("self.window", 'getattr(module, "window", None)'),
        ("self.kept.window", 'getattr(getattr(module, "kept", None), "window", None)'),
    ],
)
def test_what_sets_the_chunks_is_asked_for_where_modules_keep_it(loop_of, after, kept, asked):
    assert f"if {asked}}}:" in after(_in_chunks(loop_of(LOOP), kept), "task-8")


def test_chunks_that_are_set_out_of_sight_are_not_to_be_compiled(loop_of, refusal):
    assert "in which attribute they are set is not seen" in refusal(_in_chunks(loop_of(LOOP), "CHUNKS[0]"), "task-8")


@pytest.mark.parametrize("name", ["attend", "__call__"])
def test_windows_that_a_method_cuts_are_kept_eager_there(loop_of, after, refusal, name):
    tree = loop_of(LOOP)
    text = (BASELINE / "bit_transformer/model.py").read_text()
    text = text.replace(
        "def forward(self, x: Tensor, causal: bool = True)", f"def {name}(self, x: Tensor, causal: bool = True)", 1
    )
    text = text.replace("self.attention(self.norm1(x), causal)", f"self.attention.{name}(self.norm1(x), causal)")
    (tree.root / "bit_transformer/model.py").write_text(text)
    if name == "attend":
        made = after(open_tree(tree.root), "task-8")
        assert "            kind.attend = torch.compiler.disable(kind.attend)\n" in made
        assert 'not hasattr(kind.attend, "_torchdynamo_disable")' in made
    else:
        assert "attention in chunks, not to be compiled" in refusal(open_tree(tree.root), "task-8")


BESIDE = """\

def windows(x, size, overlap):
    return x.unfold(1, size + overlap, size)


class Layer(torch.nn.Module):
    def mix(self, x):
        return windows(x, self.size, 2).mean(-1) if self.size else x
"""


def test_windows_that_no_forward_of_a_module_cuts_are_not_to_be_compiled(loop_of, refusal, after):
    text = LOOP + BESIDE
    line = next(place for place, each in enumerate(text.splitlines(), 1) if "def windows" in each)
    assert f"training.py:{line}:1: attention in chunks, not to be compiled" in refusal(loop_of(text), "task-8")
    disabled = text.replace("def windows", "@torch.compiler.disable\ndef windows")
    assert COMPILED in after(loop_of(disabled), "task-8")


def _in_chunks(tree, kept):
    """A tree with the baseline's model, whose attention keeps what sets its chunks otherwise."""
    text = (BASELINE / "bit_transformer/model.py").read_text()
    if "kept." in kept:
        text = text.replace("        self.chunk_size = chunk_size\n", "        self.kept = chunk_size\n")
        text = text.replace(" chunk_size < 1", " chunk_size.window < 1")
    (tree.root / "bit_transformer/model.py").write_text(text.replace("self.chunk_size", kept))
    return open_tree(tree.root)


def test_a_loop_without_a_backward_call_is_none(loop_of, refusal):
    assert "found none, nor anything like it" in refusal(loop_of(LOOP.replace("loss.backward()", "pass")), "task-8")


def test_compiling_in_place_by_hand_is_left_alone(loop_of, state_of):
    text = LOOP.replace(CONFIGURED, "    model.compile()\n" + CONFIGURED)
    assert state_of(loop_of(text), "task-8") is State.APPLIED


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param("(model, data,", "(data, model,", "supported(model, ", id="model that comes second"),
        pytest.param(
            "    total =", '    known = re.compile("x")\n    total =', "supported(model, ", id="regular expression"
        ),
        pytest.param("    for epoch in range(epochs):", "    while True:", COMPILED + "    while", id="while"),
    ],
)
def test_idioms(loop_of, after, old, new, expected):
    text = LOOP.replace("= configure_optimizer(", "= made_elsewhere(") if "while" in new else LOOP
    assert expected in after(loop_of(text.replace(old, new)), "task-8")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param(
            "    total =", "    code = compile('1', 'f', 'eval')\n    total =", "another meaning", id="builtin"
        ),
        pytest.param("=0.5)", "=0.5, compile=True)", "another meaning", id="option for something else"),
        pytest.param("(model, data,", "(net, data,", "for which model it is cannot be told", id="no model"),
        pytest.param(
            "        for batch",
            "        model.compile()\n        for batch",
            "anew in each turn",
            id="compiled each epoch",
        ),
        pytest.param(
            "            optimizer.zero_grad()\n",
            "            optimizer.zero_grad()\n    model.compile()\n",
            "behind the training",
            id="compiled too late",
        ),
    ],
)
def test_near_misses_are_refused(loop_of, refusal, old, new, reason):
    assert reason in refusal(loop_of(LOOP.replace(old, new)), "task-8")


def test_compiling_what_only_scores_does_not_compile_training(loop_of, after):
    text = """
def score(model, batch):
    return torch.compile(model)(batch)


def main(model, data):
    train_loop(model, data)
    return score(model, data)
"""
    assert COMPILED in after(loop_of(LOOP + "\n" + text), "task-8")


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        pytest.param("platform.python_version() < '3.12'", "as texts", id="Python's as a text"),
        pytest.param("str(torch.__version__) >= '2.1'", "as texts", id="torch's as a text"),
        pytest.param("platform.python_version_tuple() < ('3', '12')", "as texts", id="parts as texts"),
        pytest.param("float(torch.__version__[:3]) >= 2.1", "as one number", id="as a number"),
    ],
)
def test_versions_that_are_compared_as_what_they_are_not_are_named(loop_of, refusal, test, reason):
    text = f"import platform\n{LOOP}".replace(CONFIGURED, f"    if {test}:\n        model.compile()\n{CONFIGURED}")
    assert reason in refusal(loop_of(text), "task-8")


@pytest.mark.parametrize(
    "test",
    [
        "torch.__version__ >= '2.1' and sys.version_info < (3, 12)",
        "tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 1)",
        "Version(platform.python_version()) < Version('3.12')",
    ],
)
def test_versions_that_are_compared_as_such_are_fine(loop_of, state_of, test):
    text = f"import platform\nimport sys\n\nfrom packaging.version import Version\n{LOOP}"
    text = text.replace(CONFIGURED, f"    if {test}:\n        model.compile()\n{CONFIGURED}")
    assert state_of(loop_of(text), "task-8") is State.APPLIED


TRAINER = """
import torch


class Trainer:
    def __init__(self, model, optimizer):
        self.model = model
        self.optimizer = optimizer

    def _compile(self):
        self.model = torch.compile(self.model)

    def fit(self, rows):
        self._compile()
        for batch in rows:
            self.step(batch)

    def step(self, batch):
        loss = self.model(batch).mean()
        loss.backward()
        self.optimizer.step()

    def save(self, path):
        torch.save(self.model.state_dict(), path)
"""
IN_INIT = TRAINER.replace("model = model\n", "model = torch.compile(model)\n").replace("        self._compile()\n", "")


@pytest.mark.parametrize("text", [TRAINER, IN_INIT], ids=["in a method", "in the constructor"])
def test_what_takes_the_place_of_a_model_that_is_saved_is_named(loop_of, refusal, text):
    assert "whose checkpoints then name _orig_mod" in refusal(loop_of(text), "task-8")


def test_what_takes_the_place_of_a_model_and_is_unwrapped_again_is_fine(loop_of, state_of):
    text = TRAINER.replace("self.model.state_dict", "self.model._orig_mod.state_dict")
    assert state_of(loop_of(text), "task-8") is State.APPLIED
