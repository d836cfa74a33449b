"""Train a BitTransformerLM.

python -m bit_transformer.training --data corpus.txt --layers 4 --d_model 128 --epochs 3

As a command it hands runs that are kept to runs.py, which is made of this module; as a module it knows of none.
"""

import argparse
import math
import platform
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .bit_io import SAMPLE, bits_to_rows, text_to_bits
from .checkpoint import save_checkpoint
from .compression import compress_bits, pad_rows
from .model import BitTransformerLM
from .optimization import configure_optimizer

IGNORED = -100  # the target of a position that is padding
AMP = ("off", "bf16")
COMPILE_POLICIES = ("strict", "table")
# What torch.compile supports: the first Python that is too new, by the first release of torch it holds for.
PYTHON_BELOW = {(2, 1): (3, 12), (2, 4): (3, 13), (2, 6): (3, 14), (2, 10): (3, 15)}


def train_loop(
    model: BitTransformerLM,
    data: Tensor,
    *,
    epochs: int = 1,
    extra_steps: int = 0,
    compress_prob: float = 0.5,
    direct_prob: float = 0.0,
    log: bool = False,
    forward_kwargs: dict[str, Any] | None = None,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    batch_size: int = 8,
    num_workers: int = 0,
    amp: str = "off",
    accum_steps: int = 1,
    compile: bool = False,
    compile_policy: str = "strict",
    warmup_steps: int = 1000,
    global_step: int = 0,
) -> list[dict[str, float]]:
    """Train on rows of bits [rows, T] and return one record of metrics an epoch.

    Each epoch sees every row, then its last micro-batch `extra_steps` times more. A micro-batch is
    run-length encoded on its way into the model with probability compress_prob, and is itself the
    run-length stream with probability direct_prob.
    """
    device = next(model.parameters()).device
    loader = row_loader(data, batch_size, num_workers)
    steps_per_epoch = len(loader)
    total_updates = planned_updates(epochs, steps_per_epoch, extra_steps=extra_steps, accum_steps=accum_steps)
    optimizer, scheduler = configure_optimizer(model, lr=lr, weight_decay=weight_decay, total_steps=total_updates)
    if compile:
        compile_where_supported(model, compile_policy)
    history = []
    model.train()
    draws = random.Random(random.getrandbits(64))
    for epoch in range(epochs):
        losses, accuracies = [], []
        for batch, shares, closes in accumulation_groups(with_extra_steps(loader, extra_steps), accum_steps):
            batch = batch.to(device)
            ramped_prob = cosine_ramp(global_step, start=0.0, end=compress_prob, total_steps=warmup_steps)
            form = draw_form(ramped_prob, direct_prob, draws.random)
            with autocast(device, amp):
                logits, targets = predict(model, batch, form, forward_kwargs or {})
                loss = next_bit_loss(at_least_float32(logits), targets)
            (loss * shares.weigh(scored_bits(targets[:, 1:]))).backward()
            if closes:
                shares.average(model)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                global_step += 1
                scheduler.step()
                optimizer.zero_grad()
            losses.append(loss.detach())
            accuracies.append(next_bit_accuracy(logits.detach(), targets))
        history.append(
            {
                "epoch": epoch,
                "loss": torch.stack(losses).mean().item(),
                "accuracy": torch.stack(accuracies).mean().item(),
                "lr": scheduler.get_last_lr()[0],
                "global_step": global_step,
            }
        )
        if log:
            print("epoch {epoch}: loss {loss:.4f}, accuracy {accuracy:.3f}, lr {lr:.2e}".format(**history[-1]))
    return history


def row_loader(rows: Tensor | Dataset, batch_size: int, num_workers: int = 0) -> DataLoader:
    """The micro-batches of rows, in another order each epoch; one seed, drawn here, and the epoch fix the order."""
    order = torch.Generator().manual_seed(torch.randint(2**63 - 1, ()).item())
    loader = DataLoader(
        rows,
        batch_size=batch_size,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        generator=order,
    )
    loader.generator = torch.Generator()  # the seeds of workers, drawn from the order's generator, would change it
    return loader


def planned_updates(epochs: int, micro_batches: int, extra_steps: int = 0, accum_steps: int = 1) -> int:
    """The optimizer updates of a run, given the micro-batches of an epoch and how often its last is repeated.

    The last group of an epoch makes an update, however small. Raises ValueError on accum_steps < 1.
    """
    if accum_steps < 1:
        raise ValueError(f"accum_steps must be at least 1, got {accum_steps}")
    return epochs * math.ceil((micro_batches + extra_steps) / accum_steps)


def compile_where_supported(model: nn.Module, policy: str = "strict") -> nn.Module:
    """Compile a model in place where compile_support says so, else warn; return the same model.

    What cannot be compiled after all, which shows at a forward, runs eagerly, with a warning.
    """
    supported, reason = compile_support(torch.__version__, platform.python_version(), policy)
    if not supported:
        warnings.warn(f"not compiled: {reason}", stacklevel=2)
    elif model._compiled_call_impl is None:
        model.compile()
        model._compiled_call_impl = EagerFallback(model, model._compiled_call_impl)
        leave_windows_eager(model)
    return model


