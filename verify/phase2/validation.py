"""Judge a finished run of Phase 2: THRESHOLDS says what it must reach, and why.

What a run recorded is read here. What its models do is measured by `validation_worker` in a process of
its own, with the code of the tree; this process imports neither torch nor the tree.
"""

import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...screen import show_json, show_table, warn
from ..driving.short_fit import DIV_FACTOR, FINAL_DIV_FACTOR, one_cycle
from ..rendering.report import detail_of, finite, mean
from ..running.evidence import Evidence, Verdict, at_most, unproven
from ..running.runner import Progress, ignore_progress
from .run_folder import Run, Unmeasured, hashes_of, tree_environment

BITS_A_PARAMETER = 20  # Hoffmann et al. 2022, arXiv:2203.15556; the tree's presets have it too
GAIN = 1e-3  # of the best loss: what wins less is no progress to a progressive plateau
# Small, and their error would go into the scores.
KEPT_FLOAT = {"embedding.weight", "halt.weight", "out.weight", "contexts.embed.weight", "contexts.weigh.weight"}
COLUMNS = ("threshold", "verdict", "measured", "limit", "what must hold", "what was seen")
EXIT_CODES = {Verdict.PASS: 0, Verdict.FAIL: 4, Verdict.UNPROVEN: 5}
GRAVEST_FIRST = (Verdict.FAIL, Verdict.UNPROVEN, Verdict.PASS)

Measured = Mapping[str, Mapping[str, Any]]
Seen = tuple[float, str]  # a number, and what there is to say of it


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a run must reach: `measure` gives a number that is at most `limit`, or raises Unmeasured."""

    name: str
    prop: str
    limit: float
    measure: Callable[[Run, Measured], Seen]
    applies: Callable[[dict[str, Any]], bool] = lambda _: True  # to a run with these flags


@dataclass(frozen=True, slots=True)
class Judged:
    """A threshold, and what was seen of it."""

    threshold: Threshold
    evidence: Evidence

    def cells(self) -> tuple[str, ...]:
        """The threshold's row under COLUMNS."""
        seen = "" if self.evidence.measured is None else f"{self.evidence.measured:.3g}"
        numbers = seen, f"{self.threshold.limit:.3g}"
        return self.threshold.name, str(self.evidence.verdict), *numbers, self.threshold.prop, self.evidence.detail

    def to_json(self) -> dict[str, Any]:
        """The threshold's part of the JSON."""
        return {
            "name": self.threshold.name,
            "property": self.threshold.prop,
            "verdict": str(self.evidence.verdict),
            "measured": finite(self.evidence.measured),
            "limit": self.threshold.limit,
            "detail": detail_of(self.evidence),
        }


@dataclass(frozen=True, slots=True)
class Validation:
    """What was found out about a run, and the hashes of the files that it was found out about."""

    run: Run
    judged: tuple[Judged, ...]
    hashes: dict[str, str | None]

    @property
    def verdict(self) -> Verdict:
        """The gravest: fail before unproven before pass."""
        return min((judged.evidence.verdict for judged in self.judged), key=GRAVEST_FIRST.index)

    def to_json(self) -> dict[str, Any]:
        """What --json prints and validation.json holds; its schema is schemas/validate.json."""
        return {
            "preset": self.run.values["preset"],
            "run": str(self.run.folder),
            "verdict": str(self.verdict),
            **self.hashes,
            "thresholds": [judged.to_json() for judged in self.judged],
        }


def validate(tree: Path, run: Run, *, on_event: Callable[[Progress], None] = ignore_progress) -> Validation:
    """Judge a run with the code of a tree."""
    hashes, measured = hashes_of(run.folder), dict[str, dict[str, Any]]()
    if run.report is not None:
        for seen in measure(tree, run):
            measured[seen["name"]] = seen
            on_event(Progress(None, f"{seen['name']} is measured", len(measured), seen.get("of", len(measured))))
    return Validation(run, tuple(judge(run, measured)), hashes)


def missing_packages() -> list[str]:
    """The packages without which no run is made or measured. Nothing is imported here."""
    return [name for name in ("torch", "numpy", "safetensors") if importlib.util.find_spec(name) is None]


