"""Which schedules ask the plan for their length, and which are left or named."""

import pytest
from samples import REFERENCE

from bitpatch.patches.engine import plan, status, task_named
from bitpatch.patches.task import Outcome, State
from bitpatch.patches.tree import open_tree

TASK = task_named("task-2")
PLAN = """\
from dataclasses import dataclass, replace

from bit_transformer.optimization import configure_optimizer
from bit_transformer.training import train_loop


@dataclass(frozen=True)
class TrainingPlan:
    rows: int
    batch_size: int = 8
    epochs: int = 1
    extra_steps: int = 0

"""
MANAGER = """\

class Manager:
    def __init__(self):
        self.plan: TrainingPlan | None = None

    def init(self, model, rows):
        plan = TrainingPlan(rows)
        self.plan = plan
        self.optimizer, self.scheduler = configure_optimizer(model, total_steps=100)

    def train_step(self):
        self.optimizer.step()
        self.scheduler.step()
"""
TRAINING = '''\
import torch


def train_loop(model, data):
    """Train."""


def next_bit_loss(logits):
    return logits
'''
GUARD = "if self.scheduler.last_epoch + 1 < self.plan.updates:  # the plan ends at the floor, and stays there\n"
PATH = "dashboard/manager.py"


@pytest.fixture
def tree_of(model_of):
    """A tree with a training file and the manager above, with some of it replaced."""

    def make(*changes, text=PLAN + MANAGER, path=PATH, training="bit_transformer/training.py", **others):
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        root = model_of("")
        for file, content in {path: text, training: TRAINING, **others}.items():
            (root / file).parent.mkdir(exist_ok=True)
            (root / file).write_bytes(content.encode() if isinstance(content, str) else content)
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
    return (root / path).read_bytes().decode()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([("configure_optimizer(model, total_steps=100)", "None, None  # total_steps=100")], id="comment"),
        pytest.param([("configure_optimizer(model, total_steps=100)", '"total_steps=100", None')], id="text"),
        pytest.param([("configure_optimizer(model, total_steps=100)", "f(model, steps=100), None")], id="keyword"),
    ],
)
def test_no_site(tree_of, changes):
    (found,) = status(open_tree(tree_of(*changes)), [TASK])
    assert (found.state, found.findings) == (State.UNRECOGNISED, ())


def test_scripts_and_tests_are_not_the_managers(tree_of):
    script = "def main(model):\n    return configure_optimizer(model, total_steps=100)\n"
    root = tree_of(**{"bench.py": script, "tests/test_manager.py": MANAGER})
    after(root)
    assert (root / "bench.py").read_text() == script
    assert (root / "tests/test_manager.py").read_text() == MANAGER


def test_the_plan_counts_its_updates_and_the_schedule_asks_it(tree_of):
    root = tree_of()
    text = after(root)
    assert text.startswith("import math\nfrom dataclasses import dataclass, replace\n")
    assert "from bit_transformer.training import planned_updates, train_loop\n" in text
    assert (
        '''\
    extra_steps: int = 0

    @property
    def updates(self) -> int:
        """The optimizer updates that carry the plan out."""
        return planned_updates(self.epochs, math.ceil(self.rows / self.batch_size), extra_steps=self.extra_steps)
'''
        in text
    )
    assert "configure_optimizer(model, total_steps=plan.updates)" in text
    assert f"        self.optimizer.step()\n        {GUARD}            self.scheduler.step()\n" in text
    training = (root / "bit_transformer/training.py").read_text()
    assert training.index("def train_loop") < training.index("def planned_updates") < training.index("def next_bit")
    assert training.startswith("import math\n")


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("configure_optimizer(model, 1e-3, 0.01, 100)", "configure_optimizer(model, 1e-3, 0.01, plan.updates)"),
        ("make(model, total_steps = 100)", "make(model, total_steps = plan.updates)"),
        ("opt, OneCycleLR(opt, 0.1, 100)", "opt, OneCycleLR(opt, 0.1, plan.updates)"),
        (
            "opt, sched.OneCycleLR(opt, 0.1, total_steps=100)",
            "opt, sched.OneCycleLR(opt, 0.1, total_steps=plan.updates)",
        ),
        ("configure_optimizer(model, total_steps=LENGTH)", "configure_optimizer(model, total_steps=plan.updates)"),
        ("configure_optimizer(model, total_steps=self.LENGTH)", "configure_optimizer(model, total_steps=plan.updates)"),
    ],
)
def test_spellings_of_the_length(tree_of, before, expected):
    constants = [("class Manager:", "LENGTH = 100\n\n\nclass Manager:\n    LENGTH = 100\n")]
    changes = [("configure_optimizer(model, total_steps=100)", before), *constants]
    assert f"self.optimizer, self.scheduler = {expected}\n" in after(tree_of(*changes))