def leave_windows_eager(model: nn.Module) -> None:
    """Keep attention in chunks out of compiled code: there Inductor's gradient of its windows is wrong (torch 2.13)."""
    inner = [module for module in model.modules() if module is not model]
    for kind in {type(module) for module in inner if getattr(module, "chunk_size", None)}:
        if not hasattr(kind.forward, "_torchdynamo_disable"):
            kind.forward = torch.compiler.disable(kind.forward)


class EagerFallback:
    """The compiled call of a model, until it fails where the eager one does not."""

    def __init__(self, model: nn.Module, compiled: Callable[..., Any]) -> None:
        self.model = model
        self.compiled = compiled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.compiled(*args, **kwargs)
        except Exception as error:
            result = self.model._call_impl(*args, **kwargs)  # what is wrong with the input, raises here too
            self.model._compiled_call_impl = None
            warnings.warn(f"running eagerly: torch.compile failed with {type(error).__name__}: {error}", stacklevel=2)
            return result


def compile_support(torch_version: str, python_version: str, policy: str = "strict") -> tuple[bool, str]:
    """Whether torch.compile is to be used, and why or why not.

    The policy "strict" wants torch 2.1 and Python below 3.12; "table" goes by what each release of
    torch supports. Raises ValueError on another policy.
    """
    if policy not in COMPILE_POLICIES:
        raise ValueError(f"compile_policy must be one of {', '.join(COMPILE_POLICIES)}, got {policy!r}")
    versions = f"torch {torch_version} on Python {python_version}"
    torch_release, python_release = release(torch_version), release(python_version)
    below = max((below for since, below in PYTHON_BELOW.items() if torch_release >= since), default=(0, 0))
    in_table, in_strict = python_release < below, torch_release >= (2, 1) and python_release < (3, 12)
    if policy == "table":
        known = f"Python below {below[0]}.{below[1]}" if below > (0, 0) else "no Python yet"
        return in_table, f"{versions}: this release of torch compiles on {known}"
    reason = f"{versions}: the strict policy wants torch 2.1 or later and Python below 3.12"
    return in_strict, f"{reason}; the policy 'table' would compile" if in_table and not in_strict else reason


def release(version: str) -> tuple[int, int]:
    """Major and minor number of a version such as "2.13.0+cpu", "2.1.0a0" or "2.10.1"."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        raise ValueError(f"expected a version such as 2.13.0, got {version!r}")
    return int(found[1]), int(found[2])


def with_extra_steps(batches: Iterable[Tensor], extra_steps: int) -> Iterator[Tensor]:
    """Yield the micro-batches of an epoch, then the last one `extra_steps` times more."""
    batch = None
    for batch in batches:
        yield batch
    if batch is not None:
        for _ in range(extra_steps):
            yield batch


@dataclass(slots=True)
class Shares:
    """What the micro-batches of a group weigh: as much as is scored in them, which only a forward tells.

    Weights are in units of the group's first micro-batch until `average` divides by their sum, so that
    a group of one is left as it is, to the bit.
    """

    first: int = 0
    total: int = 0

    def weigh(self, scored: int) -> float:
        """The weight of a mean loss over so many bits."""
        self.first = self.first or scored
        self.total += scored
        return scored / max(self.first, 1)

    def average(self, model: nn.Module) -> None:
        """Make the gradient of the mean loss over all that is scored in the group, of the sum that piled up."""
        if self.total > self.first:
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad *= self.first / self.total


def accumulation_groups(batches: Iterable[Tensor], accum_steps: int) -> Iterator[tuple[Tensor, Shares, bool]]:
    """Yield each micro-batch, the shares of its group, and whether it closes the group.

    A group is the `accum_steps` micro-batches of one update; the last group of an epoch may be smaller.
    """
    batches = iter(batches)
    while group := list(islice(batches, accum_steps)):
        shares = Shares()
        for position, batch in enumerate(group, start=1):
            yield batch, shares, position == len(group)


def cosine_ramp(step: int, start: float, end: float, total_steps: int) -> float:
    """Half a cosine from start at step 0 to end at total_steps, and end from there on."""
    if step >= total_steps:
        return end
    return start + (end - start) * (1 - math.cos(math.pi * step / total_steps)) / 2


def draw_form(compress_prob: float, direct_prob: float, draw: Callable[[], float] = random.random) -> str:
    """Draw the form in which a micro-batch enters the model: direct, compressed or raw."""
    if draw() < direct_prob:
        return "direct"
    return "compressed" if draw() < compress_prob else "raw"


def autocast(device: torch.device, amp: str) -> AbstractContextManager[Any]:
    """The context of forward and loss: bfloat16 where amp is "bf16", nothing where it is "off".

    bfloat16 has the exponents of float32, so that no gradient needs scaling. Raises ValueError on
    another amp.
    """
    if amp not in AMP:
        raise ValueError(f"amp must be one of {', '.join(AMP)}, got {amp!r}")
    if amp == "off":
        return nullcontext()
    return torch.amp.autocast(device_type=device.type, dtype=torch.bfloat16)


def predict(model: BitTransformerLM, batch: Tensor, form: str, forward_kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Run a micro-batch [rows, T] in its form: logits [rows, L, 2] and their bits [rows, L]."""
    if form == "raw":
        return model(batch, **forward_kwargs)[0], batch
    compressed = [compress_bits(row) for row in batch]
    if form == "compressed":
        return model.forward_compressed(compressed, **forward_kwargs)[0], batch
    rows, is_padding = pad_rows(compressed, model.max_seq_len)
    rows, is_padding = rows.to(batch.device), is_padding.to(batch.device)
    return model(rows, **forward_kwargs)[0], rows.masked_fill(is_padding, IGNORED)


