"""Other spellings of the safety gate."""

from pathlib import Path

from drift.naming import add_import, before
from drift.patterns import restate, substitute
from drift.rewriting import ASKS, find, retext, rewrite

SAFETY = "bit_transformer/safety.py"
ALLOWS = """\
if not val_loss <= self.threshold:
    self.tripped = True
return not self.tripped
"""


def allows(tree: Path, new: str) -> None:
    restate(tree, ALLOWS, new, SAFETY, "SafetyGate.allows")


@rewrite("gate", 7)
def gate_one_expression(tree: Path) -> None:
    """The gate's state is one boolean expression."""
    allows(tree, "self.tripped = self.tripped or not val_loss <= self.threshold\nreturn not self.tripped")


@rewrite("gate", 7)
def gate_in_place_or(tree: Path) -> None:
    """An in-place or keeps what has tripped."""
    allows(tree, "self.tripped |= not (self.threshold >= val_loss)\nreturn self.tripped is False")


@rewrite("gate", 7)
def gate_nan_in_words(tree: Path) -> None:
    """What is not a number is tested in words."""
    allows(
        tree,
        """\
if math.isnan(val_loss) or val_loss > self.threshold:
    self.tripped = True
if self.tripped:
    return False
return True
""",
    )
    add_import(find(tree, SAFETY), "import math")


@rewrite("gate", 7)
def gate_early_return(tree: Path) -> None:
    """A gate that has tripped returns before it looks."""
    allows(
        tree,
        """\
if self.tripped:
    return False
within = val_loss <= self.threshold
if not within:
    self.tripped = True
return within
""",
    )


@rewrite("gate", 7)
def gate_method(tree: Path) -> None:
    """The comparison is a method of its own."""
    allows(tree, "if not self._holds(val_loss):\n    self.tripped = True\nreturn not self.tripped")
    before(
        find(tree, SAFETY),
        "SafetyGate.reset",
        """\
def _holds(self, value: float) -> bool:
    return value <= self.threshold
""",
    )


@rewrite("gate", 7, moves={"gate.allows": "permits"})
def gate_renamed_method(tree: Path) -> None:
    """allows is called permits, and its argument loss."""
    from drift.naming import rename_everywhere, rename_in

    rename_everywhere(tree, "allows", "permits")
    rename_in(find(tree, SAFETY), "SafetyGate.permits", {"val_loss": "loss"}, also_parameters=True)


@rewrite("gate", 7, moves={"bit_transformer.safety:SafetyGate": "bit_transformer.safety:LossGuard"})
def gate_renamed_class(tree: Path) -> None:
    """SafetyGate is called LossGuard."""
    from drift.naming import rename_everywhere

    rename_everywhere(tree, "SafetyGate", "LossGuard")


@rewrite("gate", 7)
def gate_state_by_vars(tree: Path) -> None:
    """The gate's state is named by a tuple of attributes."""
    substitute(tree, '{"tripped": self.tripped}', "{name: getattr(self, name) for name in self.KEPT}", SAFETY)
    restate(
        tree,
        'self.tripped = state["tripped"]',
        "for name in self.KEPT:\n    setattr(self, name, state[name])",
        SAFETY,
    )
    before(find(tree, SAFETY), "SafetyGate.__init__", 'KEPT = ("tripped",)')


@rewrite("gate", 7, expected={7: ASKS})
def gate_counts_trips(tree: Path) -> None:
    """A person's gate keeps how often the loss was over the threshold too, and trips on the first."""
    allows(
        tree,
        """\
if not val_loss <= self.threshold:
    self.count += 1
if self.count > 0:
    self.tripped = True
return not self.tripped
""",
    )
    restate(
        tree, "self.threshold = threshold", "self.threshold = threshold\nself.count = 0", SAFETY, "SafetyGate.__init__"
    )
    restate(tree, "self.tripped = False", "self.tripped = False\nself.count = 0", SAFETY, "SafetyGate.reset")


