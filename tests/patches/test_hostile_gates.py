"""Gates as strangers write them: mended ones are run, and stop a run where the reference's gate does."""

import math
import re

import pytest
from samples import REFERENCE

from bitpatch.patches.applying.engine import plan, status
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome, State

TASK = task_named("task-7")
CLASS = """\
class LossGate:
    def __init__(self, limit=2.0):
        self.limit = limit
        self.stopped = False

"""
REST = """
    def reset(self):
        self.stopped = False

    def state_dict(self):
        return {"stopped": self.stopped}

    def load_state_dict(self, state):
        self.stopped = state["stopped"]
"""


def method(body, head="def check(self, val_loss):"):
    return CLASS + f"    {head}\n" + "".join(f"        {line}\n" for line in body.split("\n")) + REST


def phases(body, saved="self.phase.name", loaded='Phase[state["phase"]]', values=("auto()", "auto()")):
    """A gate whose state is an enum."""
    text = method(body).replace('{"stopped": self.stopped}', f'{{"phase": {saved}}}')
    text = text.replace('self.stopped = state["stopped"]', f"self.phase = {loaded}")
    text = text.replace("self.stopped = False", "self.phase = Phase.OPEN")
    head = "from enum import Enum, auto\n\n\nclass Phase(Enum):\n    OPEN = {}\n    SHUT = {}\n\n\n"
    return head.format(*values) + text


