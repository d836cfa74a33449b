# wrong: clip happens before the group's last backward, line 36
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(27)
accum, iters = 4, 16
corpus = torch.tensor([(7 * i + i * i) % 18 for i in range(1500)])


def get_batch(bs=12, T=8):
    at = torch.randint(len(corpus) - T, (bs,))
    win = corpus[at[:, None] + torch.arange(T)]
    return win[:, :-1], win[:, 1:]


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(18, 24)
        self.rnn = nn.GRU(24, 32, batch_first=True)
        self.fc = nn.Linear(32, 18)

    def forward(self, x):
        return self.fc(self.rnn(self.emb(x))[0])


model = Tiny()
opt = torch.optim.AdamW(model.parameters(), lr=5e-3)
for it in range(iters):
    opt.zero_grad(set_to_none=True)
    for micro in range(accum):
        x, y = get_batch()
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten()) / accum
        if micro == accum - 1:
            nn.utils.clip_grad_norm_(model.parameters(), 0.2)
        loss.backward()
    opt.step()
    if it % 4 == 3:
        print(it, loss.item() * accum)
