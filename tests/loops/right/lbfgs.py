# right: LBFGS with a closure over the full data, sequence of sine waves
import numpy as np
import torch
import torch.nn as nn


class Waves(nn.Module):
    def __init__(self, hidden=16):
        super().__init__()
        self.cell = nn.LSTMCell(1, hidden)
        self.read = nn.Linear(hidden, 1)
        self.hidden = hidden

    def forward(self, seq, ahead=0):
        h = c = torch.zeros(seq.size(0), self.hidden, dtype=seq.dtype)
        outs = []
        for t in range(seq.size(1)):
            h, c = self.cell(seq[:, t:t + 1], (h, c))
            outs.append(self.read(h))
        for _ in range(ahead):
            h, c = self.cell(outs[-1], (h, c))
            outs.append(self.read(h))
        return torch.cat(outs, 1)


if __name__ == "__main__":
    np.random.seed(0)
    torch.manual_seed(0)
    phase = np.random.uniform(0, 6.0, size=(12, 1))
    data = torch.from_numpy(np.sin(np.arange(24)[None] / 3.0 + phase))
    inp, target = data[3:, :-1], data[3:, 1:]
    test_inp, test_target = data[:3, :-1], data[:3, 1:]
    net = Waves().double()
    criterion = nn.MSELoss()
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.5, max_iter=5)
    for step in range(4):
        def closure():
            optimizer.zero_grad()
            loss = criterion(net(inp), target)
            loss.backward()
            return loss

        loss = optimizer.step(closure)
        with torch.no_grad():
            pred = net(test_inp, ahead=5)
            print("step", step, "loss", float(loss), "test", criterion(pred[:, :-5], test_target).item())
