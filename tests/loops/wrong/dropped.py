# wrong: remainder of each epoch is thrown away by the zero_grad at the next epoch's head, line 25
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(13)
N, MICRO, ACCUM = 132, 12, 4  # 11 micro-batches: 4 + 4 + 3
imgs = torch.rand(N, 1, 6, 6)
tags = (imgs[:, 0, :3].sum((1, 2)) > imgs[:, 0, 3:].sum((1, 2))).long()


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.fc = nn.Linear(8 * 16, 2)

    def forward(self, x):
        return self.fc(F.relu(self.conv(x)).flatten(1))


model = Small()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for epoch in range(4):
    optimizer.zero_grad()
    order = torch.randperm(N)
    seen = 0.0
    for k, idx in enumerate(order.split(MICRO)):
        loss = F.cross_entropy(model(imgs[idx]), tags[idx])
        seen += loss.item() * len(idx)
        (loss / ACCUM).backward()
        if k % ACCUM == ACCUM - 1:
            optimizer.step()
            optimizer.zero_grad()
    print("epoch", epoch, seen / N)