SHUTS = "if val_loss > self.limit:\n    self.phase = Phase.SHUT\nreturn self.phase is Phase.OPEN"
RAW = {  # how each is asked whether a run may go on
    "raises": (
        method(
            "if val_loss > self.limit:\n    self.stopped = True\nif self.stopped:\n    raise RuntimeError(val_loss)"
        ),
        "LossGate().check",
    ),
    "number by item": (
        method(
            "loss = val_loss.item() if hasattr(val_loss, 'item') else val_loss\nif loss > self.limit:\n    self.stopped = True\nreturn not self.stopped"
        ),
        "LossGate().check",
    ),
    "early return": (
        method(
            "if self.stopped:\n    return False\nok = val_loss <= self.limit\nif not ok:\n    self.stopped = True\nreturn ok"
        ),
        "LossGate().check",
    ),
    "else branch": (
        method("if val_loss <= self.limit:\n    pass\nelse:\n    self.stopped = True\nreturn not self.stopped"),
        "LossGate().check",
    ),
    "conditional expression": (
        method("self.stopped = True if not val_loss <= self.limit else self.stopped\nreturn not self.stopped"),
        "LossGate().check",
    ),
    "named on the way": (
        method("too_high = val_loss > self.limit\nif too_high:\n    self.stopped = True\nreturn not self.stopped"),
        "LossGate().check",
    ),
    "walrus": (
        method(
            "if (loss := float(val_loss)) > self.limit:\n    self.stopped = True\nprint(loss)\nreturn not self.stopped"
        ),
        "LossGate().check",
    ),
    "logs and locks": (
        method(
            "with self._lock:\n    if val_loss > self.limit:\n        logger.warning('high: %s', val_loss)\n        self.stopped = True\n    return not self.stopped"
        ).replace(
            "self.stopped = False\n\n    def check",
            "self.stopped = False\n        self._lock = threading.Lock()\n\n    def check",
        ),
        "LossGate().check",
    ),
    "helper method": (
        method("if self._is_high(val_loss):\n    self.stopped = True\nreturn not self.stopped")
        + "\n    def _is_high(self, value):\n        return not value <= self.limit\n",
        "LossGate().check",
    ),
    "helper function": (
        "def exceeds(value, limit):\n    return not value <= limit\n\n\n"
        + method("if exceeds(val_loss, self.limit):\n    self.stopped = True\nreturn not self.stopped"),
        None,
    ),
    "property": (
        method("if val_loss > self.limit:\n    self.stopped = True\nreturn self.is_open")
        + "\n    @property\n    def is_open(self):\n        return not self.stopped\n",
        "LossGate().check",
    ),
    "annotated keyword only": (
        method(
            "if val_loss > self.limit:\n    self.stopped = True\nreturn not self.stopped",
            "def check(self, *, val_loss: float) -> bool:",
        ),
        "lambda loss, gate=LossGate(): gate.check(val_loss=loss)",
    ),
    "a step is given too": (
        method(
            "if val_loss > self.limit:\n    self.stopped = True\nreturn not self.stopped",
            "def check(self, step, val_loss):",
        ),
        "lambda loss, gate=LossGate(): gate.check(0, loss)",
    ),
    "remembers the last": (
        method(
            "self.last = val_loss\nif val_loss > self.limit:\n    self.stopped = True\nreturn not self.stopped"
        ).replace(
            "self.stopped = False\n\n    def check", "self.stopped = False\n        self.last = None\n\n    def check"
        ),
        "LossGate().check",
    ),
    "called": (
        method(
            "if val_loss > self.limit:\n    self.stopped = True\nreturn not self.stopped",
            "def __call__(self, val_loss):",
        ),
        "LossGate()",
    ),
    "no state methods": (
        method("if val_loss > self.limit:\n    self.stopped = True\nreturn not self.stopped").replace(REST, ""),
        "LossGate().check",
    ),
    "a state by position of its own": (
        method("if val_loss > self.limit:\n    self.stopped = True\nreturn not self.stopped").replace(
            'return {"stopped": self.stopped}',
            "state = {}\n        state['stopped'] = self.stopped\n        return state",
        ),
        "LossGate().check",
    ),
    "data class": (
        "from dataclasses import dataclass\n\n\n@dataclass\nclass LossGate:\n    limit: float = 2.0\n    stopped: bool = False\n\n"
        + method("if val_loss > self.limit:\n    self.stopped = True\nreturn not self.stopped").replace(CLASS, ""),
        "LossGate().check",
    ),
    "class attributes": (
        "class LossGate:\n    limit = 2.0\n    stopped = False\n\n"
        + method("if val_loss > self.limit:\n    self.stopped = True\nreturn not self.stopped").replace(CLASS, ""),
        "LossGate().check",
    ),
    "module's dict": (
        'STATE = {\n    "limit": 2.0,\n    "stopped": False,\n}\n\n\ndef loss_ok(val_loss):\n    if not val_loss <= STATE["limit"]:\n        STATE["stopped"] = True\n    return not STATE["stopped"]\n\n\ndef reset():\n    STATE["stopped"] = False\n',
        "loss_ok",
    ),
    "module's dict and constant": (
        'LIMIT = 2.0\nSTATE = {"stopped": False}\n\n\ndef loss_ok(val_loss):\n    if val_loss > LIMIT:\n        STATE["stopped"] = True\n    return not STATE["stopped"]\n',
        "loss_ok",
    ),
    "record": (
        "from dataclasses import dataclass, replace\n\n\n@dataclass(frozen=True)\nclass Gate:\n    limit: float = 2.0\n    stopped: bool = False\n\n\ndef judge(gate: Gate, val_loss: float) -> Gate:\n    return gate if val_loss <= gate.limit else replace(gate, stopped=True)\n",
        "record",
    ),
    "record changed in place": (
        "from dataclasses import dataclass\n\n\n@dataclass\nclass Gate:\n    limit: float = 2.0\n    stopped: bool = False\n\n\ndef judge(gate: Gate, val_loss: float) -> bool:\n    if val_loss > gate.limit:\n        gate.stopped = True\n    return not gate.stopped\n",
        "lambda loss, gate=Gate(): judge(gate, loss)",
    ),
    "enum": (phases(SHUTS), "LossGate().check"),
    "enum by its value": (
        phases(SHUTS, "self.phase.value", 'Phase(state["phase"])', ('"open"', '"shut"')),
        "LossGate().check",
    ),
    "enum that nothing saves": (phases(SHUTS).partition("\n    def state_dict")[0] + "\n", "LossGate().check"),
    "words for a state": (
        method("if val_loss > self.limit:\n    self.stopped = 'shut'\nreturn self.stopped == 'open'").replace(
            "False", "'open'"
        ),
        "LossGate().check",
    ),
    "match with a guard": (
        method(
            "match float(val_loss):\n    case x if not x <= self.limit:\n        self.stopped = True\nreturn not self.stopped"
        ),
        "LossGate().check",
    ),
    "match of two": (
        method(
            "match (self.stopped, val_loss <= self.limit):\n    case (True, _):\n        return False\n    case (_, False):\n        self.stopped = True\nreturn not self.stopped"
        ),
        "LossGate().check",
    ),
    "match of a state": (
        phases(f"match self.phase:\n    case Phase.SHUT:\n        return False\n{SHUTS}"),
        "LossGate().check",
    ),
    "match of a truth": (
        method("match val_loss > self.limit:\n    case True:\n        self.stopped = True\nreturn not self.stopped"),
        "LossGate().check",
    ),
    "match of a class": (
        method(
            "match val_loss:\n    case int(x) | float(x) if x > self.limit:\n        self.stopped = True\nreturn not self.stopped"
        ),
        "LossGate().check",
    ),
    "no number, among others": (
        method("self.stopped = self.stopped or math.isnan(val_loss) or val_loss > self.limit\nreturn not self.stopped"),
        "LossGate().check",
    ),
    "a number, among others": (
        method(
            "ok = not self.stopped and math.isfinite(val_loss) and val_loss <= self.limit\nself.stopped = not ok\nreturn ok"
        ),
        "LossGate().check",
    ),
    "no number, or too high": (
        method(
            "if not math.isfinite(val_loss) or val_loss > self.limit:\n    self.stopped = True\nreturn not self.stopped"
        ),
        "LossGate().check",
    ),
    "larger of two": (
        method("if max(self.limit, val_loss) != self.limit:\n    self.stopped = True\nreturn not self.stopped"),
        "LossGate().check",
    ),
    "difference": (
        method("if val_loss - self.limit > 0:\n    self.stopped = True\nreturn not self.stopped"),
        "LossGate().check",
    ),
    "operator": (
        "import operator\n\n\n"
        + method("if operator.gt(val_loss, self.limit):\n    self.stopped = True\nreturn not self.stopped"),
        "LossGate().check",
    ),
    "chain": (
        method(
            "if -math.inf < val_loss <= self.limit:\n    return not self.stopped\nself.stopped = True\nreturn False"
        ),
        "LossGate().check",
    ),
    "elif": (
        method(
            "if self.stopped:\n    pass\nelif val_loss > self.limit:\n    self.stopped = True\nreturn not self.stopped"
        ),
        "LossGate().check",
    ),
    "static method": (
        method("self.stopped |= self._is_over(val_loss, self.limit)\nreturn not self.stopped")
        + "\n    @staticmethod\n    def _is_over(value, limit):\n        return value > limit\n",
        "LossGate().check",
    ),
    "words for an answer": (
        method("if val_loss > self.limit:\n    self.stopped = True\nreturn 'stop' if self.stopped else 'go'"),
        "lambda loss, gate=LossGate(): gate.check(loss) == 'go'",
    ),
}


