"""Which schedules ask the plan for their length, and which are left or named."""

import pytest
from samples import REFERENCE, ROOT

from bitpatch.patches.applying.engine import plan, status
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome, State

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
OPTIMIZATION = """\
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR


def configure_optimizer(model, lr=1e-3, weight_decay=0.01, total_steps=None):
    optimizer = AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    return optimizer, OneCycleLR(optimizer, max_lr=lr, total_steps=total_steps)
"""
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
        given = {path: text, training: TRAINING, "bit_transformer/optimization.py": OPTIMIZATION, **others}
        for file, content in given.items():
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
    constants = [
        (
            "class Manager:",
            "from torch.optim.lr_scheduler import OneCycleLR\n\nLENGTH = 100\n\n\nclass Manager:\n    LENGTH = 100\n",
        )
    ]
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
    server = "from bit_transformer.optimization import configure_optimizer\ndef start(model):\n    return configure_optimizer(model, total_steps=100)\n"
    (outcome,) = plan(open_tree(tree_of(**{"mcp_server.py": server})), [TASK]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert "mcp_server.py:3:51: schedule of a fixed length, but no training plan is at hand" in outcome.reason


@pytest.mark.parametrize(
    "total",
    [
        "plan.epochs * (-(-plan.rows // plan.batch_size) + plan.extra_steps)",
        "self.plan.epochs * (len(range(0, self.plan.rows, self.plan.batch_size)) + self.plan.extra_steps)",
        "counted(plan)",
    ],
)
def test_a_length_computed_by_hand_is_left_alone(tree_of, total):
    count = "def counted(plan):\n    batches, rest = divmod(plan.rows, plan.batch_size)\n"
    count += "    return plan.epochs * (batches + (rest > 0) + plan.extra_steps)\n\n\nclass Manager"
    planned = plan(open_tree(tree_of(("total_steps=100", f"total_steps={total}"), ("class Manager", count))), [TASK])
    assert (planned.outcomes[0].outcome, planned.changes) == (Outcome.ALREADY_APPLIED, ()), planned.outcomes[0].reason


@pytest.mark.parametrize(
    "total",
    [
        "plan.epochs * 7",
        "plan.epochs * plan.rows",
        "plan.epochs * (plan.rows // plan.batch_size + plan.extra_steps)",
        "plan.epochs * -(-plan.rows // plan.batch_size) + plan.extra_steps",
        "TrainingPlan(plan.rows).epochs * (-(-plan.rows // plan.batch_size) + plan.extra_steps)",
        "min(100, plan.epochs * (-(-plan.rows // plan.batch_size) + plan.extra_steps))",
    ],
)
def test_a_length_that_is_computed_wrongly_is_named(tree_of, total):
    (outcome,) = plan(open_tree(tree_of(("total_steps=100", f"total_steps={total}"))), [TASK]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert "near miss at dashboard/manager.py:" in outcome.reason
    assert "updates" in outcome.reason or "limit" in outcome.reason


MADE = "self.optimizer, self.scheduler = configure_optimizer(model, total_steps=100)"


@pytest.mark.parametrize(
    ("made", "head", "expected"),
    [
        pytest.param(
            "n = 100\n        " + MADE.replace("100", "n"), "", "total_steps=plan.updates)", id="a local name"
        ),
        pytest.param(MADE.replace("100", "50 * 2"), "", "total_steps=plan.updates)", id="arithmetic"),
        pytest.param(
            MADE.replace("100", "cycle()"),
            "def cycle():\n    return 100\n\n\n",
            "total_steps=plan.updates)",
            id="a function",
        ),
        pytest.param(
            MADE.replace("configure_optimizer(model, total_steps=100)", "made(model)"),
            "def made(model, total_steps=100):\n    return configure_optimizer(model, total_steps=total_steps)\n\n\n",
            "made(model, total_steps=plan.updates)",
            id="a default",
        ),
        pytest.param(
            MADE.replace("configure_optimizer(model, total_steps=100)", "made(model)"),
            "def made(model):\n    return configure_optimizer(model, total_steps=100)\n\n\n",
            "made(model, total_steps=plan.updates)",
            id="a helper without a plan",
        ),
        pytest.param(
            MADE.replace("configure_optimizer(model, total_steps=100)", "made(model)"),
            "from functools import partial\n\nmade = partial(configure_optimizer, total_steps=100)\n\n\n",
            "made(model, total_steps=plan.updates)",
            id="a partial",
        ),
        pytest.param(
            "how = {'lr': 1, 'total_steps': 100}\n        " + MADE.replace("total_steps=100", "**how"),
            "",
            "'total_steps': plan.updates}",
            id="settings",
        ),
        pytest.param(
            "pair = configure_optimizer(model, total_steps=100)\n        self.optimizer = pair[0]\n        self.scheduler = pair[1]",
            "",
            "total_steps=plan.updates)",
            id="a pair",
        ),
        pytest.param(
            "self.state = dict(zip(('opt', 'sched'), configure_optimizer(model, total_steps=100)))\n        " + MADE,
            "",
            "total_steps=plan.updates)))",
            id="kept twice",
        ),
    ],
)
def test_the_length_by_other_ways(tree_of, made, head, expected):
    text = after(tree_of((MADE, made), ("class Manager", f"{head}class Manager")))
    assert expected in text


def test_a_step_that_is_guarded_by_hand_is_left_alone(tree_of):
    guarded = "if self.scheduler.last_epoch < self.total_steps:\n            self.scheduler.step()"
    text = after(tree_of(("self.scheduler.step()", guarded)))
    assert text.count("last_epoch") == 1


def test_on_the_baseline(tree, patched):
    assert (patched(tree, "task-2") / PATH).read_bytes() == (REFERENCE / PATH).read_bytes()


HELD = """\
from bit_transformer.optimization import configure_optimizer
from bit_transformer.training import next_bit_loss, train_loop

SIZE = 4


class Manager:
    def __init__(self):
        self.model, self.rows, self.epochs, self.extra = None, None, 1, 0

    def init(self, model, rows, epochs=1, extra=0):
        self.rows, self.epochs, self.extra = rows, epochs, extra
        self.install(model)

    def scale_up(self, model):
        self.install(model)

    def install(self, model):
        self.model = model
        self.optimizer, self.scheduler = configure_optimizer(model, total_steps=100)

    def train_step(self, batch):
        loss = next_bit_loss(self.model(batch))
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()

    def train(self):
        for _ in range(self.epochs):
            batches = list(self.rows.split(SIZE))
            for batch in batches + batches[-1:] * self.extra:
                self.train_step(batch)
"""
IN_A_DICT = """\
from torch.optim.lr_scheduler import OneCycleLR

HELD = {"rows": None, "plan": {"epochs": 1}}


def init(model, optimizer, rows, plan):
    plan = {"epochs": 2, **plan}
    schedule = OneCycleLR(optimizer, 0.1, 100)
    HELD.update(model=model, optimizer=optimizer, schedule=schedule, rows=rows, plan=plan)


def again(optimizer):
    HELD["schedule"] = OneCycleLR(optimizer, 0.1, total_steps=100)


def train():
    for _ in range(HELD["plan"]["epochs"]):
        for batch in HELD["rows"].split(8):
            loss = HELD["model"](batch).mean()
            HELD["optimizer"].zero_grad()
            loss.backward()
            HELD["optimizer"].step()
            HELD["schedule"].step()
"""


def test_without_a_plan_the_run_on_request_says_what_is_counted(tree_of):
    text = after(tree_of(text=HELD))
    counted = "planned_updates(self.epochs, math.ceil(len(self.rows) / SIZE), extra_steps=self.extra)"
    assert f"        total_steps = {counted}\n" in text
    assert "configure_optimizer(model, total_steps=total_steps)" in text
    assert text.count("if self.scheduler.last_epoch + 1 < self.scheduler.total_steps:") == 1
    assert "from bit_transformer.training import next_bit_loss, planned_updates, train_loop\n" in text
    assert text.startswith("import math\n")


FIXED = "self.model, self.rows, self.epochs, self.extra = None, None, 1, 0"
GIVEN = "self.rows, self.epochs, self.extra = rows, epochs, extra"
ARGUMENTS = """\
from dataclasses import dataclass


@dataclass
class Arguments:
    num_epochs: int = 3
    size: int = 8


"""
BY_ARGUMENTS = [
    ("SIZE = 4\n\n\n", "\n" + ARGUMENTS),
    (GIVEN, "self.rows, self.extra = rows, extra"),
    ("range(self.epochs)", "range(self.args.num_epochs)"),
    ("split(SIZE)", "split(self.args.size)"),
]
TOLD = {
    "a data class that it is given, or makes": [
        ("__init__(self)", "__init__(self, args: Arguments | None = None)"),
        (FIXED, "self.args = args or Arguments()"),
        *BY_ARGUMENTS,
    ],
    "a data class that is a default": [
        ("__init__(self)", "__init__(self, args: Arguments = Arguments())"),
        (FIXED, "self.args = args"),
        *BY_ARGUMENTS,
    ],
    "what its constructor is told": [
        ("__init__(self)", "__init__(self, num_epochs=3, size=8)"),
        (FIXED, "self.num_epochs, self.size = num_epochs, size"),
        *[(old, new.replace("self.args.", "self.")) for old, new in BY_ARGUMENTS],
    ],
    "a dict of that": [
        ("__init__(self)", "__init__(self, epochs=3, size=8)"),
        (FIXED, 'self.args = {"num_epochs": epochs, "size": size}'),
        *[
            (old, new.replace(".num_epochs", '["num_epochs"]').replace(".size", '["size"]'))
            for old, new in BY_ARGUMENTS
        ],
    ],
}


@pytest.mark.parametrize("changes", TOLD.values(), ids=TOLD)
def test_a_run_is_counted_by_what_its_object_is_made_with(tree_of, changes):
    text = after(tree_of(*changes, text=HELD))
    for read in ("range(", "self.rows.split("):
        told = text.partition(read)[2].partition(")")[0]
        assert told in text.partition("planned_updates(")[2].partition("configure_optimizer")[0]


@pytest.mark.parametrize(
    "batches",
    [
        "for batch in batches + batches[-1:] * self.extra:\n            self.train_step(batch)",
        "return [self.train_step(batch) for batch in batches + batches[-1:] * self.extra]",
    ],
    ids=["loop", "comprehension"],
)
@pytest.mark.parametrize(
    "run", ["for _ in range(self.epochs):\n            self.epoch()", "[self.epoch() for _ in range(self.epochs)]"]
)
def test_an_epoch_of_a_run_is_no_run_on_request(tree_of, run, batches):
    head, _, _ = HELD.partition("        for _ in range(self.epochs):")
    text = f"{head}        {run}\n\n    def epoch(self):\n        batches = list(self.rows.split(SIZE))\n        {batches}\n"
    made = after(tree_of(text=text))
    assert "planned_updates(self.epochs, math.ceil(len(self.rows) / SIZE), extra_steps=self.extra)" in made


def test_what_a_constructor_is_told_is_not_what_a_run_is_told(tree_of):
    changes = [
        ("__init__(self)", "__init__(self, epochs=3)"),
        (FIXED, "self.epochs = epochs"),
        (GIVEN, "self.rows, self.extra = rows, extra"),
        ("def train(self)", "def train(self, epochs=2)"),
        ("range(self.epochs)", "range(epochs)"),
    ]
    (outcome,) = plan(open_tree(tree_of(*changes, text=HELD)), [TASK]).outcomes
    assert "how many epochs the run on request makes is not seen" in outcome.reason


@pytest.mark.parametrize(
    ("settings", "call", "expected"),
    [
        ('{"lr": 0.1}', "**HELD['fit'], total_steps=100", "**HELD['fit'], total_steps=total_steps)"),
        (
            '{"lr": 0.1, "total_steps": 100}',
            "**HELD['fit']",
            "**(HELD['fit'] | {\"total_steps\": total_steps}))",
        ),
    ],
    ids=["beside it", "in it"],
)
def test_a_total_with_a_kept_dict_that_is_unpacked(tree_of, settings, call, expected):
    made = f"_, HELD['schedule'] = configure_optimizer(HELD['model'], {call})"
    changes = [
        ('"rows": None', f'"rows": None, "fit": {settings}'),
        ('HELD["schedule"] = OneCycleLR(optimizer, 0.1, total_steps=100)', made),
        ("from torch.optim.lr", "from bit_transformer.optimization import configure_optimizer\nfrom torch.optim.lr"),
    ]
    assert expected in after(tree_of(*changes, text=IN_A_DICT))


def test_what_a_request_is_about_to_keep_is_counted_by(tree_of):
    text = after(tree_of(text=IN_A_DICT))
    assert 'total_steps = planned_updates(plan["epochs"], math.ceil(len(rows) / 8))\n' in text
    assert 'total_steps = planned_updates(HELD["plan"]["epochs"], math.ceil(len(HELD["rows"]) / 8))\n' in text
    assert "OneCycleLR(optimizer, 0.1, total_steps)" in text
    assert 'if HELD["schedule"].last_epoch + 1 < HELD["schedule"].total_steps:' in text
    assert "from bit_transformer.training import planned_updates\n" in text


def test_where_there_may_be_no_rows_the_number_stays_for_that(tree_of):
    text = after(tree_of(("rows, epochs=1", "rows=None, epochs=1"), text=HELD))
    counted = "self.epochs, math.ceil(len(self.rows) / SIZE), extra_steps=self.extra"
    assert f"        total_steps = 100 if self.rows is None else planned_updates(\n            {counted}\n" in text


@pytest.mark.parametrize(
    ("total", "state"),
    [
        ("self.epochs * (-(-len(self.rows) // SIZE) + self.extra)", State.APPLIED),
        ("sum(len(self.rows.split(SIZE)) + self.extra for _ in range(self.epochs))", State.APPLIED),
        ("1 if self.rows is None else self.epochs * (math.ceil(len(self.rows) / SIZE) + self.extra)", State.APPLIED),
        ("self.epochs * (len(self.rows) // SIZE + self.extra)", State.UNRECOGNISED),
        ("self.epochs * -(-len(self.rows) // SIZE)", State.UNRECOGNISED),
        ("min(60, self.epochs * (-(-len(self.rows) // SIZE) + self.extra))", State.UNRECOGNISED),
    ],
)
def test_a_total_that_is_computed_is_known_by_what_it_comes_to(tree_of, total, state):
    made = ("model, total_steps=100)", f"model, total_steps={total})")
    guarded = (
        "        self.scheduler.step()",
        "        if self.scheduler.last_epoch + 1 < self.scheduler.total_steps:\n            self.scheduler.step()",
    )
    found = status(open_tree(tree_of(made, guarded, text="import math\n" + HELD)), [TASK])[0]
    places = [each.site.line for each in found.findings if "schedule of" in each.site.note]
    assert (found.state is State.APPLIED) is (state is State.APPLIED)
    assert len(places) == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param(
            [("        self.rows, self.epochs, self.extra = rows, epochs, extra\n        self.install(model)\n",
              "        self.install(model)\n        self.rows, self.epochs, self.extra = rows, epochs, extra\n")],
            "is set only behind it", id="behind",
        ),
        pytest.param(
            [("    def train(self):", "    def use(self, rows):\n        self.rows = rows\n\n    def train(self):")],
            "sets self.rows, and no schedule for it",
            id="set by another request",
        ),
        pytest.param(
            [("    def train(self):", "    def more(self):\n        self.rows.resize_(3)\n\n    def train(self):")],
            "changes a part of what is kept as .rows", id="changed in place",
        ),
        pytest.param([("train(self)", "train(self, epochs)"), ("range(self.epochs)", "range(epochs)")],
                     "is told by each request", id="told by the run"),
        pytest.param([("list(self.rows.split", "list(self.rows[1:].split")], "makes other updates", id="fewer rows"),
        pytest.param([("batches + batches[-1:]", "batches[1:] + batches[-1:]")], "makes other updates", id="fewer batches"),
        pytest.param([("        self.train_step(batch)\n", "        pass\n")], "no training plan is at hand", id="no run"),
    ],
)  # fmt: skip
def test_a_run_whose_updates_are_not_known_beforehand(tree_of, changes, problem):
    (outcome,) = plan(open_tree(tree_of(*changes, text=HELD)), [TASK]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert problem in outcome.reason


@pytest.mark.parametrize("fork", ["functional", "scripty", "trainer"])
def test_forks_count_by_what_they_keep(fork):
    (outcome,) = plan(open_tree(ROOT / "tests" / "forks" / fork / "tree"), [TASK]).outcomes
    assert outcome.outcome is Outcome.APPLIED, outcome.reason


def test_what_another_file_sets_is_not_known_beforehand(tree_of):
    server = "from dashboard import manager\n\n\ndef use(kept, rows):\n    kept.rows = rows\n"
    (outcome,) = plan(open_tree(tree_of(text=HELD, **{"server.py": server})), [TASK]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert "use (server.py:4) sets kept.rows, and no schedule for it" in outcome.reason


KEPT, STEP = "self.optimizer, self.scheduler = configure_optimizer(model, total_steps=100)", "self.scheduler.step()"
FOUND = "optimizer, schedule = configure_optimizer(model, total_steps=100)\n        "
TWO = "class Held:\n    optimizer: object\n    scheduler: object\n\n\nclass Manager:"
PROPERTY = (
    "    def train_step(self):",
    "    @property\n    def scheduler(self):\n        return self.pair[1]\n\n    def train_step(self):",
)


@pytest.mark.parametrize(
    ("kept", "step", "more"),
    [
        pytest.param("self.pair = configure_optimizer(model, total_steps=100)", STEP, [PROPERTY], id="property"),
        pytest.param("self.pair = configure_optimizer(model, total_steps=100)", "self.pair[-1].step()", [], id="pair"),
        pytest.param(
            "self.pair = configure_optimizer(model, total_steps=100)",
            "_, schedule = self.pair\n        schedule.step()",
            [],
            id="unpacked",
        ),
        pytest.param(
            FOUND + 'self.kept = {"o": optimizer, "s": schedule}', 'self.kept["s"].step()', [], id="in a mapping"
        ),
        pytest.param(FOUND + 'self.kept["s"] = schedule', 'self.kept.get("s").step()', [], id="by its key"),
        pytest.param(FOUND + "self.kept.update(s=schedule)", 'self.kept["s"].step()', [], id="updated"),
        pytest.param(
            FOUND + "self.kept = Held(optimizer, schedule)",
            "self.kept.scheduler.step()",
            [("class Manager:", "@dataclass\n" + TWO)],
            id="in an object",
        ),
        pytest.param(
            KEPT,
            STEP,
            [("    def train_step(self):", "\nclass Stepped(Manager):\n    def train_step(self):")],
            id="in a class made of it",
        ),
    ],
)
def test_the_step_of_what_is_kept_however_it_is_kept(tree_of, kept, step, more):
    text = after(tree_of((KEPT, kept), (STEP, step), *more))
    own = step.rpartition("\n")[2].strip().removesuffix(".step()")
    assert f"        if {own}.last_epoch + 1 < self.plan.updates:" in text
    assert f"            {own}.step()\n" in text
    assert text.count("total_steps=plan.updates") == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param([(KEPT, KEPT.replace("self.", ""))], "no step of it is seen", id="unpacked into local names"),
        pytest.param([(STEP, "pass")], "no step of it is seen", id="kept and never stepped"),
        pytest.param(
            [(KEPT, "self.pair = [*configure_optimizer(model, total_steps=100)]"), (STEP, "self.pair[1].step()")],
            "no step of it is seen",
            id="kept where nobody knows",
        ),
        pytest.param(
            [(STEP, "for each in (self.optimizer, self.scheduler):\n            each.step()")],
            "step of the schedule, but among others",
            id="among others",
        ),
        pytest.param(
            [(STEP, "on(self.scheduler)"), ("class Manager:", "def on(one):\n    one.step()\n\n\nclass Manager:")],
            "step of the schedule, but among others, or in a function without a plan",
            id="in a function",
        ),
    ],
)
def test_a_schedule_whose_steps_cannot_be_told_the_plan(tree_of, changes, reason):
    (outcome,) = plan(open_tree(tree_of(*changes)), [TASK]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert f"{reason}" in outcome.reason
    assert "near miss at dashboard/manager.py:" in outcome.reason


@pytest.mark.parametrize(
    ("given", "total"),
    [
        ("**HOW", '**(HOW | {"total_steps": plan.updates})'),
        ("**(HOW | {'lr': 1})", "**((HOW | {'lr': 1}) | {\"total_steps\": plan.updates})"),
        ("**{**HOW, 'lr': 1}", "**({**HOW, 'lr': 1} | {\"total_steps\": plan.updates})"),
        ("total_steps=Limit.UPDATES", "total_steps=plan.updates"),
    ],
)
def test_a_length_that_is_set_elsewhere(tree_of, given, total):
    head = "from enum import IntEnum\n\nHOW = {'total_steps': 100}\n\n\nclass Limit(IntEnum):\n    UPDATES = 100\n\n\nclass Manager:"
    text = after(tree_of(("total_steps=100", given), ("class Manager:", head)))
    assert f"configure_optimizer(model, {total})" in text


@pytest.mark.parametrize(
    ("head", "use"),
    [
        pytest.param("", "unknown(schedule)", id="given to what is not known"),
        pytest.param("def on(one):\n    one.step()\n\n\n", "on(schedule)", id="given to a function"),
        pytest.param("", "unknown(**model.options, schedule=schedule)", id="given with more"),
        pytest.param(
            "class On:\n    def __init__(self, one):\n        self.one = one\n\n    def run(self):\n        self.one.step()\n\n\n",
            "On(schedule).run()",
            id="given to an object",
        ),
    ],
)
def test_a_schedule_of_one_request_is_stepped_there(tree_of, head, use):
    text = after(tree_of((KEPT, FOUND + use), (STEP, "pass"), ("class Manager:", f"{head}class Manager:")))
    assert "total_steps=plan.updates" in text


# Curves --------------------------------------------------------------------------------------------

CURVED = """\
from torch.optim.lr_scheduler import LambdaLR


def falling(optimizer, length=100):
    return LambdaLR(optimizer, lambda step: max(0.0, 1 - step / length))


"""


def curved(text=CURVED):
    """A manager whose schedules have curves of its own."""
    dict_ = IN_A_DICT.replace("from torch.optim.lr_scheduler import OneCycleLR\n\n", "")
    made = dict_.replace("OneCycleLR(optimizer, 0.1, 100)", "falling(optimizer, length=100)")
    return text + made.replace("OneCycleLR(optimizer, 0.1, total_steps=100)", "falling(optimizer)")


NESTED = CURVED.replace(
    "    return LambdaLR(optimizer, lambda step: max(0.0, 1 - step / length))",
    "    def curve(step):\n        return max(0.0, 1 - step / length)\n\n    return LambdaLR(optimizer, lr_lambda=curve)",
)
SCALED = CURVED.replace("length=100", "length=100, *, floor=0.1").replace("max(0.0", "max(floor")


@pytest.mark.parametrize("text", [pytest.param(CURVED, id="lambda"), pytest.param(NESTED, id="function")])
def test_a_curve_of_a_length_is_told_the_plan(tree_of, text):
    changed = after(tree_of(text=curved(text)))
    assert "    schedule = falling(optimizer, length=total_steps)\n" in changed
    assert 'HELD["schedule"] = falling(optimizer, length=total_steps)\n' in changed
    assert changed.count("total_steps = planned_updates(") == 2
    assert ".last_epoch" not in changed  # beyond its end it may be asked


def test_a_curve_of_which_no_one_number_is_the_length_is_left(tree_of):
    assert not status(open_tree(tree_of(text=curved(SCALED))), [TASK])[0].findings


def test_a_curve_whose_run_is_told_its_plan_unseen_is_named(tree_of):
    unseen = ('range(HELD["plan"]["epochs"])', 'range(dict(**HELD["plan"]).get("epochs", 1))')
    (found,) = [each.site for each in status(open_tree(tree_of(unseen, text=curved())), [TASK])[0].findings][:1]
    assert "fixed length" in found.note
