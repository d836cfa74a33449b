# wrong: schedule length by floor division while the last short group is flushed too, line 13
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(16)
epochs, accum = 4, 4
x = torch.randn(99, 4)
y = (x.prod(1) > 0).long()
loader = DataLoader(TensorDataset(x, y), batch_size=9, shuffle=True)  # 11 micro-batches: 4 + 4 + 3
model = nn.Sequential(nn.Linear(4, 32), nn.GELU(), nn.Linear(32, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
total_updates = epochs * (len(loader) // accum)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: max(0.0, 1.0 - s / total_updates))


def in_groups(batches, size):
    group = []
    for b in batches:
        group.append(b)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


for epoch in range(epochs):
    model.train()
    for group in in_groups(loader, accum):
        for bx, by in group:
            loss = nn.functional.cross_entropy(model(bx), by) / len(group)
            loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    print(epoch, loss.item() * len(group), scheduler.get_last_lr())
