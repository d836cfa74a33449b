# wrong: zero_grad before each micro-batch wipes the group's earlier gradients, line 35
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(26)


class VAE(nn.Module):
    def __init__(self, d=16, z=2):
        super().__init__()
        self.enc, self.mu, self.lv = nn.Linear(d, 24), nn.Linear(24, z), nn.Linear(24, z)
        self.dec = nn.Sequential(nn.Linear(z, 24), nn.ReLU(), nn.Linear(24, d))

    def forward(self, x):
        h = F.relu(self.enc(x))
        mu, lv = self.mu(h), self.lv(h)
        return self.dec(mu + torch.randn_like(mu) * (0.5 * lv).exp()), mu, lv


def elbo(out, x, mu, lv):
    rec = F.binary_cross_entropy_with_logits(out, x, reduction="none").sum(1).mean()
    kl = -0.5 * (1 + lv - mu ** 2 - lv.exp()).sum(1).mean()
    return rec + kl


patterns = (torch.rand(4, 16) > 0.5).float()
data = (patterns[torch.randint(4, (192,))] + (torch.rand(192, 16) < 0.05).float()) % 2
vae, accum = VAE(), 3
opt = torch.optim.Adam(vae.parameters(), lr=1e-2)
for epoch in range(4):
    parts = torch.randperm(192).split(16)  # 12 micro-batches, 4 groups
    for g in range(0, len(parts), accum):
        for rows in parts[g:g + accum]:
            opt.zero_grad()
            x = data[rows]
            out, mu, lv = vae(x)
            loss = elbo(out, x, mu, lv)
            (loss / accum).backward()
        opt.step()
    print(epoch, loss.item())
