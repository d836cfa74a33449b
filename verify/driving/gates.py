"""Safety gates: what they should allow, what a tree's allow, and what managers tell theirs. In child processes only.

An average may start with the first loss, or at zero with its bias corrected; both closed forms are known here, and
a gate has to keep to one of them. A gate may watch a loss that has a ceiling, or two scores that have floors: then
what is a loss here is a score turned round, and the other score is well.
"""

import functools
import inspect
import io
import json
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from ..running.evidence import Evidence, Picture, Verdict, failed, passed, unproven
from .manager_sessions import CONFIG, LIMITS, Cases, MissingPart, RequestFailed, Session, managing, seam_or, worst_of
from .pictures import curves, decisions, if_possible
from .tree import Tree, with_dropout

DECAY = 0.9
THRESHOLD = 2.0
NEAR = 1e-6  # of a threshold or average, relatively: what rounding, in float32 too, may amount to
BURN_INS = ("burn_in_steps", "burn_in", "warmup_steps")  # what else it may be called
ALLOW, REFUSE = ("allows", "allow", "check"), ("should_trigger", "should_stop", "triggers")
CLOSED = ("tripped", "closed", "triggered")  # what says that a gate is
ROWS = 20  # of the data of a manager
ONES = torch.ones(ROWS, CONFIG["max_seq_len"], dtype=torch.long)
LONGEST = 100  # updates of a burn-in that is waited for


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


def decide(losses: Sequence[float], burn_in: int, corrected: bool, threshold: float = THRESHOLD) -> list[bool]:
    """What a gate of this threshold allows after each of these losses."""
    over = [not value <= threshold for value in averages(tuple(losses), DECAY, corrected)]
    return [not any(over[burn_in : step + 1]) for step in range(len(losses))]


def too_near(losses: Sequence[float], corrected: bool) -> bool:
    """Whether rounding could decide."""
    return any(math.isclose(each, THRESHOLD, rel_tol=NEAR) for each in averages(tuple(losses), DECAY, corrected))


