"""A tree through its seams: our words for its parts and options, told to it in its own. In child processes only.

Where the parts are, the parent has found (patches/reading/seams.py); here they are imported and called. What a tree
has not, or what is not known to be what, is a MissingSeam, which is no verdict on the tree.
"""

import importlib
import importlib.util
import inspect
import re
import runpy
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ...patches.files.spellings import DRIVER
from .command_lines import Taken, taken
from .switches import default_of, is_on_or_off, worded

STANDARD = {  # where a tree has its parts that is laid out as ours
    "model": "bit_transformer.model:BitTransformerLM",
    "update": "bit_transformer.training:train_loop",
    "command-line": "bit_transformer.training:main",
    "gate": "bit_transformer.safety:SafetyGate",
}
NEUTRAL: dict[str, Any] = {  # options that say nothing: a tree without them is as one with these values
    "reversible": False,
    "use_act": False,
    "use_checkpoint": False,
    "chunk_size": None,
    "overlap": 0,
    "full_attn_logging": None,
    "accum_steps": 1,
    "amp": "off",
    "compile": False,
    "extra_steps": 0,
    "num_workers": 0,
    "compress_prob": 0.0,
    "direct_prob": 0.0,
    "global_step": 0,
    "log": False,
    "forward_kwargs": None,
}
SIZES = ("dim_feedforward",)  # what a tree may work out by itself
OWN = ("compress_prob", "direct_prob")  # of which a tree may have another default than what says nothing
ALSO = {"layers": "num_layers", "checkpointing": "use_checkpoint", "act": "use_act"}  # as our command line spells them
HELD_OUT = re.compile(r"(val|valid|validation|eval|evaluation|held_?out)(_(rows|data|dataset|set|bits))?")


class MissingSeam(BaseException):  # which no judge takes for what the tree raises
    """A tree cannot be driven somewhere: which seam that is, what is missing, and the line that settles it."""

    def __init__(self, seam: str, lack: str, settle: str = "") -> None:
        super().__init__(f"seam {seam}: {lack}" + (f"; settle it: {settle}" if settle else ""))


class AbsentPart(MissingSeam):
    """A tree has no such part, as its owner says: properties of it do not apply."""

    def __init__(self, function: str) -> None:
        BaseException.__init__(self, f"{DRIVER} says that the tree has no {function}")


