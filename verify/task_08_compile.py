"""Task-8, torch.compile where it is supported: what is compiled, and what is said, under versions that are set."""

import copy
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .compiler import session
from .evidence import Evidence, at_most, check, failed, passed
from .spies import Ledger
from .task_03_bf16_autocast import forms
from .training_runs import LENGTH, Run, distance, run_command, train, watching
from .tree import Tree

TORCHES = (
    "1.13.1",
    "2.0.1",
    "2.1.0a0",
    "2.1.0",
    "2.3.1+cu118",
    "2.4.0",
    "2.6.0",
    "2.9.1",
    "2.10.1",
    "2.13.0+cpu",
    "3.0.0",
)
PYTHONS = ("3.8.20", "3.9.18+", "3.10.12", "3.11.7", "3.12.3", "3.13.1", "3.14.0", "3.15.0")
POLICIES: list[dict[str, Any]] = [{}, {"compile_policy": "strict"}, {"compile_policy": "table"}]
ASKED: list[dict[str, Any]] = [{}, {"compile": True}]
UNASKED: list[dict[str, Any]] = [{}, {"compile": False}]
# Pythons next to no limit of a release are tried on two of them only, and so is the default policy.
WHOLE, EDGES = ("2.3.1+cu118", "2.13.0+cpu"), ("3.9.18+", "3.11.7", "3.12.3", "3.13.1", "3.14.0")
GRID = [(torch_version, each) for torch_version in TORCHES for each in (PYTHONS if torch_version in WHOLE else EDGES)]
# The newest Python that a release supports, by the first release that does.
NEWEST = {(2, 1): (3, 11), (2, 4): (3, 12), (2, 6): (3, 13), (2, 10): (3, 14)}
DROPPED = {(3, 8): (2, 5), (3, 9): (2, 9)}  # and the first release that no longer supports an old one
YES, TOO_OLD, TOO_NEW = ("2.3.1+cu118", "3.11.7"), ("2.0.1", "3.11.7"), ("2.13.0+cpu", "3.13.1")
REFUSED = [("1.13.1", "3.9.18"), TOO_OLD, TOO_NEW, ("2.3.1+cu118", "3.14.0"), ("2.10.1", "3.15.0")]


@check(task=8, prop="it compiles where the policy's rule says so, for each torch, Python and policy; strict is default")
@watching("compile", "compile_policy")
def decides_by_the_rule(tree: Tree, ledger: Ledger) -> Evidence:
    sys.pycache_prefix, sys.dont_write_bytecode = str(Path.cwd()), False  # the tree is imported for each pair
    decided = 0
    for versions in GRID:
        with session(tree, ledger, *versions) as compiler:
            for policy in POLICIES if versions[0] in WHOLE else POLICIES[1:]:
                compiler.compiled = 0
                error = first_error(tree, policy)
                call = f"train_loop(model, bits(2, {LENGTH}), compile=True{shown(policy)}) on {on(versions)}"
                if error:
                    return failed(error, call)
                wanted = rule(*versions, policy.get("compile_policy", "strict"))
                if wanted is not None and bool(compiler.compiled) != wanted:
                    return failed("compiled, against the rule" if compiler.compiled else "not compiled", call)
                decided += wanted is not None
    return passed(f"{decided} decisions, on {len(TORCHES)} versions of torch and {len(PYTHONS)} of Python")


@check(
    task=8, prop="where it does not compile, one warning a run names both versions, the reason, and what table would do"
)
@watching("compile", "compile_policy")
def says_once_why_not(tree: Tree, ledger: Ledger) -> Evidence:
    heard = 0
    for versions in REFUSED:
        with session(tree, ledger, *versions) as compiler:
            for policy in POLICIES:
                name = policy.get("compile_policy", "strict")
                if rule(*versions, name) is not False:
                    continue
                compiler.said.clear()
                run = train(tree, ledger, 17, epochs=2, compile=True, **policy)
                if len(compiler.said) != 1:
                    return failed(f"{len(compiler.said)} warnings", f"{run.call} on {on(versions)}")
                missing = unsaid(compiler.said[0], versions, name)
                if missing:
                    return failed(f"the warning {missing}: {compiler.said[0]}", f"{run.call} on {on(versions)}")
                heard += 1
    return passed(f"{heard} warnings")


