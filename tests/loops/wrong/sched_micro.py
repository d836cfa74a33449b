# wrong: scheduler stepped once a micro-batch though its length is counted in updates, line 40
import torch
import torch.nn as nn
from torch.optim.lr_scheduler import LambdaLR

torch.manual_seed(14)
ACC, UPDATES, WARM = 4, 24, 4


class Reverser(nn.Module):
    def __init__(self, V=10, D=24, L=6):
        super().__init__()
        self.e, self.p = nn.Embedding(V, D), nn.Parameter(0.1 * torch.randn(L, D))
        self.enc = nn.TransformerEncoderLayer(D, 2, 48, dropout=0.0, batch_first=True)
        self.o = nn.Linear(D, V)

    def forward(self, x):
        return self.o(self.enc(self.e(x) + self.p))


def stream(n):
    for _ in range(n):
        x = torch.randint(10, (8, 6))
        yield x, x.flip(1)


def shape(u):
    return (u + 1) / WARM if u < WARM else max(0.0, (UPDATES - u) / (UPDATES - WARM))


model = Reverser()
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
sched = LambdaLR(opt, shape)
for i, (x, y) in enumerate(stream(ACC * UPDATES)):
    loss = nn.functional.cross_entropy(model(x).transpose(1, 2), y)
    (loss / ACC).backward()
    if (i + 1) % ACC == 0:
        opt.step()
        opt.zero_grad()
    sched.step()
    if i % 24 == 23:
        print(i, loss.item(), sched.get_last_lr()[0])
