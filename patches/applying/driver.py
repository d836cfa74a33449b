"""bitpatch_seams.py: the file by which a tree says itself how it is driven, begun with what was found."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from ..files.spellings import ASKED, DRIVER
from ..reading.seam import Seam
from ..task import BitpatchError, Unreadable

HEAD = '''"""How bitpatch drives this tree: it calls the functions here in place of what it found.

Options have bitpatch's names (`bitpatch seams` lists them); one that is left out has its default. Delete what is right
as it was found, and answer the questions that are left. What this tree has none of is None: `manager = None`, say.
"""
'''
HEAD_OF_ANY = '''"""How bitpatch has this tree's training judged: it calls the functions here, in a copy of the tree.

Answer the questions, and keep it small: defects show in a few dozen updates. What this tree has none of is None.
"""
'''
FUNCTIONS = {  # how each is called, what it gives, and how what was found is called
    "model": ("model(**config)", "A model, in training mode.", "config", "{target}({told})"),
    "update": (
        "train(model, data, **options)",
        "Train a model on rows of bits [N, L]; what is returned is not looked at.",
        "options",
        "{target}(model, data, {told})",
    ),
}


def draft(seams: Sequence[Seam]) -> str:
    """The text of the file: what was found filled in, the rest as questions."""
    found = {each.name: each for each in seams}
    if set(ASKED) <= found.keys():
        return "\n\n\n".join([HEAD_OF_ANY.rstrip(), *(_question(found[name]) for name in ASKED)]) + "\n"
    imports = sorted({line for name in FUNCTIONS if (line := _import(found[name]))})
    return "\n\n\n".join(["\n".join([HEAD, *imports]).rstrip(), *(_function(found[name]) for name in FUNCTIONS)]) + "\n"


def _question(seam: Seam) -> str:
    """A function that is asked of a tree of any model, with what was found that it could call."""
    call, what = ASKED[seam.name]
    asked = [f"# {line}" for line in seam.settle.split("; ")[1:]]
    return "\n".join([*asked, f"# def {call}:", f'#     """{what}"""'])


def _import(seam: Seam) -> str:
    module, _, inner = seam.where.partition(":")
    return f"from {module} import {inner}" if seam.is_direct else ""


def _function(seam: Seam) -> str:
    call, what, options, body = FUNCTIONS[seam.name]
    if not seam.is_direct:
        asked = (
            f"{seam.where} was found, and is not called in one go: how is it?" if seam.where else "It was not found."
        )
        return "\n".join([f"# {asked}", f"# def {call}:", f'#     """{what}"""'])
    names = {ours: theirs for ours, theirs in seam.options.items() if ours != theirs}
    told = f"**{{{names}.get(name, name): value for name, value in {options}.items()}}" if names else f"**{options}"
    made = body.format(target=seam.where.partition(":")[2], told=told)
    return "\n".join([f"def {call}:", f'    """{what}"""', f"    return {made}"])


def write_draft(root: Path, seams: Sequence[Seam]) -> Path:
    """Write the file into a tree that has none. Raises BitpatchError where there is one, Unreadable where it cannot."""
    file = root / DRIVER
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(draft(seams))
    except FileExistsError:
        raise BitpatchError(f"{file}: is there already; take it away to have it written anew") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            file.unlink(missing_ok=True)
        raise Unreadable(f"{file}: cannot be written ({error.strerror}); check the folder") from None
    return file
