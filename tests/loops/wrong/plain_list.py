# wrong: middle layers kept in a plain list, so parameters() never hands them to the optimizer, line 10
import torch
import torch.nn as nn


class Deep(nn.Module):
    def __init__(self, d=8, h=24, depth=3):
        super().__init__()
        self.first = nn.Linear(d, h)
        self.middle = [nn.Linear(h, h) for _ in range(depth)]
        self.last = nn.Linear(h, 1)

    def forward(self, x):
        x = self.first(x).relu()
        for layer in self.middle:
            x = x + layer(x).relu()
        return self.last(x)


torch.manual_seed(38)
x = torch.randn(160, 8)
y = (x[:, :4] * x[:, 4:]).sum(1, keepdim=True)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16, shuffle=True)
model = Deep()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(4):
    running = 0.0
    for bx, by in loader:
        optimizer.zero_grad()
        loss = nn.functional.smooth_l1_loss(model(bx), by)
        loss.backward()
        optimizer.step()
        running += loss.item()
    print(epoch, running / len(loader))