class OfAnother(AbsentPart):
    """A tree of another model has no such part as ours: checks that ask for it do not apply, until it is settled."""

    def __init__(self, asked: str) -> None:
        seam = SEAMS.get(asked, asked)
        is_called = seam in FUNCTIONS and seam not in NEEDED
        line = function_of(seam) if is_called else f'pyproject.toml: [tool.bitpatch.seams] {seam} = "MODULE:NAME"'
        what = f"asks for the {seam} of a BitTransformerLM, with its options, and the tree is of another model"
        BaseException.__init__(self, f"{what}; if it has one, settle it: {line}")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a tree: where it is, how it spells our options, and what its other parameters are for."""

    seam: str
    where: str  # "module:qualified.name"
    options: Mapping[str, str]  # ours -> theirs; of a tree that is laid out as ours there are none
    roles: Mapping[str, str]  # parameter -> "model", "data", or "module:Class" of a record of options
    unspelled: Sequence[str] = ()  # our options that it has under names that are not seen

    def load(self) -> Any:
        """The class or function itself, or what is at the place of the seam."""
        return loaded(self.where)

    @property
    def is_method(self) -> bool:
        """Whether it is a method of something that has to be made first."""
        return "." in self.where.partition(":")[2]

    @property
    def steps(self) -> list[Callable[..., Any]]:
        """What is called in turn: a class, and then its method."""
        module, _, inner = self.where.partition(":")
        return [loaded(f"{module}:{inner.rpartition('.')[0]}"), self.load()] if self.is_method else [self.load()]

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The parameters of all that is called, and the fields of its records."""
        found = {name: each for step in self.steps for name, each in inspect.signature(step).parameters.items()}
        for record in self.records.values():
            found |= inspect.signature(record).parameters
        return {name: each for name, each in found.items() if name != "self"}

    @property
    def records(self) -> dict[str, type]:
        """The records of options, by the parameter that takes each."""
        return {name: loaded(role) for name, role in self.roles.items() if ":" in role}

    @property
    def held_out(self) -> list[str]:
        """The parameters for rows to validate on, which it may do without."""
        return [name for name, each in self.parameters.items() if each.default is None and HELD_OUT.fullmatch(name)]

    def takes(self, option: str) -> bool:
        """Whether the part has one of our options."""
        own = self.parameters
        return self.options.get(option, option) in own or takes_any(own)

    def told(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options in the tree's own words. Raises MissingSeam where it has none for what is asked for."""
        own, said = self.parameters, {}
        for name, value in options.items():
            theirs = self.options.get(name, name)
            if theirs not in own and not takes_any(own):
                says_nothing = name in SIZES or (name in NEUTRAL and (not value or value == NEUTRAL[name]))
                if says_nothing and name not in self.unspelled:
                    continue
                line = f'pyproject.toml: [tool.bitpatch.options.{self.seam}] {name} = "..."'
                raise MissingSeam(self.seam, f"{self.where} takes no {name}", line)
            if value is None and name == "full_attn_logging" and isinstance(default_of(own.get(theirs)), bool):
                continue  # left to the tree
            said[theirs] = worded(name, value, own.get(theirs))
        return said

    def call(self, options: Mapping[str, Any], **given: Any) -> Any:
        """Call it with our options, and what it is to work on by its role."""
        said = self.told(options)
        for parameter, record in self.records.items():
            fields = inspect.signature(record).parameters
            said[parameter] = record(**{name: said.pop(name) for name in list(said) if name in fields})
        roles = {role: name for name, role in self.roles.items()}
        for role, value in given.items():
            said[roles.get(role, role)] = value
        result: Any = None
        for number, step in enumerate(self.steps):
            own = inspect.signature(step).parameters
            mine = {name: value for name, value in said.items() if name in own or takes_any(own)}
            self._require(own, mine, is_method=number > 0)
            result = step(**mine) if number == 0 else step(result, **mine)
        return result

    def _require(self, own: Mapping[str, inspect.Parameter], mine: Mapping[str, Any], *, is_method: bool) -> None:
        needed = [
            each.name
            for each in list(own.values())[is_method:]
            if each.default is each.empty and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
        ]
        if unknown := [name for name in needed if name not in mine]:
            lack, settle = f"what {self.where} wants for {', '.join(unknown)} is not known", function_of(self.seam)
            raise MissingSeam(self.seam, lack, settle)


def telling(seam: str, function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a function of bitpatch_seams.py is told: a tree without the options that say nothing is as one with them.

    Raises MissingSeam where it takes no option that says something.
    """
    told = {n: value for n, value in options.items() if n in OWN or n not in NEUTRAL or value != NEUTRAL[n]}
    for name in [name for name in told if not accepts(function, name)]:
        if name not in SIZES and (name not in OWN or told[name]):
            raise MissingSeam(seam, f"{function.__name__} of {DRIVER} takes no {name}", f"let it take {name}")
        del told[name]
    own = inspect.signature(function).parameters
    return {name: worded(name, value, own.get(name)) for name, value in told.items()}


def accepts(function: Callable[..., Any], name: str) -> bool:
    """Whether a function takes an argument of some name."""
    own = inspect.signature(function).parameters
    return name in own or takes_any(own)


def takes_any(own: Mapping[str, inspect.Parameter]) -> bool:
    """Whether parameters take keywords of any name."""
    return any(each.kind is each.VAR_KEYWORD for each in own.values())


NEEDED = ("model", "update")  # without which there is nothing to judge
SEAMS = {"train": "update", "main": "command-line"}  # that functions of another name stand for
FUNCTIONS = {
    "update": "train(model, data, **options)",
    "model": "model(**config)",
    "command-line": "main(words)",
    "rows": "rows(path, max_seq_len)",
    "gate": "gate(threshold, decay, burn_in)",
    "manager": "manager(folder, loss_threshold)",
}


def function_of(seam: str) -> str:
    """What settles a seam where no line does."""
    return f"a function {FUNCTIONS.get(seam, seam)} in {DRIVER}"


def loaded(where: str, settle: str = "name what there is in pyproject.toml") -> Any:
    """What "module:qualified.name" names. Raises MissingSeam where the tree has no such thing."""
    module, _, inner = where.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise MissingSeam(where, "the tree has no such module", settle) from error
    for word in inner.split(".") if inner else ():
        if not hasattr(found, word):
            raise MissingSeam(where, f"{module} has no {inner}", settle)
        found = getattr(found, word)
    return found


class Seams:
    """The seams of a tree: as they were found, or where a tree has them that is laid out as ours."""

    def __init__(self, root: Path, found: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.found, self.of_any = found, "any" in (found or ())  # of a tree of another model
        self.root = root
        self.evaluates = False  # whether a loop is given rows to validate on, so that it evaluates
        self._taken: dict[str, Taken | None] = {}

    def part(self, seam: str) -> Part:
        """The part of a seam. Raises MissingSeam."""
        if self.of_any:
            raise OfAnother(seam)
        if self.found is None and seam in STANDARD:
            return Part(seam, STANDARD[seam], {}, {})
        given = (self.found or {}).get(seam)
        if given is None or not given.get("where"):
            settle = (given or {}).get("settle", f"pyproject.toml: [tool.bitpatch.seams] {seam}")
            raise MissingSeam(seam, "is not found", settle)
        return Part(seam, given["where"], given["options"], given["roles"], given.get("unspelled", ()))

    def options(self, seam: str) -> Mapping[str, str]:
        """What a part calls our options, as far as that is known."""
        return dict(((self.found or {}).get(seam) or {}).get("options", {}))

    def own(self, function: str) -> Callable[..., Any] | None:
        """The function of bitpatch_seams.py that stands for a part, if there is one.

        Raises AbsentPart where it says that there is no such part, MissingSeam where one is found all the same.
        """
        driver = own_driver(self.root)
        own: Callable[..., Any] | None = getattr(driver, function, None)
        if self.of_any and (function in ("model", "train") or not hasattr(driver, function)):
            raise OfAnother(function)  # those two are called otherwise there
        if own is None and hasattr(driver, function):
            seam = SEAMS.get(function, function)
            is_found = seam in STANDARD if self.found is None else bool((self.found.get(seam) or {}).get("where"))
            if is_found or seam in NEEDED:
                raise MissingSeam(
                    seam, f"{DRIVER} says None, and a tree has it", f"say what it is, or delete {function}"
                )
            raise AbsentPart(function)
        return own

    @property
    def is_told(self) -> bool:
        """Whether the tree is another than one that is laid out as ours."""
        return self.found is not None or own_driver(self.root) is not None

    def takes(self, seam: str, function: str, option: str) -> bool:
        """Whether a part has one of our options, or the function of bitpatch_seams.py that stands for it."""
        own = self.own(function)
        return self.part(seam).takes(option) if own is None else accepts(own, option)

    def is_switch(self, option: str) -> bool:
        """Whether one of our options of a loop is on or off there."""
        if (own := self.own("train")) is not None:
            return is_on_or_off(inspect.signature(own).parameters.get(option))
        return is_on_or_off(self.part("update").parameters.get(self.options("update").get(option, option)))

    @property
    def is_seeded(self) -> bool:
        """Whether a loop that is laid out otherwise has a seed of its own, which the global one does not move."""
        if not self.is_told:
            return False
        own = self.own("train")
        return "seed" in (self.part("update").parameters if own is None else inspect.signature(own).parameters)

    def model(self, config: Mapping[str, Any]) -> nn.Module:
        """A model by our options."""
        if (make := self.own("model")) is not None:
            made: nn.Module = make(**telling("model", make, config))
            return made
        model: nn.Module = self.part("model").call(config)
        return model

    def train(self, model: nn.Module, data: Any, options: Mapping[str, Any]) -> Any:
        """Train a model on rows [N, L], or a data set of them, by our options; what the tree's own loop returns."""
        if (run := self.own("train")) is not None:
            told = telling("update", run, options)
            while True:
                try:
                    return run(model, data, **told)
                except TypeError as error:  # what it is told on to takes no such word, which says nothing
                    unknown = [name for name in OWN if f"unexpected keyword argument '{name}'" in str(error)]
                    if not unknown or told.pop(unknown[0], True):
                        raise
        part = self.part("update")
        if self.found is None:
            return part.load()(model, data, **options)
        held_out = dict.fromkeys(part.held_out if self.evaluates else (), data[:2])
        return part.call(options, model=model, data=data, **held_out)

    def command(self, words: Sequence[str]) -> None:
        """Run the tree's command line by our options, "--name value", as `python -m` would."""
        if (main := self.own("main")) is not None:
            main(list(words))
            return
        part = self.part("command-line")
        asked = self._asked(part) if self.found is not None else None
        if asked is not None:
            options, switches = {**part.options, **asked.options}, dict.fromkeys(asked.switches, "switch")
            part = replace(part, options=options, roles={**part.roles, **switches})
        own = spoken(part, words) if self.found is not None else words
        _start(part, [*(asked.words if asked is not None else ()), *own])

    def _asked(self, part: Part) -> Taken | None:
        """What a command line takes, as its parser says; None where it asks none and its source tells.

        Raises MissingSeam where neither tells.
        """
        if part.where not in self._taken:
            known = {**self.options("model"), **self.options("update")}
            found = taken(lambda: _start(part, []), known)
            if found is None and not part.options:
                raise MissingSeam(part.seam, f"{part.where} asks no parser that is known", function_of(part.seam))
            self._taken[part.where] = found
        return self._taken[part.where]


def _start(part: Part, words: Sequence[str]) -> None:
    """Run a command line as `python -m` would."""
    module, _, inner = part.where.partition(":")
    sys.argv = [module, *words]
    if inner:
        part.load()()
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def spoken(part: Part, words: Sequence[str]) -> list[str]:
    """Words of a command line, "--name value" of our options, in the tree's own. Raises MissingSeam."""
    said, pending = list[str](), deque(words)
    while pending:
        name = pending.popleft().removeprefix("--")
        values = [] if not pending or pending[0].startswith("--") else [pending.popleft()]
        own = name.removeprefix("no-")
        theirs = part.options.get(ALSO.get(own, own))
        if theirs is not None and own != name:
            said += [] if part.roles.get(theirs) == "switch" else [f"--no-{theirs.removeprefix('--')}"]
            continue
        if theirs is None:
            line = f'pyproject.toml: [tool.bitpatch.options.command-line] {name} = "..."'
            raise MissingSeam(part.seam, f"the command line of {part.where.rstrip(':')} takes no --{name}", line)
        if part.roles.get(theirs) == "switch":
            said += [theirs] if not values or values[0] not in ("off", "false", "False", "0") else []
        else:
            said += [*([theirs] if theirs.startswith("-") else []), *values]
    return said


def own_driver(root: Path) -> ModuleType | None:
    """The module by which a tree says itself how it is driven, if it has one; imported when it is asked for."""
    file = root / DRIVER
    known = sys.modules.get("bitpatch_seams")
    if known is not None and known.__file__ == str(file):
        return known
    if not file.is_file():
        return None
    spec = importlib.util.spec_from_file_location("bitpatch_seams", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # by which what it defines is pickled
    spec.loader.exec_module(module)
    return module
