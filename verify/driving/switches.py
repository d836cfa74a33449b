"""Options that are on or off in a tree, where ours have a word: what a parameter takes. In child processes only."""

import inspect
import re
from typing import Any

BOOL = re.compile(r"<class 'bool'>|(typing\.)?Optional\[bool\]|bool( \| None)?")  # a type, as it is written
ON = {"amp": "bf16"}  # our value of an option that is on or off elsewhere


def default_of(parameter: inspect.Parameter | None) -> Any:
    """What a parameter is, if nothing is said."""
    return parameter.default if parameter is not None else None


def is_on_or_off(parameter: inspect.Parameter | None) -> bool:
    """Whether a parameter takes a bool, as its default says, or its type where that says nothing."""
    if parameter is None or parameter.default not in (None, parameter.empty):
        return isinstance(default_of(parameter), bool)
    return BOOL.fullmatch(str(parameter.annotation)) is not None


def worded(option: str, value: Any, parameter: inspect.Parameter | None) -> Any:
    """A value of one of our options, as a parameter takes it."""
    return value == ON[option] if option in ON and is_on_or_off(parameter) else value