def at_least_float32(logits: Tensor) -> Tensor:
    """Logits as a loss needs them: what autocast left in bfloat16 becomes float32, all else stays."""
    is_autocast = torch.is_autocast_enabled(logits.device.type)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)) if is_autocast else logits


def next_bit_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of each bit given those before it."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORED)


def scored_bits(targets: Tensor) -> int:
    """How many targets a mean loss is taken over: all that are no padding."""
    return int((targets != IGNORED).sum())


def next_bit_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """The share of next bits whose larger logit is theirs."""
    known = targets[:, 1:] != IGNORED
    return (logits[:, :-1].argmax(-1) == targets[:, 1:])[known].float().mean()


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m bit_transformer.training`."""
    parser = argparse.ArgumentParser(
        prog="bit_transformer.training",
        description="Train a BitTransformerLM.",
        epilog="Presets, and the flags of runs that are kept: python -m bit_transformer.runs --help",
    )
    parser.add_argument("--data", type=Path, action="append", help="text file to train on; can be given again")
    parser.add_argument("--out", type=Path, help="where to write the checkpoint; without a suffix, the folder of a run")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--d_model", type=int, default=128)
    parser.add_argument("--nhead", type=int, default=8)
    parser.add_argument("--max_seq_len", type=int, default=1152, help="bits a row; 9 a byte")
    parser.add_argument("--chunk_size", type=int, help="chunked attention with chunks of so many bits")
    parser.add_argument("--overlap", type=int, default=0, help="bits to its left that a chunk sees too")
    parser.add_argument("--causal", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--act", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--reversible", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--full_attn_logging", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--extra_steps", type=int, default=0, help="repeats of an epoch's last micro-batch")
    parser.add_argument("--batch_size", type=int, default=8, help="rows a micro-batch")
    parser.add_argument("--num_workers", type=int, default=0, help="processes that load rows")
    parser.add_argument("--amp", choices=AMP, default="off", help="bf16 runs forward and loss in bfloat16")
    parser.add_argument("--accum_steps", type=int, default=1, help="micro-batches an optimizer update")
    parser.add_argument("--compile", action="store_true", help="use torch.compile where it is supported")
    parser.add_argument(
        "--compile_policy", choices=COMPILE_POLICIES, default="strict", help="table goes by what each torch supports"
    )
    parser.add_argument("--compress_prob", type=float, default=0.5)
    parser.add_argument("--warmup_steps", type=int, default=1000, help="updates until compress_prob is reached")
    parser.add_argument("--direct_prob", type=float, default=0.0)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight_decay", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train on text, and save what was learned."""
    args = build_parser().parse_args(argv)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    model = BitTransformerLM(
        d_model=args.d_model,
        nhead=args.nhead,
        num_layers=args.layers,
        dim_feedforward=4 * args.d_model,
        max_seq_len=args.max_seq_len,
        reversible=args.reversible,
        use_checkpoint=args.checkpointing,
        use_act=args.act,
        chunk_size=args.chunk_size,
        overlap=args.overlap,
        full_attn_logging=args.full_attn_logging,
    )
    text = "".join(path.read_text(encoding="utf-8") for path in args.data or [SAMPLE])
    data = bits_to_rows(text_to_bits(text), args.max_seq_len)
    train_loop(
        model,
        data,
        epochs=args.epochs,
        extra_steps=args.extra_steps,
        compress_prob=args.compress_prob,
        direct_prob=args.direct_prob,
        log=True,
        forward_kwargs={"causal": args.causal},
        lr=args.lr,
        weight_decay=args.weight_decay,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        amp=args.amp,
        accum_steps=args.accum_steps,
        compile=args.compile,
        compile_policy=args.compile_policy,
        warmup_steps=args.warmup_steps,
    )
    if args.out is not None:
        save_checkpoint(args.out, model)


if __name__ == "__main__":
    known, of_runs = build_parser().parse_known_args()
    if of_runs or (known.out is not None and not known.out.suffix):  # a flag that only runs have, or a folder
        try:
            from .runs import main as start_run
        except ImportError as error:
            build_parser().error(f"a run needs every patch (bitpatch apply --all) and bitpatch[train]: {error}")
        sys.exit(start_run())
    main()
