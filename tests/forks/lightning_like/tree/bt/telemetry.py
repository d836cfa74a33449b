"""K, C, S: negentropy, Lempel-Ziv complexity, symbiosis."""
import math

import torch


def telemetry_of(logits, maps):
    with torch.no_grad():
        K = negentropy(logits)
        C = lempel_ziv(logits.argmax(2))
        S = 2 * K * C / (K + C).clamp_min(1e-9)
    return {'negentropy': K, 'lz_complexity': C, 'symbiosis': S, 'attention_maps': maps}


def negentropy(logits):
    p = torch.softmax(logits.float(), dim=-1)[..., 1]
    bits = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)) / math.log(2)
    return 1 - bits.mean(1)


def lempel_ziv(rows):
    """Phrases of LZ78, relative to a random row's."""
    scores = []
    for row in rows.tolist():
        known, phrase = {''}, ''
        count = 0
        for bit in row:
            phrase += str(bit)
            if phrase not in known:
                known.add(phrase)
                phrase = ''
                count += 1
        scores.append(min(1.0, count * math.log2(len(row) + 1) / (2 * len(row))))
    return torch.tensor(scores, device=rows.device)
