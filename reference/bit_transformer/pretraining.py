"""The training loop of a run that is kept: it can be stopped at any moment, and goes on to the same bits.

What happens in an update is a function of the seed and the update's number alone: which rows, in which
form, and every mask of dropout. So a checkpoint between two updates is all that a resumed run needs, and
a run of several processes, or of smaller micro-batches, takes the same steps along the same mean.

train_loop cannot be left between two updates and entered there again, so this is a second loop. What an update
computes, but for torch's own clip and step, is not written twice: both loops call the same functions, and one
process makes train_loop's updates to the bit. What is mended there is mended here:

    task-1, task-2    planned_updates; not row_loader, as a resumed run finds its rows by the epoch's number
    task-3            autocast, at_least_float32
    task-4            Shares, scored_bits
    task-6            cosine_ramp, draw_form
    task-5, 7, 8      BitRows, by corpus.py; SafetyGate; compile_where_supported, by runs.py
    task-9 to 12      the model
"""

import math
import random
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from .distributed import Replicas
from .evaluation import Evaluation, evaluate
from .safety import SafetyError, SafetyGate
from .schedules import ProgressivePlateau
from .training import (
    Shares,
    at_least_float32,
    autocast,
    cosine_ramp,
    draw_form,
    next_bit_loss,
    planned_updates,
    predict,
    scored_bits,
)

Record = dict[str, Any]
SHOWN = 20  # updates that the speed is averaged over


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does, in rows and updates."""

    rows: int
    batch_size: int
    accum_steps: int
    extra_steps: int
    updates: int
    seed: int

    @property
    def micro_batches(self) -> int:
        """How many an epoch has, without its extra steps."""
        return math.ceil(self.rows / self.batch_size)

    @property
    def updates_per_epoch(self) -> int:
        """How many optimizer updates an epoch has."""
        return planned_updates(1, self.micro_batches, extra_steps=self.extra_steps, accum_steps=self.accum_steps)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The rows of a micro-batch, over all processes, and whether it closes its update."""

    rows: list[int]
    closes: bool


@dataclass(slots=True)
class Progress:
    """Where a run is, as far as its weights do not tell."""

    update: int = 0
    losses: list[float] = field(default_factory=list)  # in nats a bit, of the updates since the last record
    gate: SafetyGate = field(default_factory=SafetyGate)

    def state_dict(self) -> Record:
        """What a checkpoint keeps."""
        return {"update": self.update, "losses": self.losses, "gate": self.gate.state_dict()}

    def load_state_dict(self, state: Record) -> None:
        """Take up what state_dict returned."""
        self.update, self.losses = state["update"], state["losses"]
        self.gate.load_state_dict(state["gate"])


@dataclass(frozen=True, slots=True)
class Settings:
    """How an update is made, and what happens every so many of them."""

    amp: str
    compress_prob: float
    direct_prob: float
    warmup_steps: int
    forward_kwargs: Record
    log_interval: int
    eval_interval: int
    num_workers: int = 0


