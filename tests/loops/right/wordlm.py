# right: recurrent word model, hand SGD with p.data.add_, annealed lr that is used, carried hidden state
import math
import torch
import torch.nn as nn

torch.manual_seed(7)
words = ("we walk along the river and the river walks along with us until the hill ends it " * 30).split()
vocab = {w: i for i, w in enumerate(dict.fromkeys(words))}
ids = torch.tensor([vocab[w] for w in words])
BPTT, CLIP = 10, 0.25


def batchify(seq, bsz):
    n = seq.size(0) // bsz
    return seq[:n * bsz].view(bsz, n).t().contiguous()


train_data, val_data = batchify(ids[:400], 4), batchify(ids[400:], 4)


class RNNModel(nn.Module):
    def __init__(self, ntoken, nhid=24):
        super().__init__()
        self.drop = nn.Dropout(0.2)
        self.encoder = nn.Embedding(ntoken, nhid)
        self.rnn = nn.LSTM(nhid, nhid)
        self.decoder = nn.Linear(nhid, ntoken)
        self.nhid = nhid

    def forward(self, x, hidden):
        out, hidden = self.rnn(self.drop(self.encoder(x)), hidden)
        return self.decoder(self.drop(out)).flatten(0, 1), hidden

    def init_hidden(self, bsz):
        z = torch.zeros(1, bsz, self.nhid)
        return z, z.clone()


def repackage(h):
    return tuple(v.detach() for v in h)


def slice_at(src, i):
    n = min(BPTT, len(src) - 1 - i)
    return src[i:i + n], src[i + 1:i + 1 + n].reshape(-1)


model = RNNModel(len(vocab))
criterion = nn.CrossEntropyLoss()


def evaluate(src):
    model.eval()
    total, hidden = 0.0, model.init_hidden(src.size(1))
    with torch.no_grad():
        for i in range(0, len(src) - 1, BPTT):
            x, y = slice_at(src, i)
            out, hidden = model(x, hidden)
            total += len(x) * criterion(out, y).item()
    return total / (len(src) - 1)


def train(lr):
    model.train()
    hidden = model.init_hidden(train_data.size(1))
    for i in range(0, len(train_data) - 1, BPTT):
        x, y = slice_at(train_data, i)
        model.zero_grad()
        hidden = repackage(hidden)
        out, hidden = model(x, hidden)
        criterion(out, y).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for p in model.parameters():
            p.data.add_(p.grad, alpha=-lr)


lr, best = 5.0, None
for epoch in range(7):
    train(lr)
    val = evaluate(val_data)
    print(f"epoch {epoch} lr {lr:.3f} val {val:.3f} ppl {math.exp(val):.2f}")
    if best is None or val < 0.6 * best:
        best = val
    else:
        lr /= 4.0
