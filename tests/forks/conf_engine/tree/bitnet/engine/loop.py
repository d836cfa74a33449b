"""The engine: model, optimizer and precision in one place, callbacks round it."""
import random
from itertools import chain, repeat

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from .. import optim
from ..data.codec import to_runs
from .precision import Precision

BATCH = 8


class Engine:
    def __init__(self, model, conf, callbacks=()):
        self.model = model
        self.conf = conf
        self.callbacks = list(callbacks)
        self.precision = Precision(conf["train"]["fp16"], conf["train"]["device"])
        self.updates = 0

    def emit(self, event, *args):
        for callback in self.callbacks:
            getattr(callback, f"on_{event}")(self, *args)

    def fit(self, train, held):
        settings = self.conf["train"]
        loader = DataLoader(train, batch_size=BATCH)
        total = settings["epochs"] * max(1, len(train) // BATCH)
        o = self.conf["optim"]
        self.optimizer, self.schedule = optim.make(self.model, o["lr"], o["weight_decay"], total)
        self.emit("begin")
        for epoch in range(settings["epochs"]):
            self.epoch(loader, total)
            self.emit("epoch", epoch, self.evaluate(held))
        self.emit("end")

    def epoch(self, loader, total):
        settings = self.conf["train"]
        self.model.train()
        batches = list(loader)
        for n, batch in enumerate(chain(batches, repeat(batches[-1], settings["extra_steps"]))):
            batch = batch.to(settings["device"])
            with self.precision.context():
                loss = self.loss(batch)
            self.precision.backward(loss)
            if n % settings["accumulate"] != 0:
                continue
            self.update()
            if self.schedule.last_epoch < total:
                self.schedule.step()
            self.emit("update", loss.item())

    def update(self):
        self.precision.clip(self.optimizer, self.model.parameters(), self.conf["optim"]["clip"])
        self.precision.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1

    def loss(self, batch):
        prob = self.conf["train"]["compress_prob"]
        if self.model.training and random.random() < prob:
            logits, _ = self.model.forward_compressed([to_runs(row) for row in batch])
        else:
            logits, _ = self.model(batch)
        return F.cross_entropy(logits[:, :-1].transpose(1, 2).float(), batch[:, 1:])

    @torch.no_grad()
    def evaluate(self, rows):
        self.model.eval()
        device = self.conf["train"]["device"]
        total = sum(self.loss(part.to(device)).item() * len(part) for part in rows.split(BATCH))
        return total / len(rows)