def pretrain(
    model: nn.Module,
    optimizer: Optimizer,
    schedule: Any,
    rows: Dataset,
    held_out: Dataset,
    plan: Plan,
    settings: Settings,
    progress: Progress,
    replicas: Replicas,
    *,
    record: Callable[[Record], None],
    save: Callable[[], None],
    is_stopped: Callable[[], bool],
) -> Evaluation | None:
    """Carry out what is left of a plan; return the last evaluation, or None if it was stopped before the end.

    `record` is given what is worth keeping, `save` is called between two updates, after each evaluation
    and before a stop. Each process evaluates on all of held_out, and goes by what the first one found.
    Raises SafetyError once the gate trips on the validation loss, and where it has before.
    """
    require_open(progress)
    device = next(model.parameters()).device
    amp = partial(autocast, device, settings.amp)
    batches = loader(rows, plan, progress.update, replicas, settings.num_workers)
    clock: deque[tuple[float, int]] = deque(maxlen=SHOWN)
    evaluation = None
    for update in range(progress.update, plan.updates):
        began, bits, loss = time.perf_counter(), 0, torch.zeros((), device=device)
        torch.manual_seed(seed_of(plan.seed, update, replicas.rank))
        prob = cosine_ramp(update, start=0.0, end=settings.compress_prob, total_steps=settings.warmup_steps)
        lr = schedule.get_last_lr()[0]
        model.train()
        # One form an update: were each micro-batch's its own, smaller ones would make it another run.
        form = draw_form(prob, settings.direct_prob, random.Random(seed_of(plan.seed, update)).random)
        shares = Shares(first=int(replicas.count > 1))  # processes weigh in one unit, that of a bit
        for micro_batch in micro_batches(plan, update):
            batch = next(batches).to(device, non_blocking=True)
            with replicas.accumulating(model, closes=micro_batch.closes):
                with amp():
                    logits, targets = predict(model, batch, form, settings.forward_kwargs)
                    micro_loss = next_bit_loss(at_least_float32(logits), targets)
                share = shares.weigh(scored_bits(targets[:, 1:]) if replicas.has_part(micro_batch.rows) else 0)
                (micro_loss * share).backward()
            loss += micro_loss.detach() * share
            bits += len(micro_batch.rows) * batch.shape[1]
        shares.total = replicas.mean(torch.tensor(shares.total, dtype=torch.float64, device=device)).item()
        shares.average(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress.losses.append(replicas.mean(loss).item() * shares.first / shares.total)
        progress.update = update + 1
        clock.append((time.perf_counter() - began, bits))
        is_last, is_stop = progress.update == plan.updates, replicas.any(is_stopped())
        if is_last or progress.update % settings.log_interval == 0:
            record(train_record(plan, progress, lr, prob, clock))
        evaluation = None
        if is_last or progress.update % settings.eval_interval == 0:
            evaluation = replicas.agreed(evaluate(replicas.plain(model), held_out, plan.batch_size, amp))
            note_evaluation(evaluation, schedule, progress, record)
        if evaluation is not None or is_stop:
            save()
        require_open(progress)
        if is_stop and not is_last:
            return None
    return evaluation


def require_open(progress: Progress) -> None:
    """Raise SafetyError if the gate of a run has tripped."""
    if progress.gate.tripped:
        raise SafetyError(
            f"stopped at update {progress.update}: the validation loss averages {progress.gate.ema_val:.3f} nats a "
            f"bit, over --loss_threshold {progress.gate.threshold}; look at the data, then start again, in another "
            "folder, with a lower --lr"
        )


def loader(rows: Dataset, plan: Plan, first_update: int, replicas: Replicas, num_workers: int) -> Iterator[Tensor]:
    """The micro-batches [rows, T] of this process, from an update to the last."""
    places = (
        replicas.part(micro_batch.rows)
        for update in range(first_update, plan.updates)
        for micro_batch in micro_batches(plan, update)
    )
    order = torch.Generator().manual_seed(plan.seed)  # else workers' seeds would come out of the run's own draws
    return iter(
        DataLoader(
            rows, batch_sampler=places, num_workers=num_workers, generator=order, worker_init_fn=leave_signals_alone
        )
    )


def leave_signals_alone(_worker: int) -> None:
    """Let a worker outlive Ctrl-C, which reaches it too, until the run itself has stopped."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def micro_batches(plan: Plan, update: int) -> list[MicroBatch]:
    """The micro-batches of an update; a function of the plan's seed and the update alone."""
    epoch, group = divmod(update, plan.updates_per_epoch)
    order = row_order(plan.rows, plan.seed, epoch)
    last = plan.micro_batches - 1
    numbers = range(plan.micro_batches + plan.extra_steps)[group * plan.accum_steps : (group + 1) * plan.accum_steps]
    parts = [order[min(n, last) * plan.batch_size :][: plan.batch_size].tolist() for n in numbers]
    return [MicroBatch(part, part is parts[-1]) for part in parts]


_orders: dict[tuple[int, int, int], Tensor] = {}


def row_order(rows: int, seed: int, epoch: int) -> Tensor:
    """The order of the rows in an epoch [rows]."""
    key = (rows, seed, epoch)
    if key not in _orders:
        while len(_orders) > 1:  # workers may be an epoch ahead
            del _orders[next(iter(_orders))]
        _orders[key] = torch.randperm(rows, generator=torch.Generator().manual_seed(seed_of(seed, epoch, -1)))
    return _orders[key]


def seed_of(*numbers: int) -> int:
    """A seed of 63 bits that is a function of some numbers."""
    return random.Random(repr(numbers)).getrandbits(63)


def train_record(plan: Plan, progress: Progress, lr: float, prob: float, clock: deque[tuple[float, int]]) -> Record:
    """The record of the updates since the last one; empties their losses."""
    loss, progress.losses = sum(progress.losses) / len(progress.losses), []
    seconds, bits = (sum(values) for values in zip(*clock, strict=True))
    return {
        "kind": "train",
        "step": progress.update,
        "epoch": (progress.update - 1) // plan.updates_per_epoch,
        "loss": loss,
        "lr": lr,
        "compress_prob": prob,
        "bits_per_second": bits / seconds,
        "seconds_left": seconds / len(clock) * (plan.updates - progress.update),
    }


def note_evaluation(
    evaluation: Evaluation, schedule: Any, progress: Progress, record: Callable[[Record], None]
) -> None:
    """Record an evaluation, and let schedule and gate act on it."""
    record({"kind": "eval", "step": progress.update, **evaluation.to_json()})
    if isinstance(schedule, ProgressivePlateau) and schedule.evaluated(evaluation.loss):
        record({"kind": "drop", "step": progress.update, "lr": schedule.get_last_lr()[0], "best": schedule.best})
    if not progress.gate.allows(evaluation.loss):
        record({"kind": "stop", "step": progress.update, "ema": progress.gate.ema_val})