def measure(tree: Path, run: Run) -> Iterator[dict[str, Any]]:
    """What the worker measures of a run, one thing after the other; last, an "end" that says why it went no further."""
    request = {"run": str(run.folder), "values": run.values, "parent": os.getpid()}
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "bitpatch.verify.phase2.validation_worker"],
            env=tree_environment(tree) | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(request).encode())
        child.stdin.close()
        try:
            yield from map(json.loads, child.stdout)
        except BaseException:
            child.kill()
            raise
        if child.wait():
            said.seek(0)
            last = (said.read().decode(errors="replace").strip().splitlines() or ["nothing"])[-1]
            yield {"name": "end", "error": f"measuring ended with exit status {child.returncode}; it said: {last}"}


def judge(run: Run, measured: Measured) -> Iterator[Judged]:
    """Each threshold for such a run, with what was seen of it."""
    for threshold in THRESHOLDS:
        if not threshold.applies(run.values):
            continue
        try:
            value, detail = threshold.measure(run, measured)
            evidence = at_most(value, threshold.limit, detail)
        except Unmeasured as error:
            evidence = unproven(str(error))
        except (KeyError, TypeError) as error:
            evidence = unproven(f"metrics.jsonl or report.json is not shaped as expected: {error!r}")
        yield Judged(threshold, evidence)


def give(validation: Validation, *, as_json: bool, quiet: bool) -> int:
    """Print what was judged, and write it into the run's folder; gives the exit code."""
    if not (as_json or quiet):
        show_table(COLUMNS, [judged.cells() for judged in validation.judged], typed=("threshold",))
    kept = write_validation(validation)
    if as_json:
        show_json(validation.to_json())
    if not quiet:
        warn(f"{validation.run.folder}: {validation.verdict}; kept in {kept}")
    return EXIT_CODES[validation.verdict]


