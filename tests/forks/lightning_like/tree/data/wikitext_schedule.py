"""Rounds of training on one big text. A round that brings too little makes the network bigger.

    python -m data.wikitext_schedule wiki.train.txt --rounds 8
"""
import argparse

import torch

from bt import BitTransformerLM, Engine, PretrainModule
from bt.bits import text_to_bits, to_rows
from bt.callbacks import Progress, SafetyGate
from bt.growth import GROWTH


class WikiText:
    """Rows of bits, the last tenth of them for validation."""

    def __init__(self, path, length):
        self.path = path
        self.length = length

    def setup(self):
        bits = []
        with open(self.path, encoding='utf-8', newline='') as f:
            for line in f.readlines():
                bits += text_to_bits(line)
        self.rows = to_rows(bits, self.length)
        return self

    @property
    def train(self):
        return self.rows[:-self._held()]

    @property
    def val(self):
        return self.rows[-self._held():]

    def _held(self):
        return max(1, len(self.rows) // 10)


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('text')
    p.add_argument('--rounds', type=int, default=8)
    p.add_argument('--epochs', type=int, default=1)
    p.add_argument('--gain', type=float, default=0.002)
    p.add_argument('--biggest', type=int, default=10_000_000, help='parameters')
    p.add_argument('--save')
    args = p.parse_args(argv)

    torch.manual_seed(0)
    net = BitTransformerLM(d_model=64, nhead=4, num_layers=2, dim_feedforward=256, max_seq_len=576)
    data = WikiText(args.text, 576).setup()
    gate = SafetyGate()
    order = ['length', 'width', 'layers'] * args.rounds
    best = float('inf')
    for _ in range(args.rounds):
        engine = Engine(max_epochs=args.epochs, callbacks=[gate, Progress()])
        val_loss = engine.fit(PretrainModule(net), data.train, data.val)['val_loss']
        if engine.should_stop:
            break
        if best - val_loss < args.gain and sum(w.numel() for w in net.parameters()) < args.biggest:
            dimension = order.pop(0)
            net = GROWTH[dimension](net)
            print('grown in', dimension)
            if dimension == 'length':
                data = WikiText(args.text, net.config['max_seq_len']).setup()
        best = min(best, val_loss)
    if args.save:
        torch.save({'config': net.config, 'net': net.state_dict()}, args.save)


if __name__ == '__main__':
    main()