@pytest.mark.parametrize(
    ("before", "plan_there"),
    [
        pytest.param("p = TrainingPlan(rows)\n        self.plan = p", "p", id="another name"),
        pytest.param("self.plan = TrainingPlan(rows)", "self.plan", id="the attribute alone"),
        pytest.param("p = replace(self.plan, rows=rows)\n        self.plan = p", "p", id="replaced"),
        pytest.param("m, new = model, TrainingPlan(rows)\n        self.model, self.plan = m, new", "new", id="tuples"),
        pytest.param(
            "old = self.plan\n        p = TrainingPlan(rows)\n        self.plan = p", "p", id="the one to be kept"
        ),
        pytest.param("self.plan = TrainingPlan(rows)\n        plan = self.plan", "plan", id="another name for it"),
        pytest.param(
            "plan = {'rows': rows}\n        plan = TrainingPlan(**plan)\n        self.plan = plan",
            "plan",
            id="made of a mapping",
        ),
    ],
)
def test_the_plan_wherever_it_is(tree_of, before, plan_there):
    text = after(tree_of(("plan = TrainingPlan(rows)\n        self.plan = plan", before)))
    assert f"configure_optimizer(model, total_steps={plan_there}.updates)" in text


def test_a_plan_that_is_given(tree_of):
    changes = [
        ("model, rows)", "model, p: TrainingPlan)"),
        ("        plan = TrainingPlan(rows)\n", ""),
        ("= plan\n", "= p\n"),
    ]
    assert "total_steps=p.updates" in after(tree_of(*changes))


def test_a_helper_asks_the_plan_that_is_kept(tree_of):
    made = "self.optimizer, self.scheduler = configure_optimizer(model, total_steps=100)\n"
    helper = f"self._start(model)\n\n    def _start(self, model):\n        {made}"
    assert "total_steps=self.plan.updates" in after(tree_of((made, helper)))


def test_other_names_of_class_attribute_and_schedule(tree_of):
    renamed = [
        ("TrainingPlan", "Run"),
        ("self.plan", "self.run"),
        ("self.scheduler", "self.lr"),
        ("self.optimizer", "self.opt"),
    ]
    text = after(tree_of(*renamed))
    assert "if self.lr.last_epoch + 1 < self.run.updates:" in text
    assert "class Run:" in text


def test_a_schedule_under_another_name(tree_of):
    text = after(
        tree_of(("        self.scheduler.step()", "        schedule = self.scheduler\n        schedule.step()  # on"))
    )
    assert "        if schedule.last_epoch + 1 < self.plan.updates:" in text
    assert "            schedule.step()  # on\n" in text


def test_moved_into_the_package(tree_of):
    path = "bit_transformer/dashboard_app.py"
    relative = [("from bit_transformer.", "from .")]
    text = after(tree_of(*relative, path=path), path)
    assert "from .training import planned_updates, train_loop\n" in text
    without = [*relative, ("from .training import train_loop\n", "")]
    assert "from .training import planned_updates\n" in after(tree_of(*without, path=path), path)


def test_training_elsewhere(tree_of):
    changes = [("from bit_transformer.training", "from train")]
    root = tree_of(*changes, training="train.py")
    assert "from train import planned_updates, train_loop\n" in after(root)
    assert "def planned_updates(" in (root / "train.py").read_text()


