# wrong: manual_seed inside the step loop, every step draws the same batch and dropout, line 21
import torch
import torch.nn as nn
import torch.nn.functional as F

SEED = 1234
signal = torch.sin(torch.arange(3000) / 9.0) + 0.3 * torch.cos(torch.arange(3000) / 2.5)


def get_batch(bs=16, T=12):
    at = torch.randint(0, len(signal) - T - 1, (bs,))
    w = torch.stack([signal[a:a + T + 1] for a in at])
    return w[:, :T], w[:, T:]


def main():
    torch.manual_seed(SEED)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))
    opt = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(50):
        torch.manual_seed(SEED)
        x, y = get_batch()
        loss = F.mse_loss(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 10 == 9:
            print(step, loss.item())


main()
