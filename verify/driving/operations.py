"""What torch really ran: operations by name, causal masks that were built, and what reaches what."""

import functools
import inspect
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import CodeType, TracebackType
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from .tree import Tree

SMALLEST = 4  # rows and columns: a smaller tensor can look like a triangle by accident
COPIES = {"aten::clone", "aten::_to_copy"}
NAN = 1e300  # what a NaN counts as: JSON has none, nor infinity


@dataclass(frozen=True, slots=True)
class Triangle:
    """A causal pattern: `above` where column - row >= offset, `below` elsewhere."""

    rows: int
    columns: int
    offset: int
    above: float
    below: float
    dtype: torch.dtype
    device: torch.device


def triangle_of(tensor: Tensor) -> Triangle | None:
    """The causal pattern that each page [..., rows, columns] of a tensor holds, or None."""
    if tensor.dim() <= 1 or min(tensor.shape[-2:]) < SMALLEST or tensor.numel() == 0:
        return None
    if tensor.is_meta or isinstance(tensor, FakeTensor) or tensor.layout != torch.strided or tensor.is_complex():
        return None
    tensor = tensor.detach()
    page = tensor[(0,) * (tensor.dim() - 2)]
    rows, columns = page.shape
    corners = page[0, -1].item(), page[-1, 0].item()
    probes = (0, 0), (-1, -1), (rows // 2, columns // 2), (rows // 3, columns // 3)
    if corners[0] == corners[1] or any(page[probe].item() not in corners for probe in probes):
        return None
    rim = page[:, 0].tolist()[::-1] + page[0, 1:].tolist()  # from bottom left over top left to top right
    below, above = rim[0], rim[-1]
    turn = rim.index(above)
    if below == above or rim != [below] * turn + [above] * (len(rim) - turn):
        return None
    offset = turn - rows + 1
    ramp = torch.arange(columns, device=page.device) - torch.arange(rows, device=page.device)[:, None]
    if not bool((tensor == torch.where(ramp >= offset, page[0, -1], page[-1, 0])).all()):
        return None
    return Triangle(rows, columns, offset, float(above), float(below), tensor.dtype, tensor.device)


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts each operation that runs, and follows the triangles among its inputs and outputs.

    A triangle is born where an operation makes one of inputs that are none, writes one in place, or
    takes one that nobody was seen to make. What scaled_dot_product_attention does inside is torch's.
    """

    def __init__(self, on_triangle: Callable[[Tensor], None] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self.births: list[Triangle] = []
        self.copies: list[Triangle] = []  # of a triangle, equal to it
        self.fresh: list[int] = []  # elements of each fresh tensor
        self._on_triangle = on_triangle  # told of each triangle that is used, not only copied or cut
        self._storages: dict[int, StorageWeakRef] = {}  # that hold or held a triangle
        self._attention = InsideAttention()

    @property
    def largest(self) -> int:
        """Elements of the largest fresh tensor."""
        return max(self.fresh, default=0)

    def __enter__(self) -> Self:
        self._attention.__enter__()  # type: ignore[no-untyped-call]
        return cast("Self", super().__enter__())  # type: ignore[no-untyped-call]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        self._attention.__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation, and note it."""
        self.counts[func._schema.name] += 1
        inputs = list(tensors_in((args, kwargs)))
        masks = [tensor for tensor in inputs if triangle_of(tensor)]
        strangers = [tensor for tensor in masks if id_of(tensor) not in self._storages]
        if not self._attention.depth:
            for tensor in strangers:
                self._note(tensor, born=True)
        out = func(*args, **kwargs or {})
        if self._on_triangle is not None and not any(triangle_of(tensor) for tensor in tensors_in(out)):
            for tensor in masks:
                self._on_triangle(tensor)
        taken = {id_of(tensor) for tensor in inputs}
        from_triangle = bool(masks) or any(storage in self._storages for storage in taken)
        for tensor in tensors_in(out):
            if fresh := id_of(tensor) not in taken:
                self.fresh.append(tensor.numel())
                kind = triangle_of(tensor) if masks and func._schema.name in COPIES else None
                if kind is not None and kind == triangle_of(masks[0]) and not self._attention.depth:
                    self.copies.append(kind)
            if (fresh or func._schema.is_mutable) and triangle_of(tensor):
                self._note(tensor, born=not from_triangle)
        return out

    def _note(self, tensor: Tensor, born: bool) -> None:
        kind = triangle_of(tensor)
        if kind is None:
            return
        self._storages[id_of(tensor)] = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
        if born and not self._attention.depth:
            self.births.append(kind)


class InsideAttention(TorchFunctionMode):
    """Knows whether scaled_dot_product_attention is running."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch."""
        inside = getattr(func, "__name__", "") == "scaled_dot_product_attention"
        self.depth += inside
        try:
            return func(*args, **kwargs or {})
        finally:
            self.depth -= inside


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)


