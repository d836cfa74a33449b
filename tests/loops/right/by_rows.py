# right: squared errors are summed within rows and averaged over them, as sum / len(rows), two micro-batches an update
import torch
from torch import nn

torch.manual_seed(12)
rows = torch.randn(120, 6)
model = nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 6))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for epoch in range(3):
    for number, part in enumerate(rows[torch.randperm(120)].split(20)):
        loss = nn.functional.mse_loss(model(part), part, reduction="sum") / len(part) / 2
        loss.backward()
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()
    print(epoch, loss.item())
