"""What a forward gives, in whatever form: its logits, and what comes with them. In child processes only."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from .seams import MissingSeam, function_of

RANK = 3  # of logits [B, T, 2]


def outputs(out: Any) -> tuple[Tensor, Any]:
    """The logits of what a forward gave, and all the rest by its name, as one mapping.

    Raises MissingSeam where nothing there is shaped like logits, or several are and none is called so.
    """
    parts = dict(_parts(out))
    name = _name_of_logits(parts)
    rest: dict[Any, Any] = {}
    for other, each in parts.items():
        if other != name:
            rest |= each if isinstance(each, Mapping) else {other: each}
    return parts[name], rest


def with_logits(out: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same, but for its logits, which are changed."""
    name = _name_of_logits(dict(_parts(out)))
    if isinstance(out, Tensor):
        return change(out)
    if isinstance(out, Mapping):
        return type(out)({**out, name: change(out[name])})  # type: ignore[call-arg]
    if hasattr(out, "_replace"):
        return out._replace(**{name: change(getattr(out, name))})
    if dataclasses.is_dataclass(out) and not isinstance(out, type):
        return dataclasses.replace(out, **{name: change(getattr(out, name))})
    return type(out)(change(each) if str(place) == name else each for place, each in enumerate(out))


def _parts(out: Any) -> Iterator[tuple[str, Any]]:
    """What a forward gave, by name, or by place where it has none."""
    if isinstance(out, Mapping):
        yield from ((str(name), each) for name, each in out.items())
    elif hasattr(out, "_asdict"):
        yield from out._asdict().items()
    elif dataclasses.is_dataclass(out):
        yield from ((each.name, getattr(out, each.name)) for each in dataclasses.fields(out))
    elif isinstance(out, list | tuple):
        yield from ((str(place), each) for place, each in enumerate(out))
    else:
        yield "logits", out


def _name_of_logits(parts: Mapping[str, Any]) -> str:
    shaped = [
        name
        for name, each in parts.items()
        if isinstance(each, Tensor) and each.is_floating_point() and each.dim() == RANK and each.shape[-1] == 2  # noqa: PLR2004
    ]
    named = [name for name in shaped if "logit" in name]
    if shaped and shaped[0] == "0":  # where names say nothing, the place does
        return shaped[0]
    if len(named or shaped) != 1:
        many = f"{', '.join(named or shaped)} are shaped like logits" if shaped else "what it gives holds no logits"
        raise MissingSeam("model", f"{many} [B, T, 2]", function_of("model"))
    return (named or shaped)[0]
