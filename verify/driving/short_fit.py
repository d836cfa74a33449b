"""A small model, trained on real text for a few hundred updates, and whether it behaved: the sanity fit.

The tree's own train_loop trains; loss and learning rate are seen from outside it. Four things must hold.

- The loss falls: from the mean of the first 10 updates to that of the last 20 by LEAST_FALL at least.
- It stays above what the text can be predicted with. In one epoch each row is scored before it is
  trained on, so the losses add up to the length of a code for the text, and no code is much shorter than
  the best compressors' (the parity bit costs them nothing: 8 bits of text are 9 here). Those need about
  two thirds of what xz does, with the whole text as context where a row has 12 bytes. So a loss below
  XZ_SHARE of xz's bits per bit has seen the answer.
- No logit changes with a later bit, whether or not the model has yet learned to make use of it.
- The rates are OneCycle's (Smith and Topin 2017, arXiv:1708.07120) for this number of updates, from the
  first to the floor.
"""

import lzma
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..rendering.report import FIRST, LAST, SanityFit, mean
from ..running.evidence import Verdict

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .tree import Tree

UPDATES = 300
ROWS_PER_UPDATE = 8  # the baseline's batch size, and the default of the task that makes it an option
BYTES_PER_ROW = 12
LEAST_FALL = 0.2  # bits per bit
XZ_SHARE = 2 / 3
RATE_TOLERANCE = 1e-9  # as a share of the peak
LEAK_TOLERANCE = 1e-5  # of a logit; without a leak the difference is exactly 0
PCT_START, DIV_FACTOR, FINAL_DIV_FACTOR = 0.3, 25.0, 1e4  # what OneCycleLR takes when it is not told


@dataclass(frozen=True, slots=True)
class Fit:
    """What was seen of a training run: per update the loss in bits per bit and the learning rate."""

    losses: list[float]
    rates: list[float]
    peak: float  # the schedule's highest rate
    leak: float  # the most that a later bit changed a logit


def fit(tree: "Tree", sample: bytes) -> Fit:
    """Train a small model of a tree on a text, and watch."""
    return train(tree, text_rows(sample))