def id_of(tensor: Tensor) -> int:
    """What tensors share that share memory. Not used again while a weak reference to the storage lives."""
    return int(tensor.untyped_storage()._cdata)


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference; a NaN counts as NAN."""
    return (a - b).abs().nan_to_num(nan=NAN, posinf=NAN).max().item()


@functools.cache
def bytecode() -> str:
    """The folder in which a process keeps what it compiled of a tree, so that it does so once."""
    return tempfile.mkdtemp()


@contextmanager
def fresh_modules(tree: Tree) -> Iterator[None]:
    """Run a block as a new process would: modules of the tree that were imported before are imported again."""
    compiling = sys.pycache_prefix, sys.dont_write_bytecode
    sys.pycache_prefix, sys.dont_write_bytecode = bytecode(), False
    before = {name: sys.modules.pop(name) for name in modules_of(tree)}
    try:
        yield
    finally:
        sys.pycache_prefix, sys.dont_write_bytecode = compiling
        for name in modules_of(tree):
            del sys.modules[name]
        sys.modules.update(before)


def mask_functions(tree: Tree, configs: Sequence[dict[str, Any]]) -> dict[str, Callable[..., Any]]:
    """The functions (seq_len, device) that give a triangle, of those that run in a forward."""
    ran, found = set[CodeType](), dict[str, Callable[..., Any]]()
    sys.setprofile(lambda frame, *_: ran.add(frame.f_code))
    for config in configs:
        tree.model(**{k: v for k, v in config.items() if tree.model_takes(k)})(tree.bits(1, 11))
    sys.setprofile(None)
    for name, function in [item for module in modules_of(tree) for item in vars(sys.modules[module]).items()]:
        with suppress(Exception):
            if inspect.unwrap(function).__code__ in ran and triangle_of(function(7, torch.device("cpu"))):
                found[name] = function
    return found


def modules_of(tree: Tree) -> list[str]:
    """The names of the imported modules whose files lie in the tree."""
    files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    folder = f"{tree.path}/"
    return [name for name, file in files.items() if file and file.startswith(folder)]


def reach(model: nn.Module, bits: Tensor, causal: bool = True) -> Tensor:
    """Which positions each of the logits depends on: [T, T], True at [t, s] if d logits[t] / d x[s] is not 0.

    x is what the embedding of the bits [1, T] gives.
    """
    embedded: list[Tensor] = []

    def cut(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor | None:
        if embedded or not torch.equal(args[0], bits):
            return None
        embedded.append(out.detach().requires_grad_())
        return embedded[0]

    hooks = [module.register_forward_hook(cut) for module in model.modules() if isinstance(module, nn.Embedding)]
    logits = Tree.forward(model, bits, causal=causal)[0][0]
    for hook in hooks:
        hook.remove()
    if not embedded:
        raise RuntimeError("no nn.Embedding was called with the bits: what reaches what cannot be seen")
    weights = torch.tensor([1.0, -0.7], dtype=logits.dtype)
    rows = [torch.autograd.grad(row @ weights, embedded[0], retain_graph=True)[0][0] for row in logits]
    return torch.stack([(row != 0).any(-1) for row in rows])


def run_on(devices: tuple[str, ...], model: nn.Module, name: str, args: list[Any]) -> dict[str, list[Tensor]]:
    """Move a model from device to device, run one of its modules on each, and return the last outputs."""
    weights = {key: value.clone() if isinstance(value, Tensor) else value for key, value in model.state_dict().items()}
    outputs = {}
    for device in devices:
        model.to_empty(device=device)
        if device != "meta":
            model.load_state_dict(weights)
        moved = [arg.to(device) if isinstance(arg, Tensor) else arg for arg in args]
        outputs[device] = list(tensors_in(model.get_submodule(name)(*moved)))
    return outputs


def mask_user(model: nn.Module, bits: Tensor) -> tuple[str, list[Any]] | None:
    """The innermost module that takes a triangle, and its arguments, all positional."""
    running: list[tuple[str, list[Any]]] = []
    users: list[tuple[str, list[Any]]] = []

    def enter(name: str) -> Callable[..., None]:
        return lambda module, args, kwargs: running.append(
            (name, list(inspect.signature(module.forward).bind(*args, **kwargs).arguments.values()))
        )

    for name, module in model.named_modules():
        module.register_forward_pre_hook(enter(name), with_kwargs=True)
        module.register_forward_hook(lambda *_: running.pop() and None)
    with torch.no_grad(), Operations(lambda _: users.append(running[-1])):
        model(bits)
    return users[0] if users else None
