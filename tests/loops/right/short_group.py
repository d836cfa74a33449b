# right: last short group of each epoch is flushed and divided by the micro-batches it has
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(31)
ACCUM, EPOCHS = 4, 3
X = torch.randn(110, 5)
Y = (X ** 2).sum(1, keepdim=True)
loader = DataLoader(TensorDataset(X, Y), batch_size=10, shuffle=True)  # 11 micro-batches: 4 + 4 + 3
net = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 1))
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
updates_per_epoch = -(-len(loader) // ACCUM)
sched = torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.1, total_iters=EPOCHS * updates_per_epoch)

for epoch in range(EPOCHS):
    n_micro = len(loader)
    leftover = n_micro % ACCUM
    total = 0.0
    for i, (x, y) in enumerate(loader):
        in_last = leftover and i >= n_micro - leftover
        size = leftover if in_last else ACCUM
        loss = nn.functional.mse_loss(net(x), y)
        total += loss.item()
        (loss / size).backward()
        if (i + 1) % ACCUM == 0 or i + 1 == n_micro:
            opt.step()
            sched.step()
            opt.zero_grad()
    print(f"epoch {epoch} mse {total / n_micro:.4f} lr {sched.get_last_lr()[0]:.5f}")
