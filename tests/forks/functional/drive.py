"""Train the `functional` fork for a few updates, and print what came of it as JSON."""

import json
import sys

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

sys.path.insert(0, f"{sys.argv[1]}/src")

from bitlm.bits import cut_rows, text_to_bits
from bitlm.config import ModelConfig, TrainConfig
from bitlm.loop import fit
from bitlm.model import BitLM

TEXT = "Small functions, and a dict that goes from one to the next. " * 4
SIZES = {"d_model": 16, "nhead": 2, "num_layers": 2, "max_seq_len": 108}


def built(**options: object) -> BitLM:
    torch.manual_seed(1)
    return BitLM(ModelConfig(**SIZES, **options))


@torch.no_grad()
def checksum(model: BitLM, rows: torch.Tensor) -> float:
    return model.eval()(rows[:2, :101])[0].double().abs().sum().item()


torch.set_num_threads(1)
rows = cut_rows(text_to_bits(TEXT), 108)[:20]
steps = []
hook = register_optimizer_step_post_hook(lambda *_: steps.append(1))
records = fit(built(), rows, TrainConfig(epochs=2))
hook.remove()
dense, chunked = checksum(built(), rows), checksum(built(window=16, lookback=5), rows)
print(
    json.dumps(
        {
            "losses": [record["loss"] for record in records],
            "updates": len(steps),
            "final_lr": records[-1]["lr"],
            "dense": dense,
            "chunked": chunked,
        }
    )
)
