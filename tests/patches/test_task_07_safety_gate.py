"""Which gates are given an average and a burn-in, and which are left or named."""

import pytest
from samples import REFERENCE

from bitpatch.patches.applying.engine import plan, status
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome, State

TASK = task_named("task-7")
PATH = "bit_transformer/safety.py"
GATE = '''\
class SafetyGate:
    """Stops a run."""

    def __init__(self, threshold=2.0):
        self.threshold = threshold
        self.tripped = False

    def allows(self, val_loss):
        if val_loss > self.threshold:
            self.tripped = True
        return not self.tripped

    def reset(self):
        self.tripped = False

    def state_dict(self):
        return {"tripped": self.tripped}

    def load_state_dict(self, state):
        self.tripped = state["tripped"]
'''


ON = GATE.replace(
    "        self.tripped = False\n\n    def allows", "        self.tripped, self.on = False, True\n\n    def allows"
)


@pytest.fixture
def gate_of(model_of):
    """A tree whose safety.py is a text, or the gate above with some of it replaced."""

    def make(*changes, text=GATE, path=PATH, edit=None):
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        root = model_of("")
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_bytes(edit(text.encode()) if edit else text.encode())
        return root

    return make


def after(root, path=PATH):
    planned = plan(open_tree(root), [TASK])
    (outcome,) = planned.outcomes
    assert outcome.outcome is Outcome.APPLIED, outcome.reason
    (change,) = planned.changes
    assert change.path == path
    (root / path).write_bytes(change.after)
    (again,) = plan(open_tree(root), [TASK]).outcomes
    assert again.outcome is Outcome.ALREADY_APPLIED, again.reason
    return change.after.decode()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([("if val_loss > self.threshold:", "if True:  # val_loss > self.threshold")], id="comment"),
        pytest.param([(">", "is not"), ("Stops a run.", "if val_loss > self.threshold:")], id="docstring"),
        pytest.param([("val_loss > self", "val_loss < self")], id="a floor"),
        pytest.param([("self.tripped = True", "print(val_loss)")], id="nothing is tripped"),
        pytest.param([("SafetyGate", "Clipper"), ("val_loss", "grad_norm")], id="another quantity"),
        pytest.param([("self.threshold = threshold", "self.threshold = best()")], id="a threshold that is not given"),
        pytest.param([("if val_loss > self.threshold", "if val_loss > other.threshold")], id="another object"),
    ],
)
def test_no_site(gate_of, changes):
    (found,) = status(open_tree(gate_of(*changes)), [TASK])
    assert (found.state, found.findings) == (State.UNRECOGNISED, ())


def test_the_whole_gate(gate_of):
    assert (
        after(gate_of())
        == '''\
class SafetyGate:
    """Stops a run."""

    def __init__(self, threshold=2.0, decay: float = 0.9, burn_in_steps: int = 10):
        self.threshold = threshold
        self.decay = decay
        self.burn_in_steps = burn_in_steps
        self.ema_val: float | None = None
        self.steps = 0
        self.tripped = False

    def allows(self, val_loss):
        self.ema_val = ema(self.ema_val, val_loss, self.decay)
        self.steps += 1
        if self.steps > self.burn_in_steps and not self.ema_val <= self.threshold:
            self.tripped = True
        return not self.tripped

    def reset(self):
        self.tripped = False
        self.ema_val, self.steps = None, 0

    def state_dict(self):
        return {"tripped": self.tripped, "ema_val": self.ema_val, "steps": self.steps}

    def load_state_dict(self, state):
        self.tripped = state["tripped"]
        self.ema_val, self.steps = state.get("ema_val"), state.get("steps", 0)


def ema(average: float | None, value: float, decay: float = 0.9) -> float:
    """The exponential moving average after another value; None is that of no values yet."""
    return value if average is None else decay * average + (1 - decay) * value
'''
    )


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("if val_loss > self.threshold:", "if {}:"),
        ("if self.threshold < val_loss:", "if {}:"),
        ("if not val_loss <= self.threshold:  # nan trips", "if {}:  # nan trips"),
        ("if not self.threshold >= val_loss:", "if {}:"),
        ("if (val_loss > self.threshold):", "if ({}):"),
        ("if(val_loss > self.threshold):", "if({}):"),
        ("if val_loss > self.threshold: # high", "if {}: # high"),
        ("if val_loss > self.threshold or val_loss != val_loss:", "if {}:"),
        ("if math.isnan(val_loss) or not val_loss <= self.threshold:", "if {}:"),
        ("if not (val_loss == val_loss and val_loss <= self.threshold):", "if {}:"),
        ("if self.on and self.threshold < float(val_loss):", "if self.on and ({}):"),
    ],
)
def test_spellings_of_the_test(gate_of, before, expected):
    judged = "self.steps > self.burn_in_steps and not self.ema_val <= self.threshold"
    text = after(gate_of(("if val_loss > self.threshold:", before), text="import math\n\n\n" + ON))
    assert f"        self.steps += 1\n        {expected.format(judged)}\n            self.tripped = True\n" in text


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("self.tripped = self.tripped or val_loss > self.threshold", "self.tripped = self.tripped or ({})"),
        ("self.tripped |= val_loss > self.threshold", "self.tripped |= ({})"),
        ("if val_loss > self.threshold: self.tripped = True", "if {}: self.tripped = True"),
    ],
)
def test_tests_on_one_line(gate_of, before, expected):
    judged = "self.steps > self.burn_in_steps and not self.ema_val <= self.threshold"
    text = after(gate_of(("if val_loss > self.threshold:\n            self.tripped = True", before)))
    assert f"        self.steps += 1\n        {expected.format(judged)}\n        return" in text