@rewrite("gate", 7)
def gate_slots(tree: Path) -> None:
    """The gate declares its attributes."""
    before(
        find(tree, SAFETY),
        "SafetyGate.__init__",
        """\
threshold: float
tripped: bool
""",
    )


@rewrite("gate", 7)
def gate_data_class(tree: Path) -> None:
    """The gate is a data class."""
    restate(
        tree,
        "def __init__(self, threshold: float = 2.0) -> None:\n    self.threshold = threshold\n    self.tripped = False",
        "threshold: float = 2.0\ntripped: bool = field(default=False, init=False)",
        SAFETY,
        "SafetyGate",
    )
    path = find(tree, SAFETY)
    retext(path, ("class SafetyGate:", "@dataclass\nclass SafetyGate:"))
    add_import(path, "from dataclasses import dataclass, field")


@rewrite("gate", 7)
def gate_base_class(tree: Path) -> None:
    """Reset and state stand in a base class."""
    path = find(tree, SAFETY)
    before(
        path,
        "SafetyGate",
        """\
class Latch:
    tripped = False

    def reset(self) -> None:
        self.tripped = False
""",
    )
    retext(path, ("class SafetyGate:", "class SafetyGate(Latch):"))
    restate(tree, "def reset(self) -> None:\n    $$body", "", SAFETY, "SafetyGate")


@rewrite("gate", 7)
def gate_in_evaluation(tree: Path) -> None:
    """The manager asks its gate through a variable, and names what it said."""
    restate(
        tree,
        "if not self.gate.allows(val_loss):\n    $$raising",
        "gate = self.gate\nmay_go_on = gate.allows(val_loss)\nif not may_go_on:\n    $$raising",
        "manager.py",
    )


@rewrite("gate", 7)
def gate_called(tree: Path) -> None:
    """The gate is called, and allows is another name of that."""
    retext(
        find(tree, SAFETY),
        ("    def allows(self,", "    def __call__(self,"),
        ("        return not self.tripped\n", "        return not self.tripped\n\n    allows = __call__\n"),
    )


@rewrite("gate", 7)
def gate_enum(tree: Path) -> None:
    """The gate's state is an enum."""
    retext(
        find(tree, SAFETY),
        (
            "        self.threshold = threshold\n        self.tripped = False",
            "        self.threshold = threshold\n        self.state = GateState.OPEN",
        ),
        ("            self.tripped = True\n", "            self.state = GateState.SHUT\n"),
        (
            "        return not self.tripped\n",
            "        return self.state is GateState.OPEN\n\n    @property\n    def tripped(self) -> bool:\n        return self.state is GateState.SHUT\n",
        ),
        (
            "        self.tripped = False\n\n    def state_dict",
            "        self.state = GateState.OPEN\n\n    def state_dict",
        ),
        (
            '        self.tripped = state["tripped"]',
            '        self.state = GateState.SHUT if state["tripped"] else GateState.OPEN',
        ),
        ("class SafetyGate:", "class GateState(Enum):\n    OPEN = auto()\n    SHUT = auto()\n\n\nclass SafetyGate:"),
    )
    add_import(find(tree, SAFETY), "from enum import Enum, auto")


@rewrite("gate", 7)
def gate_match(tree: Path) -> None:
    """allows is a match statement with guards."""
    restate(
        tree,
        "if not val_loss <= self.threshold:\n    self.tripped = True\nreturn not self.tripped",
        """\
match val_loss:
    case loss if loss <= self.threshold:
        pass
    case _:
        self.tripped = True
return not self.tripped
""",
        SAFETY,
    )


@rewrite("gate", 7)
def gate_private_property(tree: Path) -> None:
    """Whether the gate has tripped is private, and read through a property."""
    path = find(tree, SAFETY)
    substitute(tree, "self.tripped", "self._tripped", SAFETY, "SafetyGate")
    before(
        path,
        "SafetyGate.allows",
        """\
@property
def tripped(self) -> bool:
    return self._tripped
""",
    )