def write_validation(validation: Validation) -> Path:
    """Write validation.json into the run's folder, whole or not at all."""
    path = validation.run.folder / "validation.json"
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(validation.to_json(), indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def found(measured: Measured, *names: str) -> list[Mapping[str, Any]]:
    """Measurements by their names; Unmeasured, with the reason, where one was not made."""
    for name in names:
        error = measured.get(name, measured.get("end", {"error": "the run has not finished"})).get("error")
        if error is not None:
            raise Unmeasured(str(error))
    return [measured[name] for name in names]


def updates_left(run: Run, _: Measured) -> Seen:
    """Updates that the run did not make; one at least without a report."""
    off = abs(run.planned - run.updates)
    seen = f"update {run.updates:,} of {run.planned:,}"
    if run.of_kind("stop"):
        return max(off, 1), f"{seen}: the safety gate stopped it"
    if not run.is_done:
        return max(off, 1), f"{seen}, and no report on them: go on with bitpatch train ... --resume"
    return off, seen


def wrong_losses(run: Run, _: Measured) -> Seen:
    """Recorded losses that are no numbers."""
    losses = [record["loss"] for record in run.of_kind("train") + run.of_kind("eval")]
    if not losses:
        raise Unmeasured("metrics.jsonl holds no loss")
    return sum(not math.isfinite(loss) for loss in losses), f"{len(losses)} records"


def change_of_loss(run: Run, _: Measured) -> Seen:
    """By what share of the first record's the training loss of the last tenth of the records is higher."""
    losses = [record["loss"] for record in run.of_kind("train")]
    if len(losses) <= 1:
        raise Unmeasured(f"metrics.jsonl holds {len(losses)} records of training, expected 2: lower --log_interval")
    last = mean(losses[-max(1, len(losses) // 10) :])
    change = (last - losses[0]) / losses[0] if losses[0] else 0.0
    return change, f"{losses[0]:.4f} -> {last:.4f} nats a bit"


def rate_error(run: Run, _: Measured) -> Seen:
    """The largest distance of a recorded rate, or of a drop, from what the schedule calls for, as a share of --lr."""
    trained = run.of_kind("train")
    if not trained:
        raise Unmeasured("metrics.jsonl holds no record of training")
    peak = run.values["lr"]
    if run.values["lr_schedule"] == "onecycle":
        right = {record["step"]: one_cycle_rate(record["step"], run.planned, peak) for record in trained}
    else:
        drops, rates = plateau(run)
        recorded = [(record["step"], record["lr"]) for record in run.of_kind("drop")]
        if recorded != drops:
            return math.inf, f"drops of the rate at {recorded}; the evaluations call for {drops}"
        right = {record["step"]: rates(record["step"]) for record in trained}
    off = [(abs(record["lr"] - right[record["step"]]) / peak, record) for record in trained]
    worst, record = max(off, key=lambda pair: pair[0])
    last = trained[-1]
    return worst, f"{last['lr']:.3g} at update {last['step']}" + (
        f"; {record['lr']:.3g} at update {record['step']}, where {right[record['step']]:.3g} is due" if worst else ""
    )


def one_cycle_rate(update: int, total: int, peak: float) -> float:
    """OneCycle's rate of an update, counted from 1; a single one has the floor."""
    return one_cycle(update - 1, total, peak) if total > 1 else peak / DIV_FACTOR / FINAL_DIV_FACTOR


def plateau(run: Run) -> tuple[list[tuple[int, float]], Callable[[int], float]]:
    """The drops (update, rate) that the recorded evaluations call for, and the rate of each update, counted from 1."""
    values = run.values
    peak, warmup, floor = values["lr"], values["lr_warmup"], min(values["lr_floor"], values["lr"])
    best, waited, drops = math.inf, 0, list[tuple[int, float]]()

    def rate(update: int) -> float:
        held = max(peak / 2 ** sum(step < update for step, _ in drops), floor)
        return float(held * min(1.0, update / max(warmup, 1)))

    for record in run.of_kind("eval"):
        step, loss = record["step"], record["loss"]
        if step < warmup:
            continue
        waited += 1
        if loss < best * (1 - GAIN):
            best, waited = loss, 0
        elif waited >= values["patience"] and rate(step + 1) > values["lr_floor"]:
            waited = 0
            drops.append((step, 0.0))
            drops[-1] = (step, rate(step + 1))
    return drops, rate


def load_faults(_: Run, measured: Measured) -> Seen:
    """Saved models that do not load."""
    (load,) = found(measured, "load")
    return len(load["faults"]), "; ".join(load["faults"])


def report_error(run: Run, measured: Measured) -> Seen:
    """The distance of what the saved model spends from what the report says, in bits a byte."""
    text, saved = found(measured, "text", "saved")
    if not text["is_same"]:
        raise Unmeasured("the text has changed since the run was trained on it: put back what --data named")
    said = (run.report or {})["evaluation"]["bpb_data"]
    return abs(saved["bpb_data"] - said), f"{saved['bpb_data']:.4f} bits per byte, {said:.4f} in the report"


def formula_error(_: Run, measured: Measured) -> Seen:
    """The distance of bpb_data as it is computed here from what the tree's evaluation says of the same rows."""
    (saved,) = found(measured, "saved")
    return abs(saved["bpb_data"] - saved["tree_bpb_data"]), f"the tree says {saved['tree_bpb_data']:.4f}"


def over_order_0(_: Run, measured: Measured) -> Seen:
    """The bits a byte that the model spends beyond the order-0 entropy."""
    text, saved = found(measured, "text", "saved")
    seen = f"{saved['bpb_data']:.4f} bits per byte, order-0 entropy {text['order_0']:.4f}"
    return saved["bpb_data"] - text["order_0"], f"{seen}, over {text['bytes']:,} bytes"


def parity_waste(_: Run, measured: Measured) -> Seen:
    """The bits a byte that the model spends on parity."""
    return found(measured, "saved")[0]["parity_waste"], ""


def leak(_: Run, measured: Measured) -> Seen:
    """How far a logit moves when a later bit changes; Unmeasured of a model that no bit moves."""
    (seen,) = found(measured, "leak")
    if not seen["after"] > 0:
        raise Unmeasured(f"of {seen['flips']} bits that were changed, one moved no logit after it either")
    return seen["before"], f"{seen['flips']} bits changed; logits after them moved by {seen['after']:.2g} or more"


def int8_size(_: Run, measured: Measured) -> Seen:
    """The size of the INT8 file as a share of the other's."""
    (files,) = found(measured, "int8")
    return files["size"], f"{files['int8_bytes']:,} of {files['float_bytes']:,} bytes"


def int8_cost(_: Run, measured: Measured) -> Seen:
    """The bits a byte that the INT8 file's model spends beyond the other's."""
    saved, int8 = found(measured, "saved", "int8")
    return int8["bpb_data"] - saved["bpb_data"], f"{int8['bpb_data']:.4f} bits per byte, {saved['bpb_data']:.4f} before"


def int8_time(_: Run, measured: Measured) -> Seen:
    """The CPU time of an INT8 forward as a share of the other's: the median over pairs that took turns."""
    (taken,) = found(measured, "speed")
    seen = (
        f"{1 / taken['share']:.2f} times as fast: {taken['int8'] * 1e3:.1f} ms and "
        f"{taken['float'] * 1e3:.1f} ms of CPU time on {taken['threads']} threads"
    )
    if taken["least_share"] <= 1 < taken["share"]:
        raise Unmeasured(f"{seen}, but the faster in a quarter of all pairs: too near to tell")
    return taken["share"], seen


def float_matrices(_: Run, measured: Measured) -> Seen:
    """Matrices of the INT8 model that are in floating point, and need not be."""
    names = [name for name in found(measured, "int8")[0]["float_matrices"] if name not in KEPT_FLOAT]
    return len(names), ", ".join(names)


def growth(run: Run, measured: Measured) -> Seen:
    """How far growing moved the logits that the run started from."""
    return found(measured, "grown")[0]["moved"], f"grown from {run.values['grow_from']}"


def missing_bits(run: Run, _: Measured) -> Seen:
    """Bits to train on that the data lacked; none where --force says that this is known."""
    length = run.values["max_seq_len"] // 9 * 9
    have, need = run.start["rows"] * length, BITS_A_PARAMETER * run.start["parameters"]
    seen = f"{have:,} bits for {run.start['parameters']:,} parameters"
    if run.values["force"] and have < need:
        return 0.0, f"{seen}, fewer than {need:,}: started with --force"
    return max(need - have, 0), seen


def has(name: str, *wanted: Any) -> Callable[[dict[str, Any]], bool]:
    """Whether a flag has one of some values; or any, where none is named."""
    return lambda values: values.get(name) in wanted if wanted else bool(values.get(name))


THRESHOLDS: Sequence[Threshold] = (
    Threshold("finished", "it made every update that was planned, and reported", 0, updates_left),
    Threshold("finite", "every loss that it recorded is a number", 0, wrong_losses),
    Threshold("learned", "its training loss fell, by a fiftieth at least", -0.02, change_of_loss),
    Threshold("rate", "the learning rate followed its schedule to the end", 1e-6, rate_error),
    Threshold("loads", "what it saved loads", 0, load_faults),
    # In float32 the same bits come out; bf16 moved two small runs by 0.0002, training for INT8 included.
    Threshold("reproduced", "the saved model spends what the report says", 1e-3, report_error, has("amp", "off")),
    Threshold("reproduced", "the saved model spends what the report says", 5e-3, report_error, has("amp", "bf16")),
    Threshold("formula", "the tree's bits per byte are those of its logits", 1e-6, formula_error),
    Threshold("order-0", "it has learned more than how frequent each byte is", 0, over_order_0),
    Threshold("parity", "it knows the parity bit, which follows from the eight before it", 0.05, parity_waste),
    Threshold("causal", "no logit changes with a later bit", 0, leak),
    Threshold("int8-size", "the INT8 file is small", 0.30, int8_size, has("quantization", "int8")),
    Threshold(
        "int8-cost", "INT8 costs little, after its way through the file", 0.02, int8_cost, has("quantization", "int8")
    ),
    Threshold("int8-time", "INT8 is the faster on this CPU", 1.0, int8_time, has("quantization", "int8")),
    Threshold("int8-all", "all other matrices are in INT8", 0, float_matrices, has("quantization", "int8")),
    Threshold("grown", "growing moved no logit, in float64", 1e-9, growth, has("grow_from")),
    Threshold("data", "it had 20 bits to train on a parameter, or --force", 0, missing_bits, has("preset", "task-c")),
)
