# wrong: autocast wraps the backward pass too, line 33
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(33)


class Mixer(nn.Module):
    def __init__(self, T=8, C=16):
        super().__init__()
        self.inp = nn.Linear(4, C)
        self.tok, self.ch = nn.Linear(T, T), nn.Linear(C, C)
        self.out = nn.Linear(C, 5)

    def forward(self, x):
        h = self.inp(x)
        h = h + F.gelu(self.tok(h.transpose(1, 2))).transpose(1, 2)
        h = h + F.gelu(self.ch(h))
        return self.out(h.mean(1))


x = torch.randn(160, 8, 4)
y = (x.sum((1, 2)) / 4).clamp(-2, 2).round().long() + 2
model = Mixer()
opt = torch.optim.AdamW(model.parameters(), lr=5e-3)
accum = 2
for epoch in range(3):
    micro = torch.randperm(160).split(20)
    for i, rows in enumerate(micro):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(x[rows]), y[rows])
            (loss / accum).backward()
        if (i + 1) % accum == 0:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            opt.zero_grad(set_to_none=True)
    print(epoch, loss.item())
