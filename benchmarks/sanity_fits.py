"""The sanity fit of each task, against the unpatched one: `python benchmarks/sanity_fits.py`.

Trees are baseline/ with a codemod applied, or all. Each trains the small model of the sanity fit for 300
updates on text, in a process of its own, and its curve must stand in a stated relation to that of
baseline/: the same loss at each update, bit for bit where the task leaves the arithmetic alone, and within
1e-9 bits per bit in float64 where it computes the same in another order. Task 1 shuffles, so there
baseline/ trains on the rows in the order that was drawn. Rates are compared too, and each curve must pass
the sanity fit's own judge: its loss falls, and its rates are OneCycle's to 1e-9 of the peak.

Writes docs/sanity_fits.md; exits 1 where a relation fails, or where a fit in float32, as `bitpatch verify
--all` runs it, takes 15 s of one core.
"""

import datetime
import math
import multiprocessing
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from trees import ROOT, grow

from bitpatch.patches.known import all_tasks
from bitpatch.verify.driving.short_fit import UPDATES, Fit, entropy_floor, judge, text_rows, train
from bitpatch.verify.rendering.report import LAST, mean
from bitpatch.verify.running.evidence import Verdict
from bitpatch.verify.running.runner import SAMPLE

DOCUMENT = ROOT / "docs" / "sanity_fits.md"
CONTRACTS = {task.number: str(task.contract) for task in all_tasks()}
ALL = tuple(CONTRACTS)
SECONDS = 15.0  # of one core, that a fit in float32 may take
HANGS = 300.0  # seconds after which no answer is expected
ROUNDED = 1e-9  # bits per bit; rounding in float64 makes 1e-15
ROUNDED_FLOAT32 = 1e-5
ONE_CHUNK = 1e-2  # bits per bit
CHUNKS = {"chunk_size": 36, "overlap": 18}  # three windows a row of 108 bits, the first with padding
RAGGED = -3  # rows: the last micro-batch is short, and there are 300 updates still

CONTEXT = multiprocessing.get_context("forkserver")  # processes that start as one thread, with torch imported
CONTEXT.set_forkserver_preload(["torch", "torch._dynamo", "torch.utils.data", "bitpatch.verify.driving.tree"])


@dataclass(frozen=True, slots=True)
class Order:
    """A fit: a tree by its path, and what it trains on, and how."""

    tree: Path
    seed: int = 0
    dtype: str = "float32"
    threads: int = 1
    rows: int | None = None  # how many, as the end of a slice
    drawn: Any = None  # an array [rows, T] to train on instead of the text's rows
    config: Mapping[str, Any] = field(default_factory=dict)  # of the model
    options: Mapping[str, Any] = field(default_factory=dict)  # of train_loop


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a fit: its curves, the rows [rows, T] in the order in which it took them, seconds of one core."""

    fit: Fit
    drawn: Any
    seconds: float

    @property
    def last(self) -> float:
        """The final loss, in bits per bit."""
        return mean(self.fit.losses[-LAST:])


def run_fits(orders: Iterable[Order]) -> Iterator[Seen]:
    """Run fits, two at a time, each in a process of its own."""
    with ThreadPoolExecutor(2) as threads:
        yield from threads.map(run_fit, orders)


def run_fit(order: Order) -> Seen:
    """Run a fit in a process of its own; RuntimeError where it gives no answer."""
    reading, writing = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=answer, args=(order, writing))
    process.start()
    writing.close()
    try:
        if not reading.poll(HANGS):
            process.kill()
            raise RuntimeError(f"the fit of {order.tree} did not end within {HANGS:.0f} s")
        seen: Seen = reading.recv()
    except EOFError as error:
        raise RuntimeError(f"the fit of {order.tree} gave no answer") from error
    finally:
        process.join()
    return seen


def answer(order: Order, pipe: Connection) -> None:
    """Run a fit, here, and send what came of it."""
    import torch  # noqa: PLC0415 - the process that starts the fits goes without

    from bitpatch.verify.driving.tree import Tree  # noqa: PLC0415

    sys.dont_write_bytecode = True
    multiprocessing.set_start_method(None, force=True)  # workers start as they do in a program of its own
    torch.set_num_threads(order.threads)
    rows = text_rows(SAMPLE.read_bytes())[: order.rows] if order.drawn is None else torch.from_numpy(order.drawn).long()
    drawn: list[torch.Tensor] = []
    dtype = getattr(torch, order.dtype)
    tree = Tree(order.tree)
    fit = train(tree, rows, seed=order.seed, dtype=dtype, config=order.config, on_rows=drawn.append, **order.options)
    pipe.send(Seen(fit, torch.cat(drawn).to(torch.uint8).numpy(), cpu_seconds()))


def cpu_seconds() -> float:
    """Processor seconds of this process and of those that it waited for."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@dataclass(frozen=True, slots=True)