@check(task=8, prop="where it does not compile, the model is the object that came, and trains as it would, bit for bit")
@watching("compile")
def leaves_the_model_alone(tree: Tree, ledger: Ledger) -> Evidence:
    for versions in (TOO_OLD, TOO_NEW):
        with session(tree, ledger, *versions) as compiler:
            runs = [train(tree, ledger, 19, dropout=0.1, epochs=2, **option) for option in ASKED]
        reproduce = f"{runs[1].call} on {on(versions)}"
        if not runs[1].updates:
            return failed("train_loop makes no update", reproduce)
        if compiler.compiled or any(compiler.depths):
            return failed(f"{compiler.compiled} calls of torch.compile", reproduce)
        if shape_of(runs[0].model) != shape_of(runs[1].model):
            return failed("the model has other attributes, or another class, than without compile", reproduce)
        if not all(map(torch.equal, *(run.model.parameters() for run in runs))):
            return failed("the weights are not those without compile", reproduce)
    return passed(f"on {on(TOO_OLD)}, and on {on(TOO_NEW)}")


@check(task=8, prop="compile=False is the default: nothing is compiled, nothing said, and all is bit for bit the same")
@watching("compile")
def off_is_the_default(tree: Tree, ledger: Ledger) -> Evidence:
    for versions in (YES, TOO_OLD, TOO_NEW):
        with session(tree, ledger, *versions) as compiler:
            runs = [train(tree, ledger, 19, dropout=0.1, epochs=2, **option) for option in UNASKED]
        if compiler.compiled or compiler.said:
            found = f"{compiler.compiled} calls of torch.compile, {len(compiler.said)} warnings"
            return failed(found, f"{runs[0].call} on {on(versions)}")
        if not runs[0].updates or not all(map(torch.equal, *(run.model.parameters() for run in runs))):
            return failed("the default and compile=False give different weights", runs[0].call)
    return passed("the default and compile=False, on 3 pairs of versions")


@check(task=8, prop="each micro-batch, in each form, runs in one compiled callable; a second run wraps nothing again")
@watching("compile")
def compiles_each_forward_once(tree: Tree, ledger: Ledger) -> Evidence:
    seen = 0
    for form in forms(tree):
        with session(tree, ledger, *YES) as compiler:
            run = train(tree, ledger, 19, epochs=2, compile=True, **form)
            once = compiler.compiled
            tree.module("training").train_loop(run.model, run.data, compress_prob=0.0, epochs=2, compile=True)
        call = f"{run.call}, twice on one model"
        if compiler.said:
            return failed(f"compiled, with a warning: {compiler.said[0]}", call)
        if not 0 < once <= len(list(run.model.modules())) or compiler.compiled > 2 * once:
            return failed(f"{once} calls of torch.compile in 2 epochs, then {compiler.compiled - once} more", call)
        if set(compiler.depths) != {1}:
            return failed(f"micro-batches run in {sorted(set(compiler.depths))} compiled callables, not in 1", call)
        seen += len(compiler.depths)
    return passed(f"{seen} micro-batches, raw, compressed and direct")


@check(task=8, prop="compiled training gives the weights of eager training")
@watching("compile")
def learns_as_eager_does(tree: Tree, ledger: Ledger) -> Evidence:
    ledger.sgd_lr, ledger.clips = 0.5, False
    gaps = []
    for config in ({}, {"use_checkpoint": True, "use_act": True}, {"chunk_size": 4, "overlap": 2}):
        with session(tree, ledger, *YES) as compiler:
            eager, run = (train(tree, ledger, 19, epochs=2, config=config, compile=each) for each in (False, True))
        if not run.updates or not compiler.calls:
            return failed("nothing is trained, or nothing compiled", run.call)
        gaps.append((distance(weights_of(run), weights_of(eager)), run.call))
    worst, reproduce = max(gaps)
    return at_most(worst, 1e-10, "weights, relative to those of eager training", reproduce)