def test_the_users_names_are_kept(gate_of):
    renamed = [("self.threshold", "self.limit"), ("self.tripped", "me.stopped"), ("self", "me"), ("val_loss", "loss")]
    text = after(gate_of(*renamed, ("SafetyGate", "LossGate"), ("(me, state)", "(me, kept)"), ('state["', 'kept["')))
    assert "        me.ema_val = ema(me.ema_val, loss, me.decay)\n        me.steps += 1\n" in text
    assert "        if me.steps > me.burn_in_steps and not me.ema_val <= me.limit:\n" in text
    assert '{"tripped": me.stopped, "ema_val": me.ema_val, "steps": me.steps}' in text
    assert '        me.ema_val, me.steps = kept.get("ema_val"), kept.get("steps", 0)\n' in text
    assert "self" not in text


def test_a_number_that_is_made_of_the_loss_is_averaged(gate_of):
    text = after(gate_of(("        if val_loss >", "        value = val_loss.item()\n        if value >")))
    assert "        value = val_loss.item()\n        self.ema_val = ema(self.ema_val, value, self.decay)\n" in text


def test_suites_on_one_line_become_blocks(gate_of):
    text = after(
        gate_of(
            ("def reset(self):\n        self", "def reset(self): self"),
            ("=2.0):\n        self.threshold = threshold\n        self", "=2.0): self.threshold = threshold; self"),
            ('state):\n        self.tripped = state["tripped"]', 'state): self.tripped = state["tripped"]  # all'),
        )
    )
    assert "    def reset(self):\n        self.tripped = False\n        self.ema_val, self.steps = None, 0\n" in text
    assert "        self.steps = 0\n        self.tripped = False\n" in text
    assert 'state["tripped"]  # all\n        self.ema_val, self.steps = state.get' in text


def test_parameters_come_last_in_the_layout_of_the_others(gate_of):
    layout = "(\n        self,\n        threshold=2.0,\n        name='gate',\n    ):"
    text = after(gate_of(("(self, threshold=2.0):", layout)))
    assert "        name='gate',\n        decay: float = 0.9,\n        burn_in_steps: int = 10,\n    ):\n" in text
    keyword = after(gate_of(("(self, threshold=2.0):", "(self, *, threshold=2.0, **more):")))
    assert "(self, *, threshold=2.0, decay: float = 0.9, burn_in_steps: int = 10, **more):" in keyword


def test_state_in_a_call_of_dict(gate_of):
    text = after(gate_of(('{"tripped": self.tripped}', "dict(tripped=self.tripped)")))
    assert "return dict(tripped=self.tripped, ema_val=self.ema_val, steps=self.steps)" in text


def test_a_gate_without_state_is_given_it(gate_of):
    text = after(gate_of(text=GATE[: GATE.index("\n    def state_dict")]))
    assert 'return {"tripped": self.tripped, "ema_val": self.ema_val, "steps": self.steps}' in text
    assert "from typing import Any\n" in text
    assert (
        text.index("def reset")
        < text.index("def state_dict")
        < text.index("def load_state_dict")
        < text.index("def ema(")
    )


def test_a_gate_that_hands_out_its_dict_is_left_so(gate_of):
    cut = GATE[: GATE.index("    def state_dict")]
    text = after(gate_of(text=cut + "    def state_dict(self):\n        return dict(vars(self))\n"))
    assert "        return dict(vars(self))\n" in text
    assert text.count("def load_state_dict(") == 1


