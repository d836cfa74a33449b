# right: minimal GPT-like trainer drawing from a DataLoader with replacement, endless iterator, callbacks
import time
from collections import defaultdict
import torch
import torch.nn as nn
from torch.nn import functional as F
from torch.utils.data import Dataset, DataLoader, RandomSampler


class SortData(Dataset):
    def __init__(self, length=6, digits=4, n=500):
        self.length, self.digits, self.n = length, digits, n

    def __len__(self):
        return self.n

    def __getitem__(self, idx):
        g = torch.Generator().manual_seed(idx)
        inp = torch.randint(self.digits, (self.length,), generator=g)
        seq = torch.cat([inp, inp.sort().values])
        x, y = seq[:-1].clone(), seq[1:].clone()
        y[:self.length - 1] = -1
        return x, y


class Net(nn.Module):
    def __init__(self, vocab=4, T=11, C=32):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, C), nn.Embedding(T, C)
        self.layer = nn.TransformerEncoderLayer(C, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.head = nn.Linear(C, vocab)

    def forward(self, idx, targets=None):
        T = idx.size(1)
        h = self.wte(idx) + self.wpe(torch.arange(T))
        h = self.layer(h, src_mask=nn.Transformer.generate_square_subsequent_mask(T), is_causal=True)
        logits = self.head(h)
        loss = None
        if targets is not None:
            loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)
        return logits, loss


class Runner:
    def __init__(self, model, dataset, max_iters=40, batch_size=16, lr=3e-3, clip=1.0):
        self.model, self.dataset, self.callbacks = model, dataset, defaultdict(list)
        self.max_iters, self.batch_size, self.lr, self.clip = max_iters, batch_size, lr, clip

    def add_callback(self, event, fn):
        self.callbacks[event].append(fn)

    def run(self):
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.lr, betas=(0.9, 0.95))
        loader = DataLoader(self.dataset, sampler=RandomSampler(self.dataset, replacement=True, num_samples=10 ** 6),
                            batch_size=self.batch_size)
        self.model.train()
        self.iter_num, it = 0, iter(loader)
        self.t0 = time.time()
        while self.iter_num < self.max_iters:
            try:
                batch = next(it)
            except StopIteration:
                it = iter(loader)
                batch = next(it)
            _, self.loss = self.model(*batch)
            self.model.zero_grad(set_to_none=True)
            self.loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
            for fn in self.callbacks["batch_end"]:
                fn(self)
            self.iter_num += 1


torch.manual_seed(5)
runner = Runner(Net(), SortData())
runner.add_callback("batch_end", lambda r: r.iter_num % 10 == 0 and print(r.iter_num, r.loss.item()))
runner.run()