@check(task=8, prop="a model that grew from a compiled one is compiled once, and has bare names")
@watching("compile")
def compiles_what_grew(tree: Tree, ledger: Ledger) -> Evidence:
    with session(tree, ledger, *YES) as compiler:
        run = train(tree, ledger, 16, compile=True)
        for way in ("double_width", "double_layers", "double_length"):
            grown = getattr(tree.module("scale"), way)(run.model)
            call = f"{run.call}; train_loop({way}(model), bits, compile=True)"
            if not compiler.depths or type(grown) is not type(run.model) or "_orig_mod" in " ".join(grown.state_dict()):
                return failed(f"{way} of a compiled model is a {type(grown).__name__} with other names", call)
            compiler.compiled, compiler.depths[:] = 0, []
            tree.module("training").train_loop(grown, run.data, compress_prob=0.0, compile=True)
            if not compiler.compiled or set(compiler.depths) != {1}:
                depths = sorted(set(compiler.depths))
                return failed(
                    f"{compiler.compiled} calls of torch.compile; micro-batches run in {depths} of them", call
                )
    return passed("double_width, double_layers and double_length")


@check(
    task=8, prop="names in state_dict and checkpoints are those of the eager model, which copies and pickles as before"
)
@watching("compile")
def names_stay_bare(tree: Tree, ledger: Ledger) -> Evidence:
    file = Path("checkpoint.pt")
    with session(tree, ledger, *YES) as compiler:
        run = train(tree, ledger, 16, compile=True)
        wanted = list(tree.model().state_dict())
        tree.module("checkpoint").save_checkpoint(file, run.model)
        try:
            copies = [copy.deepcopy(run.model), pickle.loads(pickle.dumps(run.model))]  # noqa: S301 - made here
        except Exception as error:
            return failed(f"the model cannot be copied: {type(error).__name__}: {error}", run.call)
        names = [list(model.state_dict()) for model in (run.model, *copies)]
        names += [
            list(tree.module("checkpoint").load_checkpoint(file)["model"].state_dict()),
            [name for name, _ in run.model.named_parameters()],
        ]
        if not compiler.calls or any(found != wanted for found in names) or b"_orig_mod" in file.read_bytes():
            return failed("after compiled training, names are not those before", f"{run.call}; model.state_dict()")
        for model in copies:
            for weight in model.parameters():
                weight.data.zero_()
            if model(run.data)[0].any() or not run.model(run.data)[0].any():
                return failed("a copy of the model runs the original's weights", f"{run.call}; copy.deepcopy(model)")
        status = run_command(tree, ledger, ["--compile", "--out", str(file)])
        if status or b"_orig_mod" in file.read_bytes():
            return failed(f"exit status {status}, or other names in the file", "--compile --out FILE")
    return passed(f"{len(wanted)} names, in 2 copies and 2 checkpoints")


@check(
    task=8,
    prop="a C++ compiler that is missing, which the first forward finds, is one warning; training goes on eagerly",
)
@watching("compile")
def falls_back_to_eager(tree: Tree, ledger: Ledger) -> Evidence:
    gaps = []
    for form in forms(tree):
        with session(tree, ledger, *YES, works=False) as compiler:
            call = f"train_loop(model, bits(19, {LENGTH}), epochs=2, compile=True{shown(form)}) without a compiler"
            eager = train(tree, ledger, 19, epochs=2, **form)
            try:
                run = train(tree, ledger, 19, epochs=2, compile=True, **form)
            except Exception as error:
                return failed(f"{type(error).__name__}: {str(error).splitlines()[0]}", call)
        if not compiler.calls or not run.updates:
            return failed("nothing is compiled, or nothing trained", call)
        if len(compiler.said) != 1:
            return failed(f"{len(compiler.said)} warnings", call)
        if compiler.calls > 2:  # noqa: PLR2004 - each takes as long as compiling does
            return failed(f"what cannot be compiled is tried {compiler.calls} times", call)
        if len(run.micro_batches) != len(eager.micro_batches):
            return failed(f"{len(run.micro_batches)} micro-batches, {len(eager.micro_batches)} without compile", call)
        gaps.append((distance(weights_of(run), weights_of(eager)), call))
    worst, reproduce = max(gaps)
    return at_most(worst, 1e-10, "weights, relative to those of eager training", reproduce)