class Gates:
    """The gates of a tree, what they may be told, and in which words. Raises MissingPart on words unknown here."""

    def __init__(self, tree: Tree, watched: str = "loss") -> None:
        self.kind = seam_or(tree, "gate", ["bit_transformer.safety"], "SafetyGate")
        options = inspect.signature(self.kind).parameters
        self.has_floors = "c_floor" in options and "s_floor" in options
        self.watched = watched  # "loss", or of a gate of floors "c" or "s"
        known = tree.seams.options("gate")
        self.limit = next((name for name in (known.get("threshold", ""), *LIMITS) if name in options), "")
        self.burn_in = next((name for name in (known.get("burn_in_steps", ""), *BURN_INS) if name in options), "")
        self.decay = next((name for name in ("decay", known.get("decay", "")) if name in options), "")  # else it is 0.9
        self.is_told = tree.seams.is_told
        self.latches = not self.has_floors  # a gate of floors says at each reading what its averages are
        asked = self._asked() if self.limit or self.has_floors else iter(())
        self.ask, self.refuses = next(asked, ("", False))
        if not self.ask:
            told = f"{self.kind.__name__}{inspect.signature(self.kind)}"
            raise MissingPart(f"{told} is none that we know to drive", "gate")

    def _asked(self) -> Iterator[tuple[str, bool]]:
        """The methods that are told losses, and whether a yes refuses: known by name, or as losses that rise tell."""
        made = self.make(None).gate
        yield from ((name, name in REFUSE) for name in (*ALLOW, *REFUSE) if hasattr(made, name))
        for name in () if self.has_floors else dir(made):
            ask = getattr(self.make(0 if self.burn_in else None).gate, name)
            with suppress(Exception):  # it is another method
                well, ill = ask(0.0), [ask(1e6) for _ in range(LONGEST)][-1]
                if isinstance(well, bool) and ill is not well:
                    yield name, well is False

    def make(self, burn_in: int | None, threshold: float = THRESHOLD, decay: float | None = None) -> "Gate":
        """A gate, with the burn-in of the tree's own where none is given."""
        more: dict[str, Any] = {} if decay is None else {self.decay: decay}
        more |= {} if burn_in is None else {self.burn_in: burn_in}
        if not self.has_floors:
            return Gate(self, self.kind(**{self.limit: threshold}, **more))
        well, watched = ("c_floor", "s_floor") if self.watched == "s" else ("s_floor", "c_floor")
        return Gate(self, self.kind(**{well: 0.0, watched: -threshold}, **more))

    def decide(self, losses: Sequence[float], burn_in: int, corrected: bool) -> list[bool | None]:
        """What such a gate of THRESHOLD allows after each of these losses; None where it is left to the gate."""
        latched = decide(losses, burn_in, corrected)
        over = [not value <= THRESHOLD for value in averages(tuple(losses), DECAY, corrected)]
        return [False if over[at] and at >= burn_in else self.since(each) for at, each in enumerate(latched)]

    def since(self, allowed: bool) -> bool | None:
        """What is wanted where a gate that latches is to refuse, and the average has recovered."""
        return allowed if allowed or self.latches else None

    def compare(
        self, losses: Sequence[float], wanted: Sequence[bool | None], burn_in: int, decay: float | None = None
    ) -> Evidence:
        """Whether a new gate allows what is wanted after each loss, and, if it latches, from the first refusal on."""
        gate, first = self.make(burn_in, decay=decay), [*wanted, False].index(False)
        wanted = [each if at <= first else self.since(bool(each)) for at, each in enumerate(wanted)]
        return self.same(losses, [gate.allows(loss) for loss in losses], wanted, burn_in, decay)

    def same(
        self,
        losses: Sequence[float],
        found: list[bool],
        wanted: Sequence[bool | None],
        burn_in: int,
        decay: float | None = None,
    ) -> Evidence:
        """Whether a gate allowed what is wanted, where it is not None."""
        at = next(
            (at for at, pair in enumerate(zip(found, wanted, strict=True)) if pair[1] not in (None, pair[0])), None
        )
        if at is None:
            return passed(f"{len(losses)} losses, {found.count(True)} allowed")
        limits = f"{self.limit or 'c_floor=-'}{'=' * bool(self.limit)}{THRESHOLD}"
        options = f"{limits}, {self.burn_in}={burn_in}" + ("" if decay is None else f", decay={decay}")
        told = "loss" if self.limit else "-loss, 1.0"
        line = f"from bit_transformer.safety import SafetyGate; g = SafetyGate({options}); "
        line += f"nan, inf = float('nan'), float('inf'); print([g.{self.ask}({told}) for loss in {list(losses)}])"
        trouble = f"loss {at + 1}, {losses[at]:.6g}, is {'refused' if wanted[at] else 'allowed'}: {options}"
        asked = [own if each is None else each for own, each in zip(found, wanted, strict=True)]
        return failed(trouble, line, picture=decisions(losses, found, asked))

    @functools.cached_property
    def corrected(self) -> bool:
        """Whether its average starts at zero and is corrected, rather than with the first loss."""
        gate = self.make(1 if self.burn_in else None, 1.5)
        return not [gate.allows(loss) for loss in (1.0, 3.0)][-1]  # 2.05 if corrected, else 1.2


class Gate:
    """One gate."""

    def __init__(self, kind: Gates, gate: Any) -> None:
        self.kind, self.gate = kind, gate

    def allows(self, loss: float) -> bool:
        """Whether training may go on after this loss."""
        told = {"c": (-loss, 1.0), "s": (1.0, -loss)}.get(self.kind.watched, (loss,))
        try:
            answer = getattr(self.gate, self.kind.ask)(*told)
        except RuntimeError:  # some raise where others say no
            return False
        return answer is None or bool(answer) != self.kind.refuses

    def reset(self) -> None:
        """Let a human open the gate again."""
        (getattr(self.gate, "reset", None) or self.gate.reopen)()

    @property
    def tripped(self) -> bool | None:
        """What the gate says of itself; None if nothing."""
        return next((bool(getattr(self.gate, name)) for name in CLOSED if hasattr(self.gate, name)), None)


def gated(function: Callable[[Gates], Cases]) -> Callable[[Tree], Evidence]:
    """Make a check of what a function yields for the gates of a tree, of floors for each of the two scores."""

    @functools.wraps(function)
    def judge(tree: Tree) -> Evidence:
        try:
            gates = Gates(tree)
        except MissingPart as missing:
            return unproven(str(missing))
        if not gates.burn_in:
            if not gates.make(None).allows(50.0):
                return failed("SafetyGate has no burn-in: it trips at the first loss, of 50 nats a bit")
            return unproven(f"SafetyGate takes no {BURN_INS[0]}, or calls it otherwise")
        watched = ("c", "s") if gates.has_floors else ("loss",)
        return worst_of(evidence for each in watched for evidence in function(Gates(tree, each)))

    return judge


