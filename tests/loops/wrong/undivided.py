# wrong: loss not divided by the number of micro-steps, line 48
import math
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(1)
T, B, C = 12, 8, 32
gradient_accumulation_steps, max_iters, learning_rate = 5, 20, 2e-3
raw = ("one fish swims, two fish swim, a school of fish is swimming. " * 50).encode()
lookup = {b: i for i, b in enumerate(sorted(set(raw)))}
data = torch.tensor([lookup[b] for b in raw])
train_data, val_data = data[:2600], data[2600:]


def get_batch(src):
    ix = torch.randint(len(src) - T - 1, (B,))
    return (torch.stack([src[i:i + T] for i in ix]), torch.stack([src[i + 1:i + T + 1] for i in ix]))


class Causal(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, C), nn.Embedding(T, C)
        self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.ff = nn.Sequential(nn.LayerNorm(C), nn.Linear(C, 2 * C), nn.GELU(), nn.Linear(2 * C, C))
        self.lm_head = nn.Linear(C, vocab)

    def forward(self, idx):
        x = self.wte(idx) + self.wpe.weight[:idx.size(1)]
        q, k, v = self.qkv(x).chunk(3, -1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return self.lm_head(x + self.ff(x))


def lr_at(it):
    return learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * it / max_iters)))


model = Causal(len(lookup))
optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
for it in range(max_iters):
    for group in optimizer.param_groups:
        group["lr"] = lr_at(it)
    for micro_step in range(gradient_accumulation_steps):
        X, Y = get_batch(train_data)
        loss = F.cross_entropy(model(X).flatten(0, 1), Y.flatten())
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if it % 5 == 4:
        model.eval()
        with torch.no_grad():
            X, Y = get_batch(val_data)
            print(it, loss.item(), F.cross_entropy(model(X).flatten(0, 1), Y.flatten()).item())
        model.train()
