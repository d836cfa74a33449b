# wrong: overlapping slices of the permutation, some rows used twice in an epoch, line 17
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(19)
N, B = 200, 20
feats = torch.randn(N, 9)
target = (feats @ torch.randn(9, 3)).argmax(1)
net = nn.Sequential(nn.Linear(9, 32), nn.ReLU(), nn.Linear(32, 3))
opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


def epoch_batches():
    perm = torch.randperm(N)
    for start in range(0, N, B):
        rows = perm[start:start + B + 2]
        yield feats[rows], target[rows]


def step(x, y):
    opt.zero_grad()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 3.0)
    opt.step()
    return loss.item()


for ep in range(4):
    losses = [step(x, y) for x, y in epoch_batches()]
    print(ep, sum(losses) / len(losses))