def asked(text, how):
    """A function that is given a loss, and says whether a run may go on."""
    names = {"math": math}
    text = f"import math\nimport threading\nimport logging\nfrom dataclasses import dataclass, replace, field\nlogger = logging.getLogger('x')\nprint = lambda *a: None\n{text}"
    exec(compile(text, "gate.py", "exec"), names)
    if how == "record":
        held = [names["Gate"]()]

        def go(loss):
            held[0] = names["judge"](held[0], loss)
            return not held[0].stopped

        return go
    ask = eval(how, names)

    def go_on(loss):
        try:
            answer = ask(loss)
        except RuntimeError:
            return False
        return answer is None or bool(answer)

    return go_on


def stops(text, how):
    """What a gate says of some sequences of losses."""
    every = [
        [2.5] * 12,
        [0.5] * 12 + [30.0, 0.5, 0.5, 0.5],
        [0.5] * 12 + [10.0] * 8,
        [100.0] + [0.5] * 60,
        [0.5] * 3 + [math.nan] + [0.5] * 20,
        [0.5] * 14 + [math.inf, 0.5],
        [2.0] * 30,
    ]
    return [[go_on(loss) for loss in losses] for losses in every for go_on in [asked(text, how)]]


@pytest.fixture
def planned(model_of):
    def make(text, name="safety.py"):
        root = model_of("")
        (root / "bit_transformer").mkdir(exist_ok=True)
        (root / f"bit_transformer/{name}").write_text(text)
        return plan(open_tree(root), [TASK])

    return make