@check(task=8, prop="an error of the model itself is raised, compiled or not")
@watching("compile")
def raises_what_the_model_raises(tree: Tree, ledger: Ledger) -> Evidence:
    for works in (True, False):
        with session(tree, ledger, *YES, works=works):
            raised = []
            for each in (False, True):
                try:
                    train(tree, ledger, 16, config={"max_seq_len": LENGTH - 1}, compile=each)
                    raised.append("no error")
                except Exception as error:
                    raised.append(f"{type(error).__name__}: {error}")
        if raised[0] != raised[1] or raised[0] == "no error":
            call = f"train_loop(model, bits(16, {LENGTH}), compile=True) with max_seq_len={LENGTH - 1}"
            return failed(f"{raised[1]}; without compile, {raised[0]}", call)
    return passed("rows that are too long, with and without a compiler")


@check(task=8, prop="--compile on the command line reaches the loop; without it nothing is compiled")
@watching("compile")
def command_line_reaches_the_loop(tree: Tree, ledger: Ledger) -> Evidence:
    for flags in ([], ["--compile"]):
        with session(tree, ledger, *YES) as compiler:
            status = run_command(tree, ledger, flags)
        call = " ".join(["python -m bit_transformer.training --data FILE", *flags])
        if status or bool(compiler.calls) != bool(flags):
            return failed(f"exit status {status}, {compiler.compiled} calls of torch.compile", call)
    return passed("with the flag and without")


def first_error(tree: Tree, policy: dict[str, Any]) -> str:
    """Call train_loop until something enters the model; what was raised before that, or empty."""
    model, entered = tree.model(), []

    def stop(*_: Any) -> None:
        entered.append(True)
        raise RuntimeError("enough")

    model.register_forward_pre_hook(stop)
    try:
        tree.module("training").train_loop(model, tree.bits(2, LENGTH), compress_prob=0.0, compile=True, **policy)
    except Exception as error:
        return "" if entered else f"{type(error).__name__}: {error}"
    return "" if entered else "nothing enters the model"


def rule(torch_version: str, python_version: str, policy: str) -> bool | None:
    """Whether to compile; None where that is open: torch 2.0 or 3, a pre-release, a Python that was dropped."""
    release, python = numbers(torch_version), numbers(python_version)
    if "a" in torch_version.partition("+")[0]:
        return None if python < (3, 12) else False
    if policy == "strict":
        return release >= (2, 1) and python < (3, 12)
    if release >= (3, 0) or (release == (2, 0) and python < (3, 11)) or release >= DROPPED.get(python, (9, 9)):
        return None
    return python <= max((newest for since, newest in NEWEST.items() if release >= since), default=(0, 0))


def numbers(version: str) -> tuple[int, int]:
    """Major and minor number of a version."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def unsaid(message: str, versions: tuple[str, str], policy: str) -> str:
    """What a warning that nothing was compiled keeps to itself; empty if it says all."""
    torch_version, python_version = versions
    major_minor = ".".join(map(str, numbers(python_version)))
    if torch_version.partition("+")[0] not in message:
        return "does not name the version of torch"
    if not re.search(rf"(?<![\d.]){re.escape(major_minor)}(?!\d)", message):
        return "does not name the version of Python"
    rest = message.replace(torch_version, "").replace(python_version, "")
    limits = "2.1" if numbers(torch_version) < (2, 1) else "3.12|3.11"
    if policy == "strict" and not re.search(limits.replace(".", r"\."), rest):
        return "does not give the reason: the limit of the rule"
    would = rule(*versions, "table")
    if policy == "strict" and would is not None and ("table" in message) != would:
        return (
            "does not say that 'table' would compile" if would else "speaks of 'table', which would not compile either"
        )
    return ""


def shape_of(model: nn.Module) -> tuple[Any, ...]:
    """Its class, and the names of its own attributes and modules."""
    return (
        type(model),
        set(vars(model)),
        model._compiled_call_impl,
        [(name, type(each)) for name, each in model.named_modules()],
    )


def weights_of(run: Run) -> dict[str, Tensor]:
    """The weights that a run ended with, by name."""
    return {name: weight.detach() for name, weight in run.model.named_parameters()}


def on(versions: tuple[str, str]) -> str:
    """Versions of torch and Python, in words."""
    return "torch {}, Python {}".format(*versions)


def shown(options: dict[str, Any]) -> str:
    """Options as further arguments of a call."""
    return "".join(f", {name}={value!r}" for name, value in options.items())
