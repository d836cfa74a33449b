"""Reading on: a model that keeps keys and values of what it has read, so that a further bit costs one position.

Shapes: C model width, H heads, D = C / H.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import model as model_module
from .model import BitTransformerLM, SelfAttention

STEPS = 9  # further bits that are read one by one; more of them are read at once


def can_keep(model: nn.Module) -> bool:
    """Whether Reader computes what the model's own forward does.

    Without task-11, attention in chunks gives weight to the padding left of the first ones.
    """
    return isinstance(model, BitTransformerLM) and hasattr(model_module, "window_padding")


class Reader:
    """Scores the bit after a context, in evaluation mode; a context that goes on from the last is cheap."""

    def __init__(self, model: BitTransformerLM) -> None:
        self.model = model
        self.context: list[int] = []
        self.logits = torch.empty(0)
        self.kept: list[tuple[Tensor, Tensor]] = []  # a layer's keys and values [1, max_seq_len, C]

    def __call__(self, context: Sequence[int]) -> Tensor:
        """The logits [2] of the bit after a context of one bit or more, and max_seq_len at most."""
        further = list(context[len(self.context) :])
        if 0 < len(further) <= STEPS and self.kept and self.context == list(context[: len(self.context)]):
            for bit in further:
                self.logits = self._step(bit, len(self.context))
                self.context.append(bit)
        elif further or self.context != list(context):
            self.logits, self.context = self._read(context), list(context)
        return self.logits

    def _read(self, context: Sequence[int]) -> Tensor:
        """Read a context by the model's own forward, and keep what its layers projected."""
        device = next(self.model.parameters()).device
        kept: dict[nn.Module, Tensor] = {}

        def keep(projection: nn.Module, _inputs: object, output: Tensor) -> None:
            kept[projection] = F.pad(output, (0, 0, 0, self.model.max_seq_len - len(context)))

        pairs = [(layer.attention.k_proj, layer.attention.v_proj) for layer in self.model.layers]
        hooks = [projection.register_forward_hook(keep) for pair in pairs for projection in pair]
        try:
            logits = self.model(torch.tensor([context], device=device))[0]
        finally:
            for hook in hooks:
                hook.remove()
        self.kept = [(kept[k], kept[v]) for k, v in pairs]
        return logits[0, -1]

    def _step(self, bit: int, place: int) -> Tensor:
        """Read one more bit by the model's own layers, whose attention takes what is kept."""
        model, device = self.model, self.logits.device
        evidence = None
        if model.contexts is not None:
            evidence = model.contexts.evidence(torch.tensor([[*self.context, bit]], device=device))[:, -1:]
        x = model._enter(torch.tensor([[bit]], device=device), torch.tensor([place], device=device), evidence)
        with ExitStack() as reading:
            for layer, kept in zip(model.layers, self.kept, strict=True):
                reading.enter_context(reads_on(layer.attention, *kept, place))
            x, _ = model._run_layers(x, causal=True)
        return model._score(x, evidence)[0, -1]


@contextmanager
def reads_on(attention: SelfAttention, keys: Tensor, values: Tensor, place: int) -> Iterator[None]:
    """Within it, attention takes x [1, 1, C], which stands at a place, and keeps its key and value there."""
    first = 0
    if attention.chunk_size is not None:
        first = max(place // attention.chunk_size * attention.chunk_size - attention.overlap, 0)

    def attend(x: Tensor, _causal: bool) -> tuple[Tensor, None]:
        keys[:, place], values[:, place] = attention.k_proj(x)[:, 0], attention.v_proj(x)[:, 0]
        q, k, v = (
            each.unflatten(-1, (attention.nhead, -1)).transpose(1, 2)  # [1, H, positions, D]
            for each in (attention.q_proj(x), keys[:, first : place + 1], values[:, first : place + 1])
        )
        out, _ = attention._dense(q, k, v, causal=False)  # all that is kept lies before the one query
        return attention.out_proj(out.transpose(1, 2).flatten(2)), None

    attention.forward = attend
    try:
        yield
    finally:
        del attention.forward
