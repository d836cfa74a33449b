"""Smoke run over the moving parts: train, gate, scale up, train again."""

import torch

from bit_transformer import (
    BitTransformerLM,
    SafetyGate,
    expand_model,
    hil_safe_inference,
    set_dropout,
    train_loop as train,
)


def integration_schedule(rows: int = 32, length: int = 64, max_layers: int = 4):
    data = torch.randint(0, 2, (rows, length))
    model = BitTransformerLM(
        d_model=32,
        nhead=4,
        num_layers=1,
        dim_feedforward=64,
        max_seq_len=length,
        reversible=True,
        chunk_size=16,
        overlap=4,
    )
    gate = SafetyGate(c_floor=0.0, s_floor=0.0, burn_in=2)
    results = []
    while True:
        set_dropout(model, 0.1)
        metrics = train(model, data, epochs=1, extra_steps=1, compress_prob=0.25)
        set_dropout(model, 0.0)
        _, tele = hil_safe_inference(model, data[:4], strict=False, gate=gate)
        results.append((len(model.layers), metrics[-1]["raw_loss"]))
        print(results[-1], float(tele["symbiosis_score"].mean()))
        if 2 * len(model.layers) > max_layers:
            return results
        model = expand_model(model, num_layers=2 * len(model.layers))


if __name__ == "__main__":
    integration_schedule()
