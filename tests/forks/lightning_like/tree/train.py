"""Pretrain on text files."""
import argparse
import random

import torch

from bt import BitTransformerLM, Engine, PretrainModule
from bt.bits import text_to_bits, to_rows
from bt.callbacks import HeadReport, Progress, SafetyGate


def get_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--text', nargs='+', required=True)
    p.add_argument('--save', default=None)
    # network
    p.add_argument('--layers', type=int, default=4)
    p.add_argument('--d_model', type=int, default=128)
    p.add_argument('--nhead', type=int, default=8)
    p.add_argument('--max_seq_len', type=int, default=1152)
    p.add_argument('--chunk_size', type=int, default=None)
    p.add_argument('--overlap', type=int, default=0)
    p.add_argument('--checkpointing', action='store_true')
    # run
    p.add_argument('--epochs', type=int, default=1)
    p.add_argument('--extra_steps', type=int, default=0)
    p.add_argument('--lr', type=float, default=1e-3)
    p.add_argument('--weight_decay', type=float, default=0.01)
    p.add_argument('--clip', type=float, default=1.0)
    p.add_argument('--compress_prob', type=float, default=0.5)
    p.add_argument('--direct_prob', type=float, default=0.0)
    p.add_argument('--stop_above', type=float, default=1.0)
    p.add_argument('--seed', type=int, default=42)
    return p.parse_args(argv)


def main(args):
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    bits = []
    for name in args.text:
        with open(name, encoding='utf-8') as f:
            bits += text_to_bits(f.read())
    rows = to_rows(bits, args.max_seq_len)
    held = max(1, len(rows) // 20)
    net = BitTransformerLM(args.d_model,
                           args.nhead,
                           args.layers,
                           dim_feedforward=4 * args.d_model,
                           max_seq_len=args.max_seq_len,
                           use_checkpoint=args.checkpointing,
                           chunk_size=args.chunk_size,
                           overlap=args.overlap)
    module = PretrainModule(net,
                            lr=args.lr,
                            weight_decay=args.weight_decay,
                            compress_prob=args.compress_prob,
                            direct_prob=args.direct_prob)
    engine = Engine(max_epochs=args.epochs,
                    extra_steps=args.extra_steps,
                    gradient_clip_val=args.clip,
                    callbacks=[SafetyGate(args.stop_above), HeadReport(), Progress()])
    engine.fit(module, rows[:-held], rows[-held:])
    if args.save:
        torch.save({'config': net.config, 'net': net.state_dict()}, args.save)


if __name__ == '__main__':
    main(get_args())
