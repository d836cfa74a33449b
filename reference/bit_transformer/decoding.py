"""Reading on: a model that keeps keys and values of what it has read, so that a further bit costs one position.

Shapes: C model width, H heads, D = C / H.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import model as model_module
from .model import BitTransformerLM, TransformerLayer
from .reversible import halting_weights

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
        """Read one more bit."""
        model, device = self.model, self.logits.device
        x = model.embedding(torch.tensor([[bit]], device=device)) + model.position(torch.tensor([place], device=device))
        x1 = x2 = x  # the streams of a reversible stack
        states, probabilities = [], []
        for layer, kept in zip(model.layers, self.kept, strict=True):
            x1 = x1 + self._attend(layer, x2, kept, place)
            x2 = (x2 if model.reversible else x1) + layer.feed(x1)
            x1 = x1 if model.reversible else x2
            states.append((x1 + x2) / 2 if model.reversible else x2)
            if model.halt is not None:
                probabilities.append(torch.sigmoid(model.halt(states[-1])))
        x = states[-1]
        if model.halt is not None:
            weights = halting_weights(torch.stack(probabilities), model.act_threshold)
            x = (weights * torch.stack(states)).sum(0)
        return model.out(model.norm(x))[0, -1]

    def _attend(self, layer: TransformerLayer, x: Tensor, kept: tuple[Tensor, Tensor], place: int) -> Tensor:
        """The attention branch of x [1, 1, C], which stands at a place; its key and value are kept."""
        attention, x = layer.attention, layer.norm1(x)
        for tensor, projection in zip(kept, (attention.k_proj, attention.v_proj), strict=True):
            tensor[:, place] = projection(x)[:, 0]
        first = 0
        if attention.chunk_size is not None:
            first = max(place // attention.chunk_size * attention.chunk_size - attention.overlap, 0)
        q, k, v = (
            each.unflatten(-1, (attention.nhead, -1)).transpose(1, 2)  # [1, H, positions, D]
            for each in (attention.q_proj(x), *(tensor[:, first : place + 1] for tensor in kept))
        )
        out, _ = attention._dense(q, k, v, causal=False)  # all that is kept lies before the one query
        return layer.dropout(attention.out_proj(out.transpose(1, 2).flatten(2)))
