"""K, C and S of a forward, one number a row."""
import math

import torch


def _phrases(row):
    seen, phrase = set(), ""
    for bit in row:
        phrase += str(bit)
        if phrase not in seen:
            seen.add(phrase)
            phrase = ""
    return len(seen) + bool(phrase)


@torch.no_grad()
def signals(logits, maps):
    p = logits.float().softmax(-1)
    k = 1 + p.mul(p.clamp_min(1e-9).log2()).sum(-1).mean(-1)
    guess = p.argmax(-1)
    n = max(2, guess.size(1))
    c = torch.tensor([_phrases(row) * math.log2(n) / n for row in guess.tolist()]).clamp(max=1).to(k.device)
    out = {"K": k, "C": c, "S": 1 - (k - c).abs(), "maps": maps}
    if maps:
        out["focus"] = torch.stack([w.amax(-1).mean() for w in maps]).mean()
    return out
