"""Make a bigger model out of a smaller one. Weights that both have are copied."""

from __future__ import annotations

from dataclasses import replace

import torch

from .network import BitTransformerLM

STEPS = {
    "width": lambda c: replace(c, d_model=2 * c.d_model, d_ff=2 * c.d_ff),
    "layers": lambda c: replace(c, n_layers=2 * c.n_layers),
    "length": lambda c: replace(c, max_len=2 * c.max_len),
}


@torch.no_grad()
def grow(model: BitTransformerLM, what: str) -> BitTransformerLM:
    if what not in STEPS:
        raise ValueError(f"can grow {sorted(STEPS)}, not {what!r}")
    bigger = BitTransformerLM(STEPS[what](model.cfg)).to(model.device)
    old = model.state_dict()
    for name, target in bigger.state_dict().items():
        source = old.get(name)
        if source is None:
            # A new block starts as the identity: both of its last layers are zero.
            if name.endswith(("attn.proj.weight", "ff.down.weight")):
                target.zero_()
            continue
        corner = tuple(slice(0, n) for n in source.shape)
        target[corner] = source
    return bigger.train(model.training)
