"""Task-8, torch.compile where it is supported: what is compiled, and what is said, under versions that are set."""

import copy
import pickle
import sys
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .driving.autocast_runs import FORMS, options_of_form, train_at
from .driving.compiler import hearing, session
from .driving.derivatives import distance
from .driving.space import Points, over
from .driving.spies import Ledger
from .driving.tracing import compiler_settings, traced, why_untraceable
from .driving.training_runs import LENGTH, Run, losses_beside, run_command, train, watching
from .driving.tree import Tree, with_dropout
from .driving.versions import GRID, PYTHONS, REFUSED, TOO_NEW, TOO_OLD, TORCHES, WHOLE, YES, on, rule, unsaid
from .driving.world import differences, settings, streams
from .running.evidence import Evidence, at_most, check, failed, passed, unproven

POLICIES: list[dict[str, Any]] = [{}, {"compile_policy": "strict"}, {"compile_policy": "table"}]
ASKED: list[dict[str, Any]] = [{}, {"compile": True}]
UNASKED: list[dict[str, Any]] = [{}, {"compile": False}]


@check(task=8, prop="it compiles where the policy's rule says so, for each torch, Python and policy; strict is default")
@watching("compile", "compile_policy")
def decides_by_the_rule(tree: Tree, ledger: Ledger) -> Evidence:
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
                if missing := unsaid(compiler.said[0], versions, name):
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
        if compiler.compiled or any(compiler.depths):
            return failed(f"{compiler.compiled} calls of torch.compile", reproduce)
        if shape_of(runs[0].model) != shape_of(runs[1].model):
            return failed("the model has other attributes, or another class, than without compile", reproduce)
        if not all(map(torch.equal, *(run.model.parameters() for run in runs))):
            losses = losses_beside(*reversed(runs))
            return failed("the weights are not those without compile", reproduce, picture=losses)
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
            losses = losses_beside(*runs)
            return failed("the default and compile=False give different weights", runs[0].call, picture=losses)
    return passed("the default and compile=False, on 3 pairs of versions")


@check(
    task=8, prop="each micro-batch runs in one compiled callable, in further runs too, and learns as in eager training"
)
@watching("compile")
@over(
    *("accum_steps", "amp", "reversible", "use_checkpoint", "use_act"),
    windows=((None, 0), (4, 2)),
    extra_steps=(0, 1),
    epochs=(2,),
    form=tuple(FORMS),
)
def compiles_each_forward_once(tree: Tree, ledger: Ledger, points: Points) -> Evidence:
    gaps = []
    with session(tree, ledger, *YES) as compiler:
        for point in points:
            dtype = torch.float32 if point.values.get("amp") == "bf16" else torch.float64
            eager = train_at(tree, ledger, point, dtype=dtype)
            compiler.compiled, compiler.depths[:], compiler.frames[:] = 0, [], []
            run = train_at(tree, ledger, point, compile=True, dtype=dtype)
            call, once, count = f"{run.call} of {point}, on one model", compiler.compiled, len(compiler.depths)
            gaps.append((distance(weights_of(run), weights_of(eager)), call, losses_beside(run, eager)))
            for _ in range(2):
                tree.train(run.model, run.data, compress_prob=0.0, compile=True)
            if compiler.said:
                return failed(f"compiled, with a warning: {compiler.said[0]}", call)
            if not 0 < once <= len(list(run.model.modules())) or compiler.compiled > 3 * once:
                return failed(f"{once} calls of torch.compile in a run, {compiler.compiled} in three", call)
            past = {0} if tree.seams.is_told and point.values.get("form") == "compressed" else set[int]()
            if set(compiler.depths) - past != {1}:  # a tree's way in for streams may go past the model's call
                return failed(f"micro-batches run in {sorted(set(compiler.depths))} compiled callables, not in 1", call)
            later = compiler.frames[count:]
            if later and max(later) > later[0]:
                return failed(f"a forward is {later[0]} calls deep in a second run, {max(later)} in a third", call)
            plain = tree.model(dtype=dtype, **point.config)
            plain.load_state_dict(run.model.state_dict())
            dropping = with_dropout(run.model, 0.5)
            with torch.no_grad():
                answers = tuple(Tree.forward(model.eval(), run.data)[0] for model in (plain, dropping))
            if not torch.allclose(answers[0], answers[1]):
                return failed("in evaluation, a compiled model answers otherwise than one that is not", call)
            if torch.equal(*(Tree.forward(dropping.train(), run.data)[0] for _ in range(2))):
                return failed("a compiled model in training drops the same twice", call)
    worst, reproduce, losses = max(gaps, key=itemgetter(0))
    return at_most(worst, 1e-10, "weights, relative to those of eager training", reproduce, losses)


