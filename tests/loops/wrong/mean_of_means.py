# wrong: mean over micro-batches of token means though targets are padded unevenly (ignore_index), line 41
import random
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

torch.manual_seed(35)
random.seed(35)
V, ACCUM = 14, 4


def make_row():
    n = random.choice([2, 3, 4, 12, 16])
    s = random.randrange(V)
    return torch.tensor([(s + 3 * k) % V for k in range(n + 1)])


def collate(rows):
    x = pad_sequence([r[:-1] for r in rows], batch_first=True)
    y = pad_sequence([r[1:] for r in rows], batch_first=True, padding_value=-100)
    return x, y


class LM(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.rnn, self.out = nn.Embedding(V, 20), nn.LSTM(20, 28, batch_first=True), nn.Linear(28, V)

    def forward(self, x):
        return self.out(self.rnn(self.emb(x))[0])


loader = DataLoader([make_row() for _ in range(96)], batch_size=3, shuffle=True, collate_fn=collate)  # 32
model = LM()
opt = torch.optim.AdamW(model.parameters(), lr=1e-2)
for epoch in range(3):
    for i, (x, y) in enumerate(loader, 1):
        logits = model(x)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=-100) / ACCUM
        loss.backward()
        if i % ACCUM == 0:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            opt.zero_grad()
    print(epoch, loss.item() * ACCUM)
