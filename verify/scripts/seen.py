"""What was seen of a script's run: its updates with what made them, its schedules, its passes over rows."""

from collections import Counter
from dataclasses import dataclass, field

MOST_UPDATES = 5000  # that are remembered in full: what a run of any length takes of memory has a bound


@dataclass(slots=True)
class Loss:
    """One call of a loss function.

    weight is the sum over its targets of d root / d loss of that target: 1 of a mean from which backward goes.
    """

    line: str
    scored: float  # targets
    rows: float = 0.0  # that they are in, where a row is scored by its elements
    weight: float = 0.0
    backward: int = 0  # the number of the backward call that it first got a gradient in
    is_finite: bool = True
    dtype: str = ""
    autocast: str = ""  # the dtype that it was made under, "" without autocast
    was_training: bool | None = None  # whether the models were; None before they are known
    is_written_out: bool = False  # by the script, and read from its graph: a factor may be the loss's own


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a script did: kind is "backward", "clip", "unscale", "zero-grad", "scheduler" or "step"."""

    kind: str
    line: str
    of: int = 0  # the number of the optimizer, or of the schedule


@dataclass(slots=True)
class Update:
    """One optimizer step, and all since the one before."""

    number: int  # from 1
    line: str
    optimizer: int  # by order of their first steps; 0 of one that is made by hand
    rates: tuple[float, ...]
    losses: list[Loss]
    events: list[Event]
    factor: float = 1.0  # what the gradient was multiplied by between the last backward and the step
    scale: float = 1.0  # what a GradScaler multiplied the loss by
    has_gradient: bool = True
    is_finite: bool = True  # the gradient that is stepped with
    was_training: bool | None = None
    stream: int = 0  # a hash of where torch's random stream is
    is_seeded: bool = False  # whether that was set since the update before, and then drawn from
    run: int = 0  # of several that a script makes: how many optimizers it had made
    defaults: tuple[str, ...] = ()  # torch's own, in words


@dataclass(slots=True)
class Schedule:
    """A scheduler: the steps that it says it is for, if it says so, and those that it took."""

    kind: str
    line: str
    optimizer: int  # the identity of what it is for
    total: int | None
    ends_at: int | None = None  # of one that is a function: the step from which on its rate is 0
    steps: int = 0
    later: int = 0  # those since the last step of its optimizer
    is_over: bool = False  # whether it was asked for more steps than it has

    @property
    def planned(self) -> int:
        """The steps that it is for; 0 where it does not say so."""
        return self.total or self.ends_at or 0


@dataclass(slots=True)
class Pass:
    """A loader gone through: the rows that it gave, by index."""

    line: str
    expected: int | None  # rows that a pass has, where that can be told
    batch: int
    drops_last: bool
    rows: list[int] = field(default_factory=list)
    is_complete: bool = False
    trained: bool = False  # whether gradients were made meanwhile
    run: int = 0  # of several that a script makes: how many optimizers it had made
    is_known: bool = False  # of rows that are taken by hand along an order that is known: none may come again
    is_cut: bool = False  # and whose last part is shorter than the others
    is_ended: bool = False  # and which another follows, or the script's end
    is_found: bool = False  # along an order that nobody was seen to draw
    left_out: int = 0  # and the rows that have no turn in it; at last those that never have one

    @property
    def is_shuffled(self) -> bool:
        """Whether it goes otherwise than the rows lie."""
        return self.rows != sorted(self.rows)


@dataclass(slots=True)
class Seen:
    """A run, as torch saw it."""

    updates: list[Update] = field(default_factory=list)
    runs: int = 0  # optimizers that were made: each begins a training of its own, or more than one do so together
    made: int = 0  # updates, those that are not remembered too
    lost: list[tuple[str, int, int]] = field(default_factory=list)  # wiped: where, after which update, of how many
    carried: list[tuple[str, int]] = field(default_factory=list)  # gradients that were there before the first backward
    left: list[Loss] = field(default_factory=list)  # that got a gradient after the last update
    unused: list[Loss] = field(default_factory=list)  # with a graph, which no backward went through
    autocast_backward: str = ""
    schedules: list[Schedule] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)
    seeds: list[tuple[str, str]] = field(default_factory=list)  # that were set: where, and which
    chance: str = ""  # where rows are drawn by number, any of them any time
    dropout_at_work: Counter[str] = field(default_factory=Counter)  # by line: where no gradient is kept
    quiet_forwards: int = 0  # losses, or dropouts, under no gradient
    quiet_before: int = 0  # those before the first update
    has_dropout: bool = False  # whether a model that learns has
    mode_matters: bool = False  # whether a model behaves otherwise in evaluation
    optimizers: dict[int, str] = field(default_factory=dict)  # kind, by number
    not_held: list[str] = field(default_factory=list)  # parameters that get a gradient, and are in no optimizer
    never_given: list[str] = field(default_factory=list)  # parameters of an optimizer that never got a gradient
    foreign: int = 0  # parameters of an optimizer that no model has that learns
    held: int = 0
    stale_rates: list[str] = field(default_factory=list)
    rate_candidates: int = 0
    group_left_alone: int = 0  # the number of one whose rate stays where that of another is moved
    masks: dict[tuple[str, int], set[int]] = field(default_factory=dict)  # updates in which one was built
    dense_masks: Counter[str] = field(default_factory=Counter)
    maps_kept: Counter[str] = field(default_factory=Counter)
    attends: bool = False
    compiled: dict[str, set[int]] = field(
        default_factory=dict
    )  # by line of torch.compile: updates in which it is called
    is_traced: bool = False  # whether anything of that ran
    types: Counter[str] = field(default_factory=Counter)  # of the parameters that optimizers hold
    uses_scaler: bool = False
    ended: str = ""  # "" where it ran to its end
    stopped: str = ""  # why it was not let go on
