"""What learns: the parameters that gradients go to, the models that they are of, and a few numbers of them."""

import gc
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from .losses import type_of
from .seen import Seen

PROBED, PROBE = 4, 1024  # parameters whose gradients are looked at, those with the fewest elements; elements of each
LOOKED_INTO = 3  # updates whose graphs are gone through for the parameters that they reach
IDLE = 4  # backward calls that leave the probe as it is, after which it is chosen anew
WALKS = 8  # through all objects, for models
NONE = torch.zeros(0, dtype=torch.float64)
MODES = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


class Learning:
    """Follows what learns from the graphs of backward calls, and from what optimizers hold."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._reached: dict[int, Tensor] = {}  # parameters that gradients go to, by identity
        self._latest: dict[int, Tensor] = {}  # those of the last graph that was gone through
        self._until, self._idle, self._walks = LOOKED_INTO, 0, 0
        self._models: dict[int, list[nn.Module]] = {}  # by the number of their optimizer, 0 where there is none
        self._known: set[int] = set()  # optimizers whose parameters were asked
        self._ungiven: dict[int, Tensor] = {}  # parameters of optimizers that had no gradient at any step
        self.probed: list[Tensor] = []

    def find_parameters(self, roots: Iterable[Tensor]) -> None:
        """The parameters that gradients go to, from the graphs of the first updates."""
        if self._seen.made >= self._until:
            return
        self._latest = dict(_leaves(roots))
        self._reached |= self._latest

    def follow(self, before: Tensor | None) -> Tensor:
        """After a backward call, a few numbers of the gradient; given those of after the one before."""
        if not self.probed:
            given = [each for each in self._latest.values() if each.grad is not None and not each.grad.is_sparse]
            self.probed = sorted(given, key=Tensor.numel)[:PROBED]
        now = self.look()
        self._idle = self._idle + 1 if before is not None and torch.equal(before, now) else 0
        if self._idle >= IDLE:  # another model learns by now
            self.probed, self._until, self._idle = [], self._seen.made + LOOKED_INTO, 0
        return now

    def look(self, *, of_grad: bool = True) -> Tensor:
        """A few numbers of the gradient, or of the parameters."""
        found = [_few(each.grad if of_grad else each, each) for each in self.probed]
        if len({each.device for each in found}) > 1:
            found = [each.cpu() for each in found]
        return torch.cat(found).to("cpu", torch.float64) if found else NONE

    def note_given(self, optimizer: Optimizer) -> None:
        """Which parameters of an optimizer have had no gradient so far."""
        own = {id(each): each for each in parameters(optimizer) if each.requires_grad}
        if id(optimizer) not in self._known:
            self._known.add(id(optimizer))
            self._ungiven |= own
        for key in [key for key, each in self._ungiven.items() if each.grad is not None and key in own]:
            del self._ungiven[key]

    def find_models(self, number: int, optimizer: Optimizer | None) -> None:
        """The models that an optimizer's parameters are of: those that no other is made of."""
        if self._models.get(number):
            return
        wanted = {id(each) for each in (parameters(optimizer) if optimizer is not None else self._reached.values())}
        found = [each for each in self._all() if any(id(own) in wanted for own in each.parameters())]
        if not found and self._walks < WALKS:
            self._walks += 1
            modules = [each for each in gc.get_objects() if issubclass(type(each), nn.Module)]  # which runs no code
            owners = [each for each in modules if any(id(own) in wanted for own in each.parameters())]
            inner = {id(part) for each in owners for part in each.modules() if part is not each}
            found = [each for each in owners if id(each) not in inner]
        self._models[number] = found
        parts = [part for each in found for part in each.modules()]
        self._seen.has_dropout |= any(isinstance(part, MODES[0]) and part.p > 0 for part in parts)
        self._seen.mode_matters |= any(isinstance(part, MODES) and getattr(part, "p", 1) for part in parts)

    def _all(self) -> list[nn.Module]:
        return list({id(each): each for found in self._models.values() for each in found}.values())

    def modes(self) -> dict[int, bool]:
        """By the number of their optimizer, whether models are in training mode."""
        return {number: all(each.training for each in found) for number, found in self._models.items() if found}

    def tell(self, optimizers: Iterable[Optimizer]) -> None:
        """Say what was seen, now that the script has ended."""
        seen, held = self._seen, {id(own): own for each in optimizers for own in parameters(each)}
        seen.types = Counter(type_of(own) for own in held.values())
        names = {id(own): name for each in self._all() for name, own in each.named_parameters()}
        seen.held = len(held)
        if held:
            seen.not_held = [names.get(key, _shape(own)) for key, own in self._reached.items() if key not in held]
        seen.never_given = [names[key] for key in self._ungiven if key in names]
        seen.foreign = sum(key not in names and key not in self._reached for key in self._ungiven)


def _few(value: Tensor | None, parameter: Tensor) -> Tensor:
    """The first numbers of a tensor, 0 where there is none."""
    if value is None:
        return torch.zeros(min(PROBE, parameter.numel()), device=parameter.device)
    flat = value.detach().reshape(-1)
    return flat if flat.numel() <= PROBE else flat.narrow(0, 0, PROBE)


def _leaves(roots: Iterable[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """The parameters that graphs reach, by identity."""
    pending, known = [each.grad_fn for each in roots if each.grad_fn is not None], set[Any]()
    while pending:
        node = pending.pop()
        if node in known:
            continue
        known.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, nn.Parameter):
            yield id(leaf), leaf
        pending += [each for each, _ in node.next_functions if each is not None]


def parameters(owner: Any) -> Iterator[Tensor]:
    """The parameters of an optimizer, or of a model."""
    if isinstance(owner, nn.Module):
        yield from owner.parameters()
    else:
        yield from (each for group in getattr(owner, "param_groups", ()) for each in group["params"])


def has_gradient(parameter: Tensor) -> bool:
    """Whether a parameter has a gradient, and that is not 0."""
    return parameter.grad is not None and bool(parameter.grad.detach().to_dense().any())


def holds_gradient(optimizer: Optimizer) -> bool:
    """Whether a few of an optimizer's parameters have a gradient, the smallest ones."""
    given = [each for each in parameters(optimizer) if each.grad is not None]
    return any(map(has_gradient, sorted(given, key=Tensor.numel)[:PROBED]))


def _shape(parameter: Tensor) -> str:
    return f"one of shape {list(parameter.shape)}"
