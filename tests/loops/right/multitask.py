# right: multi-task loss ce + 0.1 * aux, OneCycleLR stepped once per update
import torch
import torch.nn as nn
import torch.nn.functional as F


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Dropout(0.1))
        self.cls, self.reg = nn.Linear(32, 4), nn.Linear(32, 1)

    def forward(self, x):
        h = self.trunk(x)
        return self.cls(h), self.reg(h).squeeze(-1)


def make_data(n=200):
    x = torch.randn(n, 8)
    return x, x[:, :4].argmax(1), x.norm(dim=1)


def batches(tensors, size):
    order = torch.randperm(len(tensors[0]))
    for idx in order.split(size):
        yield [t[idx] for t in tensors]


torch.manual_seed(44)
data, held = make_data(), make_data(60)
model = TwoHeads()
opt = torch.optim.AdamW(model.parameters(), lr=1e-2)
epochs, size = 5, 20
sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=1e-2, total_steps=epochs * 10)
for ep in range(epochs):
    model.train()
    for x, label, size_of in batches(data, size):
        logits, guess = model(x)
        ce = F.cross_entropy(logits, label)
        aux = F.smooth_l1_loss(guess, size_of)
        loss = ce + 0.1 * aux
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
    model.eval()
    with torch.no_grad():
        logits, guess = model(held[0])
        print(ep, (logits.argmax(1) == held[1]).float().mean().item(), F.l1_loss(guess, held[2]).item())
