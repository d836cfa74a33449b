"""Growing a model in place of retraining it."""

from typing import Dict

import torch
from torch import Tensor


class ScalingMixin:
    """``double_*`` methods; each returns a new model with the same function (dropout aside)."""

    def double_length(self):
        grown = self._like(max_seq_len=2 * self.config["max_seq_len"])
        state = self.state_dict()
        table = state["position_embedding.weight"]
        state["position_embedding.weight"] = torch.cat([table, table], dim=0)
        grown.load_state_dict(state)
        return grown

    def double_layers(self):
        """Fresh blocks on top whose two output projections are zero."""
        depth = self.config["num_layers"]
        grown = self._like(num_layers=2 * depth)
        grown.load_state_dict(self.state_dict(), strict=False)
        with torch.no_grad():
            for block in grown.blocks[depth:]:
                for linear in (block.attention.proj, block.mlp[2]):
                    linear.weight.zero_()
                    linear.bias.zero_()
        return grown

    def double_width(self):
        """Repeat channels pairwise and halve whatever reads them."""
        grown = self._like(
            d_model=2 * self.config["d_model"],
            dim_feedforward=2 * self.config["dim_feedforward"],
        )
        state: Dict[str, Tensor] = {}
        for name, tensor in self.state_dict().items():
            if "embedding" in name:
                state[name] = tensor.repeat_interleave(2, dim=1)
                continue
            if tensor.dim() == 2:
                tensor = tensor.repeat_interleave(2, dim=1) * 0.5
            if ".to_q." in name:
                tensor = tensor * 0.5**0.5
            state[name] = tensor if name.startswith("lm_head") else tensor.repeat_interleave(2, dim=0)
        grown.load_state_dict(state)
        return grown

    def _like(self, **changes):
        grown = type(self)(**{**self.config, **changes})
        parameter = next(self.parameters())
        return grown.to(device=parameter.device, dtype=parameter.dtype).train(self.training)