def either(cases: Callable[[bool], Cases]) -> Cases:
    """The worst case of the start that suits the gate best: with the first loss, or at zero and corrected."""
    found = [worst_of(cases(corrected)) for corrected in (False, True)]
    yield next((each for each in found if each.verdict is Verdict.PASS), found[0])


@if_possible
def averages_shown(gates: Gates, losses: Sequence[float], decay: float | None, wanted: list[float]) -> Picture | None:
    """The average after each loss, as decisions tell it, beside its closed form."""
    found = [recover(gates, losses[: at + 1], decay) for at in range(len(losses))]
    return curves("the average of losses, beside its closed form", found, wanted, x="loss", y="average")


def recover(gates: Gates, losses: Sequence[float], decay: float | None) -> float:
    """The average after these losses: the threshold at which a gate that judges only the last begins to allow it."""
    low, high = min(losses) - 1, max(losses) + 1
    for _ in range(45):
        middle = (low + high) / 2
        gate = gates.make(len(losses) - 1, middle, decay)
        if [gate.allows(loss) for loss in losses][-1]:
            high = middle
        else:
            low = middle
    return high


def goes_on(gates: Gates, losses: Sequence[float], burn_in: int, saved_after: int) -> Iterator[list[bool]]:
    """What is allowed by a gate and by those that take up its state, which goes through a file and through JSON."""
    gate = gates.make(burn_in)
    before = [gate.allows(loss) for loss in losses[:saved_after]]
    state = gate.gate.state_dict()
    yield before + [gate.allows(loss) for loss in losses[saved_after:]]
    states = [state, through_file(state)]
    with suppress(TypeError):  # a state may hold tensors
        states.append(json.loads(json.dumps(state)))
    for each in states:
        other = gates.make(burn_in)
        for _ in range(saved_after % 3 * (burn_in + 1)):
            other.allows(9.0)
        other.gate.load_state_dict(each)
        yield before + [other.allows(loss) for loss in losses[saved_after:]]


