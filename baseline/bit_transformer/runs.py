"""Runs that are kept, in a folder (run_folder.py), and how one goes on.

    python -m bit_transformer.training task-a --data text.txt --out runs/a
    python -m bit_transformer.training task-a --out runs/a --resume

A run that was stopped, in whatever way, goes on where its last checkpoint is, and to the same bits; one
that had none yet starts again. Ctrl-C stops it after the update, with a checkpoint; a second one at once.
"""

import errno
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from .bit_io import SAMPLE
from .checkpoint import save_checkpoint, write_content
from .corpus import Corpus, dataset_files, evenly, load_corpus, text_files
from .curves import draw_curves, require_pictures
from .display import Display, attempt
from .distributed import Replicas, gather_state, init_distributed, scatter_state, shutdown_distributed, wrap_model
from .evaluation import (
    Evaluation,
    bytes_of_rows,
    comparison_table,
    draw_comparison,
    evaluate,
)
from .growing import grow_checkpoint
from .ladder import entropy
from .model import BitTransformerLM
from .optimization import configure_optimizer, make_adamw
from .presets import BITS_A_PARAMETER, PRESETS
from .pretraining import Plan, Progress, Settings, pretrain
from .quantization import prepare_qat
from .run_card import run_card
from .run_flags import RunError, Values, run_parser, values_of
from .run_folder import is_reported, kept_state, rows_folder, take_folder
from .run_report import report
from .safety import SafetyError, SafetyGate
from .schedules import ProgressivePlateau
from .trackers import Trackers, asked_for, require_trackers
from .training import autocast, compile_where_supported, planned_updates

EXIT_STOPPED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # the last is Arm's


def main(argv: Sequence[str] | None = None) -> int:
    """Start a run, or go on with one; return the exit status: 0 done, 1 stopped by the gate, 2 refused, 130 stopped."""
    try:
        values = values_of(run_parser(), argv)
        return run(values, init_distributed(values["device"]))
    except SafetyError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_STOPPED
    except KeyboardInterrupt:
        print("interrupted; the last checkpoint is whole: go on with --resume", file=sys.stderr)
        return EXIT_INTERRUPTED
    except torch.OutOfMemoryError as error:
        print(f"error: {error}\n{smaller_micro_batches(values)}", file=sys.stderr)
        return EXIT_USAGE
    except (ValueError, OSError, ImportError) as error:
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        mend = "; make room, then go on with --resume: the last checkpoint is whole" if is_full else ""
        print(f"error: {error}{mend}", file=sys.stderr)
        return EXIT_USAGE
    finally:
        shutdown_distributed()


def smaller_micro_batches(values: Values) -> str:
    """The flags of the same run in less memory."""
    batch_size, accum_steps = values["batch_size"], values["accum_steps"]
    if batch_size == 1:
        return "--batch_size is 1 already: give a smaller --max_seq_len, or fewer --layers"
    factor = next(factor for factor in range(2, batch_size + 1) if batch_size % factor == 0)
    differs = {"dropout": "what dropout drops", "qat": "what --qat rounds", "extra_steps": "its extra steps"}
    but_for = ", ".join(["rounding", *(words for name, words in differs.items() if values[name])])
    return (
        f"start again with --batch_size {batch_size // factor} --accum_steps {factor * accum_steps}: each update is "
        f"the mean over the same bits, and the run the same but for {but_for}"
    )


def run(values: Values, device: torch.device) -> int:
    """Carry out a run on a device, or what is left of it; return its exit status."""
    out, replicas = values["out"], Replicas.here()
    trackers = asked_for(values) if replicas.rank == 0 else ()
    require_trackers(trackers)
    if replicas.rank == 0 and values["amp"] == "bf16" and emulates_bfloat16(device):
        print("warning: --amp bf16: this CPU has no instructions for it; --amp off is faster here", file=sys.stderr)
    corpus = load_data(values)
    kept = kept_state(out / "checkpoint.safetensors", corpus) if values["resume"] else None
    model = make_model(values, corpus.length, is_fresh=kept is None)
    config, parameters = model.config, sum(parameter.numel() for parameter in model.parameters())
    plan = plan_of(values, len(corpus.train))
    require_enough_data(values, plan.rows * corpus.length, parameters)
    if kept is None and model.contexts is not None:
        model.contexts.count(corpus.train)
    model = wrap_model(model, device, values["parallel"])
    if values["compile"]:
        compile_where_supported(replicas.plain(model), values["compile_policy"])
    optimizer, schedule = make_optimizer(values, model, plan)
    progress = Progress(gate=SafetyGate(values["loss_threshold"]))
    if kept is not None:
        go_on(out, kept, config, model, optimizer, schedule, progress, plan)
    if replicas.agreed(progress.update) != progress.update:
        raise RunError(f"--out {out} is not the same for all processes: put it where each machine sees it")
    if progress.update == plan.updates and is_reported(out, plan.updates):
        print(f"the run in {out} is done: {plan.updates} updates", file=sys.stderr)
        return 0
    held_out = evenly(corpus.held_out, values["eval_rows"])
    draws = replicas.rank == 0 and attempt("there will be no pictures", require_pictures)
    training = Training(values, corpus, held_out, plan, config, model, optimizer, schedule, progress, replicas, draws)
    with (
        take_folder(out, values) if replicas.rank == 0 else nullcontext(),
        Trackers(trackers, values, plan.updates, progress.update) as sent,
    ):
        try:
            evaluation = training.go(sent)
            if progress.update == plan.updates:
                training.finish(evaluation)
        finally:
            is_full_disk = isinstance(sys.exception(), OSError)  # no room for pictures
            if draws and not is_full_disk:
                attempt(f"no curves in {out}", draw_curves, out / "metrics.jsonl", out)
    if progress.update == plan.updates:
        return 0
    if replicas.rank == 0:
        print(f"stopped after update {progress.update} of {plan.updates}; go on: --out {out} --resume", file=sys.stderr)
    return EXIT_INTERRUPTED


