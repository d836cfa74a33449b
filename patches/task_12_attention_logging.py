"""Log full attention maps in chunked runs only where it is asked for.

Chunked attention keeps memory linear in T, until each layer stitches its windows to a [T, T] map
because full_attn_logging is on by default. With the patch the default is None: off where chunk_size
is set, on elsewhere. An explicit value wins, and the configuration keeps what the user gave.

Contract: fixes. Outputs and random numbers are the same, logged or not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from .editing.edits import rewrite
from .editing.handing import left_open
from .reading.parsers import Flag
from .reading.settings import Entry, Setting, asker, entries, reads, setting_of, strayed, told, truths
from .reading.switches import Switch, is_resolved, kept_resolved, made_anyway, made_of_none, switches, unguarded
from .reading.tree import SourceTree
from .reading.values import Value
from .task import Contract, Finding, Task, mend, mended, near_miss


def find(tree: SourceTree) -> Iterator[Finding]:
    """What turns off the maps of chunked attention, wherever it is told, and where None is made of it."""
    seen = set[Setting | None]()
    for switch in switches(tree.code):
        flag, chunk, reading = switch.flag, switch.chunk, switch.reading
        source = tree.source(reading.file.path)
        if flag is None or chunk is None:
            where = switch.canvas.at
            note = "a map of all positions in chunks, but no setting of a constructor or a data class turns it off"
            place = tree.source(where.file.path) if where is not None else source
            yield near_miss(place.site(where.node if where is not None else reading.node, note))  # type: ignore[arg-type]
        elif (setting := setting_of(tree.code, flag)) is not None and setting not in seen:
            seen.add(setting)
            if (made := made_anyway(tree.code, switch)) is not None and (at := made.at) is not None:
                note = f"a map of all positions, but it is made where {setting.name} turns it off too"
                yield near_miss(tree.source(at.file.path).site(at.node, note))  # type: ignore[arg-type]
            yield from _switched(tree, switch, setting, chunk)


def _switched(tree: SourceTree, switch: Switch, setting: Setting, chunk: Value) -> Iterator[Finding]:
    source = tree.source(setting.file.path)
    site = source.site(setting.holder, f"{setting.name} resolved")
    calls = list(told(tree.code, setting))
    outside = [each for each in calls if is_resolved(each.value) is not None]
    if switch.resolved is not None or outside:
        values = [switch.resolved] if switch.resolved is not None else [each.value for each in calls]
        right = all(
            value is not None and is_resolved(value, chunk if value is switch.resolved else None) for value in values
        )
        note = f"{setting.name} resolved, but not to whether there are no chunks"
        yield mended(site) if right else near_miss(source.site(setting.holder, note))
    else:
        yield from _resolved(tree, setting, chunk, by_truth=switch.by_truth)
    unsaid = [made_of_none(each.value) for each in outside]
    starts = [known for each in unsaid if each is not None and (known := setting_of(tree.code, each)) is not None]
    changed, askers = False, _askers(tree, starts if outside else [setting])
    for outer in (each for each in askers if isinstance(each, Setting)):
        for kept in kept_resolved(tree.code, outer):
            note = f"what is made of {outer.name} is kept as a setting, and not what the user said: keep that"
            yield near_miss(tree.source(outer.file.path).site(kept, note))
        for file, node in strayed(tree.code, outer):
            note = f"what has {outer.name}, but who tells it that is not seen where it is handed on: call it there"
            yield near_miss(tree.source(file.path).site(node, note))  # type: ignore[arg-type]
    for outer in (each for each in askers[1:] if isinstance(each, Setting)):
        for file, node in truths(tree.code, outer):
            note = f"{outer.name}, which is to be None, counts as false here: ask for None, or for what is resolved"
            yield near_miss(tree.source(file.path).site(node, note))
    for each in askers:
        for finding in left_open(tree, each):
            changed = changed or bool(finding.edits)
            yield finding
    if changed:
        for use in unguarded(tree.code):
            note = f"maps, of which {use.asked} is asked for, and there may be none: say what is to be done then"
            yield near_miss(tree.source(use.file.path).site(use.node, note))  # type: ignore[arg-type]


def _askers(tree: SourceTree, starts: Iterable[Setting]) -> list[Setting | Flag | Entry]:
    """Some settings, and all options, settings and entries that are handed on to them."""
    found: list[Setting | Flag | Entry] = list(starts)
    for each in found:
        if isinstance(each, Setting):
            found += [entry for entry in entries(tree.code, each) if entry not in found]
        for call in told(tree.code, each) if isinstance(each, Setting) else ():
            if (other := asker(tree.code, call)) is not None and other not in found:
                found.append(other)
    return found


def _resolved(tree: SourceTree, setting: Setting, chunk: Value, *, by_truth: bool) -> Iterator[Finding]:
    """Make of None whether there are no chunks, where the setting is read; calls that hand it on take it as it is."""
    known, is_read = setting_of(tree.code, chunk), False
    for reading, node, owner in reads(tree.code, setting):
        source, parent = tree.source(reading.file.path), reading.file.parents[node]
        own = f"{ast.unparse(owner)}." if owner is not None else ""
        site = source.site(node, f"{setting.name} read")
        statement = reading.file.statement(node)
        kept = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if isinstance(kept, ast.Attribute) and isinstance(parent, (ast.Dict, ast.keyword)):
            continue  # a configuration, which keeps what the user said
        is_read = True
        if known is None or known.holder is not setting.holder:
            yield near_miss(
                source.site(node, f"{setting.name} read, but what sets the chunks has no name here: name it")
            )
            continue
        if isinstance(parent, ast.BoolOp) and any(
            part.key == chunk.key for side in parent.values for part in reading.values[side].walk()
        ):
            yield near_miss(source.site(node, f"{setting.name} resolved, but an explicit value does not always win"))
            continue
        name = source.code(source.at(node))
        asked = ast.unparse(node) if "\n" in name else name  # its comments are not written twice
        off = f"not {own}{known.name}" if by_truth else f"{own}{known.name} is None"
        text = f"{off} if {asked} is None else {name}"
        is_whole = isinstance(parent, (ast.Assign, ast.AnnAssign, ast.Return, ast.keyword, ast.Dict)) or (
            isinstance(parent, ast.Call) and len(parent.args) == 1
        )
        yield mend(site, [rewrite(source, source.at(node), lambda _, text=text if is_whole else f"({text})": text)])  # type: ignore[arg-type, misc]
    if not is_read:
        where = tree.source(setting.file.path)
        yield near_miss(where.site(setting.holder, f"{setting.name}, but where it is read for the maps is not seen"))


task = Task(
    number=12,
    slug="attention-logging",
    title="Full attention maps off by default in chunked runs",
    contract=Contract.FIXES,
    seam="model",
    summary="full_attn_logging=None is off where chunk_size is set, on elsewhere; an explicit value wins",
    why=__doc__,
    sought="a map of all positions that a forward puts together in chunks, and the setting that turns it off",
    find=find,
)
