# wrong: the embedding and head are not given to the optimizer, line 23
import torch
import torch.nn as nn
import torch.nn.functional as F


class NGram(nn.Module):
    def __init__(self, V=16, C=24, ctx=4):
        super().__init__()
        self.emb = nn.Embedding(V, C)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(ctx * C), nn.Linear(ctx * C, ctx * C), nn.ReLU()) for _ in range(2))
        self.head = nn.Linear(ctx * C, V)

    def forward(self, x):
        h = self.emb(x).flatten(1)
        for b in self.blocks:
            h = h + b(h)
        return self.head(h)


def configure(model, lr, wd):
    decay, rest = [], []
    for p in model.blocks.parameters():
        (decay if p.dim() > 1 else rest).append(p)
    return torch.optim.AdamW([dict(params=decay, weight_decay=wd), dict(params=rest, weight_decay=0.0)], lr=lr)


torch.manual_seed(24)
model = NGram()
opt = configure(model, 3e-3, 0.1)
for step in range(40):
    x = torch.randint(16, (32, 4))
    y = (x.sum(1)) % 16
    loss = F.cross_entropy(model(x), y)
    model.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    if step % 10 == 9:
        print(step, loss.item())