@dataclass(frozen=True, slots=True)
class Training:
    """What a run is made of, once it can start."""

    values: Values
    corpus: Corpus
    held_out: Dataset
    plan: Plan
    config: dict[str, Any]
    model: nn.Module
    optimizer: Optimizer
    schedule: Any
    progress: Progress
    replicas: Replicas
    draws: bool  # whether there will be pictures

    def go(self, sent: Trackers) -> Evaluation | None:
        """Train to the end, or until it is stopped; the evaluation after the last update, if there was one."""
        values, progress = self.values, self.progress
        is_main = self.replicas.rank == 0
        with (
            stop_signal() as is_stopped,
            Display(values["out"], self.plan.updates, progress.update, is_main) as display,
        ):

            def record(found: dict[str, Any]) -> None:
                display.record(found)
                sent.record(found)

            def save() -> None:
                model_state, optimizer_state = gather_state(self.model, self.optimizer)
                if is_main:
                    display.flush()
                    sent.flush()
                    self.keep(model_state, optimizer_state)

            if progress.update == 0:
                record(self.start_record())
            return pretrain(
                self.model,
                self.optimizer,
                self.schedule,
                self.corpus.train,
                self.held_out,
                self.plan,
                settings_of(values),
                progress,
                self.replicas,
                record=record,
                save=save,
                is_stopped=is_stopped,
            )

    def keep(self, model_state: dict[str, Any], optimizer_state: dict[str, Any]) -> None:
        """Write the checkpoint that --resume reads."""
        content = {
            "config": self.config,
            "model": model_state,
            "optimizer": optimizer_state,
            "scheduler": self.schedule.state_dict(),
            "extra": {"progress": self.progress.state_dict(), "text": self.corpus.digest},
        }
        write_content(self.values["out"] / "checkpoint.safetensors", content)

    def start_record(self) -> dict[str, Any]:
        """The first record of a run."""
        return {
            "kind": "start",
            "preset": self.values["preset"],
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "rows": self.plan.rows,
            "updates": self.plan.updates,
            "order_0": entropy(bytes_of_rows(self.held_out)),
            "torch": torch.__version__,
        }

    def write_card(self, model: nn.Module, found: dict[str, Any]) -> None:
        """Write README.md: what the model is, what of, and how to read it."""
        card = run_card(self.values, model.config, model.state_dict(), found, self.corpus.digest)
        (self.values["out"] / "README.md").write_text(card, encoding="utf-8")

    def finish(self, evaluation: Evaluation | None) -> None:
        """Keep the model alone, and in INT8 where that is asked for, and report how good they are."""
        state, _ = gather_state(self.model, self.optimizer)
        if self.replicas.rank == 0:
            model = make_model(self.values, self.corpus.length, is_fresh=False)
            model.load_state_dict(state)
            amp = partial(autocast, torch.device("cpu"), self.values["amp"])
            plain = BitTransformerLM(**model.config)
            plain.load_state_dict(model.state_dict())
            save_checkpoint(self.values["out"] / "model.safetensors", plain)
            if evaluation is None or self.values["qat"]:  # in training, a model for INT8 rounds as that does
                evaluation = evaluate(plain, self.held_out, self.plan.batch_size, amp)
            found = report(self.values, model, plain, evaluation, self.corpus, self.held_out, self.plan.updates)
            if self.draws:
                attempt("no picture of the comparison", draw_comparison, found, self.values["out"])
            attempt("no card", self.write_card, plain, found)
            attempt("no table", lambda: Console(stderr=True).print(comparison_table(found)))


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether a device is known to multiply bfloat16 without instructions of its own."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return device.type == "cpu" and bool(known) and not any(known.get(name) for name in BF16_INSTRUCTIONS)


