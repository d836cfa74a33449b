# wrong: annealed rate never reaches the optimizer, line 55
import torch
import torch.nn as nn

torch.manual_seed(22)
letters = "abracadabra simsalabim hocus pocus " * 30
idx = {c: i for i, c in enumerate(sorted(set(letters)))}
seq = torch.tensor([idx[c] for c in letters])
train_src, val_src = seq[:800].view(8, 100).t(), seq[800:1000].view(8, 25).t()
BPTT = 11


class GRULM(nn.Module):
    def __init__(self, V, H=24):
        super().__init__()
        self.emb, self.rnn, self.out = nn.Embedding(V, H), nn.GRU(H, H), nn.Linear(H, V)

    def forward(self, x, h):
        o, h = self.rnn(self.emb(x), h)
        return self.out(o), h


def pieces(src):
    for i in range(0, len(src) - 1, BPTT):
        n = min(BPTT, len(src) - 1 - i)
        yield src[i:i + n], src[i + 1:i + 1 + n]


def evaluate(model):
    model.eval()
    h, total, count = None, 0.0, 0
    with torch.no_grad():
        for x, y in pieces(val_src):
            o, h = model(x, h)
            total += nn.functional.cross_entropy(o.flatten(0, 1), y.flatten(), reduction="sum").item()
            count += y.numel()
    return total / count


model = GRULM(len(idx))
lr = 0.5
optimizer = torch.optim.SGD(model.parameters(), lr=lr)
for epoch in range(5):
    model.train()
    h = None
    for x, y in pieces(train_src):
        optimizer.zero_grad()
        h = h.detach() if h is not None else None
        o, h = model(x, h)
        loss = nn.functional.cross_entropy(o.flatten(0, 1), y.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    print(epoch, lr, loss.item(), evaluate(model))
    lr *= 0.6