def train(
    tree: "Tree",
    rows: "Tensor",
    *,
    seed: int = 0,
    dtype: "torch.dtype | None" = None,
    config: Mapping[str, Any] | None = None,
    on_rows: "Callable[[Tensor], object] | None" = None,
    **options: Any,
) -> Fit:
    """Train a small model, in float32 or another dtype, on rows of bits [rows, T], and watch.

    What config says of the model, and further options of train_loop, come before what a sanity fit takes;
    on_rows is called with the rows of each micro-batch.
    """
    import torch  # noqa: PLC0415 - the parent imports this module too, and goes without torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook  # noqa: PLC0415

    size = {"d_model": 48, "nhead": 2, "num_layers": 2, "dim_feedforward": 192, "max_seq_len": rows.shape[1]}
    random.seed(seed)
    model = tree.model(seed, dtype or torch.float32, **size | dict(config or {}))
    mine = {id(parameter) for parameter in model.parameters()}
    scored: list[tuple[float, int]] = []  # nats and bits of the micro-batches since the last update
    losses, rates, peaks = [], [], []

    def see_forward(module: "nn.Module", args: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        if module.training and torch.is_grad_enabled():
            bits = next(iter((*args, *named.values())))
            logits, targets = tree.outputs(out)[0].detach()[:, :-1].flatten(0, 1), bits[:, 1:].flatten()
            nats = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
            scored.append((nats.item(), len(targets)))
            if on_rows is not None:
                on_rows(bits)

    def see_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        group = optimizer.param_groups[0]
        if scored and id(group["params"][0]) in mine:
            losses.append(sum(nats for nats, _ in scored) / sum(bits for _, bits in scored) / math.log(2))
            rates.append(float(group["lr"]))
            peaks.append(float(group.get("max_lr", group["lr"])))
            scored.clear()

    hooks = [model.register_forward_hook(see_forward, with_kwargs=True), register_optimizer_step_pre_hook(see_step)]
    if tree.loop_takes("batch_size"):  # whose default is the tree's own affair
        options = {"batch_size": ROWS_PER_UPDATE} | options
    tree.train(model, rows, **{"epochs": 1, "extra_steps": 0, "compress_prob": 0.0, "direct_prob": 0.0} | options)
    for hook in hooks:
        hook.remove()
    return Fit(
        losses, rates, max(peaks, default=0.0), leak(lambda bits: tree.forward(model, bits)[0], rows[:ROWS_PER_UPDATE])
    )


def text_rows(sample: bytes) -> "Tensor":
    """The start of a text as rows of bits [UPDATES * ROWS_PER_UPDATE, 9 * BYTES_PER_ROW]."""
    import torch  # noqa: PLC0415

    count = UPDATES * ROWS_PER_UPDATE
    if len(sample) < count * BYTES_PER_ROW:
        raise ValueError(f"the sample has {len(sample)} bytes; the sanity fit needs {count * BYTES_PER_ROW}")
    data = torch.tensor(list(sample[: count * BYTES_PER_ROW]))
    bits = data[:, None] >> torch.arange(7, -1, -1) & 1  # [bytes, 8]
    return torch.cat([bits, bits.sum(1, keepdim=True) % 2], 1).view(count, 9 * BYTES_PER_ROW)


def leak(answer: "Callable[[Tensor], Tensor]", rows: "Tensor") -> float:
    """The most that a logit which is answered to rows [B, T] changes with a later bit."""
    import torch  # noqa: PLC0415

    def logits(bits: "Tensor") -> "Tensor":
        torch.manual_seed(0)  # the same dropout in both
        return answer(bits)

    T, most = rows.shape[1], 0.0
    with torch.no_grad():
        before = logits(rows)
        for known in (1, T // 3, T // 2, T - 1):
            changed = torch.cat([rows[:, :known], 1 - rows[:, known:]], 1)
            most = max(most, (logits(changed) - before)[:, :known].abs().max().item())
    return most


def read_fit(answer: dict[str, Any], sample: Path, seconds: float) -> SanityFit:
    """The sanity fit in an answer, judged; unproven where the tree cannot be driven, an error if its shape is wrong."""
    if "verdict" in answer:  # there was no fit
        verdict = Verdict.UNPROVEN if answer["verdict"] == Verdict.UNPROVEN else Verdict.ERROR
        return SanityFit(verdict, str(answer.get("detail")), (), (), seconds)
    curves = [answer.get(name) for name in ("losses", "rates")]
    numbers = [answer.get(name) for name in ("peak", "leak")]
    for curve in curves:
        numbers += curve if isinstance(curve, list) else [None]
    if not all(isinstance(number, float) for number in numbers):
        return SanityFit(Verdict.ERROR, "the answer is not shaped like a sanity fit", (), (), seconds)
    seen = Fit(**answer)
    verdict, detail = judge(seen, entropy_floor(sample.read_bytes()))
    return SanityFit(verdict, detail, tuple(seen.losses), tuple(seen.rates), seconds)


def judge(seen: Fit, floor: float) -> tuple[Verdict, str]:
    """Whether a training run behaved, and what was wrong; floor is the least believable loss."""
    if not seen.losses:
        return Verdict.UNPROVEN, "train_loop updated the model without calling it"
    faults = []
    if len(seen.losses) != UPDATES:
        faults.append(f"{len(seen.losses)} updates where {UPDATES * ROWS_PER_UPDATE} rows make {UPDATES}")
    first, last = mean(seen.losses[:FIRST]), mean(seen.losses[-LAST:])
    if not first - last >= LEAST_FALL:
        faults.append(f"the loss fell by {first - last:.3f} bits per bit, expected at least {LEAST_FALL}")
    if last < floor:
        faults.append(f"a loss of {last:.3f} bits per bit is below the text's entropy, at least {floor:.3f}")
    if not seen.leak <= LEAK_TOLERANCE:
        faults.append(f"later bits change a logit by {seen.leak:.2g}: the model sees the future")
    expected = [one_cycle(update, UPDATES, seen.peak) for update in range(UPDATES)]
    for update, (rate, right) in enumerate(zip(seen.rates, expected, strict=False)):
        if not abs(rate - right) <= RATE_TOLERANCE * seen.peak:
            faults.append(f"update {update} has learning rate {rate:.6g}, OneCycle over {UPDATES} has {right:.6g}")
            break
    return (Verdict.FAIL, "; ".join(faults)) if faults else (Verdict.PASS, "")


def entropy_floor(sample: bytes) -> float:
    """The least loss, in bits per bit, that a model can honestly reach on a text."""
    bytes_needed = len(lzma.compress(sample, preset=9 | lzma.PRESET_EXTREME))
    return XZ_SHARE * bytes_needed * 8 / (len(sample) * 9)


def one_cycle(update: int, total: int, peak: float) -> float:
    """The learning rate of an update, counted from 0: up a half cosine to the peak, down another to the floor."""
    start, floor = peak / DIV_FACTOR, peak / DIV_FACTOR / FINAL_DIV_FACTOR
    top = PCT_START * total - 1
    if update <= top:
        return half_cosine(start, peak, update / top)
    return half_cosine(peak, floor, (update - top) / (total - 1 - top))


def half_cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2
