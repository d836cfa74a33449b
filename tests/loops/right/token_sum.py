# right: sum-reduced loss divided by the whole group's count of real tokens, known before the group begins
import random
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

torch.manual_seed(8)
random.seed(8)
IGN, VOCAB, GROUP, MICRO = -100, 15, 4, 6


def sentence():
    n = random.randint(3, 14)
    start = random.randrange(VOCAB)
    return torch.tensor([(start + 2 * k) % VOCAB for k in range(n + 1)])


corpus = [sentence() for _ in range(120)]


def collate(rows):
    x = pad_sequence([r[:-1] for r in rows], batch_first=True, padding_value=0)
    y = pad_sequence([r[1:] for r in rows], batch_first=True, padding_value=IGN)
    return x, y


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, 16)
        self.gru = nn.GRU(16, 32, batch_first=True)
        self.out = nn.Linear(32, VOCAB)

    def forward(self, x):
        return self.out(self.gru(self.emb(x))[0])


def groups():
    order = list(range(len(corpus)))
    random.shuffle(order)
    micro = [collate([corpus[j] for j in order[i:i + MICRO]]) for i in range(0, len(order), MICRO)]
    for i in range(0, len(micro), GROUP):
        yield micro[i:i + GROUP]


model = Tagger()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for epoch in range(4):
    seen, nll = 0, 0.0
    for group in groups():
        n_tokens = sum((y != IGN).sum() for _, y in group)
        optimizer.zero_grad()
        for x, y in group:
            logits = model(x)
            loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=IGN, reduction="sum") / n_tokens
            loss.backward()
            nll += loss.item() * n_tokens.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seen += n_tokens.item()
    print(epoch, nll / seen)
