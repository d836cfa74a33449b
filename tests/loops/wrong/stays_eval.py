# wrong: evaluation leaves the model in eval mode, training goes on without dropout, line 18
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(30)
net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 4))
opt = torch.optim.Adam(net.parameters(), lr=3e-3)


def sample(n=24):
    x = torch.randn(n, 6)
    return x, (x[:, 0] > 0).long() + 2 * (x[:, 1] > x[:, 2]).long()


@torch.no_grad()
def estimate(k=4):
    net.eval()
    return sum(F.cross_entropy(net(x), y).item() for x, y in (sample() for _ in range(k))) / k


net.train()
for step in range(1, 41):
    for micro in range(2):
        x, y = sample()
        loss = F.cross_entropy(net(x), y) * 0.5
        loss.backward()
    opt.step()
    opt.zero_grad()
    if step % 10 == 0:
        print(step, 2 * loss.item(), estimate())