@check(task=8, prop="torch's own compiler traces the layers, and the gradients of what it makes of them are eager ones")
@watching("compile")
def traces_for_real(tree: Tree, ledger: Ledger) -> Evidence:
    if reason := why_untraceable():
        return unproven(f"torch.compile does not work here: {reason}")
    ledger.clips = False
    policy: dict[str, Any] = {"compile_policy": "table"} if tree.loop_takes("compile_policy") else {}
    gaps = []
    for config in ({"use_act": True} if tree.model_takes("use_act") else {}, {"chunk_size": 4, "overlap": 2}):
        eager = train(tree, ledger, 8, config=config)
        said: list[str] = []
        with traced() as found, hearing(said):
            try:
                run = train(tree, ledger, 8, config=config, compile=True, **policy)
            except Exception as error:
                return failed(f"{type(error).__name__}: {str(error)[:300]}", f"{eager.call}, compile=True")
        call = f"{run.call}, with {config}"
        if not found.graphs and not policy and sys.version_info >= (3, 12):
            return unproven(f"nothing is compiled on {sys.version.split()[0]} unless compile_policy says so: {said}")
        layers = sum(isinstance(module, nn.Linear) for module in run.model.modules())
        if not found.graphs or ("chunk_size" not in config and found.products < layers / 2):
            what = f"{found.products} of {layers} linear layers reach Inductor"
            return failed(f"{what}, in {found.graphs} graphs; said: {' '.join(said)[:300] or 'nothing'}", call)
        gaps.append((distance(*(each.updates[0].step.grads or {} for each in (run, eager))), call))
    worst, reproduce = max(gaps)  # without a picture: a loss that is traced has no value to show
    return at_most(worst, 1e-8, "gradients, relative to those of eager training", reproduce)


@check(task=8, prop="a model that grew from a compiled one is compiled once, and has bare names")
@watching("compile")
def compiles_what_grew(tree: Tree, ledger: Ledger) -> Evidence:
    with session(tree, ledger, *YES) as compiler:
        run = train(tree, ledger, 16, compile=True)
        for way in ("double_width", "double_layers", "double_length"):
            grown = tree.part("scale", way)(run.model)
            call = f"{run.call}; train_loop({way}(model), bits, compile=True)"
            if not compiler.depths or type(grown) is not type(run.model) or "_orig_mod" in " ".join(grown.state_dict()):
                return failed(f"{way} of a compiled model is a {type(grown).__name__} with other names", call)
            compiler.compiled, compiler.depths[:] = 0, []
            tree.train(grown, run.data, compress_prob=0.0, compile=True)
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
        tree.part("checkpoint", "save_checkpoint")(file, run.model)
        try:
            copies = [copy.deepcopy(run.model), pickle.loads(pickle.dumps(run.model))]  # noqa: S301 - made here
        except Exception as error:
            return failed(f"the model cannot be copied: {type(error).__name__}: {error}", run.call)
        names = [list(model.state_dict()) for model in (run.model, *copies)]
        names += [
            list(tree.part("checkpoint", "load_checkpoint")(file)["model"].state_dict()),
            [name for name, _ in run.model.named_parameters()],
        ]
        if not compiler.calls or any(found != wanted for found in names) or b"_orig_mod" in file.read_bytes():
            return failed("after compiled training, names are not those before", f"{run.call}; model.state_dict()")
        for model in copies:
            for weight in model.parameters():
                weight.data.zero_()
            if Tree.forward(model, run.data)[0].any() or not Tree.forward(run.model, run.data)[0].any():
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
    for form in FORMS:
        given: dict[str, Any] = {"epochs": 2, **options_of_form(tree, form)}
        given |= {"forward_kwargs": {"causal": False}} if tree.loop_takes("forward_kwargs") else {}
        with session(tree, ledger, *YES, works=False) as compiler:
            call = f"train_loop(model, bits(19, {LENGTH}), compile=True{shown(given)}) without a compiler"
            eager = train(tree, ledger, 19, **given)
            try:
                run = train(tree, ledger, 19, compile=True, **given)
            except Exception as error:
                return failed(f"{type(error).__name__}: {str(error).splitlines()[0]}", call)
        if not compiler.calls and tree.seams.is_told and form == "compressed":
            continue  # a tree's way in for streams may go past the model's call
        if not compiler.calls:
            return failed("nothing is compiled", call)
        if len(compiler.said) != 1:
            return failed(f"{len(compiler.said)} warnings", call)
        if compiler.calls > 2:  # noqa: PLR2004 - each takes as long as compiling does
            return failed(f"what cannot be compiled is tried {compiler.calls} times", call)
        if len(run.micro_batches) != len(eager.micro_batches):
            return failed(f"{len(run.micro_batches)} micro-batches, {len(eager.micro_batches)} without compile", call)
        gaps.append((distance(weights_of(run), weights_of(eager)), call, losses_beside(run, eager)))
    worst, reproduce, losses = max(gaps, key=itemgetter(0))
    return at_most(worst, 1e-10, "weights, relative to those of eager training", reproduce, losses)


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