def test_dressed_as_the_file_is(gate_of):
    text = after(gate_of(edit=lambda raw: raw.replace(b"\n", b"\r\n").replace(b"    ", b"\t")))
    assert text.count("\n") == text.count("\r\n")
    assert "\r\n\t\tself.ema_val = ema(self.ema_val, val_loss, self.decay)\r\n\t\tself.steps += 1\r\n\t\tif " in text


def test_a_gate_that_has_moved(gate_of):
    assert "def ema(" in after(gate_of(path="dashboard/gate.py"), "dashboard/gate.py")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(("val_loss > self", "val_loss >= self"), "at the threshold itself", id="at the threshold"),
        pytest.param(
            ("        if val_loss", "        if val_loss < 0:\n            return True\n        if val_loss"),
            "not by an expression of its own",
            id="burn-in by hand",
        ),
        pytest.param(
            ("        if val_loss", "        if val_loss < 0:\n            pass\n        elif val_loss"),
            "not by an expression of its own, each time",
            id="elif",
        ),
        pytest.param(
            ("self.tripped = False\n\n    def allows", "self.tripped, self.steps = False, 0\n\n    def allows"),
            "the name steps is taken",
            id="taken",
        ),
    ],
)
def test_near_misses_are_refused_with_their_place(gate_of, change, reason):
    planned = plan(open_tree(gate_of(change)), [TASK])
    (outcome,) = planned.outcomes
    assert (outcome.outcome, planned.changes) == (Outcome.REFUSED, ())
    assert "near miss at bit_transformer/safety.py:" in outcome.reason
    assert reason in outcome.reason


def test_two_gates_are_refused(gate_of):
    (outcome,) = plan(open_tree(gate_of(text=GATE + "\n\n" + GATE.replace("Gate", "Gate2"))), [TASK]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert outcome.reason.count("one of 2 tests of a loss") == 2


def test_a_test_of_a_gate_is_not_the_gate(gate_of, tmp_path):
    root = gate_of()
    (root / "tests").mkdir()
    (root / "tests/test_gate.py").write_text(GATE)
    after(root)


def test_on_the_baseline(tree, patched):
    assert (patched(tree, "task-7") / PATH).read_bytes() == (REFERENCE / PATH).read_bytes()


def test_all_obstacles_are_named_at_once(gate_of):
    tree = gate_of(
        ("if val_loss > self.threshold", "if val_loss >= self.threshold or val_loss != val_loss"),
        ("self.tripped = False\n\n    def allows", "self.tripped, self.steps = False, 0\n\n    def allows"),
    )
    (outcome,) = plan(open_tree(tree), [TASK]).outcomes
    for obstacle in ("at the threshold itself", "the name steps is taken"):
        assert obstacle in outcome.reason


# A loss that no gate is given -----------------------------------------------------------------------

LOOSE = """\
import torch
import torch.nn.functional as F


@torch.no_grad()
def measure(model, rows):
    return F.cross_entropy(model(rows), rows).item()


def run(model, rows, held_out, optimizer, *, epochs=1, ceiling=None):
    records, best = [], 9.0
    for _ in range(epochs):
        for batch in rows.split(8):
            F.cross_entropy(model(batch), batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        record = {"value": measure(model, held_out)}
        records.append(record)
        if record["value"] < best:
            best = record["value"]
        if ceiling is not None and not record["value"] <= ceiling:
            break
    return records


def learn(state, rows, held_out):
    records = run(state["model"], rows, held_out, state["optimizer"], **state["plan"])
    state["taken"] = accepts(state, records[-1]["value"])


def accepts(state, value):
    return value <= state["ceiling"]
"""


def places(tree):
    return [(each.site.line, each.state) for each in status(tree, [TASK])[0].findings]


def test_a_loss_that_is_tested_by_a_run_and_by_what_its_record_is_given_to_is_named(loop_of):
    lines = [
        at for at, each in enumerate(LOOSE.splitlines(), 1) if "<= ceiling" in each or '<= state["ceiling"]' in each
    ]
    assert places(loop_of(LOOSE)) == [(line, State.UNRECOGNISED) for line in lines]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param('not record["value"] <= ceiling', "len(records) > ceiling", id="records that are counted"),
        pytest.param('not record["value"] <= ceiling', 'not record["value"] <= best', id="the best so far"),
        pytest.param("@torch.no_grad()\n", "", id="no evaluation"),
    ],
)
def test_what_is_no_test_of_a_loss_against_a_threshold_is_left(loop_of, old, new):
    assert old in LOOSE
    text = LOOSE.replace(old, new).replace("value <= state", "state['n'] <= state")
    assert not places(loop_of(text))


def test_beside_a_gate_a_loss_that_is_tested_alone_is_left(gate_of):
    root = gate_of()
    (root / "bit_transformer/training.py").write_text(LOOSE)
    after(root)
