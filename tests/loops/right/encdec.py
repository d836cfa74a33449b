# right: encoder-decoder copy task, LambdaLR once an update, run_epoch, smoothed KLDiv sum divided by tokens
import torch
import torch.nn as nn
from torch.optim.lr_scheduler import LambdaLR

PAD, BOS, V, D = 0, 1, 12, 32


class LabelSmoothing(nn.Module):
    def __init__(self, size, smoothing=0.1):
        super().__init__()
        self.kl = nn.KLDivLoss(reduction="sum")
        self.size, self.eps = size, smoothing

    def forward(self, logp, target):
        true = torch.full_like(logp, self.eps / (self.size - 2))
        true.scatter_(1, target.unsqueeze(1), 1.0 - self.eps)
        true[:, PAD] = 0
        true[target == PAD] = 0
        return self.kl(logp, true)


class Copier(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.pos = nn.Embedding(V, D), nn.Embedding(16, D)
        self.tf = nn.Transformer(D, 4, 1, 1, 64, dropout=0.1, batch_first=True)
        self.gen = nn.Linear(D, V)

    def embed(self, t):
        return self.emb(t) + self.pos(torch.arange(t.size(1)))

    def forward(self, src, tgt):
        mask = nn.Transformer.generate_square_subsequent_mask(tgt.size(1))
        h = self.tf(self.embed(src), self.embed(tgt), tgt_mask=mask)
        return self.gen(h).log_softmax(-1)


def data_gen(nbatches, bsz=16):
    for _ in range(nbatches):
        seq = torch.randint(2, V, (bsz, 8))
        lengths = torch.randint(4, 9, (bsz, 1))
        seq[torch.arange(8).expand(bsz, 8) >= lengths] = PAD
        seq[:, 0] = BOS
        yield seq, seq[:, :-1], seq[:, 1:]


def rate(step, factor=0.5, warmup=10):
    step = max(step, 1)
    return factor * D ** -0.5 * min(step ** -0.5, step * warmup ** -1.5)


def run_epoch(batches, model, criterion, optimizer=None, scheduler=None):
    total, tokens = 0.0, 0
    for src, tgt, tgt_y in batches:
        out = model(src, tgt)
        ntokens = int((tgt_y != PAD).sum())
        loss = criterion(out.reshape(-1, V), tgt_y.reshape(-1)) / ntokens
        if optimizer is not None:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            scheduler.step()
        total += loss.item() * ntokens
        tokens += ntokens
    return total / tokens


torch.manual_seed(3)
model, criterion = Copier(), LabelSmoothing(V)
optimizer = torch.optim.Adam(model.parameters(), lr=0.5, betas=(0.9, 0.98), eps=1e-9)
scheduler = LambdaLR(optimizer, lr_lambda=rate)
for epoch in range(3):
    model.train()
    tr = run_epoch(data_gen(10), model, criterion, optimizer, scheduler)
    model.eval()
    with torch.no_grad():
        va = run_epoch(data_gen(3), model, criterion)
    print(epoch, round(tr, 3), round(va, 3), optimizer.param_groups[0]["lr"])