@pytest.mark.parametrize("name", [name for name, (_, how) in RAW.items() if how])
def test_raw_gates_stop_where_the_references_does(planned, name):
    text, how = RAW[name]
    made = planned(f"import math\nimport threading\n\n\n{text}")
    (outcome,) = made.outcomes
    assert outcome.outcome is Outcome.APPLIED, outcome.reason
    given = (REFERENCE / "bit_transformer/safety.py").read_text().partition("def hil_safe")[0]
    given = given.replace("from torch import Tensor", "").replace("import torch\n", "")
    assert stops(made.changes[0].after.decode(), how) == stops(given, "SafetyGate().allows")


@pytest.mark.parametrize("name", ["enum", "enum by its value", "enum that nothing saves", "words for a state"])
def test_a_state_that_is_no_flag_is_kept(planned, name):
    names = {}
    exec(planned(f"import math\n\n\n{RAW[name][0]}").changes[0].after.decode(), names)
    one, other = names["LossGate"](), names["LossGate"]()
    assert [one.check(9.0) for _ in range(11)] == [True] * 10 + [False]
    other.load_state_dict(one.state_dict())
    assert (other.check(0.1), other.steps) == (False, 12)
    other.reset()
    assert (other.check(0.1), other.steps) == (True, 1)


FINE = {
    "increment": "self.mean = val_loss if self.mean is None else self.mean + 0.1 * (val_loss - self.mean)\nself.seen += 1\nif self.seen > 5 and not self.mean <= self.limit:\n    self.stopped = True\nreturn not self.stopped",
    "counts down": "self.mean = val_loss if self.mean is None else 0.9 * self.mean + 0.1 * val_loss\nif self.seen < 5:\n    self.seen += 1\n    return True\nself.stopped = self.stopped or not self.mean <= self.limit\nreturn not self.stopped",
    "apart": "self.mean = self._mix(val_loss)\nself.seen += 1\nif self.seen <= 5:\n    return True\nif math.isnan(self.mean) or self.mean > self.limit:\n    self.stopped = True\nreturn not self.stopped",
    "corrected": "self.seen += 1\nself.mean = 0.9 * (self.mean or 0.0) + 0.1 * val_loss\nmean = self.mean / (1 - 0.9 ** self.seen)\nif self.seen > 5 and not mean <= self.limit:\n    self.stopped = True\nreturn not self.stopped",
}
WRONG = {
    "no burn-in": (
        "self.mean = val_loss if self.mean is None else 0.9 * self.mean + 0.1 * val_loss\nif not self.mean <= self.limit:\n    self.stopped = True\nreturn not self.stopped",
        "no burn-in",
    ),
    "swapped": (FINE["increment"].replace("0.1 *", "0.9 *"), "its decay is swapped"),
    "from zero": (
        FINE["increment"]
        .replace("val_loss if self.mean is None else self.mean", "(self.mean or 0.0)")
        .replace("- self.mean)", "- (self.mean or 0.0))"),
        "begin the average with the first loss",
    ),
    "nan passes": (FINE["increment"].replace("not self.mean <= self.limit", "self.mean > self.limit"), "not a number"),
    "raw after a burn-in": (
        "self.seen += 1\nif self.seen > 5 and not val_loss <= self.limit:\n    self.stopped = True\nreturn not self.stopped",
        "last loss that it tests",
    ),
    "frozen": (
        "self.seen += 1\nif self.seen <= 5:\n    return True\n" + FINE["increment"].replace("self.seen += 1\n", ""),
        "left out",
    ),
    "plain mean": (
        "self.seen += 1\nself.mean = ((self.mean or 0.0) * (self.seen - 1) + val_loss) / self.seen\nif self.seen > 5 and not self.mean <= self.limit:\n    self.stopped = True\nreturn not self.stopped",
        "no exponential moving average",
    ),
    "at the threshold": (
        FINE["increment"].replace("not self.mean <= self", "not self.mean < self"),
        "at the threshold itself",
    ),
    "opens again": (
        FINE["increment"].replace(
            "not self.mean <= self.limit:\n    self.stopped = True",
            "True:\n    self.stopped = not self.mean <= self.limit",
        ),
        "by itself",
    ),
}