class Relation:
    """What the fit of a tree with some tasks is to that of the tree without them, or with fewer."""

    tasks: tuple[int, ...]
    claim: str
    limit: float  # bits per bit
    dtype: str = "float32"
    config: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[int, ...] = ()  # the tasks of the other tree
    final: bool = False  # compare final losses only, not every update's
    rows: int | None = None
    misled: bool = False  # the other tree's rates must not be OneCycle's

    @property
    def setting(self) -> str:
        """How both were trained."""
        options = [f"{name} {value}" for name, value in {**self.config, **self.options}.items()]
        ragged = [] if self.rows is None else [f"rows {UPDATES * 8 + self.rows}"]
        return ", ".join([self.dtype, *options, *ragged])


SAME, DRAWN = "the same curve", "the same curve, on the rows in the order drawn"
RELATIONS = (
    Relation((1,), DRAWN, 0.0),
    Relation((1,), "OneCycle's rates, where the unpatched ones drift", math.inf, rows=RAGGED, misled=True),
    *(Relation((task,), SAME, 0.0) for task in (2, 3, 4, 5, 6, 7, 8)),
    Relation((6,), SAME, 0.0, options={"compress_prob": 0.5}),
    Relation((9,), SAME, ROUNDED_FLOAT32),
    Relation((9,), SAME, ROUNDED, "float64"),
    Relation((9,), SAME, ROUNDED, "float64", CHUNKS),
    Relation((10,), SAME, 0.0),
    Relation((10,), SAME, 0.0, "float64", CHUNKS),
    Relation((11,), SAME, 0.0),
    Relation((11,), "a final loss as good; padding is masked", ONE_CHUNK, "float64", CHUNKS, final=True),
    Relation((12,), SAME, 0.0),
    Relation((12,), SAME, 0.0, "float64", CHUNKS),
    Relation(ALL, DRAWN, ROUNDED, "float64"),
    Relation(ALL, f"{DRAWN}, of task 11 alone", ROUNDED, "float64", CHUNKS, without=(11,)),
    Relation(ALL, "OneCycle's rates, where the unpatched ones drift", math.inf, rows=RAGGED, misled=True),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A relation, and what was measured."""

    relation: Relation
    seen: Seen
    other: Seen
    floor: float

    @property
    def measured(self) -> float:
        """The most that the losses differ by, in bits per bit; infinite where the updates are not as many."""
        if self.relation.final:
            return abs(self.seen.last - self.other.last)
        return distance(self.seen.fit.losses, self.other.fit.losses)

    @property
    def faults(self) -> list[str]:
        """What does not hold."""
        faults = []
        if not self.measured <= self.relation.limit:
            faults.append(f"the losses differ by {self.measured:.2g}, at most {self.relation.limit:.0e} may be")
        verdict, detail = judge(self.seen.fit, self.floor)
        if verdict is not Verdict.PASS:
            faults.append(f"the fit does not pass: {detail}")
        verdict, detail = judge(self.other.fit, self.floor)
        if self.relation.misled and "learning rate" not in detail:
            faults.append("the rates of the tree without the task are OneCycle's too")
        if not self.relation.misled and verdict is not Verdict.PASS:
            faults.append(f"the fit of the tree without the task does not pass: {detail}")
        if not self.relation.misled and self.seen.fit.rates != self.other.fit.rates:
            faults.append(f"the rates differ by {distance(self.seen.fit.rates, self.other.fit.rates):.2g}")
        if self.relation.dtype == "float32" and self.seen.seconds >= SECONDS:
            faults.append(f"it took {self.seen.seconds:.0f} s of one core, at most {SECONDS:.0f} may be")
        return faults


def distance(curve: Sequence[float], other: Sequence[float]) -> float:
    """The most that two curves differ by."""
    if len(curve) != len(other):
        return math.inf
    return max((abs(a - b) for a, b in zip(curve, other, strict=True)), default=math.inf)


def find_all(folder: Path) -> Iterator[Finding]:
    """Train what the relations compare, and compare it."""
    floor = entropy_floor(SAMPLE.read_bytes())
    trees = {tasks: grow(tasks, folder) for each in RELATIONS for tasks in (each.tasks, each.without)}
    orders = [
        Order(trees[each.tasks], dtype=each.dtype, rows=each.rows, config=each.config, options=each.options)
        for each in RELATIONS
    ]
    known: dict[tuple[Path, str], Seen] = {}  # of the trees without the tasks, on the text's rows as they come
    for each, order, seen in zip(RELATIONS, orders, run_fits(orders), strict=True):
        other = replace(order, tree=trees[each.without], drawn=seen.drawn if 1 in each.tasks else None)
        key = (other.tree, each.setting)
        if other.drawn is not None:
            yield Finding(each, seen, run_fit(other), floor)
            continue
        if key not in known:
            known[key] = run_fit(other)
        yield Finding(each, seen, known[key], floor)


def main() -> int:
    """Compare all, print and write the table; return the exit status."""
    began = time.monotonic()
    print("\n".join(HEAD))
    findings = []
    with tempfile.TemporaryDirectory(prefix="bitpatch-fits-") as folder:
        for finding in find_all(Path(folder)):
            findings.append(finding)
            print(row_of(finding), flush=True)
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text("\n".join(document(findings, time.monotonic() - began)) + "\n", encoding="utf-8")
    return any(finding.faults for finding in findings)


HEAD = (
    "| task | contract | trained in | relation to the unpatched fit | measured | limit | last loss | verdict | s |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)

INTRODUCTION = f"""A fit is {UPDATES} updates of a small model on text. Measured is the most, over all updates, that its
loss differs from that of the tree without the task, in bits per bit; of task 11 in chunks, which is to compute
something else, the difference of the final losses. The rates must be equal, and OneCycle's to 1e-9 of the peak,
and each fit must pass the sanity fit's own judge. The last column is processor time."""
NOTES = f"""Task 6 is compared without compression and with it: what enters the model is the same either way. Rows that
do not fill the last micro-batch make the unpatched total one too small. The {UPDATES * 8} rows of the other fits
fill it, so that every tree is to follow OneCycle there, patched or not."""


def row_of(finding: Finding) -> str:
    """A line of the table."""
    relation = finding.relation
    name = "all" if relation.tasks == ALL else " ".join(map(str, relation.tasks))
    contract = "" if relation.tasks == ALL else CONTRACTS[relation.tasks[0]]
    limit = "" if relation.limit == math.inf else f"{relation.limit:.0e}" if relation.limit else "0"
    measured = "" if relation.limit == math.inf else f"{finding.measured:.1e}" if finding.measured else "0"
    verdict = "; ".join(finding.faults) or "holds"
    cells = (name, contract, relation.setting, relation.claim, measured, limit, f"{finding.seen.last:.4f}", verdict)
    return f"| {' | '.join(cells)} | {finding.seen.seconds:.1f} |"


def document(findings: Sequence[Finding], seconds: float) -> Iterator[str]:
    """The page that is docs/sanity_fits.md."""
    failed = sum(bool(finding.faults) for finding in findings)
    yield "# The sanity fit of each task"
    yield ""
    yield f"`python benchmarks/sanity_fits.py`: {len(findings)} relations, {failed} failed, {seconds:.0f} s."
    yield ""
    yield INTRODUCTION
    yield ""
    yield from HEAD
    yield from map(row_of, findings)
    yield ""
    yield NOTES
    yield ""
    yield f"Python {platform.python_version()}, torch {version('torch')}, {datetime.date.today()}."


if __name__ == "__main__":
    sys.exit(main())
