"""Safety gates: what they should allow, what a tree's allow, and what managers make of it. In child processes only.

An average may start with the first loss, or at zero with its bias corrected; both closed forms are known
here, and a gate has to keep to one of them.
"""

import functools
import inspect
import math
import operator
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from .evidence import Evidence, Verdict, failed, passed
from .manager_sessions import Cases, RequestFailed, Session, managing, worst_of
from .tree import Tree

DECAY = 0.9
THRESHOLD = 2.0
NEAR = 1e-6  # of a threshold or average, relatively: what rounding, in float32 too, may amount to
BURN_IN = 4  # of the gates in managers
RISING = (*4 * (0.7,), *20 * (3.0,))  # losses that they are told
FAULTY = (3.0,) * 9
NO_BURN_IN = failed("SafetyGate takes no burn_in_steps", "from bit_transformer import SafetyGate; help(SafetyGate)")


@functools.cache
def averages(losses: tuple[float, ...], decay: float, corrected: bool) -> list[float]:
    """The average after each loss: the first counts as all before it, or zero does and is corrected for."""
    found = []
    for count in range(1, len(losses) + 1):
        weights = [(1 - decay) * decay ** (count - 1 - step) for step in range(count)]
        if not corrected:
            weights[0] = decay ** (count - 1)
        total = math.fsum(map(operator.mul, weights, losses))
        found.append(total / (1 - decay**count) if corrected else total)
    return found


def decide(losses: Sequence[float], burn_in: int, corrected: bool, decay: float = DECAY) -> list[bool]:
    """What a gate of THRESHOLD allows after each of these losses."""
    over = [value > THRESHOLD for value in averages(tuple(losses), decay, corrected)]
    return [not any(over[burn_in : step + 1]) for step in range(len(losses))]


def too_near(losses: Sequence[float], corrected: bool) -> bool:
    """Whether rounding could decide."""
    return any(math.isclose(each, THRESHOLD, rel_tol=NEAR) for each in averages(tuple(losses), DECAY, corrected))


class Gates:
    """The gates of a tree, and what they may be told."""

    def __init__(self, tree: Tree) -> None:
        self.kind = tree.module("safety").SafetyGate
        options = inspect.signature(self.kind).parameters
        self.takes_decay = "decay" in options  # else it is 0.9
        self.burn_in = "burn_in_steps" in options

    def make(self, burn_in: int, threshold: float = THRESHOLD, decay: float | None = None) -> Any:
        """A gate."""
        return self.kind(threshold, burn_in_steps=burn_in, **({} if decay is None else {"decay": decay}))

    def compare(
        self, losses: Sequence[float], wanted: list[bool], burn_in: int, decay: float | None = None
    ) -> Evidence:
        """Whether a new gate allows what is wanted after each loss."""
        gate = self.make(burn_in, decay=decay)
        return same(losses, [gate.allows(loss) for loss in losses], wanted, burn_in, decay)


def same(
    losses: Sequence[float], found: list[bool], wanted: list[bool], burn_in: int, decay: float | None = None
) -> Evidence:
    """Whether a gate allowed what is wanted."""
    if [bool(allowed) for allowed in found] == wanted:
        return passed(f"{len(losses)} losses, {wanted.count(True)} allowed")
    at = next(at for at, pair in enumerate(zip(found, wanted, strict=True)) if bool(pair[0]) != pair[1])
    options = f"{THRESHOLD}, burn_in_steps={burn_in}" + ("" if decay is None else f", decay={decay}")
    line = f"from bit_transformer.safety import SafetyGate; g = SafetyGate({options}); "
    line += f"nan, inf = float('nan'), float('inf'); print([g.allows(loss) for loss in {list(losses)}])"
    verb = "refused" if wanted[at] else "allowed"
    return failed(f"loss {at + 1}, {losses[at]:.6g}, is {verb}: threshold {options}", line)


def gated(function: Callable[[Gates], Cases]) -> Callable[[Tree], Evidence]:
    """Make a check of what a function yields for the gates of a tree."""

    @functools.wraps(function)
    def judge(tree: Tree) -> Evidence:
        gates = Gates(tree)
        return worst_of(function(gates)) if gates.burn_in else NO_BURN_IN

    return judge


def either(cases: Callable[[bool], Cases]) -> Cases:
    """The worst case of the start that suits the gate best: with the first loss, or at zero and corrected."""
    found = [worst_of(cases(corrected)) for corrected in (False, True)]
    yield next((each for each in found if each.verdict is Verdict.PASS), found[0])


class Script:
    """What the gates of a manager are told instead of the real losses, one after the other."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.losses: Sequence[float] = ()
        self.asked = 0
        kind = session.tree.module("safety").SafetyGate
        signature, init, allows = inspect.signature(kind.__init__), kind.__init__, kind.allows

        @functools.wraps(init)
        def scripted_init(*args: Any, **kwargs: Any) -> None:
            given = signature.bind(*args, **kwargs)
            given.arguments |= {"threshold": THRESHOLD, "burn_in_steps": BURN_IN}
            init(*given.args, **given.kwargs)

        @functools.wraps(allows)
        def scripted_allows(gate: Any, *_: Any, **__: Any) -> Any:
            self.asked += 1
            return allows(gate, self.losses[min(self.asked, len(self.losses)) - 1])

        kind.__init__, kind.allows = scripted_init, scripted_allows

    def start(self, losses: Sequence[float]) -> None:
        """Begin with the first of these losses."""
        self.losses, self.asked = losses, 0

    def request(self) -> bool:
        """Ask for one update, and say whether it is made."""
        before = len(self.session.rates)
        with suppress(RequestFailed):
            self.session.step()
        return len(self.session.rates) > before


def scripted(function: Callable[[Session, Script], Cases]) -> Callable[[Tree], Evidence]:
    """Make a check of what a function yields for a manager whose losses are in a script."""

    def judge(session: Session) -> Cases:
        if not Gates(session.tree).burn_in:
            yield NO_BURN_IN
            return
        script = Script(session)
        session.renew()
        yield from function(session, script)

    return functools.wraps(function)(managing(judge))


def judged(session: Session, found: list[bool], losses: Sequence[float], corrected: bool) -> Cases:
    """Whether a manager made the updates that its gate should allow."""
    wanted = decide(losses, BURN_IN, corrected)
    if found == wanted:
        yield passed(f"{wanted.count(True)} updates of {len(found)}")
        return
    detail = f"updates {spoken(found)} are made, not {spoken(wanted)}, where threshold is {THRESHOLD}, "
    yield failed(f"{detail}burn_in_steps {BURN_IN}, and the losses are {list(losses)}", session.line)


def spoken(made: list[bool]) -> str:
    return ", ".join(str(at) for at, each in enumerate(made, 1) if each) or "none"
