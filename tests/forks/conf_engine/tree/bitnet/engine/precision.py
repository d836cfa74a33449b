"""Half precision, with a scaler: everything is a no-op where fp16 is off."""
from contextlib import nullcontext

import torch


class Precision:
    def __init__(self, fp16, device):
        self.fp16, self.device = fp16, torch.device(device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=fp16)

    def context(self):
        if not self.fp16:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.float16)

    def backward(self, loss):
        self.scaler.scale(loss).backward()

    def clip(self, optimizer, parameters, limit):
        self.scaler.unscale_(optimizer)
        if limit:
            torch.nn.utils.clip_grad_norm_(parameters, limit)

    def step(self, optimizer):
        self.scaler.step(optimizer)
        self.scaler.update()