def load_data(values: Values) -> Corpus:
    """The rows of the texts that are named, or of the sample that comes with the code."""
    held_out = text_files(values["val_data"] or [], "--val_data")
    if values["dataset"]:
        texts, validation = dataset_files(values["dataset"])
        held_out = held_out or validation
    else:
        texts = text_files(values["data"] or [SAMPLE])
    return load_corpus(texts, held_out, values["max_seq_len"], values["cache"] or rows_folder(values["out"]))


def make_model(values: Values, length: int, is_fresh: bool = True) -> nn.Module:
    """A model of the flags' shape, grown where it is fresh and they say so."""
    torch.manual_seed(values["seed"])
    model = BitTransformerLM(
        d_model=values["d_model"],
        nhead=values["nhead"],
        num_layers=values["layers"],
        dim_feedforward=4 * values["d_model"],
        max_seq_len=length,
        reversible=values["reversible"],
        use_checkpoint=values["checkpointing"],
        use_act=values["act"],
        chunk_size=values["chunk_size"],
        overlap=values["overlap"],
        full_attn_logging=values["full_attn_logging"],
        context_orders=values["context_orders"],
        context_slots=values["context_slots"],
    )
    if values["grow_from"] and is_fresh:
        model = grow_checkpoint(values["grow_from"], model.config)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = values["dropout"]
    return prepare_qat(model) if values["qat"] else model


def require_enough_data(values: Values, bits: int, parameters: int) -> None:
    """Say what a cautious preset was retuned to; raise RunError where it has too few bits for its parameters."""
    preset = PRESETS.get(values["preset"])
    if preset is None or not preset.needs_data:
        return
    print(f"{values['preset']}: retuned {preset.retuned}", file=sys.stderr)
    needed = BITS_A_PARAMETER * parameters
    if bits < needed and not values["force"]:
        raise RunError(
            f"{values['preset']} has {parameters:,} parameters and wants {needed:,} bits to train on, "
            f"{BITS_A_PARAMETER} for each; the data has {bits:,}: add text with --data, or start anyway with --force"
        )


def plan_of(values: Values, rows: int) -> Plan:
    """How many updates a run has over its rows: those of --max_steps, or else of --epochs."""
    batch_size, accum_steps = values["batch_size"], values["accum_steps"]
    micro_batches = -(-rows // batch_size)
    updates = values["max_steps"] or planned_updates(
        values["epochs"], micro_batches, extra_steps=values["extra_steps"], accum_steps=accum_steps
    )
    return Plan(rows, batch_size, accum_steps, values["extra_steps"], updates, values["seed"])


def make_optimizer(values: Values, model: nn.Module, plan: Plan) -> tuple[Optimizer, Any]:
    """The optimizer and its schedule."""
    lr, weight_decay = values["lr"], values["weight_decay"]
    if values["lr_schedule"] == "onecycle":
        return configure_optimizer(model, lr=lr, weight_decay=weight_decay, total_steps=plan.updates)
    optimizer = make_adamw(model, lr, weight_decay)
    return optimizer, ProgressivePlateau(optimizer, values["lr_warmup"], values["patience"], values["lr_floor"])


def settings_of(values: Values) -> Settings:
    """How the flags want an update made."""
    return Settings(
        amp=values["amp"],
        compress_prob=values["compress_prob"],
        direct_prob=values["direct_prob"],
        warmup_steps=values["warmup_steps"],
        forward_kwargs={"causal": values["causal"]},
        log_interval=values["log_interval"],
        eval_interval=values["eval_interval"],
        num_workers=values["num_workers"],
    )


def go_on(
    out: Path,
    kept: dict[str, Any],
    config: dict[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
    schedule: Any,
    progress: Progress,
    plan: Plan,
) -> None:
    """Take up what a run kept; RunError where that is of another model, or longer than the plan."""
    path = out / "checkpoint.safetensors"
    if kept.get("config") != config:
        raise RunError(f"{path} is of another model: expected {config}, found {kept.get('config')}")
    try:
        scatter_state(model, optimizer, kept["model"], kept["optimizer"])
        schedule.load_state_dict(kept["scheduler"])
        progress.load_state_dict(kept["extra"]["progress"])
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise RunError(f"--resume: {path} does not fit its run.json ({error}); start anew in another folder") from error
    if progress.update > plan.updates:
        raise RunError(f"{path} has made {progress.update} updates, more than the {plan.updates} asked for")


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM has come, to stop after the update; a second one stops at once."""
    seen: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