def through_file(state: dict[str, Any]) -> dict[str, Any]:
    """A state as a checkpoint brings it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    restored: dict[str, Any] = torch.load(file, weights_only=True)
    return restored


class Run:
    """Requests for updates, what the manager's gate has to be told at each, and which updates are made.

    That is the loss, before the update, of the model in evaluation mode on the validation rows that the manager was
    given; without any, its loss on the micro-batch.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.gates = Gates(session.tree)
        self.validation: Tensor | None = None
        self.dropout = 0.0
        self.losses: list[float] = []
        self.made: list[bool] = []
        self.fault = ""  # what else was seen to be wrong
        self.batch: Tensor | None = None  # what the model was to learn from last
        session.before_update.append(lambda: self._note(True))
        self._watch(session.tree.kind)

    def begin(
        self,
        threshold: float,
        plan: dict[str, Any],
        validation: Tensor | None = None,
        *,
        new: bool = True,
        **config: Any,
    ) -> None:
        """Ask a manager, or a new one, for a new model.

        Where it is validated it has dropout, so that training and evaluation differ.
        """
        torch.manual_seed(0)
        if new:
            del self.session.calls[2:]
            self.session.threshold = threshold
            self.session.renew()
        self.validation = validation if self.session.validates else None
        self.dropout = 0.0 if self.validation is None else 0.3
        more = {} if self.validation is None else {"validation": self.validation}
        self.session.ask("init", ONES, plan=self.session.known(plan), **more, **CONFIG | config)
        self.losses, self.made = [], []

    @staticmethod
    def plan(updates: int, batch_size: int, lr: float = 0.02) -> dict[str, Any]:
        """A plan of so many updates at least, which make the model soon sure of what it sees."""
        return {"batch_size": batch_size, "epochs": -(-updates // -(-ROWS // batch_size)), "lr": lr}

    def go_on(self, path: str) -> None:
        """Let the model grow, or save it and take it up, or be refused that."""
        if path in ("width", "layers", "length"):
            self.session.ask("scale_up", path)
            return
        self.session.ask("save", "kept")
        if "another" in path:
            self.session.renew()
        more: dict[str, Any] = {"plan": {"batch_size": 0}} if path == "refused" else {}
        with suppress(*[RequestFailed] if more else []):
            self.session.ask("download", "kept", ONES, **more)

    def step(self, bits: Tensor) -> None:
        """Ask for an update on a micro-batch."""
        self.ask(lambda: self.session.ask("train_step", bits))

    def ask(self, send: Callable[[], object]) -> None:
        """Send a request for updates."""
        with_dropout(self.session.model, self.dropout)  # which may be another model than before
        before, asked = self._state(), len(self.made)
        refused = False
        try:
            send()
        except RequestFailed:
            refused = True
        if len(self.made) == asked and self._state() != before:
            self.fault = "a request that is refused moves the model or its rate"
        if refused or len(self.made) == asked:
            self._note(False)

    def burn_in(self) -> int:
        """How many updates the manager makes whatever the loss. Raises RequestFailed where that is no burn-in."""
        if not self.session.limit:
            raise MissingPart(f"ModelManager takes no threshold of its gate by a name that we know: {LIMITS[0]}")
        self.begin(1e-9, self.plan(LONGEST, 4))
        while len(self.made) < LONGEST and False not in self.made:
            self.step(self.session.data[:4])
        if self.made[0] is False:
            raise RequestFailed("no burn-in: at a threshold of 1e-9 the manager makes no update")
        if self.made[-1]:
            raise RequestFailed(f"at a threshold of 1e-9 the manager makes {LONGEST} updates")
        return len(self.made) - 1

    def threshold(self, burn_in: int, nearest: str) -> float:
        """One that lies between two averages after the burn-in, just over the "lower" one or under the "higher"."""
        found = averages(tuple(self.losses), DECAY, self.gates.corrected)
        for at in range(burn_in + 1, len(found)):
            lower, higher = max(found[burn_in:at]), found[at]
            if higher > lower * (1 + 200 * NEAR):
                return lower * (1 + 50 * NEAR) if nearest == "lower" else higher * (1 - 50 * NEAR)
        raise MissingPart(f"the validation losses do not rise: {self.losses}")

    def judged(self, burn_in: int, threshold: float, what: object = "") -> Evidence:
        """Whether the updates are made that a gate of this threshold allows."""
        wanted = decide(self.losses, burn_in, self.gates.corrected, threshold)
        if self.fault:
            return failed(f"{self.fault}; {what}", self.session.line)
        if self.made == wanted:
            return passed(f"{wanted.count(True)} updates of {len(wanted)}; {what}")
        at = next(at for at, pair in enumerate(zip(self.made, wanted, strict=True)) if pair[0] != pair[1])
        detail = f"update {at + 1} is {'made' if self.made[at] else 'refused'}, where the validation losses are "
        detail += f"{', '.join(f'{loss:.5g}' for loss in self.losses[: at + 1])}, "
        detail += f"the threshold {threshold:.6g}, the burn-in {burn_in}; {what}"
        return failed(detail, self.session.line, picture=decisions(self.losses, self.made, wanted))

    def _note(self, made: bool) -> None:
        rows = self.batch if self.validation is None else self.validation
        if rows is None or (made and self.batch is None):
            self.fault = "an update without a micro-batch that went through the model in training mode"
            return
        self.losses.append(loss_of(self.session.model, rows))
        self.made.append(made)
        self.batch = None if made else self.batch

    def _state(self) -> str:
        sums = [float(parameter.detach().double().sum()) for parameter in self.session.model.parameters()]
        return f"{sums} {self.session.optimizer.param_groups[0]['lr']}"  # in which a NaN is like another

    def _watch(self, kind: type[nn.Module]) -> None:
        original = kind.forward

        @functools.wraps(original)
        def forward(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if model.training and torch.is_grad_enabled():
                self.batch = [*args, *kwargs.values()][0].clone()
            return original(model, *args, **kwargs)

        kind.forward = forward


def loss_of(model: nn.Module, rows: Tensor) -> float:
    """The mean loss of each next bit of rows [B, T] in nats, of the model in evaluation mode."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = Tree.outputs(model(rows))[0].double()  # [B, T, 2]
    model.train(was_training)
    return float(nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten().long()))


def running(function: Callable[..., Cases]) -> Callable[..., Evidence]:
    """Make a check of what a function yields for a manager, its run, and its burn-in."""

    def judge(session: Session, *others: Any) -> Cases:
        run = Run(session)
        yield from function(run, run.burn_in(), *others)

    return functools.wraps(function)(managing(judge))
