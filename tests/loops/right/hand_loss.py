# right: hand-written loss (log_softmax, gather, mean), checkpointed blocks with dropout, three micro-steps
import torch
import torch.nn as nn
from torch.utils.checkpoint import checkpoint

torch.manual_seed(99)
V, T, C = 20, 12, 32


class MLPBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(C)
        self.mix = nn.Conv1d(C, C, 3)
        self.ff = nn.Sequential(nn.Linear(C, 64), nn.SiLU(), nn.Dropout(0.15), nn.Linear(64, C))

    def forward(self, x):
        h = nn.functional.pad(self.norm(x).transpose(1, 2), (2, 0))
        x = x + self.mix(h).transpose(1, 2)
        return x + self.ff(self.norm(x))


class LM(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(V, C)
        self.blocks = nn.ModuleList(MLPBlock() for _ in range(3))
        self.head = nn.Linear(C, V)

    def forward(self, idx):
        x = self.emb(idx)
        for b in self.blocks:
            x = checkpoint(b, x, use_reentrant=False) if self.training else b(x)
        return self.head(x)


def nll(logits, target):
    logp = torch.log_softmax(logits.float(), dim=-1)
    return -logp.gather(-1, target.unsqueeze(-1)).squeeze(-1).mean()


stream = (torch.arange(2000) * 3 + (torch.rand(2000) < 0.1).long()) % V


def draw(lo, hi, bs=8):
    at = torch.randint(lo, hi - T - 1, (bs,)).tolist()
    chunk = torch.stack([stream[a:a + T + 1] for a in at])
    return chunk[:, :-1], chunk[:, 1:]


model = LM()
opt = torch.optim.Adam(model.parameters(), lr=4e-3)
for step in range(18):
    opt.zero_grad()
    running = 0.0
    for _ in range(3):
        x, y = draw(0, 1700)
        loss = nll(model(x), y) / 3
        loss.backward()
        running += loss.item()
    opt.step()
    if step % 6 == 5:
        model.eval()
        with torch.no_grad():
            x, y = draw(1700, 2000)
            print(step, running, nll(model(x), y).item())
        model.train()
