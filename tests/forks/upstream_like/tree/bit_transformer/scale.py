import torch

from .model import BitTransformerLM


@torch.no_grad()
def expand_model(model: BitTransformerLM, **new_params) -> BitTransformerLM:
    """Bigger model with the overlapping part of the weights copied over."""
    new_model = BitTransformerLM(**{**model.params, **new_params})
    old_state = model.state_dict()
    for name, tensor in new_model.state_dict().items():
        if name not in old_state or name.endswith("pos_enc.pe"):
            continue
        src = old_state[name]
        region = tuple(slice(0, min(a, b)) for a, b in zip(src.shape, tensor.shape))
        tensor[region] = src[region]
    return new_model