def test_the_plan_in_a_file_of_its_own(tree_of):
    text = (
        "from dashboard.plan import TrainingPlan\nfrom bit_transformer.optimization import configure_optimizer\n"
        + MANAGER
    )
    root = tree_of(text=text, **{"dashboard/plan.py": PLAN})
    assert "total_steps=plan.updates" in after(root)
    assert "def updates(" in (root / "dashboard/plan.py").read_text()
    assert "updates(" not in (root / PATH).read_text()


def test_dressed_as_the_file_is(tree_of):
    text = (PLAN + MANAGER).replace("    ", "\t").replace("\n", "\r\n")
    text = after(tree_of(text="", **{PATH: text}))
    assert text.count("\n") == text.count("\r\n")
    assert f"\t\t{GUARD[:-1]}\r\n\t\t\tself.scheduler.step()\r\n" in text
    assert '\t@property\r\n\tdef updates(self) -> int:\r\n\t\t"""The' in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param(
            [
                ("plan = TrainingPlan(rows)\n        self.plan = plan", "pass"),
                ("self.plan: TrainingPlan | None", "self.plan"),
            ],
            "no training plan is at hand",
            id="no plan",
        ),
        pytest.param([("total_steps=100", "total_steps=max(100, rows)")], "its fixed number is a limit", id="limit"),
        pytest.param(
            [("(self, model, rows)", "(self, model, rows, n=100)"), ("total_steps=100", "total_steps=n")],
            "its fixed number is a default",
            id="default",
        ),
        pytest.param(
            [
                ("        self.plan = plan\n", ""),
                ("total_steps=100)\n", "total_steps=100)\n        self.plan = TrainingPlan(rows)\n"),
                ("        plan = TrainingPlan(rows)\n", ""),
            ],
            "the plan is set only behind it",
            id="too early",
        ),
        pytest.param(
            [("        self.plan = plan\n", "        other = TrainingPlan(rows)\n")],
            "several plans at hand: plan, other",
            id="two plans",
        ),
        pytest.param(
            [("self.scheduler.step()", "self.scheduler.step(); print()")], "no statement of its own", id="shared line"
        ),
        pytest.param(
            [("self.scheduler.step()", "if self.scheduler.last_epoch < 99: self.scheduler.step()")],
            "up to a fixed number",
            id="guard by number",
        ),
        pytest.param(
            [("self.scheduler.step()", "self.scheduler.load_state_dict({})")],
            "schedule loaded with the length",
            id="old schedule",
        ),
        pytest.param(
            [("class TrainingPlan:", "class TrainingPlan:\n    updates: int = 3")],
            "another updates of TrainingPlan",
            id="taken",
        ),
    ],
)
def test_near_misses_are_refused_with_their_place(tree_of, changes, reason):
    planned = plan(open_tree(tree_of(*changes)), [TASK])
    (outcome,) = planned.outcomes
    assert (outcome.outcome, planned.changes) == (Outcome.REFUSED, ())
    assert "near miss at dashboard/manager.py:" in outcome.reason
    assert reason in outcome.reason


def test_a_server_of_functions_is_refused(tree_of):
    server = "def start(model):\n    return configure_optimizer(model, total_steps=100)\n"
    (outcome,) = plan(open_tree(tree_of(**{"mcp_server.py": server})), [TASK]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert "mcp_server.py:2:12: schedule of a fixed length, but no training plan is at hand" in outcome.reason


def test_a_length_computed_by_hand_is_left_alone(tree_of):
    planned = plan(open_tree(tree_of(("total_steps=100", "total_steps=plan.epochs * 7"))), [TASK])
    assert (planned.outcomes[0].outcome, planned.changes) == (Outcome.ALREADY_APPLIED, ())


def test_a_step_that_is_guarded_by_hand_is_left_alone(tree_of):
    guarded = "if self.scheduler.last_epoch < self.total_steps:\n            self.scheduler.step()"
    text = after(tree_of(("self.scheduler.step()", guarded)))
    assert text.count("last_epoch") == 1


def test_on_the_baseline(tree, patched):
    assert (patched(tree, "task-2") / PATH).read_bytes() == (REFERENCE / PATH).read_bytes()