@check(task=8, prop="the settings of the process are as before a run, and its random streams are where eager ones are")
@watching("compile")
def leaves_the_process_as_it_was(tree: Tree, ledger: Ledger) -> Evidence:
    for versions, works in ((YES, True), (YES, False), (TOO_NEW, True)):
        with session(tree, ledger, *versions, works=works):
            train(tree, ledger, 4)  # what is imported, or made once, at a first run
            eager = train(tree, ledger, 11)
            left, before = streams(), settings() | compiler_settings()
            run = train(tree, ledger, 11, compile=True)
            call = f"{run.call} on {on(versions)}{'' if works else ' without a C++ compiler'}"
            if moved := differences(left, streams()):
                return failed(f"the random stream of {moved[0]} is not where eager training leaves it", call)
            if changed := differences(before, settings() | compiler_settings()):
                return failed(f"{changed[0]} is not as before", call)
            if run.model.training != eager.model.training:
                return failed("the model is left in another mode than by eager training", call)
    return passed(f"{len(before)} settings and {len(left)} streams")


@check(
    task=8, prop="--compile and --compile_policy reach the loop from the command line; without them nothing is compiled"
)
@watching("compile")
def command_line_reaches_the_loop(tree: Tree, ledger: Ledger) -> Evidence:
    table = ["--compile", "--compile_policy", "table"]
    for flags, versions, wanted in (
        ([], YES, False),
        (["--compile"], YES, True),
        (["--compile"], TOO_NEW, False),
        (table, TOO_NEW, True),
    ):
        with session(tree, ledger, *versions) as compiler:
            status = run_command(tree, ledger, flags)
        call = " ".join(["python -m bit_transformer.training --data FILE", *flags]) + f" on {on(versions)}"
        if status or bool(compiler.calls) != wanted:
            return failed(f"exit status {status}, {compiler.compiled} calls of torch.compile", call)
    return passed("with the flags and without")


def first_error(tree: Tree, policy: dict[str, Any]) -> str:
    """Call train_loop until something enters the model; what was raised before that, or empty."""
    model, entered = tree.model(), []

    def stop(*_: Any) -> None:
        entered.append(True)
        raise RuntimeError("enough")

    model.register_forward_pre_hook(stop)
    try:
        tree.train(model, tree.bits(2, LENGTH), compress_prob=0.0, compile=True, **policy)
    except Exception as error:
        return "" if entered else f"{type(error).__name__}: {error}"
    return "" if entered else "nothing enters the model"


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


def shown(options: dict[str, Any]) -> str:
    """Options as further arguments of a call."""
    return "".join(f", {name}={value!r}" for name, value in options.items())
