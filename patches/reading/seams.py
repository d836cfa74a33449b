"""Seams: what patches and judges need of a tree, where it is, how it spells our options, and what settles the rest.

Nothing is imported and nothing runs: places are found by what the code computes, as tasks find them.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from ..files.settled import FILE, file_of
from ..files.spellings import spelled
from .any_model import functions
from .attention import Attention, attentions
from .classes import SERVES, names_of, serves
from .code import is_main_guard
from .draws import drawn_by
from .files import File, Function, is_test
from .judges import gates
from .mapped import mapped_rows
from .options import way_to
from .parsers import settings
from .rows import Rows, rows_of_texts
from .schedules import schedules
from .seam import FUNCTIONS, Seam, model_class, module_of, qualified, seam_of, site_of
from .sizes import sizes_of
from .tree import TRAIN_LOOP, SourceTree
from .updates import Update, updates_in_loops, updates_of_runs

NAMES = ("model", "attention", "update", "command-line", "rows", "schedule", "gate", "manager")
IN_ANY = ("update", "attention", "schedule")  # that are shown of a tree of another model
COMPRESSES = "compress_prob"
SIZES = {"d_model", "nhead", "num_layers", "max_seq_len"}  # of a model, without which it is not driven
EXAMPLES = {
    "model": "PACKAGE.model:BitTransformerLM",
    "attention": "PACKAGE.model:Attention.forward",
    "update": "PACKAGE.training:train_loop",
    "command-line": "PACKAGE.training:main",
    "rows": "data.wikitext_schedule:load_rows",
    "schedule": "PACKAGE.optimization:configure_optimizer",
    "gate": "PACKAGE.safety:SafetyGate",
    "manager": "dashboard.manager:ModelManager",
}
_PARSES = rb"\b(argparse|click|typer)\b"


def seams(tree: SourceTree) -> list[Seam]:
    """Every seam of a tree, found, settled or missing; of one of another model, what is asked of any."""
    if not tree.model_path:
        return [
            *functions(tree, _update(tree)),
            *(each for name in IN_ANY if (each := FINDERS[name](tree)) is not None),
        ]
    return [_seam(tree, name, FINDERS[name]) for name in NAMES]


def _seam(tree: SourceTree, name: str, find: Callable[[SourceTree], Seam | None]) -> Seam:
    given = tree.settings.seams.get(name)
    found = named(tree, name, given) if given is not None else find(tree)
    if found is not None:
        return found
    package = module_of(tree, tree.model_path).partition(".")[0]
    line = f'[tool.bitpatch.seams] {name} = "{EXAMPLES[name].replace("PACKAGE", package)}"'
    return Seam(name, "missing", settle=f"{FILE}: {line}")


def named(tree: SourceTree, name: str, given: str) -> Seam | None:
    """The seam that somebody names in pyproject.toml."""
    module, _, inner = given.partition(":")
    path = file_of(tree.paths, module)
    file = tree.code.files.file(path) if path is not None else None
    node: ast.AST | None = file.module if file is not None else None
    for word in inner.split("."):
        body = getattr(node, "body", ())
        node = next((each for each in body if getattr(each, "name", None) == word), None)
    if file is None or node is None:
        return None
    return seam_of(tree, name, file, node, module=module, state="settled", inner=inner)


def _model(tree: SourceTree) -> Seam | None:
    node, file = model_class(tree), tree.code.files.file(tree.model_path)
    if node is None or file is None:
        return None
    seam = functools.partial(seam_of, tree, "model", file, node, inner=qualified(file, node))
    return seam() if SIZES <= seam().options.keys() else seam(seen=sizes_of(tree.code, file, node))


def _attention(tree: SourceTree) -> Seam | None:
    code = tree.code
    for file in code.files.having(b"softmax|scaled_dot_product_attention|MultiheadAttention"):
        for function, owner in file.functions if not is_test(file.path) else ():
            reading = code.reading(file, function, owner)
            asked = (n for n in file.uses.get("scaled_dot_product_attention", ()) if file.function(n) is function)
            computed = (each.node for each in attentions(code.graph, reading) if isinstance(each, Attention))
            at: ast.AST | None = next(itertools.chain[ast.AST](computed, asked), None)
            if at is not None:
                where = f"{module_of(tree, file.path)}:{qualified(file, function)}"
                return Seam("attention", "found", site_of(tree, file, at, where), where)
    return None


def _update(tree: SourceTree) -> Seam | None:
    every = updates_in_loops(tree.code)
    ours = [each for each in every if each.reading.file.path == tree.training_path]
    for update in ours or sorted(
        every, key=lambda each: serves(each.reading.owner)
    ):  # a manager's own loop is the run only where no other is
        if (seam := _entry(tree, update)) is not None:
            return seam
    return None


def _entry(tree: SourceTree, update: Update) -> Seam | None:
    """The function, or the method of what is made, by which somebody outside has an update made."""
    way = way_to(tree.code, update.reading)
    file, node = update.reading.file, update.reading.node
    functions = [each for each in (node, *file.ancestors(node)) if isinstance(each, Function)]
    if not functions:
        return None
    function = functions[-1]
    owner = file.owner(function)
    function = _called_from_outside(file, function, owner)
    config = None
    if way is not None and way.home.kind == "field" and isinstance(way.home.node, ast.ClassDef):
        config = (way.home.file.path, way.home.node)
    seam = functools.partial(seam_of, tree, "update", file, function, inner=qualified(file, function), config=config)
    return seam() if COMPRESSES in seam().options else _drawing(tree, seam)


def _drawing(tree: SourceTree, seam: Callable[..., Seam]) -> Seam:
    """The seam of a loop whose name for the probability of a compressed form is none that we know: by what it does."""
    runs = drawn_by(tree.code)[0]
    drawn = [draw for run in runs for draw in (run.chosen or run.draws).values()]
    seen = (seam(seen={COMPRESSES: word}) for draw in drawn for word in draw.called.split())
    found = next((each for each in seen if COMPRESSES in each.options), seam())
    return found if COMPRESSES in found.options or not drawn else replace(found, unspelled=(COMPRESSES,))


def _called_from_outside(file: File, function: Function, owner: ast.ClassDef | None) -> Function:
    """The function itself, or the one that leads to it and that no other of its class, or of its module, calls."""
    seen = {function}
    while True:
        body = owner.body if owner is not None else file.module.body
        callers = [
            each
            for each in body
            if isinstance(each, FUNCTIONS)
            and each not in seen
            and each.name != "main"
            and _mentions(each, function.name, is_method=owner is not None)
        ]
        if not callers or (owner is None and not function.name.startswith("_") and function.name == TRAIN_LOOP):
            return function
        function = callers[0]
        seen.add(function)


def _mentions(function: ast.AST, name: str, *, is_method: bool) -> bool:
    """Whether a function names another of its module, or of its object."""
    kind, word = (ast.Attribute, "attr") if is_method else (ast.Name, "id")
    return any(isinstance(node, kind) and getattr(node, word) == name for node in ast.walk(function))


def _command_line(tree: SourceTree) -> Seam | None:
    updates = updates_of_runs(tree.code)
    ways = [way for each in updates if (way := way_to(tree.code, each.reading)) is not None and way.parsers]
    every = [flag for way in ways for group in way.parsers for flag in group]
    if not every:
        return _started(tree, updates)
    most = max({flag.file for flag in every}, key=lambda file: sum(flag.file is file for flag in every))
    own = [e for e in every if e.file is most and getattr(settings(e).get("action"), "value", "") != "store_false"]
    texts = {flag.name: max(flag.texts, key=len, default=flag.name) for flag in own}
    options = spelled("command-line", texts, tree.settings.options.get("command-line"))
    switches = {flag.name for flag in own if getattr(settings(flag).get("action"), "value", "") == "store_true"}
    where = f"{module_of(tree, most.path)}:"
    roles = {texts[theirs]: "switch" for theirs in options.values() if theirs in switches}
    told = {ours: texts[theirs] for ours, theirs in options.items()}
    return Seam("command-line", "found", site_of(tree, most, own[0].node, where), where, told, roles)


def _started(tree: SourceTree, updates: list[Update]) -> Seam | None:
    """The module that starts a run and has a parser whose options are not seen here: judges ask it themselves."""
    found = []
    named = (file for path in tree.paths if path.endswith("__main__.py") and (file := tree.code.files.file(path)))
    guarded = (file for file in tree.code.files.having(b"__main__") if any(map(is_main_guard, file.module.body)))
    for file in {each.path: each for each in (*named, *guarded)}.values():
        steps = _steps(tree, file) if not is_test(file.path) else {}
        if any(re.search(_PARSES, tree.raw(path)) for path, step in steps.items() if step < 2):  # noqa: PLR2004 - its own
            ways = [steps[each.reading.file.path] for each in updates if each.reading.file.path in steps]
            found += [(min(ways), file)] if ways else []
    nearest = [file for step, file in found if step == min(found)[0]] if found else []
    if len(nearest) != 1:
        return None
    where = f"{module_of(tree, nearest[0].path)}:"
    return Seam("command-line", "found", site_of(tree, nearest[0], nearest[0].module.body[0], where), where)


def _steps(tree: SourceTree, file: File) -> dict[str, int]:
    """The modules of a tree that one imports, and those import, with how many steps away each is."""
    steps, pending = {file.path: 0}, [file]
    while pending:
        each = pending.pop(0)
        for node in each.nodes:
            if isinstance(node, ast.ImportFrom):
                stem = "." * node.level + (node.module or "")
                names = [stem, *(f"{stem}.{one.name}" if node.module else f"{stem}{one.name}" for one in node.names)]
            else:
                names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            for path in filter(None, (tree.code.files.imported(name, each.path) for name in names)):
                other = tree.code.files.file(path)
                if other is not None and path not in steps:
                    steps[path] = steps[each.path] + 1
                    pending.append(other)
    return steps


def _rows(tree: SourceTree) -> Seam | None:
    files = [file for file in tree.code.files.having(b"open|read|memmap|from_file") if not is_test(file.path)]
    named = [file for file in files if "wikitext" in file.path.rsplit("/", 1)[-1]] or files
    found: Iterator[tuple[File, ast.AST | None]] = (
        (each.file, each.file.function(each.node)) for each in mapped_rows(tree.code, named)
    )
    made = ((e.file, e.function) for e in rows_of_texts(tree.code, named) if isinstance(e, Rows))
    for file, function in (*found, *made):
        if isinstance(function, Function):
            return seam_of(tree, "rows", file, function, inner=qualified(file, function))
    return None


def _schedule(tree: SourceTree) -> Seam | None:
    files = [file for file in tree.code.files.having(rb"OneCycleLR|LambdaLR|total_steps") if not is_test(file.path)]
    for made in schedules(tree.code, files):
        file, node = made.reading.file, made.reading.node
        if isinstance(node, Function):
            where = f"{module_of(tree, file.path)}:{qualified(file, node)}"
            return Seam("schedule", "found", site_of(tree, file, made.call, where), where)
    return None


def _gate(tree: SourceTree) -> Seam | None:
    for each in gates(tree.code, tree.modules(having=rb"[<>]")):
        cls = each.judge.cls
        node = cls.node if cls is not None else each.judge.node
        file = each.judge.file if cls is None else tree.code.files.of(cls.node)
        return seam_of(tree, "gate", file, node, inner=qualified(file, node))
    return None


def _manager(tree: SourceTree) -> Seam | None:
    for file in tree.code.files.having(b"class ") if tree.paths else ():
        for node in file.classes if not is_test(file.path) else ():
            if node.name == "ModelManager" or len(names_of(node).methods & SERVES) > 1:
                return seam_of(tree, "manager", file, node, inner=qualified(file, node))
    return None


FINDERS: dict[str, Callable[[SourceTree], Seam | None]] = {
    "model": _model,
    "attention": _attention,
    "update": _update,
    "command-line": _command_line,
    "rows": _rows,
    "schedule": _schedule,
    "gate": _gate,
    "manager": _manager,
}