def averaging(body):
    text = method(body).replace(
        "self.stopped = False\n\n    def check",
        "self.stopped = False\n        self.mean = None\n        self.seen = 0\n\n    def check",
    )
    text = text.replace(
        "    def reset(self):\n        self.stopped = False\n",
        "    def reset(self):\n        self.stopped, self.mean, self.seen = False, None, 0\n\n    def _mix(self, value):\n        return value if self.mean is None else 0.9 * self.mean + 0.1 * value\n",
    )
    text = text.replace('{"stopped": self.stopped}', '{"stopped": self.stopped, "mean": self.mean, "seen": self.seen}')
    return "import math\n\n\n" + text.replace(
        '        self.stopped = state["stopped"]\n',
        '        self.stopped, self.mean, self.seen = state["stopped"], state["mean"], state["seen"]\n',
    )


@pytest.mark.parametrize("name", FINE)
def test_averages_by_hand_are_mended(planned, name):
    made = planned(averaging(FINE[name]))
    assert (made.outcomes[0].outcome, made.changes) == (Outcome.ALREADY_APPLIED, ()), made.outcomes[0].reason


TOLD = "self.mean = self._mix(val_loss)\nif {} > 5 and not self.mean <= self.limit:\n    self.stopped = True\nreturn not self.stopped"
CLOCKS = {"keyword": "*, step: int", "number": "n: int", "left out": "epoch=None", "global_step": "global_step"}


def told(clock, body=TOLD):
    """An average whose burn-in goes by a clock of its callers, in a state without a count."""
    name = re.findall(r"\w+", clock)[0]
    text = averaging(body.format(f"({name} or 0)")).replace(
        "def check(self, val_loss)", f"def check(self, val_loss, {clock})"
    )
    for old in ("        self.seen = 0\n", ', "seen": self.seen', ', state["seen"]'):
        text = text.replace(old, "")
    return text.replace("self.mean, self.seen = False, None, 0", "self.mean = False, None").replace(
        ", self.seen =", " ="
    )


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
def test_averages_by_hand_may_be_told_how_many_losses_there_were(planned, clock):
    made = planned(told(clock))
    assert (made.outcomes[0].outcome, made.changes) == (Outcome.ALREADY_APPLIED, ()), made.outcomes[0].reason


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param("= False, None", "= False, self.mean", "opens it again and keeps its average", id="reset"),
        pytest.param("not self.mean <=", "not val_loss <=", "it is the last loss that it tests", id="the last loss"),
        pytest.param("0.9 * self.mean + 0.1", "0.1 * self.mean + 0.9", "its decay is swapped", id="decay"),
    ],
)
def test_what_is_told_its_losses_is_judged_as_others_are(planned, old, new, reason):
    text = told("step: int")
    assert old in text
    assert reason in planned(text.replace(old, new)).outcomes[0].reason


