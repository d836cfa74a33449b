# wrong: clip after the step, so it limits nothing, line 32
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(34)
t = torch.rand(160, 12, 2)
t[..., 1] = (torch.rand(160, 12) < 0.2).float()
y = (t[..., 0] * t[..., 1]).sum(1, keepdim=True)
loader = DataLoader(TensorDataset(t, y), batch_size=20, shuffle=True)


class Adder(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.RNN(2, 24, batch_first=True), nn.Linear(24, 1)

    def forward(self, x):
        return self.fc(self.rnn(x)[0][:, -1])


model = Adder()
opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for epoch in range(5):
    model.train()
    tot = 0.0
    for bx, by in loader:
        opt.zero_grad()
        loss = nn.functional.mse_loss(model(bx), by)
        loss.backward()
        opt.step()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        tot += loss.item()
    print(epoch, tot / len(loader))
