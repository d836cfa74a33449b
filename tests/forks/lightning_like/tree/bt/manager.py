"""What serve.py talks to."""
import threading
from pathlib import Path

import torch

from .bits import text_to_bits, to_rows
from .callbacks import SafetyGate
from .growth import GROWTH
from .modules import bit_loss
from .network import BitTransformerLM
from .optim import one_cycle_adamw


class ModelManager:
    """Holds one network that clients train step by step, for as long as they like."""

    def __init__(self, folder='snapshots', threshold=1.0):
        self.folder = Path(folder)
        self.gate = SafetyGate(threshold)
        self.lock = threading.Lock()
        self.net = self.optimizer = self.scheduler = None
        self.steps = 0

    def init(self, **config):
        with self.lock:
            self.net = BitTransformerLM(**config)
            self.optimizer, self.scheduler = one_cycle_adamw(self.net)
            self.steps = 0
            return self._status()

    def train_step(self, text):
        """One update on a text."""
        with self.lock:
            self.net.train()
            bits = text_to_bits(text)
            batch = to_rows(bits, min(len(bits), self.net.config['max_seq_len'])).to(self.net.device)
            logits, _ = self.net(batch)
            loss = bit_loss(logits, batch)
            if not self.gate.check(loss.item()):
                raise RuntimeError('stopped by the safety gate at a loss of %.3f' % loss.item())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if self.scheduler.last_epoch < self.scheduler.total_steps:
                self.scheduler.step()
            self.steps += 1
            return dict(self._status(), loss=loss.item())

    def scale_up(self, dimension):
        with self.lock:
            self.net = GROWTH[dimension](self.net)
            self.optimizer, self.scheduler = one_cycle_adamw(self.net)
            return self._status()

    def save(self, name):
        with self.lock:
            self.folder.mkdir(exist_ok=True)
            content = dict(config=self.net.config, net=self.net.state_dict(), steps=self.steps, gate=self.gate.state_dict())
            torch.save(content, self._path(name))
            return self._status()

    def download(self, name):
        """Go on from a snapshot."""
        with self.lock:
            content = torch.load(self._path(name), weights_only=True)
            self.net = BitTransformerLM(**content['config'])
            self.net.load_state_dict(content['net'])
            self.optimizer, self.scheduler = one_cycle_adamw(self.net)
            self.gate.load_state_dict(content['gate'])
            self.steps = content['steps']
            return self._status()

    @torch.no_grad()
    def infer(self, text):
        with self.lock:
            self.net.eval()
            bits = torch.tensor([text_to_bits(text)[-self.net.config['max_seq_len']:]], device=self.net.device)
            logits, telemetry = self.net(bits)
            scores = {name: telemetry[name].item() for name in ('negentropy', 'lz_complexity', 'symbiosis')}
            return dict(scores, bit=int(logits[0, -1].argmax()))

    def status(self):
        with self.lock:
            return self._status()

    def _status(self):
        if self.net is None:
            return {'ready': False}
        return {
            'ready': True,
            'steps': self.steps,
            'config': self.net.config,
            'lr': self.scheduler.get_last_lr()[0],
            'stopped': self.gate.tripped,
        }

    def _path(self, name):
        if not name.isidentifier():
            raise ValueError('not a name for a snapshot: %r' % name)
        return self.folder / (name + '.pt')