@pytest.mark.parametrize("name", WRONG)
def test_averages_that_are_wrong_are_named(planned, name):
    body, reason = WRONG[name]
    (outcome,) = planned(averaging(body)).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert "near miss at bit_transformer/safety.py:" in outcome.reason
    assert reason in outcome.reason


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param(', "mean": self.mean', "", "not saved and loaded", id="state without the average"),
        pytest.param(
            "self.stopped, self.mean, self.seen = False, None, 0",
            "self.stopped = False",
            "reset opens it again and keeps",
            id="reset",
        ),
        pytest.param(
            "self.stopped, self.mean, self.seen = False, None, 0",
            "self.stopped, self.mean = False, None",
            "or its count of losses",
            id="reset without a burn-in",
        ),
    ],
)
def test_what_an_average_keeps_is_asked_for(planned, old, new, reason):
    text = averaging(FINE["increment"])
    assert old in text
    (outcome,) = planned(text.replace(old, new)).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert reason in outcome.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            method(
                "if not val_loss <= self.limit:\n    self.count += 1\n    self.stopped = True\nreturn not self.stopped"
            ).replace(
                "self.stopped = False\n\n    def check", "self.stopped = False\n        self.count = 0\n\n    def check"
            ),
            "count counts such losses too",
            id="a count",
        ),
        pytest.param(
            method(
                "if val_loss != val_loss:\n    self.stopped = True\nif val_loss > self.limit:\n    self.stopped = True\nreturn not self.stopped"
            ),
            "a loss that is not a number stops it in the burn-in too",
            id="nan apart",
        ),
        pytest.param(
            "LIMIT = 2.0\nstopped = False\n\n\ndef loss_ok(val_loss):\n    global stopped\n    if val_loss > LIMIT:\n        stopped = True\n    return not stopped\n",
            "nothing keeps what it knows",
            id="globals",
        ),
        pytest.param(
            method("if val_loss > self.limit:\n    self.stopped = True\nreturn not self.stopped")
            + "\n\ndef step(loss):\n    gate = LossGate()\n    return gate.check(loss)\n",
            "gate made for one loss",
            id="a gate a loss",
        ),
        pytest.param(
            method("if val_loss > self.limit:\n    self.stopped = True\nreturn not self.stopped").replace(
                "class LossGate:\n", "class LossGate:\n    __slots__ = ('limit', 'stopped')\n\n"
            ),
            "__slots__",
            id="slots",
        ),
        pytest.param(
            "import copy\n\n\n"
            + method("if val_loss > self.limit:\n    self.stopped = True\nreturn not self.stopped")
            .replace(
                "    def load_state_dict(self, state):\n        self.stopped = state",
                "    def load_state_dict(self, steps):\n        self.stopped = steps",
            )
            .replace(
                "def reset(self):\n        self.stopped = False",
                "def reset(self):\n        setattr(self, 'stopped', False)",
            ),
            "reset opens it again and keeps its average",
            id="a reset that is not seen",
        ),
    ],
)
def test_raw_gates_that_are_refused(planned, text, reason):
    made = planned(text)
    assert (made.outcomes[0].outcome, made.changes) == (Outcome.REFUSED, ())
    assert reason in made.outcomes[0].reason


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "class EarlyStopping:\n    def __init__(self, patience=3):\n        self.patience, self.best, self.bad = patience, None, 0\n\n    def step(self, val_loss):\n        if self.best is None or val_loss < self.best:\n            self.best, self.bad = val_loss, 0\n        else:\n            self.bad += 1\n        return self.bad >= self.patience\n",
            id="early stopping",
        ),
        pytest.param(
            "class Plateau:\n    def __init__(self, lr=0.1):\n        self.lr, self.best = lr, float('inf')\n\n    def step(self, val_loss):\n        self.lr = self.lr / 2 if val_loss > self.best else self.lr\n        self.best = min(self.best, val_loss)\n",
            id="plateau",
        ),
        pytest.param(
            "class Best:\n    def __init__(self):\n        self.best = float('inf')\n\n    def keeps(self, val_loss):\n        if val_loss < self.best:\n            self.best = val_loss\n            return True\n        return False\n",
            id="the best checkpoint",
        ),
        pytest.param(
            "class Clip:\n    def __init__(self, limit=1.0):\n        self.limit = limit\n\n    def is_large(self, norm):\n        return norm > self.limit\n",
            id="a norm",
        ),
        pytest.param("def hil(model, bits, c_floor=0.3):\n    return model(bits) >= c_floor\n", id="a floor"),
        pytest.param(
            "class SafetyCheck:\n    def __init__(self, floor=0.3):\n        self.floor = floor\n\n    def passes(self, complexity):\n        return complexity >= self.floor\n",
            id="a floor of an answer",
        ),
        pytest.param(
            "class Reached:\n    def __init__(self, target=0.1):\n        self.target = target\n\n    def done(self, loss):\n        return loss < self.target\n",
            id="a loss that is low enough",
        ),
    ],
)
def test_what_is_no_gate(planned, text, model_of):
    planned(text)
    (found,) = status(open_tree(model_of("")), [TASK])
    assert (found.state, found.findings) == (State.UNRECOGNISED, ())
