"""When torch.compile is used, and what happens when it lets us down."""

import platform
import re
import warnings
from typing import NamedTuple, Tuple

import torch
import torch.nn as nn

# First Python release that a torch release does not compile on.
_TOO_NEW = [
    ((2, 10), (3, 15)),
    ((2, 6), (3, 14)),
    ((2, 4), (3, 13)),
    ((2, 1), (3, 12)),
]


class Verdict(NamedTuple):
    compile: bool
    reason: str


def compile_verdict(torch_version: str, python_version: str, policy: str = "strict") -> Verdict:
    """Decide from version strings alone.

    ``strict`` is torch >= 2.1 with Python < 3.12. ``table`` follows the release notes.
    """
    if policy not in ("strict", "table"):
        raise ValueError("policy must be 'strict' or 'table', not %r" % policy)
    torch_release, python_release = _major_minor(torch_version), _major_minor(python_version)
    pair = "torch %s with Python %s" % (torch_version, python_version)
    by_table = _supported(torch_release, python_release)
    if policy == "table":
        verb = "is" if by_table else "is not"
        return Verdict(by_table, "%s %s supported by torch.compile" % (pair, verb))
    if torch_release >= (2, 1) and python_release < (3, 12):
        return Verdict(True, "%s satisfies the strict rule" % pair)
    hint = "; policy='table' would compile" if by_table else ""
    return Verdict(False, "%s fails the strict rule (torch >= 2.1, Python < 3.12)%s" % (pair, hint))


def compile_if_supported(model: nn.Module, policy: str = "strict") -> nn.Module:
    """Compile ``model`` in place if this interpreter allows it; always returns ``model``.

    In place means that the module keeps its class, its parameter names and its identity,
    so checkpoints and scale-up never meet a wrapper.
    """
    verdict = compile_verdict(torch.__version__, platform.python_version(), policy)
    if not verdict.compile:
        warnings.warn("torch.compile skipped: " + verdict.reason, RuntimeWarning, stacklevel=2)
        return model
    if model._compiled_call_impl is not None:
        return model
    model.compile()
    _guard_first_calls(model)
    return model


def _guard_first_calls(model: nn.Module) -> None:
    # Compilation happens in the first forward, which is where a missing C++ toolchain shows.
    compiled = model._compiled_call_impl

    def call(*args, **kwargs):
        try:
            return compiled(*args, **kwargs)
        except Exception as error:
            result = model._call_impl(*args, **kwargs)  # the caller's own mistakes surface here again
            model._compiled_call_impl = None
            warnings.warn(
                "torch.compile failed, running eagerly from here on (%s: %s)" % (type(error).__name__, error),
                RuntimeWarning,
                stacklevel=2,
            )
            return result

    model._compiled_call_impl = call


def _supported(torch_release: Tuple[int, int], python_release: Tuple[int, int]) -> bool:
    for since, too_new in _TOO_NEW:
        if torch_release >= since:
            return python_release < too_new
    return False


def _major_minor(version: str) -> Tuple[int, int]:
    major, minor = re.match(r"(\d+)\.(\d+)", version).groups()
    return int(major), int(minor)
